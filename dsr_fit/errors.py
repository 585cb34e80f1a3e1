"""The package's two errors. The message is one line: what was wrong, and what would work."""

from __future__ import annotations


class DsrFitError(Exception):
    """Base of the package's own errors; `exit_status` is what the command line returns."""

    exit_status: int = 1


class InputError(DsrFitError):
    """An input (image, keypoints, label map, body file, output folder) can't be used. Exit status 1."""


class UsageError(DsrFitError):
    """The command was called in a way that can't work (unknown option, preset or name). Exit status 2."""

    exit_status = 2


def one_line(error: Exception) -> str:
    """What an error says, in one line; its type where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__
