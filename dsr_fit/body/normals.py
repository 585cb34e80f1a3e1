"""Normals of a mesh's vertices."""

from __future__ import annotations

import torch
from torch import Tensor


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """(..., V, 3) unit normals, area-weighted means of the faces'; outwards where these wind counter-clockwise.

    `vertices` (..., V, 3), `faces` (F, 3) int64.
    """
    a, b, c = (vertices[..., faces[:, corner], :] for corner in range(3))
    area = torch.linalg.cross(b - a, c - a)
    normals = torch.zeros_like(vertices)
    for corner in range(3):
        normals.index_add_(-2, faces[:, corner], area)
    return torch.nn.functional.normalize(normals, dim=-1)
