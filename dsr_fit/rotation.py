"""Rotations: axis-angle vectors, matrices, and the 6D representation of SPIN and DSR. All functions are batched."""

from __future__ import annotations

import torch
from torch import Tensor


def skew(vectors: Tensor) -> Tensor:
    """(..., 3) -> (..., 3, 3) with `skew(a) @ b == cross(a, b)`."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))


def axis_angle_to_matrix(vectors: Tensor) -> Tensor:
    """Rodrigues' formula, (..., 3) -> (..., 3, 3); smooth at zero, where its series replaces it."""
    squared = (vectors * vectors).sum(-1, keepdim=True)
    small = squared < 1e-6
    safe = torch.where(small, torch.ones_like(squared), squared)
    angle = safe.sqrt()
    first = torch.where(small, 1 - squared / 6, angle.sin() / angle)[..., None]
    second = torch.where(small, 0.5 - squared / 24, (1 - angle.cos()) / safe)[..., None]
    outer = vectors[..., :, None] * vectors[..., None, :]
    eye = torch.eye(3, dtype=vectors.dtype, device=vectors.device)
    return eye + first * skew(vectors) + second * (outer - squared[..., None] * eye)


def matrix_to_quaternion(matrices: Tensor) -> Tensor:
    """(..., 3, 3) -> (..., 4) unit quaternions w, x, y, z with w >= 0.

    The largest of the four squared components picks the formula (Shepperd's method), so that it holds near pi.
    """
    (xx, rxy, rxz), (ryx, yy, ryz), (rzx, rzy, zz) = (row.unbind(-1) for row in matrices.unbind(-2))
    trace = xx + yy + zz
    squares = torch.stack([1 + trace, 1 + 2 * xx - trace, 1 + 2 * yy - trace, 1 + 2 * zz - trace], -1)
    ww, xx, yy, zz = squares.unbind(-1)
    wx, wy, wz = rzy - ryz, rxz - rzx, ryx - rxy
    xy, xz, yz = rxy + ryx, rxz + rzx, ryz + rzy
    products = torch.stack([ww, wx, wy, wz, wx, xx, xy, xz, wy, xy, yy, yz, wz, xz, yz, zz], -1).unflatten(-1, (4, 4))
    best = squares.argmax(-1)[..., None, None].expand(*squares.shape[:-1], 1, 4)
    quaternion = torch.nn.functional.normalize(products.gather(-2, best).squeeze(-2), dim=-1)
    return torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)


def matrix_to_axis_angle(matrices: Tensor) -> Tensor:
    """(..., 3, 3) -> (..., 3), the vector of length at most pi."""
    quaternion = matrix_to_quaternion(matrices)
    w, xyz = quaternion[..., :1], quaternion[..., 1:]
    sine = xyz.norm(dim=-1, keepdim=True)
    angle = 2 * torch.atan2(sine, w)
    small = sine < 1e-6
    factor = torch.where(small, torch.full_like(sine, 2.0), angle / torch.where(small, torch.ones_like(sine), sine))
    return factor * xyz


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
