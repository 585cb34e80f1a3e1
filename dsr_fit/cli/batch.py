"""`dsr-fit batch`: fits every person of a data set, and goes on where it was stopped."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dsr_fit.cli.checks import check_folder
from dsr_fit.cli.ending import PARTLY
from dsr_fit.cli.options import NO_GATE, DatasetArguments
from dsr_fit.dataset.defaults import BATCH_SIZE, MIN_HEIGHT, SHARD_SIZE, TIMEOUT_S
from dsr_fit.errors import UsageError

if TYPE_CHECKING:
    from dsr_fit.dataset.sources import Source

NAMED = 5
"""Failures that are named at the end of a run."""


@dataclass(frozen=True, kw_only=True)
class BatchArguments(DatasetArguments):
    """Fit every person of a data set; run the same command again after any interruption."""

    people: Literal["all", "one"] = "all"
    """Whom to fit of those whom the detector finds in a picture: everybody, or the most prominent person."""
    max_people: int | None = None
    """Of them the most prominent so many; default: no limit."""
    min_height: float = MIN_HEIGHT
    """Leave out who takes up less than this share of the picture's height, standing or lying."""
    overlays: bool = False
    """Also a picture of each fit, in OUT/overlays."""
    mix: bool = False
    """Go on in a folder that holds results of other settings."""
    retry: str | None = None
    """Fit images again that have a person of these statuses: `failed`, `refused`, `unjudged`, separated by commas."""
    only_new: bool = False
    """Fit new images only; without it, images that were replaced since are fitted again."""
    strict: bool = False
    """Refuse a source that has changed since; compares the content of every file."""
    engine: Literal["local", "ray"] = "local"
    """Processes of this machine, or Ray."""
    address: str | None = None
    """A Ray cluster's address; default: one that is started here and ends with the run."""
    batch_size: int | Literal["auto"] = BATCH_SIZE
    """Images of a batch, and at most so many people fitted together; fixed for a folder. `auto`: the folder's, else up
    to 256 by a GPU's free memory, or 16 on a CPU."""
    shard_size: int = SHARD_SIZE
    """Batches in a shard; fixed for a folder."""
    timeout: float = TIMEOUT_S
    """Seconds that a picture's detection and parsing may take, and the fit of each person; with --engine local."""

    def run(self) -> int:
        return run_batch(self)


def run_batch(arguments: BatchArguments) -> int:
    """The work behind `dsr-fit batch`; returns the exit status: 3 where people have no fit."""
    check(arguments)
    from dsr_fit.dataset.batch_size import auto_batch_size
    from dsr_fit.dataset.changes import Follow
    from dsr_fit.dataset.progress import RunProgress, reporting, summary, write_line
    from dsr_fit.dataset.run import Resources, run

    source = arguments.open_source()
    _say_left_out(source)
    _check_people(arguments, source)
    settings = arguments.settings()
    size = arguments.batch_size
    settings = replace(
        settings,
        max_people=1 if arguments.people == "one" else arguments.max_people,
        min_height=arguments.min_height,
        batch_size=auto_batch_size(settings.device, arguments.out) if size == "auto" else size,
        overlays=arguments.overlays,
    )
    resources = Resources(
        arguments.engine, arguments.perceivers, arguments.fitters, arguments.address, arguments.timeout
    )
    last: list[RunProgress] = []
    failures = Failures()
    try:
        with reporting() as report:

            def remember(progress: RunProgress) -> None:
                last[:] = [progress]
                report(progress)

            rows = run(
                source,
                arguments.out,
                settings,
                resources,
                shard_size=arguments.shard_size,
                mix=arguments.mix,
                follow=Follow(_statuses(arguments.retry), arguments.only_new, arguments.strict),
                report=remember,
            )
            for row in rows:
                if row["status"] == "failed":
                    failures.add(row["imgname"], row["reason"])
    finally:  # after an interrupt, too, the counts are said
        if last:
            found = summary(last[0])
            if sys.stdout.isatty():
                sys.stdout.write(sentence(found, source.left_out, arguments.out))
            else:
                write_line({**found, "left_out": source.left_out, "left_out_files": len(source.left_files)})
    failures.say()
    return PARTLY if last[0].statuses["failed"] else 0


class Failures:
    """Which people have no fit, and why; of many the first ones."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.more = 0

    def add(self, imgname: str, reason: str) -> None:
        """`reason` may begin with the image's name."""
        if len(self.lines) == NAMED:
            self.more += 1
        else:
            self.lines.append(reason if imgname in reason else f"{imgname}: {reason}")

    def say(self) -> None:
        """On standard error, a line each."""
        more = [f"{self.more} more; their rows say why"] if self.more else []
        for line in (*self.lines, *more):
            sys.stderr.write(f"dsr-fit: failed: {line}\n")


def _check_people(arguments: BatchArguments, source: Source) -> None:
    """Raises UsageError for options that choose among people found, where the source says who is there."""
    for name in ("people", "max_people", "min_height"):
        if getattr(arguments, name) != getattr(BatchArguments, name) and not source.finds_people():
            raise UsageError(
                f"--{name.replace('_', '-')} chooses among people whom the detector finds, and {arguments.source} says "
                "who is in its images; leave the option out"
            )


def _say_left_out(source: Source) -> None:
    """What the source names and nobody looks at."""
    from dsr_fit.dataset.listing import described

    if source.left_files:
        sys.stderr.write(f"dsr-fit: left out of the folder: {described(source.left_files)}\n")
    for what, count in (("images are named", source.repeated), ("people are annotated", source.repeated_people)):
        if count:
            times = f"{count} repetition{'' if count == 1 else 's'}"
            sys.stderr.write(f"dsr-fit: {what} more than once ({times}); each is fitted once\n")


def sentence(found: dict, left_out: int, out: Path) -> str:
    """The end of a run for people."""
    skipped = f", {left_out} people of the source's file left out (crowds, too few keypoints)" if left_out else ""
    unjudged = f"{found['unjudged']} unjudged ({NO_GATE}), " if found["unjudged"] else ""
    removed = (
        f"; {found['removed']} images are no longer in the source, their rows are kept" if found["removed"] else ""
    )
    reasons = [f"{found[name]} {name}" for name in ("added", "replaced", "retried") if found[name]]
    changes = f" ({', '.join(reasons)})" if reasons and found["now"]["done"] < found["done"] else ""
    return (
        f"{out}: {found['done']} of {found['images']} images done, {found['now']['done']} of them now{changes}; "
        f"people: {found['accepted']} accepted, {unjudged}{found['refused']} refused, {found['failed']} failed"
        f"{skipped}{removed}; {found['rate']:.2f} images/s, "
        f"{100 * found['utilisation']:.0f} % of {found['cores']} cores\n"
    )


def _statuses(text: str | None) -> tuple[str, ...]:
    """Raises UsageError for anything but statuses that can be retried."""
    from dsr_fit.dataset.changes import RETRIED

    statuses = () if text is None else tuple(status.strip() for status in text.split(","))
    if unknown := [status for status in statuses if status not in RETRIED]:
        raise UsageError(f"--retry {text}: {unknown[0]!r} is none of {', '.join(RETRIED)}")
    return statuses


def check(arguments: BatchArguments) -> None:
    """What can be refused before anything is read."""
    _statuses(arguments.retry)
    if arguments.strict and arguments.only_new:
        raise UsageError("--strict and --only-new exclude each other")
    arguments.check_focal()
    for name in ("perceivers", "fitters", "batch_size", "shard_size", "max_people"):
        value = getattr(arguments, name)
        if isinstance(value, int) and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} {value}: at least 1")
    if arguments.people == "one" and arguments.max_people is not None:
        raise UsageError("--people one and --max-people exclude each other")
    if not 0 <= arguments.min_height < 1:
        raise UsageError(f"--min-height {arguments.min_height:g}: a share of the picture's height, 0 to 1")
    if not arguments.timeout > 0:
        raise UsageError(f"--timeout {arguments.timeout:g}: a positive number of seconds")
    if arguments.address is not None and arguments.engine != "ray":
        raise UsageError("--address names a Ray cluster; it goes with --engine ray")
    if arguments.timeout != TIMEOUT_S and arguments.engine == "ray":
        raise UsageError("--timeout goes with --engine local; Ray has no time limit for an image")
    check_folder("--out", arguments.out)
