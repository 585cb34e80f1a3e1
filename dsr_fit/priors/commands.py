"""What `dsr-fit prior` can do; each entry parses its own words, and imports what is heavy when it runs."""

from __future__ import annotations

from collections.abc import Callable


def build(argv: list[str]) -> None:
    """The semantic prior of a body from renders or scans of clothed people."""
    from dsr_fit.cli.prior import main

    main(argv)


PRIORS: dict[str, Callable[[list[str]], None]] = {"build": build}
"""Second word of the command -> what it runs with the words after it."""
