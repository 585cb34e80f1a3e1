"""Soft light for a picture: how much of a sky with one bright window each surface point sees."""

from __future__ import annotations

import numpy as np

from open_body.picture import rasterize

DIRECTIONS = 160
MAP_SIZE = 700
BIAS = 0.008  # metres; keeps a surface from shading itself


def sky(count: int = DIRECTIONS) -> tuple[np.ndarray, np.ndarray]:
    """Directions (N, 3) over the sphere, y up, and their radiance: a window, a dim sky, a dimmer floor."""
    k = np.arange(count) + 0.5
    height = 1 - 2 * k / count
    turn = np.pi * (1 + 5**0.5) * k
    ring = np.sqrt(1 - height**2)
    directions = np.stack([ring * np.cos(turn), height, ring * np.sin(turn)], 1)
    window = directions @ (np.array([-0.55, 0.62, 0.62]) / np.linalg.norm([-0.55, 0.62, 0.62]))
    fill = directions @ (np.array([0.8, 0.25, 0.3]) / np.linalg.norm([0.8, 0.25, 0.3]))
    radiance = (
        0.16 + 0.22 * (height > 0) * height + 1.9 * np.exp((window - 1) / 0.05) + 0.28 * np.exp((fill - 1) / 0.15)
    )
    return directions, radiance * np.where(height < 0, 0.7, 1.0)


def irradiance(points: np.ndarray, normals: np.ndarray, vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Light (N,) that reaches points and normals (N, 3), y up, past the occluding mesh (V, 3), (F, 3)."""
    total = np.zeros(len(points))
    low, high = vertices.min(0), vertices.max(0)
    scale = MAP_SIZE / (1.05 * np.linalg.norm(high - low))
    middle = (low + high) / 2
    for direction, radiance in zip(*sky(), strict=True):
        across = np.cross(direction, [0.0, 1.0, 0.0])
        across /= np.linalg.norm(across)
        view = np.stack([across, np.cross(across, direction), -direction])

        def on_map(x: np.ndarray, view: np.ndarray = view) -> np.ndarray:
            return (x - middle) @ view.T * scale + np.array([MAP_SIZE / 2, MAP_SIZE / 2, 0.0])

        corners = on_map(vertices)
        face_map, bary_map = rasterize(corners, faces, MAP_SIZE, MAP_SIZE)
        depth = np.where(face_map >= 0, (corners[faces[face_map], 2] * bary_map).sum(2), np.inf)
        seen = on_map(points)
        column, row = (seen[:, :2].T.astype(int)).clip(0, MAP_SIZE - 1)
        outside = ((seen[:, :2] < 0) | (seen[:, :2] >= MAP_SIZE)).any(1)
        lit = outside | (seen[:, 2] - BIAS * scale < depth[row, column])
        total += radiance * (normals @ direction).clip(0.0) * lit
    return total * 4 / DIRECTIONS
