"""Lighting: a key light with a shadow map, a fill light, a hemispheric sky, and screen-space ambient occlusion."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from dsr_fit.compilation import kernel
from dsr_fit.render.raster_kernels import project_screen, visible_triangles

SHADOW_SIZE = 512


class Lights(NamedTuple):
    """Directions are unit vectors towards the light, camera frame; radiances are linear."""

    key: np.ndarray  # (3,)
    key_colour: np.ndarray  # (3,)
    fill: np.ndarray
    fill_colour: np.ndarray
    up: np.ndarray
    sky: np.ndarray  # (3,) ambient from above
    ground: np.ndarray  # (3,) ambient from below
    exposure: float


@dataclass(frozen=True)
class ShadowMap:
    depth: np.ndarray  # (S, S) float32 along the light, metres / scale
    axes: np.ndarray  # (3, 3) rows: right, down, away from the light
    centre: np.ndarray  # (3,)
    half: float  # metres


def random_lights(rng: np.random.Generator, down: np.ndarray) -> Lights:
    """Random lights, the key light mostly from above on the camera's side."""
    up = -down
    away = np.array([0.0, 0.0, 1.0]) - up * up[2]
    away /= np.linalg.norm(away)
    right = np.cross(up, away)
    turn, lift = rng.normal(0, 0.9), rng.uniform(0.3, 1.2)
    key = np.cos(lift) * (np.sin(turn) * right - np.cos(turn) * away) + np.sin(lift) * up
    turn2 = turn + rng.choice([-1, 1]) * rng.uniform(1.2, 2.4)
    fill = np.cos(0.3) * (np.sin(turn2) * right - np.cos(turn2) * away) + np.sin(0.3) * up
    warm = rng.uniform(-1, 1)
    tint = np.array([1 + 0.12 * warm, 1.0, 1 - 0.15 * warm])
    strength = rng.uniform(0.25, 1.0)
    return Lights(
        key / np.linalg.norm(key), tint * 1.1 * strength, fill / np.linalg.norm(fill),
        tint[::-1] * rng.uniform(0.05, 0.3), up, tint[::-1] * (0.85 - 0.4 * strength),
        np.array([1.0, 0.95, 0.88]) * rng.uniform(0.2, 0.4) * (1.1 - 0.4 * strength),
        float(rng.uniform(1.0, 1.45)),
    )  # fmt: skip


def shadow_map(vertices: np.ndarray, faces: np.ndarray, light: np.ndarray) -> ShadowMap:
    """Depth of a mesh (V, 3), (F, 3) int32 from the light, over its bounding box."""
    centre = (vertices.min(0) + vertices.max(0)) / 2
    helper = np.array([0.0, 0.0, 1.0]) if abs(light[2]) < 0.9 else np.array([1.0, 0.0, 0.0])
    right = np.cross(light, helper)
    right /= np.linalg.norm(right)
    axes = np.stack([right, np.cross(light, right), -light])
    seen = (vertices - centre) @ axes.T
    half = 1.02 * float(np.abs(seen).max())
    pos = np.ones((len(vertices), 4), np.float32)
    pos[:, :3] = seen / half
    screen = np.empty((len(vertices), 3))
    project_screen(pos, SHADOW_SIZE, SHADOW_SIZE, screen)
    ids = np.empty((SHADOW_SIZE, SHADOW_SIZE), np.int32)
    depth = np.empty((SHADOW_SIZE, SHADOW_SIZE))
    visible_triangles(pos, faces, screen, ids, depth)
    depth[ids == 0] = np.inf
    return ShadowMap(depth.astype(np.float32), axes, centre, half)


@kernel(quick=True)
def _lit(points, axes, centre, half, depth, bias, radius, out):
    size = depth.shape[0]
    for k in range(len(points)):
        x, y, z = points[k, 0] - centre[0], points[k, 1] - centre[1], points[k, 2] - centre[2]
        u = (axes[0, 0] * x + axes[0, 1] * y + axes[0, 2] * z) / half
        v = (axes[1, 0] * x + axes[1, 1] * y + axes[1, 2] * z) / half
        w = (axes[2, 0] * x + axes[2, 1] * y + axes[2, 2] * z) / half - bias
        j, i = int((u + 1) * size / 2), int((v + 1) * size / 2)
        total, count = 0.0, 0
        for di in (-radius, 0, radius):
            for dj in (-radius, 0, radius):
                a, b = i + di, j + dj
                count += 1
                if a < 0 or b < 0 or a >= size or b >= size or w <= depth[a, b]:
                    total += 1.0
        out[k] = total / count


def lit(points: np.ndarray, shadow: ShadowMap, radius: int = 1, bias: float = 0.012) -> np.ndarray:
    """Fraction (N,) float32 of the key light reaching points (N, 3); `radius` in texels softens shadow edges."""
    out = np.empty(len(points), np.float32)
    _lit(points, shadow.axes, shadow.centre, shadow.half, shadow.depth, bias / shadow.half, radius, out)
    return out


def ambient_occlusion(depth: np.ndarray, covered: np.ndarray, scale: float) -> np.ndarray:
    """(H, W) float32, 1 in the open and lower in hollows, from depth in metres; `scale` is px per metre."""
    mask = covered.astype(np.float32)
    z = np.where(covered, depth, 0).astype(np.float32)
    out = np.ones(depth.shape, np.float32)
    for reach, weight in ((0.03, 0.35), (0.10, 0.45)):
        sigma = max(reach * scale, 0.5)
        mean = cv2.GaussianBlur(z, (0, 0), sigma) / np.maximum(cv2.GaussianBlur(mask, (0, 0), sigma), 1e-3)
        hollow = ((z - mean) / (1.2 * reach)).clip(0, 1)
        out *= 1 - weight * np.sqrt(hollow)
    return out


@kernel(quick=True)
def shade(colour, gloss, normal, sight, facing, lit, occlusion, lights, out):
    """Lit sRGB colours into out (N, 3).

    `facing` is negative for the inside of a garment.
    """
    to_key, to_fill, upwards = lights.key, lights.fill, lights.up
    for k in range(len(colour)):
        n0, n1, n2 = normal[k, 0], normal[k, 1], normal[k, 2]
        inverse = 1.0 / np.sqrt(n0 * n0 + n1 * n1 + n2 * n2 + 1e-12)
        if facing[k] < 0:
            inverse = -inverse
        n0, n1, n2 = n0 * inverse, n1 * inverse, n2 * inverse
        key = max(n0 * to_key[0] + n1 * to_key[1] + n2 * to_key[2] + 0.08, 0.0) / 1.08 * lit[k]
        fill = max(n0 * to_fill[0] + n1 * to_fill[1] + n2 * to_fill[2] + 0.2, 0.0) / 1.2
        up = 0.5 + 0.5 * (n0 * upwards[0] + n1 * upwards[1] + n2 * upwards[2])
        h0, h1, h2 = to_key[0] - sight[k, 0], to_key[1] - sight[k, 1], to_key[2] - sight[k, 2]
        h = max(n0 * h0 + n1 * h1 + n2 * h2, 0.0) / np.sqrt(h0 * h0 + h1 * h1 + h2 * h2 + 1e-9)
        shine = gloss[k] * h**20 * lit[k]
        dim = 0.45 if facing[k] < 0 else 1.0
        for c in range(3):
            ambient = (lights.sky[c] * up + lights.ground[c] * (1 - up)) * occlusion[k]
            light = dim * (
                ambient + lights.key_colour[c] * key + lights.fill_colour[c] * fill * (0.5 + 0.5 * occlusion[k])
            )
            linear = ((colour[k, c] / 255.0) ** 2.2 * light + 0.5 * shine * lights.key_colour[c]) * lights.exposure
            out[k, c] = 255.0 * min(linear / (1 + 0.12 * linear), 1.0) ** (1 / 2.2)
