"""Compilation of the CPU kernels, cached on disk."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from numba import njit

KERNEL_SECONDS = 40  # what compiling takes on one slow core
_ANNOUNCED: list[Any] = []
_FILES = sorted(Path(__file__).parent.glob("*_kernels.py"))
_SOURCES = hashlib.sha256(b"".join(path.read_bytes() for path in _FILES))


def kernel(function: Callable[..., Any]) -> Any:
    """`numba.njit` without the GIL, cached beside the source, or in the user's folder if that is read-only.

    numba takes a cached kernel for valid while its own file stays the same, and never looks at the modules
    whose kernels it calls. So a digest of all kernel sources is part of the name it is cached under.
    """
    function.__qualname__ += "_" + _SOURCES.hexdigest()[:12]
    return njit(cache=True, nogil=True, error_model="numpy")(function)


def inlined(function: Callable[..., Any]) -> Any:
    """A kernel pasted into its callers: a call passes seven numbers an array, which small loop bodies would
    feel."""
    return njit(nogil=True, error_model="numpy", inline="always")(function)


def announce_compilation(entry: Any) -> None:
    """Log, once per process, that the first fit compiles the kernels, unless `entry`, one of them, is cached.

    A renderer says so when it is made: in a batch that is once, in the process that starts the others, which are quiet.
    """
    if entry in _ANNOUNCED or entry.signatures or _is_cached(entry):
        return
    _ANNOUNCED.append(entry)
    logging.getLogger("dsr_fit").warning(
        "the first fit compiles the CPU kernels, once per installation (about %d s)", KERNEL_SECONDS
    )


def _is_cached(entry: Any) -> bool:
    return any(Path(entry.stats.cache_path).glob(f"*{entry.py_func.__qualname__}*.nbi"))
