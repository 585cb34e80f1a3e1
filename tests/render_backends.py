"""The operators on each device behind one face, so that the same tests run on all of them."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor

from dsr_fit.render import ops_cpu, ops_cuda

ABSENT = "needs a GPU and nvdiffrast"
HAS_CUDA = torch.cuda.is_available() and find_spec("nvdiffrast") is not None


class Backend:
    """The three operators on one device, taking CPU tensors and giving CPU tensors; gradients pass."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.ops: Any = ops_cpu if device == "cpu" else ops_cuda

    def rasterize(self, pos: Tensor, tri: Tensor, resolution: tuple[int, int]) -> tuple[Tensor, Tensor]:
        rast, rast_db = self.ops.rasterize(pos.to(self.device), tri.to(self.device), resolution)
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


ON_EVERY_BACKEND = pytest.mark.parametrize(
    "backend",
    [
        pytest.param(Backend("cpu"), id="cpu"),
        pytest.param(Backend("cuda"), id="cuda", marks=pytest.mark.skipif(not HAS_CUDA, reason=ABSENT)),
    ],
)
