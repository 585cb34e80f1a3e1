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
from typing import Any, Protocol

from dsr_fit.dataset.schema import STATUSES

EVERY_S = 5.0
"""Seconds between two lines."""


def _cpu_s() -> float:
    """Processor seconds of this process and of those of its children that have ended."""
    return sum(os.times()[:4])


@dataclass
class RunProgress:
    """How far a run has come."""

    images: int
    """Of the whole source."""
    before: int
    """Images that earlier runs had done."""
    done: int = 0
    """Images that this run has done."""
    statuses: Counter[str] = field(default_factory=Counter)
    """Rows of this run by status (`dsr_fit.dataset.schema.STATUSES`)."""
    timings_s: Counter[str] = field(default_factory=Counter)
    """Seconds of each step, summed over this run's images; `write` is one of them."""
    started: float = field(default_factory=time.perf_counter)
    cpu_before_s: float = field(default_factory=_cpu_s)

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
        "finished": True,
        "fitted_now": progress.done,
        "wall_s": round(wall, 2),
        "stages_s_per_image": stages,
        "utilisation": round(progress.cpu_s() / (wall * cores), 3),
        "cores": cores,
    }
