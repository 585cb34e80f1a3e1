"""Rotations: axis-angle vectors, matrices, and the 6D representation of SPIN and DSR. All functions are batched."""

from __future__ import annotations

import roma
import torch
from torch import Tensor


def skew(vectors: Tensor) -> Tensor:
    """(..., 3) -> (..., 3, 3) with `skew(a) @ b == cross(a, b)`."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))


def axis_angle_to_matrix(vectors: Tensor) -> Tensor:
    """(..., 3) -> (..., 3, 3); smooth at zero."""
    return roma.rotvec_to_rotmat(vectors)


def matrix_to_axis_angle(matrices: Tensor) -> Tensor:
    """(..., 3, 3) -> (..., 3), the vector of length at most pi; smooth at the identity."""
    return roma.rotmat_to_rotvec(matrices)


def log_jacobian(vectors: Tensor) -> Tensor:
    """d log(R exp(delta)) / d delta at delta = 0 with R = exp(vectors): SO(3)'s inverse right Jacobian, (..., 3, 3)."""
    squared = (vectors * vectors).sum(-1)[..., None, None]
    small = squared < 1e-6
    angle = torch.where(small, torch.ones_like(squared), squared).sqrt()
    half = angle / 2
    factor = torch.where(small, torch.full_like(squared, 1 / 12), (1 - half / half.tan()) / (angle * angle))
    cross = skew(vectors)
    eye = torch.eye(3, dtype=vectors.dtype, device=vectors.device)
    return eye + 0.5 * cross + factor * (cross @ cross)


def rotation_between(source: Tensor, target: Tensor) -> Tensor:
    """(..., 3, 3) smallest rotation that turns the direction `source` (..., 3) into `target` (..., 3)."""
    a = torch.nn.functional.normalize(source, dim=-1)
    b = torch.nn.functional.normalize(target, dim=-1)
    cross = skew(torch.linalg.cross(a, b))
    cosine = (a * b).sum(-1)[..., None, None]
    eye = torch.eye(3, dtype=source.dtype, device=source.device)
    return eye + cross + cross @ cross / (1 + cosine).clamp(min=1e-6)


def angle_between(first: Tensor, second: Tensor) -> Tensor:
    """(...) geodesic distance in radians of rotation matrices (..., 3, 3)."""
    turn = second.mT @ first
    cosine = (turn.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    skewed = turn - turn.mT
    sine = torch.stack([skewed[..., 2, 1], skewed[..., 0, 2], skewed[..., 1, 0]], -1).norm(dim=-1) / 2
    return torch.atan2(sine, cosine)


def sixd_to_matrix(sixd: Tensor) -> Tensor:
    """SPIN's 6D: Gram-Schmidt on the two columns of the (3, 2) view of 6 numbers, (..., 6) -> (..., 3, 3)."""
    first, second = sixd.unflatten(-1, (3, 2)).unbind(-1)
    b1 = torch.nn.functional.normalize(first, dim=-1)
    b2 = torch.nn.functional.normalize(second - (b1 * second).sum(-1, keepdim=True) * b1, dim=-1)
    return torch.stack([b1, b2, torch.linalg.cross(b1, b2)], -1)


def matrix_to_sixd(matrices: Tensor) -> Tensor:
    """The first two columns in SPIN's order, (..., 3, 3) -> (..., 6)."""
    return matrices[..., :2].flatten(-2)
