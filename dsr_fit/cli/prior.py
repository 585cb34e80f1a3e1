"""`dsr-fit prior build`: a semantic prior from the user's own data."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dsr_fit.cli.checks import Folder, check_out, check_outside
from dsr_fit.cli.progress import tracked
from dsr_fit.errors import UsageError

if TYPE_CHECKING:
    from dsr_fit.priors.counting import View


@dataclass(frozen=True)
class BuildArguments:
    """Count what clothed people wear where, and write the semantic prior of their body."""

    data: Folder
    """Folder of .npz files with fitted bodies, a label map or a mesh of the same name beside each."""
    out: Path
    """Prior to write: .npz, for --semantic-prior."""
    body: str | None = None
    """The body that was fitted: `open`, or an official SMPL .pkl or .npz; default: the one set, else `open`."""
    views: int = 10
    """Pictures taken around each scan."""
    resolution: int = 448
    """Pixels of the side of a scan's picture."""
    quiet: bool = False
    """Print nothing but errors."""

    def run(self) -> None:
        build(self)


def build(arguments: BuildArguments) -> None:
    """The work behind `dsr-fit prior build`."""
    check_out(arguments, [".npz"])
    for name in ("views", "resolution"):
        if getattr(arguments, name) < 1:
            raise UsageError(f"--{name} {getattr(arguments, name)}: expected a positive number")
    check_outside(arguments.out, arguments.data, "data")
    import numpy as np

    from dsr_fit.assets import licensed
    from dsr_fit.body.files import load_body
    from dsr_fit.io.files import replacing
    from dsr_fit.priors.counting import learn
    from dsr_fit.priors.scans import read_views, scan_paths

    body_path = None if arguments.body == "open" else licensed("body", arguments.body)
    body = load_body(body_path or "open")
    paths = scan_paths(arguments.data)
    counted = 0

    def views() -> Iterator[View]:
        nonlocal counted
        for path in tracked(paths, "counting"):
            for view in read_views(path, body, arguments.views, arguments.resolution):
                counted += 1
                yield view

    arrays = learn(views(), body)
    with replacing(arguments.out) as temporary:
        np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]
    seen = arrays["observations"]
    sys.stdout.write(  # paths as they are, whatever rich would make of brackets and colons
        f"{arguments.out}: {counted} views of {len(paths)} files; a vertex was seen {np.median(seen):.0f} times "
        f"(median), {np.mean(seen < 1):.0%} of the vertices less than once\n"
    )
