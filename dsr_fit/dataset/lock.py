"""One run at a time in a folder of results."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dsr_fit.errors import InputError
from dsr_fit.io.files import writing


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One run at a time may write into a folder; the lock ends with its process, however that ends.

    Raises InputError where another run holds it.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR, 0o666)
    try:
        try:
            _lock(handle)
        except OSError:
            raise InputError(
                f"--out {folder}: another run is writing there; wait for it, or choose another folder"
            ) from None
        yield
    finally:
        os.close(handle)


def _lock(handle: int) -> None:
    """Lock an open file. Raises OSError where another process has locked it."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
