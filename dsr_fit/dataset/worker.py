"""A stage of the run in a process of its own, spoken to through a pipe.

Started by its command line, not by a fork or by importing the caller's main module: a script needs no
`if __name__ == "__main__"`, and no state comes along. The process ends when its caller does, however that ends.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from dsr_fit.errors import DsrFitError, InputError

Work = Callable[[Any], Any]

ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")}


@dataclass(frozen=True)
class Failure:
    """What a worker could not do."""

    reason: str
    fatal: bool = False
    """The worker itself can't work (a missing library, a bad body file)."""


class Died(Exception):
    """The process is gone: killed, out of memory, or crashed in a library."""


class Worker:
    """One process. `make()` builds its work there; both travel pickled, by name."""

    def __init__(self, make: Callable[[], Work]) -> None:
        self.make = make
        self.task: Any = None
        """What it is working on; None while idle."""
        self._start()

    def _start(self) -> None:
        self.connection, theirs = Pipe()
        # -P: whatever lies in the current folder is no module of ours.
        command = [sys.executable, "-P", "-m", "dsr_fit.dataset.worker", str(theirs.fileno())]
        paths = os.pathsep.join(path for path in sys.path if path)
        environment = {**os.environ, **ONE_THREAD, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": paths}
        self.process = subprocess.Popen(command, env=environment, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        theirs.close()
        self._send(self.make)

    def give(self, task: Any) -> None:
        """Begin a task; its answer comes through `take`."""
        self.task = task
        self._send(task)

    def _send(self, message: Any) -> None:
        with suppress(OSError):  # it has died; `take` says so
            self.connection.send(message)

    def take(self) -> Any:
        """The finished task's answer. Raises Died where the process is gone, InputError where it can't work at all."""
        try:
            answer = self.connection.recv()
        except (EOFError, OSError):
            raise Died from None
        if isinstance(answer, Failure) and answer.fatal:
            raise InputError(answer.reason)
        self.task = None
        return answer

    def restart(self) -> None:
        """A new process in place of one that died."""
        self.stop()
        self.task = None
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
    try:
        make = connection.recv()
        logging.disable(logging.WARNING)  # the caller has read the same files, and said so once
        work = make()
        logging.disable(logging.NOTSET)
    except EOFError:
        return
    except Exception as error:
        told = str(error) if isinstance(error, DsrFitError) else f"{type(error).__name__}: {error}"
        connection.send(Failure(told, fatal=True))
        return
    while True:
        try:
            task = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer = work(task)
        except Exception as error:
            answer = Failure(f"unexpected {type(error).__name__}: {' '.join(str(error).split())}")
        try:
            connection.send(answer)
        except OSError:
            return


if __name__ == "__main__":
    from dsr_fit.dataset import worker  # messages are known by this name, not by __main__'s

    worker.main()
