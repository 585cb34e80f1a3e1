"""The device that a fit runs on, and what renders on a GPU."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal

import torch

from dsr_fit.errors import InputError, UsageError


def choose_device(name: Literal["auto", "cpu", "cuda"]) -> Literal["cpu", "cuda"]:
    """`auto` is the best that works: `cuda` where torch sees a GPU and something renders there, else `cpu`.

    Raises UsageError for `cuda` where that can't work, and for another name.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"no device is called {name!r}; auto, cpu and cuda are")
    lacking = lacking_for_cuda()
    if name == "cuda" and lacking is not None:
        raise UsageError(f"--device cuda: {lacking}; use --device cpu, or see README")
    return "cpu" if name == "cpu" or lacking is not None else "cuda"


def gpu_backend() -> Literal["nvdiffrast", "triton"] | None:
    """What renders on a GPU: nvdiffrast where it is installed, else Triton where that is. Imports neither."""
    return "nvdiffrast" if find_spec("nvdiffrast") else "triton" if find_spec("triton") else None


def lacking_for_cuda() -> str | None:
    """Why a fit can't run on a GPU; None where it can."""
    if not torch.cuda.is_available():
        build = "this torch is a CPU build" if torch.version.cuda is None else "no GPU is visible to it"
        return f"torch sees no CUDA device ({build})"
    if gpu_backend() is None:
        return (
            "nothing that renders there is installed: neither Triton, which comes with torch's CUDA builds on Linux, "
            'nor nvdiffrast (`pip install "dsr-fit[gpu]"`)'
        )
    return None


def check_gpu() -> None:
    """Raises InputError where rendering on a GPU can't work."""
    lacking = lacking_for_cuda()
    if lacking is not None:
        raise InputError(f"rendering on a GPU: {lacking}; use --device cpu, or see README")
