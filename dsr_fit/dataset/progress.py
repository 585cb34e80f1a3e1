"""Progress of a run, shown as a bar on a terminal and as one JSON object a line elsewhere."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from dsr_fit.dataset.schema import STATUSES, Row

if TYPE_CHECKING:
    from dsr_fit.dataset.changes import Changes
    from dsr_fit.dataset.shards import Done

EVERY_S = 5.0
"""Seconds between two lines."""


def _cpu_s() -> float:
    """Processor seconds of this process and of those of its children that have ended."""
    return sum(os.times()[:4])


@dataclass
class RunProgress:
    """How far a folder has come with the images that its source has now, and this run's part in that."""

    images: int
    """Of all runs so far and of this one."""
    before: int
    """Images that earlier runs had done, and that this one doesn't do again."""
    done: int = 0
    """Images that this run has done."""
    statuses: Counter[str] = field(default_factory=Counter)
    """The folder's newest rows by status (`dsr_fit.dataset.schema.STATUSES`)."""
    now: Counter[str] = field(default_factory=Counter)
    """This run's rows by status."""
    changes: dict[str, int] = field(default_factory=dict)
    """Images by why this run found something to do: `added`, `replaced`, `retried`; and `removed` ones."""
    superseded: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Image -> statuses of rows that this run replaces."""
    removed: frozenset[str] = frozenset()
    """Images that the source no longer has: neither they nor their rows are counted."""
    timings_s: Counter[str] = field(default_factory=Counter)
    """Seconds of each step, summed over this run's images; `write` is one of them."""
    started: float = field(default_factory=time.perf_counter)
    cpu_before_s: float = field(default_factory=_cpu_s)

    @classmethod
    def of(cls, states: dict[str, Done], changes: Changes, left: dict[int, list[str]]) -> RunProgress:
        """Before the first batch: what is done, and what is left of it by batches."""
        removed = frozenset(changes.removed)
        states = {name: state for name, state in states.items() if name not in removed}
        todo = {name for names in left.values() for name in names} - removed
        counted = {name: len(names) for name, names in vars(changes).items()}
        statuses = Counter(status for state in states.values() for status in state.statuses)
        superseded = {name: state.statuses for name, state in states.items() if name in todo}
        before = len(states) - len(superseded)
        return cls(
            before + len(todo), before, statuses=statuses, changes=counted, superseded=superseded, removed=removed
        )

    def add(self, names: list[str], rows: list[Row], timings_s: dict[str, float]) -> None:
        """Count a batch of images, whose rows are stored."""
        self.done += len(set(names) - self.removed)
        new = Counter(row["status"] for row in rows if row["imgname"] not in self.removed)
        self.now += new
        self.statuses += new
        self.statuses -= Counter(status for name in names for status in self.superseded.get(name, ()))
        self.timings_s.update(timings_s)

    def cpu_s(self) -> float:
        """Processor seconds of this process and of those of its workers that have ended."""
        return _cpu_s() - self.cpu_before_s

    def rate(self) -> float:
        """Images a second."""
        return self.done / max(time.perf_counter() - self.started, 1e-9)

    def left_s(self) -> float | None:
        """Seconds to go at this rate; None before the first batch."""
        return (self.images - self.before - self.done) / self.rate() if self.done else None


class Report(Protocol):
    """Called after every batch."""

    def __call__(self, progress: RunProgress) -> None: ...


@contextmanager
def reporting() -> Iterator[Report]:
    """A report that suits standard output."""
    if sys.stdout.isatty():
        with _bar() as report:
            yield report
    else:
        yield _Lines()


@contextmanager
def _bar() -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.1f} images/s"),
        TextColumn("[green]{task.fields[accepted]} accepted[/] {task.fields[unjudged]} unjudged"),
        TextColumn("{task.fields[refused]} refused [red]{task.fields[failed]} failed"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console()) as bar:
        task = bar.add_task("", total=None, rate=0.0, **dict.fromkeys(STATUSES, 0))

        def report(progress: RunProgress) -> None:
            counts: dict[str, Any] = {name: progress.statuses[name] for name in STATUSES}
            done = progress.before + progress.done
            bar.update(task, total=progress.images, completed=done, rate=progress.rate(), **counts)

        yield report


class _Lines:
    """`{"images": 1888, "done": 320, ...}`, at most one every `EVERY_S` seconds."""

    def __init__(self) -> None:
        self.last = -EVERY_S

    def __call__(self, progress: RunProgress) -> None:
        now = time.monotonic()
        if now - self.last >= EVERY_S:
            self.last = now
            write_line(state(progress))


def write_line(content: dict) -> None:
    """One JSON object on standard output, flushed."""
    sys.stdout.write(json.dumps(content, allow_nan=False) + "\n")
    sys.stdout.flush()


def state(progress: RunProgress) -> dict[str, object]:
    """The content of a line."""
    left = progress.left_s()
    return {
        "images": progress.images,
        "done": progress.before + progress.done,
        **{name: progress.statuses[name] for name in STATUSES},
        "now": {"done": progress.done, **{name: progress.now[name] for name in STATUSES}},
        "rate": round(progress.rate(), 3),
        "left_s": None if left is None else round(left),
    }


def summary(progress: RunProgress) -> dict[str, object]:
    """The content of the last line: with seconds of each step an image, and how busy the cores were.

    Call it after the workers have ended: only then is their processor time counted.
    """
    wall = time.perf_counter() - progress.started
    cores = os.cpu_count() or 1
    stages = {name: round(seconds / max(progress.done, 1), 4) for name, seconds in progress.timings_s.items()}
    return {
        **state(progress),
        "finished": progress.before + progress.done == progress.images,
        **progress.changes,
        "wall_s": round(wall, 2),
        "stages_s_per_image": stages,
        "utilisation": round(progress.cpu_s() / (wall * cores), 3),
        "cores": cores,
    }
