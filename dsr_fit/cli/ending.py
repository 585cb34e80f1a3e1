"""How a command ends: its exit status, and one line for whatever went wrong."""

from __future__ import annotations

import codecs
import errno
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

from dsr_fit.errors import DsrFitError

DONE, FAILED, USAGE, PARTLY, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit statuses: all done; an input or the work failed; wrong usage; some images of a batch failed; interrupted."""

TRACEBACK = "DSR_FIT_TRACEBACK"
"""Environment variable: 1 prints the traceback of every error, and libraries' warnings."""

DISK = {
    errno.ENOSPC: "the disk is full; make room, and run the same command again",
    errno.EDQUOT: "the quota of the disk is used up; make room, and run the same command again",
    errno.EROFS: "the disk can only be read; choose another place",
    errno.ENAMETOOLONG: "the file system takes no name so long",
}


def ended(work: Callable[[], int | None]) -> int:
    """Do the work of the process and return its exit status; every error is one line on standard error.

    A reader of standard output that has left doesn't stop the work. Where standard output can't be written for another
    reason, the work is done as well, but the status is 1.
    """
    with _streams() as output, _quiet_libraries():
        status = _status(work)
        output.flush()
        failure = output.failure
        if status == DONE and failure is not None and failure.errno != errno.EPIPE:
            _say(f"standard output can't be written ({failure.strerror or failure})")
            return FAILED
        return status


@contextmanager
def silenced() -> Iterator[None]:
    """Nothing is printed and logged but errors."""
    before = sys.stdout, sys.stderr
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        sys.stdout = sys.stderr = nowhere
        try:
            yield
        finally:
            sys.stdout, sys.stderr = before
            logging.disable(level)


def _status(work: Callable[[], int | None]) -> int:
    try:
        return work() or DONE
    except SystemExit as finished:  # tyro ends the process itself, after --help and on unknown options
        return int(finished.code or DONE)
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED
    except Exception as error:
        if os.environ.get(TRACEBACK):
            traceback.print_exc()
        _say(_line(error))
        return error.exit_status if isinstance(error, DsrFitError) else FAILED


def _line(error: Exception) -> str:
    """What happened and, where it is known, what to do."""
    said = " ".join(str(error).split())
    if isinstance(error, DsrFitError):
        return said
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in said:
        return f"out of memory ({said or type(error).__name__}); close other programs, or fit fewer at once"
    if isinstance(error, OSError) and error.errno in DISK:
        return f"{str(error.filename)[:80]}: {DISK[error.errno]}" if error.filename else DISK[error.errno]
    return (
        f"unexpected {type(error).__name__}: {said or 'no message'}; this is a defect of dsr-fit: please report this "
        f"line, the command and what {TRACEBACK}=1 prints to whom you have dsr-fit from"
    )


def _say(line: str) -> None:
    sys.stderr.write(f"dsr-fit: {line}\n")
    sys.stderr.flush()


def _percent(error: UnicodeError) -> tuple[str, int]:
    """The bytes of what an encoding lacks, as results store names of any bytes: `caf%E9.jpg`."""
    assert isinstance(error, UnicodeEncodeError)
    letter = error.object[error.start]
    lone = "\ud800" <= letter < "\udc80" or "\udcff" < letter <= "\udfff"  # half of a character, which is no file's
    return "?" if lone else "".join(
        f"%{byte:02X}" for byte in letter.encode("utf-8", "surrogateescape")
    ), error.start + 1


PERCENT = "dsr_fit_percent"
codecs.register_error(PERCENT, _percent)


class Output:
    """A stream whose failures are noted instead of raised; all text goes nowhere after the first. What it can't encode,
    such as names of files that are no text, is written in per cent form.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        encoding = self.stream.encoding or "utf-8"
        try:
            return self.stream.write(text.encode(encoding, PERCENT).decode(encoding))
        except OSError as error:
            self._fail(error)
            return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        self.failure = self.failure or error
        # What is buffered would fail again, at the interpreter's end.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.stream.fileno())
        os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def _streams() -> Iterator[Output]:
    """Standard streams that can be relied on: open ones, and no error of theirs ends the work."""
    _open_closed()
    before = sys.stdout, sys.stderr
    output = Output(sys.stdout)
    sys.stdout, sys.stderr = cast(TextIO, output), cast(TextIO, Output(sys.stderr))
    try:
        yield output
    finally:
        sys.stdout, sys.stderr = before


def _open_closed() -> None:
    """Null devices for standard streams that the caller has closed; any file opened next would take their place."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            mode = "w" if number else "r"
            handle = os.open(os.devnull, os.O_RDWR)
            if handle != number:
                os.dup2(handle, number)
                os.close(handle)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """Libraries' warnings are for developers: shown on request only."""
    with warnings.catch_warnings():
        if not (sys.warnoptions or os.environ.get(TRACEBACK)):
            warnings.showwarning = lambda *_, **__: None
        yield
