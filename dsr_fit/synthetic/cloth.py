"""Cloth that hangs off the body, skirts and long hair: sheets of rings, simulated under gravity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from dsr_fit.compilation import kernel

AROUND = 72
ROUNDS, STEPS = 5, 8  # nearest obstacle points are found once per round
GRAVITY = 0.0011  # metres per step
DAMPING = 0.85


@dataclass(frozen=True)
class Sheet:
    """R rings of C points each; `closed` joins the last column to the first."""

    points: np.ndarray  # (R, C, 3)
    closed: bool

    @property
    def faces(self) -> np.ndarray:
        """(F, 3)"""
        rings, columns = self.points.shape[:2]
        index = np.arange(rings * columns).reshape(rings, columns)
        if self.closed:
            index = np.concatenate([index, index[:, :1]], 1)
        a, b, c, d = index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]
        return np.concatenate([np.stack([a, d, b], -1).reshape(-1, 3), np.stack([b, d, c], -1).reshape(-1, 3)])

    def coordinates(self) -> np.ndarray:
        """(R * C, 2) texture coordinates, metres along each ring from its middle column, and down."""
        around = np.linalg.norm(np.diff(self.points, axis=1), axis=-1).mean(0)
        around = np.concatenate([[0], np.cumsum(around)])
        down = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(self.points, axis=0), axis=-1).mean(1))])
        u, v = np.meshgrid(np.abs(around - around.mean()), -down)
        return np.stack([u.ravel(), v.ravel()], 1)

    def springs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pairs (E, 2), rest lengths (E,) and stiffness (E,): along, across, and against bending."""
        rings, columns = self.points.shape[:2]
        index = np.arange(rings * columns).reshape(rings, columns)
        pairs, stiffness = [], []
        offsets = (0, 1, 0.8), (1, 0, 0.8), (1, 1, 0.25), (1, -1, 0.25), (2, 0, 0.15), (0, 2, 0.15)
        for dr, dc, strength in offsets:
            other = np.roll(index, -dc, axis=1)[dr:]
            pair = np.stack([index[: rings - dr], other], -1)
            if not self.closed and dc:
                pair = pair[:, :-dc] if dc > 0 else pair[:, -dc:]
            pairs.append(pair.reshape(-1, 2))
            stiffness.append(np.full(len(pairs[-1]), strength))
        edges = np.concatenate(pairs)
        flat = self.points.reshape(-1, 3)
        return edges, np.linalg.norm(flat[edges[:, 0]] - flat[edges[:, 1]], axis=1), np.concatenate(stiffness)


def support(points: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """(len(angles),) support function of points (N, 2) in the directions (sin a, cos a)."""
    return (points @ np.stack([np.sin(angles), np.cos(angles)])).max(0)


def hull_ring(reach: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """The convex curve (C, 2) with this support function at evenly spaced angles of a full turn.

    A convex set with support function h has the boundary h d + h' d', d the direction and d' its derivative
    (Schneider, Convex Bodies, section 1.7).
    """
    spectrum = np.fft.rfft(reach)
    order = np.arange(len(spectrum))
    spectrum = np.where(order <= 8, spectrum, 0)
    smooth = np.fft.irfft(spectrum, len(reach))
    slope = np.fft.irfft(spectrum * 1j * order, len(reach))
    direction = np.stack([np.sin(angles), np.cos(angles)], 1)
    across = np.stack([np.cos(angles), -np.sin(angles)], 1)
    return smooth[:, None] * direction + slope[:, None] * across


@kernel(quick=True)
def _settle(x, before, edges, length, stiffness, free, push, point, normal, ease, steps, damping):
    for _ in range(steps):
        for v in range(len(x)):
            if free[v]:
                for c in range(3):
                    moved = x[v, c] + damping * (x[v, c] - before[v, c]) + push[c]
                    before[v, c] = x[v, c]
                    x[v, c] = moved
        for _sweep in range(2):
            for k in range(len(edges)):
                a, b = edges[k, 0], edges[k, 1]
                dx, dy, dz = x[b, 0] - x[a, 0], x[b, 1] - x[a, 1], x[b, 2] - x[a, 2]
                distance = np.sqrt(dx * dx + dy * dy + dz * dz) + 1e-9
                wa, wb = 1.0 if free[a] else 0.0, 1.0 if free[b] else 0.0
                if wa + wb == 0.0:
                    continue
                s = stiffness[k] * (distance - length[k]) / distance / (wa + wb)
                x[a, 0] += wa * s * dx
                x[a, 1] += wa * s * dy
                x[a, 2] += wa * s * dz
                x[b, 0] -= wb * s * dx
                x[b, 1] -= wb * s * dy
                x[b, 2] -= wb * s * dz
        for v in range(len(x)):
            inside = 0.0
            for c in range(3):
                inside += (x[v, c] - point[v, c]) * normal[v, c]
            if inside < ease:
                for c in range(3):
                    x[v, c] += (ease - inside) * normal[v, c]


def settle(
    sheet: Sheet, posed: np.ndarray, pinned: np.ndarray, obstacle: np.ndarray, normals: np.ndarray,
    down: np.ndarray, ease: float, held: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Drop a sheet onto an obstacle by position based dynamics (Mueller et al. 2007): its points (R, C, 3).

    `sheet` gives the rest lengths, `posed` (R, C, 3) the initial points, `pinned` (R, C) bool those that don't move.
    `held` (R, C) 0..1 blends the rest lengths towards those of `posed`, for gathers and waistbands. The cloth stays
    `ease` metres outside the `obstacle` (N, 3), points with outward `normals`.
    """
    edges, length, stiffness = sheet.springs()
    x = posed.reshape(-1, 3).copy()
    if held is not None:
        share = held.ravel()[edges].mean(1)
        length = length + share * (np.linalg.norm(x[edges[:, 0]] - x[edges[:, 1]], axis=1) - length)
    before = x.copy()
    free = ~pinned.ravel()
    tree = KDTree(obstacle)
    for _ in range(ROUNDS):
        _, nearest = tree.query(x)
        _settle(
            x, before, edges, length, stiffness, free, GRAVITY * down, obstacle[nearest], normals[nearest],
            ease, STEPS, DAMPING,
        )  # fmt: skip
    return x.reshape(posed.shape)
