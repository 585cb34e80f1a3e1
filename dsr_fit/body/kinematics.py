"""From axis-angle poses to the joints' transforms as one operator with a backward pass of its own.

A chain of 24 small matrices is all overhead in torch (some two hundred calls forward and backward). On a CPU one numba
kernel each way does it; `transforms_reference` is the readable twin, and what runs on other devices and types.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from dsr_fit.compilation import kernel
from dsr_fit.rotation import axis_angle_to_matrix

if TYPE_CHECKING:
    from dsr_fit.body.body import Skeleton


def transforms_reference(pose: Tensor, rest: Tensor, skeleton: Skeleton) -> tuple[Tensor, Tensor]:
    """Local rotations (B, J, 3, 3) of axis-angle (B, J, 3), and each joint's transform (B, J, 3, 4) relative to rest.

    `rest` (B, J, 3) metres are the joints of the rest pose.
    """
    rotations = axis_angle_to_matrix(pose)
    return rotations, skeleton.transforms(rotations, rest)


def transforms(pose: Tensor, rest: Tensor, skeleton: Skeleton) -> tuple[Tensor, Tensor]:
    """`transforms_reference` by the fastest way the device and type have."""
    if pose.device.type != "cpu" or pose.dtype != torch.float32:
        return transforms_reference(pose, rest, skeleton)
    return _Transforms.apply(pose, rest, np.array(skeleton.parents))


class _Transforms(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pose: Tensor, rest: Tensor, parents: np.ndarray) -> tuple[Tensor, Tensor]:
        pose, rest = pose.detach().contiguous(), rest.detach().contiguous()
        batch, joints = pose.shape[:2]
        local, moves = pose.new_empty(batch, joints, 3, 3), pose.new_empty(batch, joints, 3, 4)
        _forward(pose.numpy(), rest.numpy(), parents, local.numpy(), moves.numpy())
        ctx.save_for_backward(pose, rest, local, moves)
        ctx.parents = parents
        return local, moves

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        pose, rest, local, moves = ctx.saved_tensors
        d_local, d_moves = (grad.contiguous() for grad in grads)
        d_pose, d_rest = torch.empty_like(pose), torch.empty_like(rest)
        _backward(
            pose.numpy(), rest.numpy(), ctx.parents, local.numpy(), moves.numpy(), d_local.numpy(), d_moves.numpy(),
            d_pose.numpy(), d_rest.numpy(),
        )  # fmt: skip
        return d_pose, d_rest, None


@kernel
def _coefficients(squared):
    """sin(t)/t, (1 - cos t)/t^2, and their derivatives by t over t, for t^2; series near zero."""
    if squared < 1e-4:
        return 1 - squared / 6, 0.5 - squared / 24, -1 / 3 + squared / 30, -1 / 12 + squared / 180
    angle = math.sqrt(squared)
    first, cosine = math.sin(angle) / angle, math.cos(angle)
    second = (1 - cosine) / squared
    return first, second, (cosine - first) / squared, (first - 2 * second) / squared


@kernel
def _forward(pose, rest, parents, local, moves):
    joints = len(parents)
    for b in range(len(pose)):
        for j in range(joints):
            x, y, z = float(pose[b, j, 0]), float(pose[b, j, 1]), float(pose[b, j, 2])
            squared = x * x + y * y + z * z
            s, c, _, _ = _coefficients(squared)
            cosine = 1 - c * squared
            rotation = local[b, j]
            rotation[0, 0], rotation[0, 1], rotation[0, 2] = cosine + c * x * x, c * x * y - s * z, c * x * z + s * y
            rotation[1, 0], rotation[1, 1], rotation[1, 2] = c * x * y + s * z, cosine + c * y * y, c * y * z - s * x
            rotation[2, 0], rotation[2, 1], rotation[2, 2] = c * x * z - s * y, c * y * z + s * x, cosine + c * z * z
            p, move = parents[j], moves[b, j]
            if p < 0:
                for r in range(3):
                    move[r, 3] = rest[b, j, r]  # holds the joint's place until the end
                    for k in range(3):
                        move[r, k] = rotation[r, k]
            else:
                above = moves[b, p]
                for r in range(3):
                    place = above[r, 3]
                    for k in range(3):
                        place += above[r, k] * (rest[b, j, k] - rest[b, p, k])
                        total = above[r, 0] * rotation[0, k] + above[r, 1] * rotation[1, k]
                        move[r, k] = total + above[r, 2] * rotation[2, k]
                    move[r, 3] = place
        for j in range(joints):
            for r in range(3):
                for k in range(3):
                    moves[b, j, r, 3] -= moves[b, j, r, k] * rest[b, j, k]


@kernel
def _backward(pose, rest, parents, local, moves, d_local, d_moves, d_pose, d_rest):
    joints = len(parents)
    d_world, d_place = np.empty((joints, 3, 3)), np.empty((joints, 3))
    turn = np.empty((3, 3))
    for b in range(len(pose)):
        for j in range(joints):
            for k in range(3):
                pulled = 0.0
                for r in range(3):
                    d_world[j, r, k] = d_moves[b, j, r, k] - d_moves[b, j, r, 3] * rest[b, j, k]
                    pulled += moves[b, j, r, k] * d_moves[b, j, r, 3]
                d_rest[b, j, k] = -pulled
                d_place[j, k] = d_moves[b, j, k, 3]
        for j in range(joints - 1, -1, -1):
            p = parents[j]
            if p < 0:
                for r in range(3):
                    d_rest[b, j, r] += d_place[j, r]
                    for k in range(3):
                        turn[r, k] = d_world[j, r, k] + d_local[b, j, r, k]
            else:
                above = moves[b, p]
                for k in range(3):
                    offset, pulled = rest[b, j, k] - rest[b, p, k], 0.0
                    for r in range(3):
                        pulled += above[r, k] * d_place[j, r]
                        turned = d_place[j, r] * offset
                        for m in range(3):
                            turned += d_world[j, r, m] * local[b, j, k, m]
                        d_world[p, r, k] += turned
                    d_place[p, k] += d_place[j, k]
                    d_rest[b, j, k] += pulled
                    d_rest[b, p, k] -= pulled
                for r in range(3):
                    for k in range(3):
                        pulled = d_local[b, j, r, k]
                        for m in range(3):
                            pulled += above[m, r] * d_world[j, m, k]
                        turn[r, k] = pulled
            _turn_backward(pose[b, j], turn, d_pose[b, j])


@kernel
def _turn_backward(vector, g, out):
    """Gradient by the axis-angle vector of a loss whose gradient by the rotation matrix is `g`."""
    squared = 0.0
    for i in range(3):
        squared += float(vector[i]) * float(vector[i])
    s, c, s1, c1 = _coefficients(squared)
    trace = g[0, 0] + g[1, 1] + g[2, 2]
    cross = (g[2, 1] - g[1, 2], g[0, 2] - g[2, 0], g[1, 0] - g[0, 1])
    spin, stretch = 0.0, 0.0
    for i in range(3):
        spin += vector[i] * cross[i]
        for k in range(3):
            stretch += vector[i] * g[i, k] * vector[k]
    along = s1 * spin + c1 * stretch - s * trace
    for i in range(3):
        both = 0.0
        for k in range(3):
            both += (g[i, k] + g[k, i]) * vector[k]
        out[i] = along * vector[i] + s * cross[i] + c * both
