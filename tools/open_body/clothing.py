"""Dress the open body for a picture: garments are its own surface pushed out along the normals.

What a point wears follows from where it lies on the T-posed mean body (x left, y up, z forward, metres).
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from open_body.picture import vertex_normals

SKIN = np.array([206.0, 152.0, 122.0])
HAIR = np.array([58.0, 38.0, 26.0])
SHIRT = np.array([44.0, 122.0, 126.0])
TRIM = np.array([30.0, 92.0, 98.0])
JEANS = np.array([58.0, 72.0, 108.0])
SHOE = np.array([196.0, 66.0, 48.0])
SOLE = np.array([236.0, 232.0, 224.0])

SLEEVE_END = 0.325  # |x| of the sleeves' hems, just past the middle of the upper arm
SHIRT_HEM = -0.08
ANKLE_HEM = -0.815
SHOE_TOP = -0.832
SOLE_TOP = -0.886
HAIRLINE = (  # height of the hair's edge by depth z, from the nape past the ear to the forehead
    np.array([-0.10, 0.010, 0.030, 0.062, 0.070, 0.100, 0.130, 0.160]),
    np.array([0.585, 0.600, 0.640, 0.645, 0.690, 0.728, 0.742, 0.745]),
)


def ramp(distance: np.ndarray, width: float) -> np.ndarray:
    """0 where the distance is negative, 1 beyond the width, smooth between."""
    t = (distance / width).clip(0.0, 1.0)
    return t * t * (3 - 2 * t)


def insides(rest: np.ndarray) -> dict[str, np.ndarray]:
    """Rough signed distances (N,) in metres inside each garment's outline, of points (N, 3) of the T-pose."""
    x, y, z = np.abs(rest[:, 0]), rest[:, 1], rest[:, 2]
    neckline = (y - 0.522 + 0.5 * z) - 1.2 * np.maximum(x - 0.065, 0.0)
    ear = (x > 0.0685) & (y < 0.69) & (y > 0.615) & (z > 0.015) & (z < 0.07)
    return {
        "shirt": np.minimum.reduce([SLEEVE_END - x, y - SHIRT_HEM, -neckline]),
        "jeans": np.minimum(y - ANKLE_HEM, -0.03 - y),
        "shoes": SHOE_TOP + 0.25 * (z + 0.03).clip(-0.05, 0.05) - y,
        "hair": np.where(ear, -0.01, y - np.interp(z, *HAIRLINE)),
    }


def ripple(rest: np.ndarray, scale: float, seed: int) -> np.ndarray:
    """Smooth noise (N,) in -1..1: a few waves of random direction, about `scale` metres long."""
    rng = np.random.default_rng(seed)
    waves = rng.normal(size=(12, 3)) * 2 * np.pi / scale / 1.7
    return np.sin(rest @ waves.T + rng.uniform(0, 2 * np.pi, 12)).mean(1) * 1.8


def dress(rest: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Push the clothed parts of the T-posed surface (V, 3) outward; shoes lose their toes, soles are flat."""
    inside = insides(rest)
    shape = drape(rest, faces)
    normal = vertex_normals(shape, faces)
    y = rest[:, 1]
    fold = np.abs(ripple(rest * np.array([1.0, 0.55, 1.0]), 0.16, 1))
    loose = 0.014 + 0.010 * ramp(0.15 - y, 0.3) + 0.006 * fold
    jeans_loose = 0.012 + 0.009 * ramp(-0.45 - y, 0.35) + 0.004 * fold
    lock = 0.004 * ripple(rest * np.array([1.0, 0.4, 1.0]), 0.03, 3)
    offset = np.maximum.reduce([
        loose * ramp(inside["shirt"], 0.004),
        jeans_loose * ramp(inside["jeans"], 0.004),
        0.008 * ramp(inside["shoes"], 0.006),
        (0.010 + 0.014 * ramp(y - 0.68, 0.06) + lock) * ramp(inside["hair"], 0.014),
    ])  # fmt: skip
    dressed = shape + offset[:, None] * normal
    sole = y.min() - 0.006
    low = dressed[:, 1] < sole + 0.012
    dressed[low, 1] = sole + 0.2 * (dressed[low, 1] - sole - 0.012) + 0.0024
    return dressed


def drape(rest: np.ndarray, faces: np.ndarray, steps: int = 120) -> np.ndarray:
    """Laplacian smoothing where cloth leaves the body: toes melt into a shoe's tip, a shirt spans hollows."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    link = sparse.csr_matrix((np.ones(len(edges)), edges.T), (len(rest), len(rest)))
    link = link.maximum(link.T)
    average = sparse.diags(1 / np.asarray(link.sum(1)).ravel()) @ link
    toes = ramp(SHOE_TOP - 0.02 - rest[:, 1], 0.02) * ramp(rest[:, 2] - 0.06, 0.04)
    shirt = ramp(insides(rest)["shirt"] - 0.01, 0.04)
    share = np.maximum(toes, 0.9 * shirt)[:, None]
    shape = rest
    for _ in range(steps):
        shape = shape + share * (average @ shape - shape)
    # Smoothing draws the toes in and would bare the chest: the shoe gets its length back, the shirt room.
    out = np.einsum("ni,ni->n", rest - shape, vertex_normals(shape, faces)).clip(0.0, None)
    shape = shape + (shirt * out)[:, None] * vertex_normals(shape, faces) * 0.5
    return shape + toes[:, None] * np.array([0.0, 0.004, 0.014])


def paint(rest: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colours (N, 3) in 0..255 and gloss (N,) of surface points given on the T-pose (N, 3)."""
    inside = insides(rest)
    y, z = rest[:, 1], rest[:, 2]
    x = np.abs(rest[:, 0])
    colour = np.tile(SKIN, (len(rest), 1)) * (1 + 0.02 * ripple(rest, 0.05, 4))[:, None]
    _blend(
        colour,
        SKIN * np.array([1.05, 0.86, 0.82]),
        0.6 * _blob(x - 0.040, y - 0.640, 0.022, 0.016) * (z > 0.06),
    )
    gloss = np.full(len(rest), 0.10)
    _paint_face(colour, gloss, x, y, z)
    weave = 1 + 0.035 * ripple(rest, 0.006, 5) + 0.03 * ripple(rest, 0.04, 6)
    _blend(
        colour,
        JEANS * (weave * (1 + 0.10 * _blob(x - 0.13, y + 0.28, 0.05, 0.13) * (z > 0)))[:, None],
        _edge(inside["jeans"]),
    )
    outer_seam = np.exp(-(((z + 0.012) / 0.002) ** 2)) * (y < -0.05)
    _blend(colour, JEANS * 0.72, 0.7 * outer_seam * _edge(inside["jeans"]))
    _blend(colour, JEANS * 0.8, 0.8 * np.exp(-(((y - ANKLE_HEM - 0.022) / 0.002) ** 2)))
    _blend(colour, SHIRT * weave[:, None], _edge(inside["shirt"]))
    hem = np.exp(-(((inside["shirt"] - 0.016) / 0.0018) ** 2)) + 0.8 * np.exp(
        -(((inside["shirt"] - 0.02) / 0.0018) ** 2)
    )
    _blend(colour, TRIM, 0.8 * hem.clip(0, 1))
    _blend(colour, SHOE * (1 + 0.03 * ripple(rest, 0.01, 7))[:, None], _edge(inside["shoes"]))
    lace = (np.abs(((y + 0.2 * z) * 90) % 1 - 0.5) < 0.16) & (np.abs(x - 0.156) < 0.022) & (z > 0.0) & (z < 0.085)
    _blend(colour, SOLE, 0.9 * lace * _edge(inside["shoes"]) * (y > SOLE_TOP))
    _blend(colour, SOLE, _edge(SOLE_TOP + 0.008 - y))
    strand = 1 + 0.28 * ripple(rest * np.array([1.0, 0.25, 0.4]), 0.006, 8)
    _blend(colour, HAIR * strand[:, None], ramp(inside["hair"] + 0.004 * ripple(rest, 0.008, 9), 0.006))
    gloss[inside["shirt"] > 0] = gloss[inside["jeans"] > 0] = 0.02
    gloss[inside["hair"] > 0] = 0.16
    return colour.clip(0, 255), gloss


def _paint_face(colour: np.ndarray, gloss: np.ndarray, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> None:
    front = z > 0.095
    lip_height = np.where(y > 0.6055, 0.0085, 0.0105) * np.sqrt((1 - (x / 0.026) ** 2).clip(0))
    _blend(colour, np.array([176.0, 92.0, 84.0]), 0.85 * _edge(lip_height - np.abs(y - 0.6055)) * front)
    _blend(colour, np.array([88.0, 40.0, 38.0]), 0.9 * (np.abs(y - 0.6055) < 0.0011) * (x < 0.0235) * front)
    eye = 1 - np.hypot((x - 0.0305) / 0.0135, (y - 0.6745) / 0.0055)
    _blend(colour, np.array([240.0, 236.0, 230.0]), _edge(eye * 0.0055) * front)
    iris = np.hypot(x - 0.0305, y - 0.675)
    for radius, tint in ((0.0054, (74.0, 52.0, 36.0)), (0.0026, (18.0, 14.0, 12.0))):
        _blend(colour, np.array(tint), _edge(radius - iris) * (eye > 0) * front)
    lash = np.exp(-(((np.hypot((x - 0.0305) / 0.0135, (y - 0.6745) / 0.0055) - 1.08) / 0.10) ** 2)) * (y > 0.674)
    _blend(colour, np.array([40.0, 26.0, 20.0]), 0.9 * lash * front)
    gloss[(eye > 0) & front] = 0.6
    brow = 0.0034 - np.abs(y - (0.6935 - 8.0 * (x - 0.034) ** 2)) - 0.0025 * ramp(x - 0.03, 0.02)
    _blend(colour, HAIR, 0.85 * _edge(brow) * (x > 0.011) * (x < 0.049) * front)


def _edge(distance: np.ndarray) -> np.ndarray:
    """An outline that is soft over a millimetre and a half."""
    return (distance / 0.0015 + 0.5).clip(0.0, 1.0)


def _blob(x: np.ndarray, y: np.ndarray, width: float, height: float) -> np.ndarray:
    return np.exp(-((x / width) ** 2) - (y / height) ** 2)


def _blend(colour: np.ndarray, other: np.ndarray, share: np.ndarray) -> None:
    colour += np.asarray(share, float)[:, None] * (other - colour)
