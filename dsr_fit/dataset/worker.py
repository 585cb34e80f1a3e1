"""A step of the run in a process of its own, connected by a pipe.

Started by its command line, not by a fork or by importing the caller's main module: a script needs no
`if __name__ == "__main__"`, and no state is inherited. The process ends when its caller does, however that ends.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from threading import Lock, Thread
from typing import Any

from dsr_fit.errors import DsrFitError, InputError, one_line

Work = Callable[[Any], Any]

WorkFactory = Callable[[], Work]
"""Builds a process's work: from an `Entry` to its `PersonObservation`s, or from a batch of those to a `FittedBatch`."""

ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")}

START_LIMIT_S = 900.0
"""For building the work: imports, files, and a first compilation by numba, which takes a minute or two."""


@dataclass(frozen=True)
class Failure:
    """A task that could not be done."""

    reason: str


@dataclass(frozen=True)
class Ready:
    """The work has been built; from now on the task's time counts."""


class Died(Exception):
    """The process is gone: killed, out of memory, crashed in a library, or stuck before it could work."""


@dataclass
class Given:
    """A task in progress."""

    task: Any
    """What the caller calls it."""
    limit_s: float
    deadline: float
    """When it will have had `limit_s` seconds, on the clock of `time.monotonic`."""


class Worker:
    """One process. `make()` builds its work there, which so many threads call; both travel pickled, by name."""

    def __init__(self, make: WorkFactory, threads: int = 1) -> None:
        self.make, self.threads = make, threads
        self._numbers = count()
        self._start()

    def _start(self) -> None:
        if os.name == "nt":  # only there handles can't be passed on by number
            raise InputError("worker processes need Linux or macOS; on Windows use WSL, or --engine ray")
        self.tasks: dict[int, Given] = {}
        """Tasks in progress."""
        self.ready = False
        self.connection, theirs = Pipe()
        # -P: files of the current folder must not be imported as modules.
        command = [sys.executable, "-P", "-m", "dsr_fit.dataset.worker", str(theirs.fileno())]
        paths = os.pathsep.join(path for path in sys.path if path)
        environment = {**os.environ, **ONE_THREAD, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": paths}
        self.process = subprocess.Popen(command, env=environment, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()
        self._send((self.make, self.threads))

    def give(self, content: Any, limit_s: float, task: Any = None) -> None:
        """Begin work on `content`, which `take` answers; `task` is what the caller calls it."""
        number = next(self._numbers)
        self.tasks[number] = Given(task, limit_s, time.monotonic() + (limit_s if self.ready else START_LIMIT_S))
        self._send((number, content))

    def _send(self, message: Any) -> None:
        with suppress(OSError):  # it has died; `take` says so
            self.connection.send(message)

    def deadline(self) -> float:
        """The first of its tasks'."""
        return min(given.deadline for given in self.tasks.values())

    def take(self) -> tuple[Any, Any] | Ready:
        """A task and the answer to it, or Ready.

        Raises Died where the process is gone, InputError where it can't work at all.
        """
        try:
            answer = self.connection.recv()
        except (EOFError, OSError):
            raise Died from None
        if isinstance(answer, Ready):
            self.ready, now = True, time.monotonic()
            for given in self.tasks.values():
                given.deadline = now + given.limit_s
            return answer
        if isinstance(answer, Failure):
            raise InputError(answer.reason)
        number, answer = answer
        return self.tasks.pop(number).task, answer

    def restart(self) -> None:
        """Replace the process by a new one."""
        self.stop()
        self._start()

    def stop(self) -> None:
        """End the process, whatever it is doing, and wait for that."""
        self.connection.close()
        self.process.kill()
        self.process.wait()


def main() -> None:
    """The process's own side."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's to handle
    connection = Connection(int(sys.argv[1]))
    logging.basicConfig(format="dsr-fit: %(message)s", level=logging.WARNING)
    with suppress(EOFError, OSError):  # the caller has ended
        _serve(connection)


def _serve(connection: Connection) -> None:
    make, threads = connection.recv()
    try:
        logging.disable(logging.WARNING)  # the caller has read the same files and warned once
        work = make()
        logging.disable(logging.NOTSET)
    except Exception as error:
        reason = str(error) if isinstance(error, DsrFitError) else f"{type(error).__name__}: {error}"
        connection.send(Failure(reason))  # a missing library, a bad body file
        return
    connection.send(Ready())
    shared = work, connection, Lock(), Lock()
    for _ in range(threads - 1):
        Thread(target=_beside, args=shared, daemon=True).start()
    _work(*shared)


def _work(work: Work, connection: Connection, reading: Lock, writing: Lock) -> None:
    while True:
        with reading:
            number, content = connection.recv()
        try:
            answer = work(content)
        except Exception as error:
            answer = Failure(f"unexpected {type(error).__name__}: {one_line(error)}")
        with writing:
            connection.send((number, answer))


def _beside(*shared: Any) -> None:
    """A further thread: where it ends, the process does, which is all that the caller sees."""
    try:
        _work(*shared)
    finally:
        os._exit(1)


if __name__ == "__main__":
    from dsr_fit.dataset import worker  # messages are pickled by this name, not by __main__'s

    worker.main()
