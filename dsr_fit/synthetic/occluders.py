"""Occluders in front of a person: a box, a pole, a table, a potted plant."""

from __future__ import annotations

import numpy as np

from dsr_fit.labels import OCCLUDER
from dsr_fit.synthetic.garments import Piece
from dsr_fit.synthetic.staging import Camera

KINDS = ("box", "pole", "table", "plant")

_BOX_FACES = np.array([
    (0, 2, 1), (1, 2, 3), (4, 5, 6), (5, 7, 6), (0, 1, 4), (1, 5, 4), (2, 6, 3), (3, 6, 7), (0, 4, 2),
    (2, 4, 6), (1, 3, 5), (3, 7, 5),
])  # fmt: skip


def _box(centre: tuple[float, float, float], size: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """A box, (36, 3) corners repeated for each face and (12, 3) faces. x right, y up, z towards the camera."""
    signs = np.array([(x, y, z) for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
    corners = np.array(centre) + signs * np.array(size)
    return corners[_BOX_FACES].reshape(-1, 3), np.arange(36).reshape(12, 3)


def _tube(bottom: np.ndarray, top: np.ndarray, radius: float, top_radius: float) -> tuple[np.ndarray, np.ndarray]:
    angle = np.linspace(0, 2 * np.pi, 25)
    ring = np.stack([np.cos(angle), np.zeros(25), np.sin(angle)], 1)
    points = np.concatenate([bottom + radius * ring, top + top_radius * ring])
    k = np.arange(24)
    faces = np.concatenate([np.stack([k, k + 25, k + 1], 1), np.stack([k + 1, k + 25, k + 26], 1)])
    return points, faces


def _leaf(rng: np.random.Generator, root: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    turn, lift, length = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 1.4), rng.uniform(0.2, 0.5)
    out = np.array([np.cos(turn), 0, np.sin(turn)])
    across = np.array([-np.sin(turn), 0, np.cos(turn)])
    t = np.linspace(0, 1, 9)
    spine = root + length * (
        t[:, None] * np.cos(lift) * out + (t * np.sin(lift) - 0.35 * t**2)[:, None] * np.array([0, 1, 0])
    )
    width = rng.uniform(0.02, 0.06) * np.sin(np.pi * (0.05 + 0.95 * t)) ** 0.8
    points = np.concatenate([spine - width[:, None] * across, spine + width[:, None] * across])
    k = np.arange(8)
    return points, np.concatenate([np.stack([k, k + 1, k + 9], 1), np.stack([k + 1, k + 10, k + 9], 1)])


def _joined(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    starts = np.cumsum([0, *(len(points) for points, _ in parts)])
    faces = [f + s for (_, f), s in zip(parts, starts[:-1], strict=True)]
    return np.concatenate([p for p, _ in parts]), np.concatenate(faces)


def _shape(kind: str, tall: float, rng: np.random.Generator) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Parts (material, points, faces) standing on y = 0 around x = z = 0, for a person of height `tall`."""
    if kind == "box":
        size = (rng.uniform(0.3, 0.6), rng.uniform(0.25, 0.5) * tall, rng.uniform(0.2, 0.4))
        return [("occluder", *_box((0, size[1] / 2, 0), size))]
    if kind == "pole":
        radius = rng.uniform(0.03, 0.07)
        return [("occluder", *_tube(np.zeros(3), np.array([0, 3.2, 0]), radius, radius))]
    if kind == "table":
        wide, high, deep = rng.uniform(0.8, 1.5), rng.uniform(0.38, 0.46) * tall, rng.uniform(0.3, 0.5)
        corners = [(x * (wide / 2 - 0.05), z * (deep / 2 - 0.05)) for x in (-1, 1) for z in (-1, 1)]
        legs = [_box((x, high / 2, z), (0.05, high, 0.05)) for x, z in corners]
        return [("occluder", *_joined([_box((0, high, 0), (wide, 0.05, deep)), *legs]))]
    pot = rng.uniform(0.2, 0.35)
    parts = [_leaf(rng, np.array([0, pot, 0]) + rng.normal(0, 0.04, 3) * [1, 4, 1]) for _ in range(34)]
    vessel = _tube(np.zeros(3), np.array([0.0, pot, 0.0]), 0.11, 0.15)
    return [("occluder", *vessel), ("leaves", *_joined(parts))]


def occluder(camera: Camera, body: np.ndarray, rng: np.random.Generator) -> tuple[list[Piece], str]:
    """An occluder between the camera and part of the body (V, 3), below the head, and its kind."""
    kind = str(rng.choice(KINDS))
    up = -camera.down
    height = (body - camera.floor) @ up
    tall = float(height.max())
    right = camera.rotation[:, 0]
    towards = camera.rotation[:, 2]
    side = (body - camera.floor) @ right
    forward = (body - camera.floor) @ towards
    gap = rng.uniform(0.1, 0.25) + 0.3
    nearness = min(float(forward.max()) + gap, 0.75 * float(-(camera.floor @ towards)))
    place = float(rng.uniform(*np.quantile(side, [0.2, 0.8])))
    if kind == "pole":
        place += 0.16 * (1 if place > np.median(side) else -1)
    # On the same viewing ray, nearer to the camera.
    distance = float(-(camera.floor @ towards))
    lateral = float(camera.floor @ right)
    place = (lateral + place) * (distance - nearness) / distance - lateral
    turn = rng.uniform(-0.5, 0.5)
    axes = np.stack([np.cos(turn) * right + np.sin(turn) * towards, up, np.cos(turn) * towards - np.sin(turn) * right])
    origin = camera.floor + place * right + nearness * towards
    pieces = []
    for material, points, faces in _shape(kind, min(tall, 1.7), rng):
        uv = np.stack([points[:, 0] + points[:, 2], points[:, 1]], 1)
        pieces.append(Piece(kind, material, OCCLUDER, points @ axes + origin, faces, points, uv))
    return pieces, kind
