"""The run on one machine: worker processes look at images, others fit batches; this process only hands over."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from typing import Any

from dsr_fit.dataset.entries import Entry, Person
from dsr_fit.dataset.records import Fitted, Seen, failed
from dsr_fit.dataset.worker import Died, Failure, Work, Worker
from dsr_fit.errors import InputError

Stage = Callable[[], Work]
"""Builds the work of a process: from an Entry to its `Seen`, or from a batch of `Seen` to `Fitted`."""

TRIES = 2
"""A task whose process dies is tried in a new one once; then it is held to be the cause."""

MANY_DEATHS = 6
"""So many in a row, or more than there are processes, without an answer between them, are no image's fault: the run
ends, and can be taken up again. Once any has answered, a task that is given up accounts for the deaths before it."""


@dataclass
class _Batch:
    """Images of one batch on their way: the answers that are there."""

    number: int
    entries: list[Entry]
    seen: dict[int, list[Seen]] = field(default_factory=dict)

    def people(self) -> list[Seen]:
        return [seen for index in range(len(self.entries)) for seen in self.seen[index]]


@dataclass(frozen=True)
class _Look:
    batch: _Batch
    index: int
    tries: int = 1


@dataclass(frozen=True)
class _Fit:
    batch: int
    people: list[Seen]
    tries: int = 1


def run_local(
    entries: Sequence[Entry],
    batches: Sequence[int],
    batch_size: int,
    perceive: Stage,
    fit: Stage,
    perceivers: int,
    fitters: int,
) -> Iterator[tuple[int, Fitted]]:
    """Batch number and rows, as they are finished; `batches` are those to do.

    No more batches are under way than the fitters need, so memory doesn't grow with the number of images.
    Raises InputError where processes can't work, or die one after the other.
    """
    looking = [Worker(perceive) for _ in range(perceivers)]
    fitting = [Worker(fit) for _ in range(fitters)]
    looks: deque[_Look] = deque()
    fits: deque[_Fit] = deque()
    left = deque(batches)
    under_way = deaths = 0
    works = False
    many = max(MANY_DEATHS, perceivers + fitters + 1)
    try:
        while True:
            while left and not looks and under_way < 2 * fitters + 2:
                batch = _batch(entries, left.popleft(), batch_size)
                looks += [_Look(batch, index) for index in range(len(batch.entries))]
                under_way += 1
            _hand_out(looking, looks, lambda look: look.batch.entries[look.index])
            _hand_out(fitting, fits, lambda task: task.people)
            busy = {worker.connection: worker for worker in (*looking, *fitting) if worker.task is not None}
            if not busy:
                return
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index]
                task = worker.task
                answer = _answer(worker)
                died = isinstance(answer, Died)
                works = works or not died
                deaths = deaths + 1 if died and not (works and task.tries == TRIES) else 0
                if deaths == many:
                    raise InputError(
                        f"{deaths} worker processes died in a row ({answer}); is memory short? What was done is kept: "
                        "run the same command again, with fewer --fitters and --perceivers"
                    )
                if isinstance(task, _Look):
                    _looked(task, answer, looks, fits, works)
                elif (fitted := _fitted(task, answer, fits)) is not None:
                    under_way -= 1
                    yield task.batch, fitted
    finally:
        for worker in (*looking, *fitting):
            worker.stop()


def _batch(entries: Sequence[Entry], number: int, size: int) -> _Batch:
    return _Batch(number, list(entries[number * size : (number + 1) * size]))


def _hand_out(workers: list[Worker], tasks: deque[Any], content: Callable[[Any], Any]) -> None:
    for worker in workers:
        if worker.task is None and tasks:
            task = tasks.popleft()
            worker.give(content(task))
            worker.task = task


def _answer(worker: Worker) -> Any:
    """What the worker says; a Failure where it said nothing more, and a new process in its place."""
    try:
        return worker.take()
    except Died:
        status = worker.process.wait()
        worker.restart()
        cause = f"by signal {-status}" if status < 0 else f"with status {status}"
        return Died(f"its process ended {cause}")


def _looked(look: _Look, answer: Any, looks: deque[_Look], fits: deque[_Fit], works: bool) -> None:
    """File what was seen; the batch goes on to the fit when all of its images have been looked at."""
    if isinstance(answer, Died) and look.tries < TRIES:
        again = _Look(look.batch, look.index, look.tries + 1)
        # While nothing has been seen to work others go first, who may show it.
        (looks.appendleft if works else looks.append)(again)
        return
    entry = look.batch.entries[look.index]
    if isinstance(answer, (Died, Failure)):
        reason = answer.reason if isinstance(answer, Failure) else f"looking at it failed twice: {answer}"
        people = entry.people or (Person(0),)
        answer = [Seen(entry.imgname, person.number, person.source_id, reason=reason) for person in people]
    look.batch.seen[look.index] = answer
    if len(look.batch.seen) == len(look.batch.entries):
        fits.append(_Fit(look.batch.number, look.batch.people()))


def _fitted(task: _Fit, answer: Any, fits: deque[_Fit]) -> Fitted | None:
    """The batch's rows; None while it is tried again."""
    if isinstance(answer, Died) and task.tries < TRIES:
        fits.appendleft(_Fit(task.batch, task.people, task.tries + 1))
        return None
    if isinstance(answer, (Died, Failure)):
        reason = answer.reason if isinstance(answer, Failure) else f"fitting its batch failed twice: {answer}"
        return Fitted(failed(task.people, reason))
    return answer


def default_workers(device: str) -> tuple[int, int]:
    """Processes that look, and that fit: a fitter a core and a looker for every two, or one fitter on a GPU.

    Looking takes a quarter of a fit's time; the operating system shares out the cores.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return (max(1, cores - 1), 1) if device == "cuda" else (max(1, cores // 2), cores)
