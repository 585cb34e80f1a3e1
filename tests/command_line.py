"""The command line called from tests: the example photo, refusals, and what a folder holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from dsr_fit.cli import main as cli

ROOT = Path(__file__).resolve().parents[1]
PERSON = ROOT / "examples" / "person.png"

QUICK = ("--stages.0.iterations", "3", "--stages.1.iterations", "1")
"""Enough of a fit to have results of every kind."""

Capture = pytest.CaptureFixture[str]


def refused(capfd: Capture, argv: list[str]) -> tuple[int, str]:
    """Run what must fail: status and what it said, that being one line of stderr."""
    capfd.readouterr()
    status = cli.main(argv)
    said = capfd.readouterr()
    assert said.out == ""
    assert said.err.endswith("\n")
    assert said.err.count("\n") == 1
    return status, said.err.rstrip("\n")


def content(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}
