"""Linear blend skinning as one operator: sparse weights, and a backward pass of its own.

On a CPU two numba kernels go over the vertices once each, images in parallel; `skin_reference` is the readable twin in
torch, and what runs on other devices.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dsr_fit.compilation import kernel
from dsr_fit.tensors import Tensors
from dsr_fit.threads import over_images


@dataclass(frozen=True)
class SkinningWeights(Tensors):
    """Rows of a V x J matrix with few entries each: vertex v has entries start[v]..start[v + 1]."""

    start: Tensor  # (V + 1,) int32
    joint: Tensor  # (N,) int32
    value: Tensor  # (N,) float32
    num_joints: int

    @classmethod
    def from_dense(cls, weights: np.ndarray) -> SkinningWeights:
        """From (V, J)."""
        vertex, joint = np.nonzero(weights)
        start = np.zeros(len(weights) + 1, np.int32)
        start[1:] = np.cumsum(np.bincount(vertex, minlength=len(weights)))
        value = weights[vertex, joint].astype(np.float32)
        return cls(
            torch.from_numpy(start),
            torch.from_numpy(joint.astype(np.int32)),
            torch.from_numpy(value),
            weights.shape[1],
        )

    def dense(self) -> Tensor:
        """(V, J)."""
        counts = self.start[1:] - self.start[:-1]
        each = torch.arange(len(counts), device=counts.device)
        vertex = torch.repeat_interleave(each, counts, output_size=len(self.joint))
        matrix = self.value.new_zeros(len(counts), self.num_joints)
        matrix[vertex, self.joint.long()] = self.value
        return matrix

    @cached_property
    def matrix(self) -> Tensor:
        """`dense`, made once."""
        return self.dense()

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """start, joint and value as numpy's."""
        return self.start.numpy(), self.joint.numpy(), self.value.numpy()


def skin_reference(shaped: Tensor, transforms: Tensor, weights: SkinningWeights) -> Tensor:
    """Vertices (B, V, 3) of the rest shape moved by their joints' transforms (B, J, 3, 4)."""
    blended = (weights.matrix @ transforms.flatten(2)).unflatten(2, (3, 4))
    return torch.einsum("bvrc,bvc->bvr", blended[..., :3], shaped) + blended[..., 3]


def skin(shaped: Tensor, transforms: Tensor, weights: SkinningWeights) -> Tensor:
    """`skin_reference` by the fastest way the device and type have."""
    if shaped.device.type != "cpu" or shaped.dtype != torch.float32:
        return skin_reference(shaped, transforms, weights)
    return _Skin.apply(shaped, transforms, weights)


class _Skin(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, shaped: Tensor, transforms: Tensor, weights: SkinningWeights) -> Tensor:
        rest = shaped.detach().contiguous()
        moves = transforms.detach().contiguous()
        vertices = torch.empty_like(rest)
        arrays = rest.numpy(), moves.numpy(), *weights.arrays(), vertices.numpy()
        over_images(lambda start, stop: _skin_forward(start, stop, *arrays), len(rest))
        ctx.save_for_backward(rest, moves)
        ctx.weights = weights
        return vertices

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        rest, moves = ctx.saved_tensors
        weights: SkinningWeights = ctx.weights
        d_rest, d_moves = torch.empty_like(rest), torch.zeros_like(moves)
        given = rest.numpy(), moves.numpy(), *weights.arrays(), grads[0].contiguous().numpy()
        arrays = *given, d_rest.numpy(), d_moves.numpy()
        over_images(lambda start, stop: _skin_backward(start, stop, *arrays), len(rest))
        return d_rest, d_moves, None


@kernel(fastmath=True)
def _skin_forward(first, last, rest, moves, start, joint, value, vertices):
    for b in range(first, last):
        m = np.empty((3, 4), np.float32)
        for v in range(rest.shape[1]):
            m[:] = 0
            for entry in range(start[v], start[v + 1]):
                w, a = value[entry], moves[b, joint[entry]]
                for r in range(3):
                    for c in range(4):
                        m[r, c] += w * a[r, c]
            x, y, z = rest[b, v, 0], rest[b, v, 1], rest[b, v, 2]
            for r in range(3):
                vertices[b, v, r] = m[r, 0] * x + m[r, 1] * y + m[r, 2] * z + m[r, 3]


@kernel(fastmath=True)
def _skin_backward(first, last, rest, moves, start, joint, value, grad, d_rest, d_moves):
    for b in range(first, last):
        for v in range(rest.shape[1]):
            x, y, z = rest[b, v, 0], rest[b, v, 1], rest[b, v, 2]
            gx, gy, gz = grad[b, v, 0], grad[b, v, 1], grad[b, v, 2]
            sx, sy, sz = np.float32(0), np.float32(0), np.float32(0)
            for entry in range(start[v], start[v + 1]):
                w, a, d = value[entry], moves[b, joint[entry]], d_moves[b, joint[entry]]
                sx += w * (a[0, 0] * gx + a[1, 0] * gy + a[2, 0] * gz)
                sy += w * (a[0, 1] * gx + a[1, 1] * gy + a[2, 1] * gz)
                sz += w * (a[0, 2] * gx + a[1, 2] * gy + a[2, 2] * gz)
                for r in range(3):
                    wg = w * grad[b, v, r]
                    d[r, 0] += wg * x
                    d[r, 1] += wg * y
                    d[r, 2] += wg * z
                    d[r, 3] += wg
            d_rest[b, v, 0], d_rest[b, v, 1], d_rest[b, v, 2] = sx, sy, sz
