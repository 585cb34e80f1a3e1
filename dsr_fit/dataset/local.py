"""The run on one machine: some worker processes observe images, others fit batches; this process only hands over."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from typing import Any

from dsr_fit.dataset.records import FittedBatch, PersonObservation, failed_rows
from dsr_fit.dataset.sources import Entry, Person
from dsr_fit.dataset.worker import Died, Failure, Given, Ready, Worker, WorkFactory
from dsr_fit.errors import InputError

TRIES = 2
"""A task whose process dies is tried once more in a new one; then the task is taken to be the cause. Of several tasks
that a process had when it died each may be the cause: they then have their two tries with a process to themselves. A
task that runs out of time has had its turn."""

MANY_DEATHS = 6
"""So many deaths or time-outs in a row, or more than there are processes, before any process has answered, may be no
image's fault: the run ends, and can be resumed. After deaths nothing is recorded; after time-outs the images under way
have their turn, and become rows, so that the next run comes further. Once any process has answered, a task that is
given up accounts for the deaths before it."""


GPU_THREADS = 16
"""Images that an observing process has under way where its networks are on a GPU: as many as fill a batch."""


class TimedOut(Died):
    """The task took longer than its time limit, and its process was ended."""


@dataclass(frozen=True)
class Interrupted:
    """The task's process ended while it was at others, too."""

    tries: int
    """1 where it died, perhaps of this task; 0 where another's time was over."""


@dataclass
class _Batch:
    """A batch whose images are being observed, and the answers so far."""

    number: int
    entries: Sequence[Entry]
    observed: dict[int, list[PersonObservation]] = field(default_factory=dict)

    def people(self) -> list[PersonObservation]:
        return [one for _, people in sorted(self.observed.items()) for one in people]


@dataclass(frozen=True)
class _Observe:
    batch: _Batch
    index: int
    tries: int = 1
    doing = "observing it"

    @property
    def content(self) -> Entry:
        return self.batch.entries[self.index]

    def people(self) -> int:
        return len(self.content.people or (None,))

    def failed(self, reason: str) -> list[PersonObservation]:
        entry = self.content
        people = entry.people or (Person(0),)
        return [PersonObservation(entry.imgname, one.number, one.source_id, reason=reason) for one in people]


@dataclass(frozen=True)
class _Fit:
    batch: int
    content: list[PersonObservation]
    tries: int = 1
    doing = "fitting its batch"

    def people(self) -> int:
        return sum(one.found is not None for one in self.content)

    def failed(self, reason: str) -> FittedBatch:
        return FittedBatch(failed_rows(self.content, reason))


def run_local(
    batches: Sequence[tuple[int, Sequence[Entry]]],
    observe: WorkFactory,
    fit: WorkFactory,
    observers: int,
    fitters: int,
    timeout_s: float,
    threads: int = 1,
) -> Iterator[tuple[int, FittedBatch]]:
    """Yields batch numbers and their rows in the order they are finished; `batches` are numbers and their images.

    Only as many batches are under way as the fitters need, so memory doesn't grow with the number of images.
    `timeout_s` bounds the time for each person of an image, as far as the source names them, and of a batch; a process
    that takes longer is replaced, and what else it was at begins again.
    `threads`: images that a process observes at a time.
    Raises InputError where processes can't work, or die or hang one after the other.
    """
    observing = [Worker(observe, threads) for _ in range(observers)]
    fitting = [Worker(fit) for _ in range(fitters)]
    to_observe: deque[_Observe] = deque()
    to_fit: deque[_Fit] = deque()
    left = deque(batches)
    under_way = deaths = 0
    works = False
    hung_up: Died | None = None
    many = max(MANY_DEATHS, observers + fitters + 1)
    most = {_Observe: TRIES + (threads > 1), _Fit: TRIES}

    def again(task: Any, tries: int) -> None:
        queue: deque[Any] = to_observe if isinstance(task, _Observe) else to_fit
        # Until any process has answered, other tasks go first: they may show that processes work.
        (queue.appendleft if works else queue.append)(replace(task, tries=task.tries + tries))

    try:
        while True:
            while left and not hung_up and not to_observe and under_way < 2 * fitters + 2:
                batch = _Batch(*left.popleft())
                to_observe += [_Observe(batch, index) for index in range(len(batch.entries))]
                under_way += 1
            _hand_out(observing, to_observe, timeout_s)
            _hand_out(fitting, to_fit, timeout_s)
            busy = [worker for worker in (*observing, *fitting) if worker.tasks]
            if not busy:
                break
            for task, answer in (pair for worker in _finished(busy) for pair in _answers(worker)):
                if isinstance(answer, Interrupted):
                    again(task, answer.tries)
                    continue
                died = isinstance(answer, Died)
                hung = isinstance(answer, TimedOut)
                works = works or not died
                given_up = task.tries == most[type(task)] or hung
                deaths = deaths + 1 if died and not (works and given_up) else 0
                if deaths >= many and not hung:
                    raise InputError(
                        f"{deaths} worker processes died in a row ({answer}); is memory short? What was done is kept: "
                        "run the same command again, with fewer --fitters and --perceivers"
                    )
                hung_up = answer if deaths >= many else hung_up if deaths else None
                if died and not given_up:
                    again(task, 1)
                    continue
                if died:
                    answer = Failure(str(answer) if hung else f"{task.doing} failed twice: {answer}")
                if isinstance(answer, Failure):
                    answer = task.failed(answer.reason)
                if isinstance(task, _Observe):
                    task.batch.observed[task.index] = answer
                    if len(task.batch.observed) < len(task.batch.entries):
                        continue
                    task = _Fit(task.batch.number, task.batch.people())
                    if any(not one.reason for one in task.content):
                        to_fit.append(task)
                        continue
                    answer = task.failed("")  # nobody to fit
                under_way -= 1
                yield task.batch, answer
        if hung_up is not None:
            raise InputError(
                f"{many} or more images in a row hung ({hung_up}); is the disk unreachable? They are stored as failed: "
                "run the same command again to fit the others, with --retry failed to fit them too"
            )
    finally:
        for worker in (*observing, *fitting):
            worker.stop()


def _hand_out(workers: list[Worker], tasks: deque[Any], timeout_s: float) -> None:
    """To those that have least to do."""
    while tasks and (free := [worker for worker in workers if _has_room(worker, tasks[0])]):
        task = tasks.popleft()
        worker = min(free, key=lambda one: len(one.tasks))
        worker.give(task.content, timeout_s * max(1, task.people()), task)


def _has_room(worker: Worker, task: Any) -> bool:
    """A second try has its process to itself."""
    tries = [task.tries, *(given.task.tries for given in worker.tasks.values())]
    return not worker.tasks or (len(worker.tasks) < worker.threads and max(tries) == 1)


def _finished(busy: list[Worker]) -> list[Worker]:
    """Wait for workers that have answered, died or run out of time."""
    patience = min(worker.deadline() for worker in busy) - time.monotonic()
    spoke = wait([worker.connection for worker in busy], max(0.0, patience))
    now = time.monotonic()
    return [worker for worker in busy if worker.connection in spoke or worker.deadline() <= now]


def _answers(worker: Worker) -> list[tuple[Any, Any]]:
    """A task and its answer, if it isn't Ready; of a process that has died or hangs each task with a Died, and a new
    process in its place."""
    given = list(worker.tasks.values())
    try:
        if worker.connection.poll():
            answer = worker.take()
            return [] if isinstance(answer, Ready) else [answer]
        ready, now = worker.ready, time.monotonic()
        worker.restart()
        if ready:
            return [(one.task, _timed_out(one) if one.deadline <= now else Interrupted(0)) for one in given]
        died = Died("its process did not start in time")
    except Died:
        status = worker.process.wait()
        worker.restart()
        cause = f"by signal {-status}" if status < 0 else f"with status {status}"
        died = Died(f"its process ended {cause}")
    first, *others = (one.task for one in given)
    return [(first, died), *((task, Interrupted(1)) for task in others)]


def _timed_out(given: Given) -> TimedOut:
    return TimedOut(f"timed out after {given.limit_s:g} s")


def default_workers(device: str) -> tuple[int, int]:
    """Processes that observe, and that fit: two observers for every three cores and a fitter for every two; or one
    fitter on a GPU, and an observer of `GPU_THREADS` threads for every eight cores, since threads wait for Python's
    lock.

    Observing takes three fifths of the time; the operating system shares out the cores.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return (max(1, cores // 8), 1) if device == "cuda" else (-(-2 * cores // 3), -(-cores // 2))
