"""How a run tells its progress: a bar on a terminal, one JSON object a line elsewhere."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from dsr_fit.dataset.run import Progress, Report

EVERY_S = 5.0
"""Between two lines of a run that nobody watches."""


@contextmanager
def reporting() -> Iterator[Report]:
    """A report for the place that standard output goes to."""
    if sys.stdout.isatty():
        with _bar() as report:
            yield report
    else:
        yield _Lines()


@contextmanager
def _bar() -> Iterator[Report]:
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:.1f} images/s"),
        TextColumn("[green]{task.fields[accepted]} accepted[/] {task.fields[refused]} refused"),
        TextColumn("[red]{task.fields[failed]} failed"),
        TimeRemainingColumn(),
    )
    with Bar(*columns, console=Console()) as bar:
        task = bar.add_task("", total=None, rate=0.0, accepted=0, refused=0, failed=0)

        def report(progress: Progress) -> None:
            counts: dict[str, Any] = {name: progress.statuses[name] for name in ("accepted", "refused", "failed")}
            done = progress.before + progress.done
            bar.update(task, total=progress.images, completed=done, rate=progress.rate(), **counts)

        yield report


class _Lines:
    """`{"images": 1888, "done": 320, ...}`, at most one every `EVERY_S` seconds."""

    def __init__(self) -> None:
        self.last = -EVERY_S

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        if now - self.last >= EVERY_S:
            self.last = now
            write_line(state(progress))


def write_line(content: dict) -> None:
    """One JSON object on standard output, at once."""
    sys.stdout.write(json.dumps(content, allow_nan=False) + "\n")
    sys.stdout.flush()


def state(progress: Progress) -> dict[str, object]:
    """What a line says."""
    left = progress.left_s()
    return {
        "images": progress.images,
        "done": progress.before + progress.done,
        **{name: progress.statuses[name] for name in ("accepted", "refused", "failed")},
        "rate": round(progress.rate(), 3),
        "left_s": None if left is None else round(left),
    }


def summary(progress: Progress) -> dict[str, object]:
    """What the last line says besides: seconds of each stage an image, and how busy the cores were.

    Call it after the workers have ended: their processor time counts from then on.
    """
    wall = time.perf_counter() - progress.started
    cores = os.cpu_count() or 1
    stages = {name: round(seconds / max(progress.done, 1), 4) for name, seconds in progress.timings_s.items()}
    return {
        **state(progress),
        "finished": True,
        "fitted_now": progress.done,
        "unjudged": progress.unjudged,
        "wall_s": round(wall, 2),
        "stages_s_per_image": stages,
        "utilisation": round(progress.cpu_s() / (wall * cores), 3),
        "cores": cores,
    }
