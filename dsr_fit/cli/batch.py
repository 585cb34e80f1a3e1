"""`dsr-fit batch`: fits every person of a data set, and goes on where it was stopped."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from dsr_fit.cli.checks import check_folder
from dsr_fit.cli.options import NO_GATE, DatasetArguments
from dsr_fit.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class BatchArguments(DatasetArguments):
    """Fit every person of a data set; run the same command again after any interruption."""

    overlays: bool = False
    """Also a picture of each fit, in OUT/overlays."""
    mix: bool = False
    """Go on in a folder that holds results of other settings."""
    engine: Literal["local", "ray"] = "local"
    """Processes of this machine, or Ray."""
    address: str | None = None
    """A Ray cluster's address; default: one that is started here and ends with the run."""
    batch_size: int = 16
    """Images fitted together; fixed for a folder."""
    shard_size: int = 64
    """Batches in a shard; fixed for a folder."""
    timeout: float = 300.0
    """Seconds that detection and parsing, or the fit, may take for each person; with --engine local."""

    def run(self) -> None:
        run_batch(self)


def run_batch(arguments: BatchArguments) -> None:
    """The work behind `dsr-fit batch`."""
    check(arguments)
    from dsr_fit.dataset.progress import RunProgress, reporting, summary, write_line
    from dsr_fit.dataset.run import Resources, run

    source = arguments.open_source()
    settings = replace(arguments.settings(), batch_size=arguments.batch_size, overlays=arguments.overlays)
    resources = Resources(
        arguments.engine, arguments.perceivers, arguments.fitters, arguments.address, arguments.timeout
    )
    last: list[RunProgress] = []
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
            report=remember,
        )
        for _ in rows:
            pass
    found = summary(last[0])
    if sys.stdout.isatty():
        sys.stdout.write(sentence(found, source.left_out, arguments.out))
    else:
        write_line({**found, "left_out": source.left_out})


def sentence(found: dict, left_out: int, out: Path) -> str:
    """The end of a run for people."""
    skipped = f", {left_out} people of the source's file left out (crowds, too few keypoints)" if left_out else ""
    unjudged = f"{found['unjudged']} unjudged ({NO_GATE}), " if found["unjudged"] else ""
    return (
        f"{out}: {found['done']} of {found['images']} images done; now {found['accepted']} accepted, "
        f"{unjudged}{found['refused']} refused, {found['failed']} failed{skipped}; {found['rate']:.2f} images/s, "
        f"{100 * found['utilisation']:.0f} % of {found['cores']} cores\n"
    )


def check(arguments: BatchArguments) -> None:
    """What can be refused before anything is read."""
    arguments.check_focal()
    for name in ("perceivers", "fitters", "batch_size", "shard_size"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} {value}: at least 1")
    if not arguments.timeout > 0:
        raise UsageError(f"--timeout {arguments.timeout:g}: a positive number of seconds")
    if arguments.address is not None and arguments.engine != "ray":
        raise UsageError("--address names a Ray cluster; it goes with --engine ray")
    check_folder("--out", arguments.out)
