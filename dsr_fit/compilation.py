"""How the CPU kernels are compiled: by numba, once per installation, with what it made cached on disk."""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba.core.config
from numba import njit
from numba.core.caching import FunctionCache, NullCache

KERNEL_SECONDS = 40  # what compiling those of a fit takes on one slow core
_ANNOUNCED: list[str] = []
_FILES = sorted(Path(__file__).parent.rglob("*_kernels.py"))
_SOURCES = hashlib.sha256(b"".join(path.read_bytes() for path in _FILES)).hexdigest()[:12]


def kernel(function: Callable[..., Any] | None = None, *, fastmath: bool = False, quick: bool = False) -> Any:
    """`numba.njit` without the GIL, cached.

    The cache lies beside the source; where that is read-only, in the user's cache folder; else in a private temporary
    one; and where there is none, kernels are compiled in each process. `NUMBA_CACHE_DIR` names another folder.

    numba takes a cached kernel for valid while its own file stays the same, and never looks at the modules whose
    kernels it calls. So a digest of all kernel modules is part of the name it is cached under.

    `quick`: it is no part of a fit and compiled in a second, about which nothing is said.
    """
    if function is None:
        return lambda decorated: kernel(decorated, fastmath=fastmath, quick=quick)
    function.__qualname__ += f"_{_SOURCES}"
    compiled: Any = njit(nogil=True, error_model="numpy", fastmath=fastmath)(function)
    compiled._cache = _cache_of(function)
    compiled._cache.quick = quick
    return compiled


def inlined(function: Callable[..., Any]) -> Any:
    """A kernel pasted into its callers: a call passes seven numbers an array, which small loop bodies would feel."""
    return njit(nogil=True, error_model="numpy", inline="always")(function)


class _Cache(FunctionCache):
    """numba's cache, which says when a kernel has to be compiled, and which no damaged file or full disk stops."""

    how = "once per installation"
    quick = False

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        found = None
        try:
            found = super().load_overload(sig, target_context)
        except Exception:  # a damaged pickle may raise anything
            with suppress(OSError):
                self.flush()
        if found is None and not self.quick:
            _announce(self.how, Path(self.cache_path))
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        with suppress(OSError):
            super().save_overload(sig, data)


class _NoCache(NullCache):
    how = "in every process: no folder to cache them in can be written to; NUMBA_CACHE_DIR names one"
    quick = False

    def load_overload(self, sig: Any, target_context: Any) -> None:
        if not self.quick:
            _announce(self.how)


def _cache_of(function: Callable[..., Any]) -> Any:
    with suppress(RuntimeError):  # numba found no folder that it may write to
        return _Cache(function)
    config: Any = numba.core.config
    before, config.CACHE_DIR = config.CACHE_DIR, _private_folder()
    try:
        found = _Cache(function)
        found.how = f"cached in {config.CACHE_DIR}: no other folder can be written to; NUMBA_CACHE_DIR names another"
        return found
    except RuntimeError:
        return _NoCache()
    finally:
        config.CACHE_DIR = before


@cache
def _private_folder() -> str:
    """A temporary folder of this user alone, or "" where there is none: whoever writes to a cache decides what runs."""
    with suppress(OSError, AttributeError):  # AttributeError: Windows, which has no user ids
        folder = Path(tempfile.gettempdir()) / f"dsr-fit-{os.getuid()}"
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        found = folder.lstat()
        if stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077:
            return str(folder)
    return ""


def _announce(how: str, folder: Path | None = None) -> None:
    """Say, once, that kernels are being compiled; of a batch's processes, the first one says it.

    A file in the cache's folder tells the others; one older than compiling takes is from an earlier run.
    """
    if _ANNOUNCED:
        return
    _ANNOUNCED.append(how)
    if folder is not None:
        marker = folder / f"compiling_{_SOURCES}"
        with suppress(OSError):
            try:
                marker.touch(exist_ok=False)
            except FileExistsError:
                if time.time() - marker.stat().st_mtime < KERNEL_SECONDS:
                    return
                marker.touch()
    logging.getLogger("dsr_fit").warning("compiling CPU kernels, a minute or so for a first fit, %s", how)
