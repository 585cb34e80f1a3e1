"""Hair, hats, shoes and socks, and dressing a person in a whole outfit."""

from __future__ import annotations

from functools import cache, partial

import numpy as np

from dsr_fit.labels import LABEL_INDEX
from dsr_fit.synthetic import garments, regions
from dsr_fit.synthetic.cloth import AROUND, Sheet, hull_ring, settle, support
from dsr_fit.synthetic.garments import ARMS, JOINT, Piece, shell
from dsr_fit.synthetic.regions import ramp
from dsr_fit.synthetic.surface import Wearer, open_surface, vertex_normals
from dsr_fit.synthetic.wardrobe import Hair, Outfit

HAT_BAND = {"beanie": 0.700, "cap": 0.715, "brim": 0.715}
BURIED = 0.03  # metres inside a garment's outline, beyond which the skin below is never visible
HEAD_BACK = np.array([0.0, 0.715, -0.085])  # where a ponytail is tied, on the mean body


def hat_inside(rest: np.ndarray, style: str) -> np.ndarray:
    return rest[:, 1] - HAT_BAND[style] - 0.18 * (rest[:, 2] - 0.03)


def hair(wearer: Wearer, spec: Hair, hat: str | None, rng: np.random.Generator) -> list[Piece]:
    """Hair on the scalp as a shell, and long hair as a hanging sheet."""
    if spec.style == "bald":
        return []
    surface = wearer.surface
    recede = spec.recede

    def inside(rest: np.ndarray) -> np.ndarray:
        within = regions.hair(rest, recede)
        return within if hat is None else np.minimum(within, 0.004 - hat_inside(rest, hat))

    locks = spec.curl * regions.waves(surface.fine_rest * np.array([1, 0.5, 1]), 0.03, rng)
    scalp = regions.hair(surface.rest, recede)
    thickness = spec.thickness * (0.25 * ramp(scalp, 0.015) + 0.75 * ramp(scalp, 0.05)) + 0.002
    fine = regions.hair(surface.fine_rest, recede)
    smooth = 0.6 * ramp(scalp, 0.04)
    pieces = [
        shell(
            wearer, inside, thickness, smooth, 0.0 if spec.style == "afro" else 0.25,
            locks * ramp(fine, 0.02), name="hair", material="hair", label=LABEL_INDEX["hair"],
        )
    ]  # fmt: skip
    if spec.style in ("bob", "long"):
        pieces.append(_curtain(wearer, spec, rng))
    if spec.style == "ponytail":
        pieces.append(_ponytail(wearer, spec))
    return pieces


def _head_rings(wearer: Wearer, levels: np.ndarray, extra: float) -> np.ndarray:
    """Rings (R, AROUND, 3) around the shaped head, starting at the back; they hang straight below the ears."""
    rest, shaped = wearer.surface.rest, wearer.shaped
    angles = np.linspace(-np.pi, np.pi, AROUND, endpoint=False)
    head = wearer.surface.weights[:, JOINT["head"]] > 0.5
    rings = []
    for level in levels:
        on_head = max(level, 0.66)
        band = head & (np.abs(rest[:, 1] - on_head) < 0.012) & ((rest[:, 2] < 0.1) | (rest[:, 1] > 0.7))
        centre = np.array([0, shaped[band, 2].mean()])
        ring = hull_ring(support(shaped[band][:, [0, 2]] - centre, angles) + extra, angles) + centre
        height = shaped[band, 1].mean() + level - rest[band, 1].mean()
        rings.append(np.stack([ring[:, 0], np.full(AROUND, height), ring[:, 1]], 1))
    return np.stack(rings)


def _head_weights(count: int) -> np.ndarray:
    return np.tile(np.eye(24)[JOINT["head"]], (count, 1))


def _curtain(wearer: Wearer, spec: Hair, rng: np.random.Generator) -> Piece:
    levels = np.arange(0.735, 0.60 - spec.length, -0.014)
    points = _head_rings(wearer, levels, 0.4 * spec.thickness + 0.004)
    opened = round(AROUND * rng.uniform(0.14, 0.21))  # columns left free in front of each ear
    points = np.roll(points, AROUND // 2, axis=1)[:, opened : AROUND - opened]
    columns = points.shape[1]
    angle = np.linspace(0, 2 * np.pi, columns)
    wave = np.cos(9 * angle + rng.uniform(0, 6)) + np.cos(14 * angle + rng.uniform(0, 6))
    outward = points * np.array([1, 0, 1])
    outward /= np.linalg.norm(outward, axis=-1, keepdims=True)
    depth = (0.003 + 0.004 * ramp(0.68 - levels, 0.1))[:, None] * wave
    points = points + depth[..., None] * outward
    sheet = Sheet(points, closed=False)
    posed = wearer.posed(points.reshape(-1, 3), _head_weights(points.size // 3)).reshape(points.shape)
    pinned = np.broadcast_to(levels[:, None] > 0.675, points.shape[:2])
    obstacle, normals = wearer.obstacle(without=ARMS[1:4] + ARMS[5:])
    settled = settle(sheet, posed, pinned, obstacle, normals, wearer.down, 0.006)
    place = points.copy()
    place[..., 1] = 0.7
    return Piece.of_sheet("curtain", "hair", "hair", sheet, settled, place)


def _ponytail(wearer: Wearer, spec: Hair) -> Piece:
    surface = wearer.surface
    nearest = int(np.argmin(np.linalg.norm(surface.rest - HEAD_BACK, axis=1)))
    start, away = wearer.outer[nearest], wearer.normals[nearest]
    t = np.linspace(0, 1, 16)
    spine = start + 0.05 * np.sqrt(t)[:, None] * away + (spec.length * t**1.4)[:, None] * wearer.down
    normals = vertex_normals(wearer.outer, surface.faces)
    width = 0.008 + 0.026 * np.sin(np.pi * (0.15 + 0.8 * t)) ** 0.7
    distance = np.linalg.norm(spine[:, None] - wearer.outer[None, ::5], axis=-1)
    close = distance.argmin(1) * 5
    short = width - np.einsum("nc,nc->n", spine - wearer.outer[close], normals[close])
    spine = spine + short.clip(0)[:, None] * normals[close]
    along = np.gradient(spine, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    first = np.cross(along, away + 0.3 * wearer.down)
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    second = np.cross(along, first)
    angle = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    ring = np.cos(angle)[None, :, None] * first[:, None] + np.sin(angle)[None, :, None] * second[:, None]
    sheet = Sheet(spine[:, None] + width[:, None, None] * ring, closed=True)
    place = np.broadcast_to([0.0, 0.7, -0.1], sheet.points.shape)
    return Piece.of_sheet("ponytail", "hair", "hair", sheet, sheet.points, place)


def hat(wearer: Wearer, style: str, over_hair: float, rng: np.random.Generator) -> list[Piece]:
    """A beanie, a cap or a hat with a brim all around."""
    surface = wearer.surface
    within = hat_inside(surface.rest, style)
    rise = {"beanie": 0.012, "cap": 0.012, "brim": 0.035}[style]
    offset = over_hair + 0.006 + rise * ramp(within, 0.05)
    crown = shell(
        wearer, partial(hat_inside, style=style), offset, 0.9 * ramp(within + 0.03, 0.02),
        name="hat", material="hat", label=LABEL_INDEX["hat"],
    )  # fmt: skip
    if style == "beanie":
        return [crown]
    rest, shaped = surface.rest, wearer.shaped
    angles = np.linspace(-np.pi, np.pi, AROUND, endpoint=False)
    band = (np.abs(within) < 0.012) & (surface.weights[:, JOINT["head"]] > 0.5)
    centre = np.array([0, shaped[band, 2].mean()])
    reach = support(shaped[band][:, [0, 2]] - centre, angles) + over_hair - 0.004
    wide = rng.uniform(0.05, 0.1)
    width = wide * np.ones(AROUND) if style == "brim" else 0.075 * np.cos(angles).clip(0) ** 0.5
    t = np.linspace(0, 1, 5)
    rings = np.stack([hull_ring(reach + s * width, angles) + centre for s in t])
    level = shaped[band, 1].mean() - rest[band, 1].mean() + HAT_BAND[style] + 0.18 * (rings[..., 1] - 0.03)
    sag = t[:, None] ** 1.5 * (rng.uniform(-0.01, 0.025) if style == "brim" else 0.015)
    points = np.stack([rings[..., 0], level - sag, rings[..., 1]], -1)
    sheet = Sheet(points, closed=True)
    posed = wearer.posed(points.reshape(-1, 3), _head_weights(points.size // 3))
    return [crown, Piece.of_sheet("brim", "hat", "hat", sheet, posed, points)]


@cache
def _shoe_offsets() -> np.ndarray:
    """(V, 3) from the mean body's bare feet to shoes, with a smooth tip and a flat sole."""
    surface = open_surface()
    rest = surface.rest
    low = ramp(-0.80 - rest[:, 1], 0.03)
    toes = low * ramp(rest[:, 2] - 0.05, 0.05)
    shape = surface.smoothed(rest, np.maximum(0.95 * toes, 0.4 * low), 60)
    normal = vertex_normals(shape, surface.faces)
    # Offset by what smoothing removed, spread out so that toes don't poke through.
    room = np.einsum("vc,vc->v", rest - shape, normal).clip(0)
    corners = surface.faces
    for _ in range(2):
        np.maximum.at(room, corners, room[corners].max(axis=1, keepdims=True))
    for _ in range(4):
        room = surface.average @ room
    shape = shape + (0.003 + room)[:, None] * normal + toes[:, None] * np.array([0.0, 0.0, 0.008])
    sole = rest[:, 1].min() - 0.012
    shape[:, 1] = np.where(low * (shape[:, 1] < sole + 0.016) > 0, sole, shape[:, 1])
    leg = ramp(rest[:, 1] + 0.80, 0.04)[:, None]
    return (1 - leg) * (shape - rest) + leg * 0.012 * vertex_normals(rest, surface.faces)


def shoes(wearer: Wearer, outfit: Outfit) -> Piece:
    """Shoes or boots over the leg's clothes; labelled by side."""
    surface = wearer.surface
    target = wearer.vertices + wearer.carried(_shoe_offsets())
    bare = wearer.vertices
    inside = partial(regions.shoes, height=outfit.shoe_height)
    on_foot = (surface.rest[:, 1] < -0.78)[:, None]
    wearer.vertices = np.where(on_foot, target, bare)
    wearer.outer = np.where(on_foot & (inside(surface.rest) > 0)[:, None], target, wearer.outer)
    offset = np.where(on_foot[:, 0], 0.0, 0.012)
    piece = shell(wearer, inside, offset, name="shoes", material="shoes", label=None)
    wearer.vertices = bare
    return piece


def socks(wearer: Wearer, height: float, shoe_height: float) -> Piece:
    def inside(rest: np.ndarray) -> np.ndarray:
        return np.minimum(height - rest[:, 1], rest[:, 1] - shoe_height + 0.02)

    offset = np.full(len(wearer.surface.rest), 0.003)
    return shell(wearer, inside, offset, name="socks", material="socks", label=LABEL_INDEX["socks"])


def dress(wearer: Wearer, outfit: Outfit, rng: np.random.Generator) -> list[Piece]:
    """The pieces of a dressed person, skin first."""
    bare = wearer.vertices
    worn: list[Piece] = []
    if outfit.socks is not None and (outfit.trousers is None or outfit.trousers.hem > outfit.socks):
        worn.append(socks(wearer, outfit.socks, outfit.shoe_height))
    boots = outfit.shoe_height > -0.8
    if not boots:
        worn.append(shoes(wearer, outfit))
    if outfit.tucked:
        worn.append(garments.top(wearer, outfit.top, rng))
    if outfit.trousers is not None:
        worn.append(garments.trousers(wearer, outfit.trousers, rng))
    if not outfit.tucked:
        worn.append(garments.top(wearer, outfit.top, rng))
    if boots:
        worn.append(shoes(wearer, outfit))
    if outfit.top_tails is not None:
        worn.append(garments.skirt(wearer, outfit.top_tails, rng, name="top_tails"))
    if outfit.skirt is not None:
        worn.append(garments.skirt(wearer, outfit.skirt, rng))
    if outfit.coat is not None and outfit.coat_tails is not None:
        worn.append(garments.top(wearer, outfit.coat, rng, name="coat"))
        worn.append(garments.skirt(wearer, outfit.coat_tails, rng, name="tails"))
    worn += hair(wearer, outfit.hair, outfit.hat, rng)
    if outfit.hat is not None:
        over_hair = min(outfit.hair.thickness, 0.02)
        worn += hat(wearer, outfit.hat, over_hair, rng)

    surface = wearer.surface
    faces = surface.faces[~_buried(surface.rest, outfit)[surface.faces].all(1)]
    skin = Piece("skin", "skin", None, bare, faces, surface.rest, np.zeros((len(bare), 2)))
    return [skin, *worn]


def _buried(rest: np.ndarray, outfit: Outfit) -> np.ndarray:
    """(V,) bool: skin deep under a closed garment, never visible."""
    depth = outfit.top.inside(rest)
    if outfit.trousers is not None:
        depth = np.maximum(depth, outfit.trousers.inside(rest))
    depth = np.maximum(depth, regions.shoes(rest, outfit.shoe_height) + BURIED - 0.02)
    return depth > BURIED
