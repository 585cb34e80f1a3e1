"""What an image's files held when they were read, so that a file that was replaced since is noticed."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Fingerprint:
    """Of an image and its keypoint file, if it has one."""

    size: int
    """Bytes of all files; 0 where none could be read."""
    mtime_ns: int
    """The latest time of modification, nanoseconds since 1970."""
    sha256: str
    """Of the files' bytes, one after the other."""


UNREADABLE = Fingerprint(0, 0, "")


def fingerprint(files: Iterable[Path]) -> Fingerprint:
    """Read files that may be missing or unreadable; then it is `UNREADABLE`.

    So are pipes and devices, which may have no end, or keep a reader waiting forever.
    """
    hashed, size, mtime = hashlib.sha256(), 0, 0
    try:
        for path in files:
            if not stat.S_ISREG(path.stat().st_mode):
                return UNREADABLE
            with path.open("rb") as file:
                mtime = max(mtime, path.stat().st_mtime_ns)
                while block := file.read(1 << 20):
                    size += len(block)
                    hashed.update(block)
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return UNREADABLE
    return Fingerprint(size, mtime, hashed.hexdigest())


def changed(before: Fingerprint, files: Iterable[Path], *, strict: bool = False) -> bool:
    """Whether files differ from what they were; by their content only where size or time differ, or `strict`.

    Files that are gone have not changed: what was read then is all there is.
    """
    files = list(files)
    try:
        stats = [path.stat() for path in files]
    except (OSError, ValueError):
        return False
    size, mtime = sum(stat.st_size for stat in stats), max(stat.st_mtime_ns for stat in stats)
    if not strict and (size, mtime) == (before.size, before.mtime_ns):
        return False
    now = fingerprint(files)
    return now != UNREADABLE and (now.size, now.sha256) != (before.size, before.sha256)
