"""What C and C++ libraries write to the terminal on their own, kept off it."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# Two threads that redirect at once would put each other's sink back.
_LOCK = threading.RLock()


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Keep what is written to file descriptor 2 off the terminal while the block runs.

    libtiff prints what it makes of a damaged file, and can't be asked not to.
    """
    with _LOCK, tempfile.TemporaryFile() as sink:
        try:
            saved = os.dup(2)
        except OSError:  # a process without a stderr has none to keep clean
            yield
            return
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
