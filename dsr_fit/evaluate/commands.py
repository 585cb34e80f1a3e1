"""What `dsr-fit evaluate` can measure; each entry parses its own words, and imports what is heavy when it runs."""

from __future__ import annotations

from collections.abc import Callable


def spin(argv: list[str]) -> None:
    """A dataset in SPIN's format: 3DPW, Human3.6M, MPI-INF-3DHP."""
    from dsr_fit.cli.evaluate_spin import main

    main(argv)


def clothed(argv: list[str]) -> None:
    """Rendered clothed people whose bodies are known."""
    from dsr_fit.cli import evaluate_clothed as clothed_command

    clothed_command.clothed(argv)


def ablation(argv: list[str]) -> None:
    """The same people with every combination of terms."""
    from dsr_fit.cli import evaluate_clothed as clothed_command

    clothed_command.ablation(argv)


EVALUATIONS: dict[str, Callable[[list[str]], None]] = {"clothed": clothed, "ablation": ablation, "spin": spin}
"""Second word of the command -> what it runs with the words after it."""
