"""The renderer's hot path on the CPU as two differentiable functions: projection, and everything else."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dsr_fit.render import fused_kernels as kernels
from dsr_fit.render.ops_cpu import array, attribute_gradient, chunks_of, over_images
from dsr_fit.render.topology import Topology


class Projection(torch.autograd.Function):
    """`renderer.clip_positions`: camera-frame vertices (B, V, 3) to clip space (B, V, 4)."""

    @staticmethod
    def forward(
        ctx: Any, vertices: Tensor, intrinsics: Tensor, depth_range: tuple[float, float], height: int, width: int
    ) -> Tensor:
        pos = torch.empty((*vertices.shape[:2], 4))
        kernels.project(array(vertices), array(intrinsics), depth_range, height, width, pos.numpy())
        ctx.save_for_backward(vertices, intrinsics)
        ctx.resolution = height, width
        return pos

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        vertices, intrinsics = ctx.saved_tensors
        g_vertices, g_intrinsics = torch.empty(vertices.shape), torch.empty(intrinsics.shape)
        kernels.pull_project(
            array(vertices), array(intrinsics), *ctx.resolution, array(grads[0]), g_vertices.numpy(), g_intrinsics.numpy()
        )
        return g_vertices, g_intrinsics, None, None, None


class Draw(torch.autograd.Function):
    """rasterize, interpolate and the dense outline: attributes (B, H, W, C), alpha (B, H, W), rast (B, H, W, 4)."""

    @staticmethod
    def forward(
        ctx: Any, pos: Tensor, attr: Tensor, tri: Tensor, attr_tri: Tensor, topology: Topology, height: int, width: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        batch, channels = len(pos), attr.shape[2]
        colour = torch.zeros((batch, height, width, channels))
        alpha, rast = torch.zeros((batch, height, width)), torch.zeros((batch, height, width, 4))
        flat = batch, height * width
        pos_, tri_, attr_, attr_tri_, rast_ = array(pos), array(tri), array(attr), array(attr_tri), rast.numpy()
        colour_, alpha_ = colour.view(*flat, channels).numpy(), alpha.view(*flat).numpy()
        edges = topology.edges, topology.faces, topology.agree
        ctx.items = over_images(
            lambda a, b: kernels.draw(a, b, pos_, tri_, attr_, attr_tri_, *edges, rast_, colour_, alpha_), batch
        )
        ctx.chunks = chunks_of(batch)
        ctx.save_for_backward(pos, attr, tri, attr_tri, rast)
        ctx.mark_non_differentiable(rast)
        return colour, alpha, rast

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        pos, attr, tri, attr_tri, rast = ctx.saved_tensors
        batch, height, width, _ = rast.shape
        g_colour = array(grads[0]).reshape(batch, height * width, -1)
        g_alpha = array(grads[1]).reshape(batch, height * width)
        pos_, attr_, tri_, attr_tri_, rast_ = array(pos), array(attr), array(tri), array(attr_tri), array(rast)
        g_pos = np.zeros(pos.shape, np.float32)

        def pull(chunk: int, start: int, stop: int, g_attr: np.ndarray) -> None:
            kernels.pull_draw(
                start, stop, pos_, tri_, attr_, attr_tri_, rast_, *ctx.items[chunk], g_colour, g_alpha, g_attr, g_pos
            )

        g_attr = attribute_gradient(pull, attr.shape, ctx.chunks, ctx.needs_input_grad[1])
        return torch.from_numpy(g_pos), g_attr, None, None, None, None, None
