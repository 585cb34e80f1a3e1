"""Rotation vectors of matrices as one operator with a backward pass of its own.

`dsr_fit.rotation.matrix_to_axis_angle` is some forty calls of torch, and as many backward, for a few hundred numbers:
it is the readable twin, and what runs on a GPU.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dsr_fit.compilation import kernel
from dsr_fit.rotation import matrix_to_axis_angle


def rotation_vectors(matrices: Tensor) -> Tensor:
    """(..., 3, 3) -> (..., 3), the vector of length at most pi.

    Its gradient by a matrix lies along the rotations: what would leave them has none.
    """
    if matrices.device.type != "cpu":
        return matrix_to_axis_angle(matrices)
    return _RotationVectors.apply(matrices)  # type: ignore[return-value]


class _RotationVectors(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, matrices: Tensor) -> Tensor:
        matrices = matrices.detach().contiguous()
        vectors = matrices.new_empty(matrices.shape[:-1])
        _log(matrices.view(-1, 3, 3).numpy(), vectors.view(-1, 3).numpy())
        ctx.save_for_backward(matrices, vectors)
        return vectors

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        matrices, vectors = ctx.saved_tensors
        gradient = torch.empty_like(matrices)
        flat = (each.view(-1, 3).numpy() for each in (vectors, grads[0].contiguous()))
        _pull_log(matrices.view(-1, 3, 3).numpy(), *flat, gradient.view(-1, 3, 3).numpy())
        return gradient


@kernel
def _log(matrices, vectors):
    """By the quaternion, whose largest component picks the formula (Shepperd's method), so that it holds near pi."""
    q = np.empty(4)
    for n in range(len(matrices)):
        m = matrices[n]
        xx, yy, zz = float(m[0, 0]), float(m[1, 1]), float(m[2, 2])
        trace = xx + yy + zz
        wx, wy, wz = m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]
        xy, xz, yz = m[0, 1] + m[1, 0], m[0, 2] + m[2, 0], m[1, 2] + m[2, 1]
        ww, xx, yy, zz = 1 + trace, 1 + 2 * xx - trace, 1 + 2 * yy - trace, 1 + 2 * zz - trace
        if ww >= xx and ww >= yy and ww >= zz:
            q[0], q[1], q[2], q[3] = ww, wx, wy, wz
        elif xx >= yy and xx >= zz:
            q[0], q[1], q[2], q[3] = wx, xx, xy, xz
        elif yy >= zz:
            q[0], q[1], q[2], q[3] = wy, xy, yy, yz
        else:
            q[0], q[1], q[2], q[3] = wz, xz, yz, zz
        if q[0] < 0:
            for k in range(4):
                q[k] = -q[k]
        sine = math.sqrt(q[1] * q[1] + q[2] * q[2] + q[3] * q[3])
        length = math.sqrt(q[0] * q[0] + sine * sine)
        factor = 2 * math.atan2(sine, q[0]) / sine if sine > 1e-9 * length else 2 / q[0]
        for k in range(3):
            vectors[n, k] = factor * q[k + 1]


@kernel
def _pull_log(matrices, vectors, grads, out):
    """A turn R exp(delta) changes the vector by SO(3)'s inverse right Jacobian times delta; of all matrices that give
    delta its gradient g, R [g]x / 2 has no part that leaves the rotations."""
    for n in range(len(matrices)):
        m = matrices[n]
        x, y, z = float(vectors[n, 0]), float(vectors[n, 1]), float(vectors[n, 2])
        gx, gy, gz = float(grads[n, 0]), float(grads[n, 1]), float(grads[n, 2])
        squared = x * x + y * y + z * z
        factor = 1 / 12
        if squared > 1e-6:
            half = math.sqrt(squared) / 2
            factor = (1 - half / math.tan(half)) / squared
        cx, cy, cz = y * gz - z * gy, z * gx - x * gz, x * gy - y * gx
        gx += factor * (y * cz - z * cy) - cx / 2
        gy += factor * (z * cx - x * cz) - cy / 2
        gz += factor * (x * cy - y * cx) - cz / 2
        for r in range(3):
            out[n, r, 0] = (m[r, 1] * gz - m[r, 2] * gy) / 2
            out[n, r, 1] = (m[r, 2] * gx - m[r, 0] * gz) / 2
            out[n, r, 2] = (m[r, 0] * gy - m[r, 1] * gx) / 2
