"""The renderer's hot path on the CPU as two differentiable functions: projection, and everything else."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from dsr_fit.render import fused_kernels as kernels
from dsr_fit.render.ops_cpu import array, attribute_gradient, pixels
from dsr_fit.render.topology import Topology
from dsr_fit.threads import chunks_of, over_images


class Projection(torch.autograd.Function):
    """`renderer.clip_positions`: camera-frame vertices (B, V, 3) to clip space (B, V, 4)."""

    @staticmethod
    def forward(
        ctx: Any,
        vertices: Tensor,
        intrinsics: Tensor,
        depth_range: NDArray[np.float64],
        height: int,
        width: int,
    ) -> Tensor:
        ctx.inputs = array(vertices), array(intrinsics)
        ctx.resolution = height, width
        pos = torch.empty((*vertices.shape[:2], 4))
        kernels.project(*ctx.inputs, depth_range, height, width, pos.numpy())
        return pos

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        g_vertices, g_intrinsics = (np.empty_like(x) for x in ctx.inputs)
        kernels.pull_project(*ctx.inputs, *ctx.resolution, array(grads[0]), g_vertices, g_intrinsics)
        return torch.from_numpy(g_vertices), torch.from_numpy(g_intrinsics), None, None, None


def _zeros(*shape: int) -> NDArray[np.float32]:
    """numpy's zeros: torch's would start its threads, which then spin on the cores that the kernels want."""
    return np.zeros(shape, np.float32)


class Draw(torch.autograd.Function):
    """rasterize, interpolate and the dense outline: attributes (B, H, W, C), alpha (B, H, W), rast (B, H, W,
    4)."""

    @staticmethod
    def forward(
        ctx: Any,
        pos: Tensor,
        attr: Tensor,
        tri: NDArray[np.int32],
        attr_tri: NDArray[np.int32],
        topology: Topology,
        height: int,
        width: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        batch, channels = len(pos), attr.shape[2]
        colour = _zeros(batch, height * width, channels)
        alpha, rast = _zeros(batch, height * width), _zeros(batch, height, width, 4)
        mesh = array(pos), tri, array(attr), attr_tri
        edges = topology.edges, topology.faces, topology.agree
        ctx.chunks = chunks_of(batch)
        ctx.items = over_images(lambda a, b: kernels.draw(a, b, *mesh, *edges, rast, colour, alpha), batch)
        ctx.saved = *mesh, rast
        ids = torch.from_numpy(rast)
        ctx.mark_non_differentiable(ids)
        ctx.set_materialize_grads(False)  # else torch's threads fill a gradient of rast with zeros
        return (
            torch.from_numpy(colour).view(batch, height, width, channels),
            torch.from_numpy(alpha).view(batch, height, width),
            ids,
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        pos, _, attr, _, rast = ctx.saved
        batch, height, width, _ = rast.shape
        g_colour, g_alpha = grads[:2]
        g_colour_ = pixels(g_colour) if g_colour is not None else _zeros(batch, height * width, attr.shape[2])
        g_alpha_ = array(g_alpha).reshape(batch, -1) if g_alpha is not None else _zeros(batch, height * width)
        g_pos = _zeros(*pos.shape)

        def pull(chunk: int, start: int, stop: int, g_attr: np.ndarray) -> None:
            kernels.pull_draw(start, stop, *ctx.saved, *ctx.items[chunk], g_colour_, g_alpha_, g_attr, g_pos)

        g_attr = attribute_gradient(pull, attr.shape, ctx.chunks, ctx.needs_input_grad[1])
        return torch.from_numpy(g_pos), g_attr, None, None, None, None, None
