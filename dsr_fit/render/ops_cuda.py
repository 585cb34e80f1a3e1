"""nvdiffrast's operators on a GPU, by nvdiffrast itself: loaded on first use, its context kept here."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from dsr_fit.errors import InputError, one_line
from dsr_fit.render.device import check_gpu


def ready(device: torch.device) -> None:
    """Load nvdiffrast and make its context. Raises InputError where that fails, naming what is missing."""
    _context(device)


@cache
def nvdiffrast_module() -> Any:
    """`nvdiffrast.torch`. Raises InputError naming what is missing: CUDA in torch, a GPU, or nvdiffrast."""
    check_gpu()
    try:
        import nvdiffrast.torch as nvdiffrast
    except ImportError as error:
        raise _unusable("loaded", error) from error
    return nvdiffrast


@cache
def _context(device: torch.device) -> Any:
    nvdiffrast = nvdiffrast_module()
    try:
        return nvdiffrast.RasterizeCudaContext(device=device)
    except (ImportError, OSError, RuntimeError) as error:  # NVlabs' own builds its extension now
        raise _unusable("built", error) from error


def _unusable(what: str, error: Exception) -> InputError:
    said = one_line(error)
    return InputError(
        f"rendering on a GPU: nvdiffrast can't be {what} ({said[:200]}); it needs the CUDA toolkit; "
        "uninstall it, and Triton renders instead; or use --device cpu"
    )


def rasterize(
    pos: Tensor, tri: Tensor, resolution: Sequence[int], ranges: Tensor | None = None, grad_db: bool = True
) -> tuple[Tensor, Tensor]:
    """As `ops_cpu.rasterize`; raises as `nvdiffrast_module` does."""
    nvdiffrast = nvdiffrast_module()
    context = _context(pos.device)
    return nvdiffrast.rasterize(context, pos, tri, list(resolution), ranges=ranges, grad_db=grad_db)


def interpolate(
    attr: Tensor,
    rast: Tensor,
    tri: Tensor,
    rast_db: Tensor | None = None,
    diff_attrs: Literal["all"] | Sequence[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """As `ops_cpu.interpolate`."""
    return nvdiffrast_module().interpolate(attr, rast, tri, rast_db=rast_db, diff_attrs=diff_attrs)


def antialias(color: Tensor, rast: Tensor, pos: Tensor, tri: Tensor) -> Tensor:
    """As `ops_cpu.antialias`."""
    return nvdiffrast_module().antialias(color, rast, pos, tri)
