"""The operators of each backend behind one face, so that the same tests run on all of them.

Triton's run on a GPU where there is one, else by its interpreter on the CPU.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor

from dsr_fit.render import ops_cpu, ops_cuda

HAS_GPU = torch.cuda.is_available()
HAS_NVDIFFRAST = HAS_GPU and find_spec("nvdiffrast") is not None
HAS_TRITON = find_spec("triton") is not None
NEEDS_TRITON = pytest.mark.skipif(not HAS_TRITON, reason="needs Triton")
TRITON_DEVICE = "cuda" if HAS_GPU else "cpu"


def triton_ops() -> Any:
    from dsr_fit.render import ops_triton

    return ops_triton


class Backend:
    """The operators of one backend, taking CPU tensors and giving CPU tensors; gradients pass."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.device = {"numba": "cpu", "nvdiffrast": "cuda", "triton": TRITON_DEVICE}[name]

        self.interpreted = name == "triton" and not HAS_GPU

    @property
    def ops(self) -> Any:
        return triton_ops() if self.name == "triton" else ops_cpu if self.name == "numba" else ops_cuda

    def triangle_ids(self, pos: Tensor, tri: Tensor, resolution: tuple[int, int]) -> Tensor:
        return self.ops.triangle_ids(pos.to(self.device), tri.to(self.device), resolution).cpu()

    def rasterize(self, pos: Tensor, tri: Tensor, resolution: tuple[int, int]) -> tuple[Tensor, Tensor]:
        rast, rast_db = self.ops.rasterize(pos.to(self.device), tri.to(self.device), resolution)
        return rast.cpu(), rast_db.cpu()

    def barycentrics(self, pos: Tensor, tri: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        inputs = (x.to(self.device) for x in (pos, tri, ids))
        rast, rast_db = self.ops.Barycentrics.apply(*inputs, True)
        return rast.cpu(), rast_db.cpu()

    def interpolate(
        self, attr: Tensor, rast: Tensor, tri: Tensor, rast_db: Tensor | None = None, diff_attrs: Any = None
    ) -> tuple[Tensor, Tensor]:
        rast_db = None if rast_db is None else rast_db.to(self.device)
        inputs = (x.to(self.device) for x in (attr, rast, tri))
        out, out_da = self.ops.interpolate(*inputs, rast_db=rast_db, diff_attrs=diff_attrs)
        return out.cpu(), out_da.cpu()

    def antialias(self, color: Tensor, rast: Tensor, pos: Tensor, tri: Tensor) -> Tensor:
        return self.ops.antialias(*(x.to(self.device) for x in (color, rast, pos, tri))).cpu()


_NUMBA = pytest.param(Backend("numba"), id="cpu")
_NVDIFFRAST = pytest.param(
    Backend("nvdiffrast"),
    id="nvdiffrast",
    marks=pytest.mark.skipif(not HAS_NVDIFFRAST, reason="needs a GPU and nvdiffrast"),
)
_TRITON = pytest.param(Backend("triton"), id="triton", marks=NEEDS_TRITON)
ON_EVERY_BACKEND = pytest.mark.parametrize("backend", [_NUMBA, _NVDIFFRAST, _TRITON])
ON_EVERY_ANTIALIASING_BACKEND = pytest.mark.parametrize("backend", [_NUMBA, _NVDIFFRAST])
ON_OUR_BACKENDS = pytest.mark.parametrize("backend", [_NUMBA, _TRITON])
