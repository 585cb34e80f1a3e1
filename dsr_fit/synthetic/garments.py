"""Garments: shells offset from the body's surface, and sheets that hang from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from dsr_fit.joints import SMPL_JOINTS
from dsr_fit.labels import LABEL_INDEX
from dsr_fit.synthetic import regions
from dsr_fit.synthetic.cloth import AROUND, Sheet, hull_ring, settle, support
from dsr_fit.synthetic.regions import CROTCH, KNEE, ramp
from dsr_fit.synthetic.surface import Wearer, cut, vertex_normals
from dsr_fit.synthetic.wardrobe import Skirt, Top, Trousers

JOINT = {name: number for number, name in enumerate(SMPL_JOINTS)}
ARMS = [JOINT[side + part] for side in ("left_", "right_") for part in ("shoulder", "elbow", "wrist", "hand")]
MIN_GAP = 0.003  # metres between layers


@dataclass(frozen=True)
class Piece:
    """A mesh ready to render."""

    name: str
    material: str
    label: int | None  # None: by the position on the body (skin, shoes)
    vertices: np.ndarray  # (N, 3) camera frame
    faces: np.ndarray  # (F, 3)
    rest: np.ndarray  # (N, 3) position on the T-posed mean body
    uv: np.ndarray  # (N, 2) metres

    @classmethod
    def of_sheet(
        cls, name: str, material: str, label: str, sheet: Sheet, vertices: np.ndarray, rest: np.ndarray
    ) -> Piece:
        """A sheet whose points lie at `vertices`, on the T-pose at `rest`, in any shape of (N, 3)."""
        points, rest = vertices.reshape(-1, 3), rest.reshape(-1, 3)
        return cls(name, material, LABEL_INDEX[label], points, sheet.faces, rest, sheet.coordinates())


Inside = Callable[[np.ndarray], np.ndarray]


def shell(
    wearer: Wearer, inside: Inside, offset: np.ndarray, smooth: np.ndarray | None = None, droop: float = 0.0,
    folds: np.ndarray | None = None, *, name: str, material: str, label: int | None, opening: Inside | None = None,
) -> Piece:  # fmt: skip
    """The body's surface where `inside` > 0, offset by `offset` (V,) metres over the clothes already worn.

    `smooth` (V,) 0..1 lets the cloth span hollows, `droop` lets it hang below limbs, `folds` (W,) metres are added on
    the finer mesh. The garment becomes the wearer's outer surface; then it is cut open where `opening` < 0.
    """
    surface = wearer.surface
    if folds is None:
        folds = np.zeros(len(surface.fine_rest))
    bridged = wearer.vertices if smooth is None else surface.smoothed(wearer.vertices, smooth, 25)
    normal = vertex_normals(bridged, surface.faces)
    # Only outward smoothing: sideways it would warp hems and patterns, inwards it would sink into bulges.
    lift = np.einsum("vc,vc->v", bridged - wearer.vertices, normal).clip(0)
    bridged = wearer.vertices + lift[:, None] * normal
    thickness = offset * (1 + droop * (normal @ wearer.down)).clip(0.25)
    laid = _clear(bridged + thickness[:, None] * normal, wearer.outer, normal, MIN_GAP)

    fine = surface.finer @ laid
    fine_normal = vertex_normals(fine, surface.fine_faces)
    inner = surface.finer @ wearer.outer
    fine = _clear(fine + folds[:, None] * fine_normal, inner, fine_normal, 0.7 * MIN_GAP)
    within = inside(surface.fine_rest)
    if opening is not None:
        within = np.minimum(within, opening(surface.fine_rest))
    values, faces, _ = cut(np.concatenate([fine, surface.fine_rest], 1), surface.fine_faces, within)
    worn = inside(surface.rest) > -0.015  # includes the triangles that the hem cuts
    # The finer mesh's first V vertices are these ones.
    ridges = (folds[: len(laid)].clip(0) + 0.001)[:, None] * normal
    wearer.outer = np.where(worn[:, None], laid + ridges, wearer.outer)
    rest = values[:, 3:]
    return Piece(name, material, label, values[:, :3], faces, rest, regions.pattern_coordinates(rest))


def _clear(points: np.ndarray, inner: np.ndarray, normal: np.ndarray, gap: float) -> np.ndarray:
    """Points moved along `normal` to lie at least `gap` outside of `inner`."""
    short = gap - np.einsum("vc,vc->v", points - inner, normal)
    return points + short.clip(0)[:, None] * normal


def cloth_folds(rest: np.ndarray, offset: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Metres (N,) of folds along limbs and torso, deeper in looser cloth, and wrinkles at bends."""
    on_arm = regions.arm(rest) > 0
    stretched = np.where(on_arm[:, None], rest * np.array([0.35, 1, 1]), rest * np.array([1, 0.35, 1]))
    long = np.abs(regions.waves(stretched, 0.09, rng)) - 0.35
    across = np.where(on_arm[:, None], rest * np.array([1.4, 0.5, 0.5]), rest * np.array([0.4, 1.4, 0.5]))
    wrinkle = regions.waves(across, 0.035, rng)
    x, y = np.abs(rest[:, 0]), rest[:, 1]
    bent = np.where(on_arm, np.exp(-(((x - 0.43) / 0.07) ** 2)), np.exp(-(((y - KNEE) / 0.08) ** 2)))
    bent = bent + np.exp(-(((y - CROTCH) / 0.06) ** 2)) * ~on_arm
    return 0.35 * offset.clip(0.003, 0.035) * long + (0.0015 + 0.06 * offset.clip(0, 0.04)) * bent * wrinkle


def top(wearer: Wearer, spec: Top, rng: np.random.Generator, name: str = "top") -> Piece:
    surface = wearer.surface

    def looseness(rest: np.ndarray) -> np.ndarray:
        x, y = np.abs(rest[:, 0]), rest[:, 1]
        sleeve = ramp(regions.arm(rest) + 0.05, 0.12)
        body = spec.looseness * (0.55 + 0.45 * ramp(0.38 - y, 0.3))
        if spec.gathered:
            body = np.minimum(body, 0.003 + spec.looseness * ramp(y - spec.hem - 0.03, 0.09))
        # Every cut rests on shoulders and neck.
        seat = np.maximum(ramp(0.50 - y, 0.12), ramp(x - 0.16, 0.1))
        cuff = 0.55 + 0.45 * ramp(0.655 - x, 0.06)
        return MIN_GAP + (body * (1 - sleeve) + spec.sleeve_looseness * cuff * sleeve) * (0.15 + 0.85 * seat)

    within = spec.inside(surface.rest)
    loose = spec.looseness > 0.018
    band = 0.06 if spec.gathered else 0.005
    smooth = ramp(within - band, 0.05) * (0.9 if loose else 0.75) * ramp(0.62 - np.abs(surface.rest[:, 0]), 0.1)
    offset = looseness(surface.rest)

    def opening(rest: np.ndarray) -> np.ndarray:
        return np.where(rest[:, 2] > -0.02, np.abs(rest[:, 0]) - spec.open_front / 2, 1.0)

    return shell(
        wearer, spec.inside, offset, smooth, 0.8 if loose else 0.2,
        cloth_folds(surface.fine_rest, looseness(surface.fine_rest), rng),
        name=name, material=spec.material, label=LABEL_INDEX[spec.label],
        opening=opening if spec.open_front > 0 else None,
    )  # fmt: skip


def trousers(wearer: Wearer, spec: Trousers, rng: np.random.Generator) -> Piece:
    surface = wearer.surface

    def looseness(rest: np.ndarray) -> np.ndarray:
        y = rest[:, 1]
        hips = 0.004 + (spec.looseness - 0.004) * ramp(0.02 - y, 0.2)
        # Little room between the legs.
        inner = 0.4 + 0.6 * ramp(np.abs(rest[:, 0]) - 0.02, 0.08)
        return (hips + spec.flare * ramp(KNEE - y, 0.4)) * np.where(y > -0.3, inner, 1)

    within = spec.inside(surface.rest)
    loose = spec.looseness > 0.018
    smooth = ramp(within - 0.005, 0.05) * (0.6 if loose else 0.3)
    return shell(
        wearer, spec.inside, looseness(surface.rest), smooth, 0.9 if loose else 0.1,
        cloth_folds(surface.fine_rest, looseness(surface.fine_rest), rng),
        name="trousers", material=spec.material, label=LABEL_INDEX["pants"],
    )  # fmt: skip


def skirt(wearer: Wearer, spec: Skirt, rng: np.random.Generator, name: str = "skirt") -> Piece:
    """A skirt, or the lower part of a dress or coat: rings around hips and legs, dropped onto the posed body."""
    surface = wearer.surface
    rest, shaped = surface.rest, wearer.shaped
    rings = max(6, round((spec.waist - spec.hem) / 0.02) + 1)
    levels = np.linspace(spec.waist, spec.hem, rings)
    angles = np.linspace(-np.pi, np.pi, AROUND, endpoint=False)  # the front is in the middle
    lower = np.flatnonzero((rest[:, 1] < 0.2) & (np.abs(rest[:, 0]) < 0.3))
    heights, reach, middle = np.zeros(rings), np.zeros((rings, AROUND)), np.zeros(rings)
    for i, level in enumerate(levels):
        away = np.abs(rest[lower, 1] - level)
        near = lower[away < max(0.02, np.partition(away, 40)[40])]
        band = shaped[near]
        heights[i] = band[:, 1].mean() + (level - rest[near, 1].mean())
        middle[i] = middle[i - 1] if level < CROTCH and i else band[:, 2].mean()
        reach[i] = support(band[:, [0, 2]] - np.array([0, middle[i]]), angles)
    radius = reach + spec.looseness
    step = -np.diff(heights, prepend=heights[0])
    for i in range(1, rings):
        # Cloth hangs from the widest ring; only flare widens it further.
        grow = spec.flare * step[i] * ramp(np.array(0.05 - levels[i]), 0.1)
        radius[i] = np.maximum(radius[i], radius[i - 1] + grow)
        if levels[i] < KNEE:
            radius[i] = radius[i - 1] + grow
    hang = ramp(0.0 - levels, 0.35)[:, None]
    phase = rng.uniform(0, 2 * np.pi, 2)
    ripple = np.cos(spec.folds * angles + phase[0] + 0.6 * np.sin(2 * angles + phase[1]))
    points = np.zeros((rings, AROUND, 3))
    for i in range(rings):
        ring = hull_ring(radius[i], angles)
        outward = ring / np.linalg.norm(ring, axis=1, keepdims=True)
        ring = ring + (hang[i] * spec.fold_depth * ripple)[:, None] * outward
        points[i] = np.stack([ring[:, 0], np.full(AROUND, heights[i]), ring[:, 1] + middle[i]], 1)
    closed = spec.open_front == 0
    if not closed:
        points = np.concatenate([points, points[:, :1]], 1)  # a seam at the back, opened at the front
        points = np.roll(points[:, :-1], AROUND // 2, axis=1)
        points = points[:, 1:AROUND] if spec.open_front < 0.08 else points[:, 2 : AROUND - 1]
    sheet = Sheet(points, closed)
    weights = _skirt_weights(points, levels)
    posed = wearer.posed(points.reshape(-1, 3), weights).reshape(points.shape)
    pinned = np.zeros(points.shape[:2], bool)
    pinned[levels > spec.waist - 0.03] = True

    obstacle, normals = wearer.obstacle(without=ARMS)
    held = np.broadcast_to(ramp(levels - spec.waist + 0.12, 0.10)[:, None], pinned.shape)
    posed = posed + held[..., None] * (_hugging(posed, obstacle, normals) - posed)
    settled = settle(sheet, posed, pinned, obstacle, normals, wearer.down, 0.006, held)
    flat = settled.reshape(-1, 3)
    wearer.hanging = np.concatenate([wearer.hanging, np.hstack([flat, vertex_normals(flat, sheet.faces)])])
    place = np.stack([points[..., 0], np.broadcast_to(levels[:, None], points.shape[:2]), points[..., 2]], -1)
    return Piece.of_sheet(name, spec.material, spec.label, sheet, flat, place)


def _hugging(points: np.ndarray, obstacle: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Points (R, C, 3) moved to a waistband's thickness off the obstacle's surface."""
    _, nearest = KDTree(obstacle).query(points)
    off = np.einsum("rcx,rcx->rc", points - obstacle[nearest], normals[nearest])
    return points + (0.006 - off)[..., None] * normals[nearest]


def _skirt_weights(points: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """(N, 24): pelvis above; thighs below, blended across the middle; a share of the knees."""
    half = np.abs(points[..., 0]).max(1, keepdims=True)
    left = ramp(points[..., 0] / half + 0.8, 1.6)
    thigh = 0.85 * ramp(0.0 - levels, 0.25)[:, None]
    shin = 0.45 * ramp(KNEE - levels, 0.25)[:, None]
    weights = np.zeros((*points.shape[:2], 24))
    weights[..., 0] = 1 - thigh
    for side, share in (("left_", left), ("right_", 1 - left)):
        weights[..., JOINT[side + "hip"]] = thigh * (1 - shin) * share
        weights[..., JOINT[side + "knee"]] = thigh * shin * share
    return weights.reshape(-1, 24)
