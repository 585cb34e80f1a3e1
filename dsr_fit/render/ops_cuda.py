"""nvdiffrast's operators on a GPU, by nvdiffrast itself: loaded on first use, its context kept here."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Literal

import torch
from torch import Tensor

from dsr_fit.errors import InputError
from dsr_fit.render.device import lacking_for_cuda


@cache
def nvdiffrast_module() -> Any:
    """`nvdiffrast.torch`. Raises InputError naming what is missing: CUDA in torch, a GPU, or nvdiffrast."""
    lacking = lacking_for_cuda()
    if lacking is not None:
        raise InputError(f"rendering on a GPU: {lacking}; use --device cpu, or see README")
    try:
        import nvdiffrast.torch as nvdiffrast
    except ImportError as error:
        raise InputError(
            f"rendering on a GPU: nvdiffrast can't be loaded ({error}); it needs the CUDA toolkit; or use --device cpu"
        ) from error
    return nvdiffrast


@cache
def _context(device: torch.device) -> Any:
    return nvdiffrast_module().RasterizeCudaContext(device=device)


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
