"""Small scenes for the renderer's tests, each made in a few lines; clip-space positions unless said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import trimesh
from torch import Tensor


@dataclass(frozen=True)
class Scene:
    pos: Tensor  # (B, V, 4) clip space
    tri: Tensor  # (F, 3) int32
    resolution: tuple[int, int]  # H, W


def _clip(points: object, depth: object = 1.0) -> Tensor:
    """Positions from x/w, y/w, z/w (V, 3) and w."""
    points = np.asarray(points, np.float64)
    w = np.broadcast_to(np.asarray(depth, np.float64), len(points))
    return torch.tensor(np.c_[points * w[:, None], w][None], dtype=torch.float32)


def _tri(faces: object) -> Tensor:
    return torch.tensor(np.asarray(faces), dtype=torch.int32)


def one_triangle() -> Scene:
    points = [[-0.71, -0.62, 0.1], [0.83, -0.31, 0.2], [0.05, 0.77, -0.3]]
    return Scene(_clip(points, [1.0, 2.5, 0.7]), _tri([[0, 1, 2]]), (12, 20))


def shared_edge() -> Scene:
    """A quadrilateral of two triangles."""
    points = [[-0.8, -0.7, 0], [0.7, -0.75, 0], [0.8, 0.7, 0], [-0.7, 0.6, 0]]
    return Scene(_clip(points, [1, 2, 1, 3]), _tri([[0, 1, 2], [0, 2, 3]]), (24, 24))


def folded() -> Scene:
    """A sheet folded over itself: its crease is an outline inside the mesh."""
    u, v = np.meshgrid(np.linspace(-1, 1, 6), np.linspace(-1, 1, 6), indexing="xy")
    points = np.stack([0.8 * np.sin(2.2 * u), 0.8 * v + 0.05 * u, -0.4 * np.cos(2.2 * u)], -1).reshape(-1, 3)
    return Scene(_clip(points), _tri(_grid(6)), (24, 24))


def borders() -> Scene:
    """An open sheet, wavy in depth: all of its outline is border."""
    u, v = np.meshgrid(np.linspace(-1, 1, 5), np.linspace(-1, 1, 5), indexing="xy")
    points = np.stack([0.7 * u + 0.1 * v, 0.7 * v - 0.2 * u, 0.2 * np.sin(3 * u)], -1).reshape(-1, 3)
    points += np.random.default_rng(1).normal(0, 0.01, points.shape)  # no two depths or slopes alike
    return Scene(_clip(points, np.linspace(0.6, 2.0, 25)), _tri(_grid(5)), (20, 28))


def off_screen() -> Scene:
    points = [[-3.0, -0.5, 0], [0.4, -2.5, 0.1], [0.6, 0.9, 0.2], [2.5, 0.3, -0.1], [0.1, 5.0, 0.0]]
    return Scene(_clip(points), _tri([[0, 1, 2], [1, 3, 2], [2, 3, 4]]), (18, 18))


def behind_camera() -> Scene:
    """Two of the four vertices lie behind the camera, one exactly in its plane."""
    corners = [[-0.5, -0.6, 0.2, 1.0], [0.7, -0.4, 0.1, 1.5], [0.3, 1.0, 0.4, -0.5], [-0.4, 0.9, 0.1, 0.0]]
    return Scene(torch.tensor([corners]), _tri([[0, 1, 2], [0, 1, 3], [2, 3, 0]]), (16, 16))


def one_behind_camera() -> Scene:
    """One vertex of a fan lies behind the camera, none in its plane."""
    corners = [[-0.5, -0.6, 0.2, 1.0], [0.7, -0.4, 0.1, 1.5], [0.3, 1.0, 0.4, -0.5], [-0.8, 0.5, 0.1, 0.9]]
    return Scene(torch.tensor([corners]), _tri([[0, 1, 2], [2, 3, 0], [0, 1, 3]]), (18, 22))


def depth_order() -> Scene:
    """Two images: a stack of triangles, one of them outside the depth range, in either order; they also
    intersect."""
    generator = np.random.default_rng(5)
    points = generator.uniform(-0.9, 0.9, (2, 24, 3)) * [1, 1, 1.2]
    pos = torch.cat([_clip(p, generator.uniform(0.5, 2.0, 24)) for p in points])
    return Scene(pos, _tri(np.arange(24).reshape(8, 3)), (20, 20))


def sphere() -> Scene:
    mesh = trimesh.creation.icosphere(subdivisions=2, radius=1.0)
    points = np.asarray(mesh.vertices) * [0.7, 0.8, 0.5]
    points += np.random.default_rng(2).normal(0, 0.01, points.shape)
    return Scene(_clip(points, 1.5 + 0.4 * mesh.vertices[:, 0]), _tri(mesh.faces), (28, 28))


def _grid(side: int) -> list[list[int]]:
    faces = []
    for i in range(side - 1):
        for j in range(side - 1):
            k = i * side + j
            faces += [[k, k + 1, k + side], [k + 1, k + side + 1, k + side]]
    return faces


SCENES: dict[str, Callable[[], Scene]] = {
    scene.__name__: scene
    for scene in (
        one_triangle, shared_edge, folded, borders, off_screen, behind_camera, one_behind_camera, depth_order,
        sphere,
    )
}  # fmt: skip
OFF_THE_CAMERA_PLANE = [name for name in SCENES if name != "behind_camera"]
