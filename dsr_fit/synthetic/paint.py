"""Surface colours before lighting: cloth patterns as tiles, procedural skin and face. sRGB, 0..255."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass

import cv2
import numpy as np

from dsr_fit.synthetic.regions import ramp, waves

TILE = 256
PATTERNS = ("plain", "stripes", "checks", "weave", "print", "dots")

SKIN_TONES = np.array([
    (244, 208, 186), (232, 190, 164), (222, 174, 142), (206, 152, 122), (184, 130, 98), (150, 102, 74),
    (116, 76, 54), (84, 56, 42),
], np.float64)  # fmt: skip
HAIR_TONES = np.array([
    (24, 20, 18), (40, 28, 22), (58, 38, 26), (92, 60, 38), (128, 88, 52), (188, 150, 96), (150, 74, 40),
    (150, 148, 146),
], np.float64)  # fmt: skip


@dataclass(frozen=True)
class Material:
    tile: np.ndarray  # (TILE, TILE, 3) float32
    metres: float  # side of the tile
    gloss: float
    badge: np.ndarray | None = None  # (h, w, 4) float32 print on the chest, alpha last


@dataclass(frozen=True)
class Skin:
    tone: np.ndarray  # (3,)
    hair: np.ndarray  # (3,) brows
    lips: np.ndarray  # (3,)
    iris: np.ndarray  # (3,)


@dataclass(frozen=True)
class Look:
    """Materials and skin of one person or occluder."""

    materials: dict[str, Material]
    skin: Skin | None


def garment_colour(rng: np.random.Generator) -> np.ndarray:
    """Mostly muted: black, white, grey, navy, beige; sometimes bright."""
    if rng.uniform() < 0.35:
        return np.full(3, rng.choice([28, 45, 80, 130, 190, 232])) + rng.normal(0, 5, 3)
    hue = rng.uniform() if rng.uniform() < 0.6 else rng.normal(0.6, 0.05) % 1
    saturation, value = rng.beta(2, 2.5), rng.uniform(0.2, 0.95)
    return 255 * np.array(colorsys.hsv_to_rgb(hue, saturation, value))


def _tileable_noise(rng: np.random.Generator, smooth: float) -> np.ndarray:
    """(TILE, TILE) tileable noise with zero mean and unit standard deviation, blurred by `smooth` pixels."""
    field = cv2.GaussianBlur(np.tile(rng.normal(size=(TILE, TILE)).astype(np.float32), (2, 2)), (0, 0), smooth)
    field = np.roll(field, TILE // 2, (0, 1))[:TILE, :TILE] if smooth < TILE / 8 else field[:TILE, :TILE]
    return (field - field.mean()) / (field.std() + 1e-6)


def cloth(rng: np.random.Generator, pattern: str) -> Material:
    """A random cloth with one of the PATTERNS."""
    base, other = garment_colour(rng), garment_colour(rng)
    if np.abs(base - other).sum() < 120:
        other = np.where(base.mean() > 128, base * 0.45, base * 0.4 + 150)
    tile = np.broadcast_to(base, (TILE, TILE, 3)).astype(np.float32).copy()
    metres = float(rng.uniform(0.2, 0.5))
    y, x = np.mgrid[:TILE, :TILE] / TILE
    if pattern == "stripes":
        count, width = int(rng.integers(2, 10)), rng.uniform(0.15, 0.6)
        along = y if rng.uniform() < 0.7 else x
        tile[(along * count) % 1 < width] = other
    elif pattern == "checks":
        count = int(rng.integers(3, 9))
        bands = ((x * count) % 1 < 0.4).astype(float) + ((y * count) % 1 < 0.4)
        tile += (bands * 0.5)[..., None].astype(np.float32) * (other - base).astype(np.float32)
        if rng.uniform() < 0.5:
            line = ((x * count + 0.3) % 1 < 0.06) | ((y * count + 0.3) % 1 < 0.06)
            tile[line] = garment_colour(rng)
    elif pattern == "dots":
        count = int(rng.integers(4, 12))
        u, v = (x * count) % 1 - 0.5, (y * count) % 1 - 0.5
        tile[np.hypot(u, v) < rng.uniform(0.15, 0.32)] = other
    elif pattern == "weave":
        grain = _tileable_noise(rng, 2.0) * 0.7 + _tileable_noise(rng, 9.0) * 0.5
        tile += (grain[..., None] * rng.uniform(8, 24)).astype(np.float32)
    elif pattern == "print":
        for _ in range(int(rng.integers(8, 30))):
            shade = np.array(rng.choice([base * 0.6, other, other * 0.7 + 60]), float).tolist()
            centre = rng.integers(0, TILE, 2)
            axes, turn = rng.integers(6, 34, 2), float(rng.uniform(0, 180))
            for shift in ((0, 0), (TILE, 0), (0, TILE), (TILE, TILE)):
                where = tuple(int(c) for c in centre - np.array(shift))
                cv2.ellipse(tile, where, tuple(int(a) for a in axes), turn, 0, 360, shade, -1, cv2.LINE_AA)
    thread = _tileable_noise(rng, 0.8)
    tile += (thread * rng.uniform(1.0, 4.0))[..., None].astype(np.float32)
    gloss = 0.25 if rng.uniform() < 0.08 else float(rng.uniform(0, 0.06))
    badge = _badge(rng, base) if pattern == "plain" and rng.uniform() < 0.45 else None
    return Material(tile.clip(4, 250), metres, gloss, badge)


def _badge(rng: np.random.Generator, base: np.ndarray) -> np.ndarray:
    """A chest print: letters or blobs."""
    ink = np.full(3, 235.0) if base.mean() < 120 else garment_colour(rng) * 0.6
    alpha = np.zeros((96, 160), np.uint8)
    if rng.uniform() < 0.6:
        word = "".join(rng.choice(list("ABDEHKLMNORSTUX379"), int(rng.integers(3, 7))))
        cv2.putText(alpha, word, (6, 62), cv2.FONT_HERSHEY_DUPLEX, 6.0 / len(word) * 1.1, (255,), 5, cv2.LINE_AA)
    else:
        for _ in range(int(rng.integers(2, 6))):
            centre = (int(rng.integers(40, 120)), int(rng.integers(24, 72)))
            cv2.circle(alpha, centre, int(rng.integers(6, 24)), (int(rng.integers(120, 255)),), -1, cv2.LINE_AA)
    out = np.empty((*alpha.shape, 4), np.float32)
    out[..., :3], out[..., 3] = ink, alpha / 255
    return out


def strands(rng: np.random.Generator, tone: np.ndarray) -> Material:
    """Hair: streaks along v."""
    streak = cv2.GaussianBlur(rng.normal(size=(TILE, TILE)).astype(np.float32), (0, 0), sigmaX=1.2, sigmaY=28)
    broad = cv2.GaussianBlur(rng.normal(size=(TILE, TILE)).astype(np.float32), (0, 0), sigmaX=6, sigmaY=60)
    shade = 1 + 0.22 * streak / streak.std() + 0.12 * broad / broad.std()
    return Material((tone * shade[..., None].clip(0.35, 1.9)).clip(4, 250).astype(np.float32), 0.16, 0.18)


def plain(colour: np.ndarray, gloss: float, rng: np.random.Generator, noise: float = 4.0) -> Material:
    """One slightly uneven colour: leather, rubber, wood."""
    tile = colour + (noise * (_tileable_noise(rng, 6.0) + 0.5 * _tileable_noise(rng, 1.0)))[..., None]
    return Material(tile.clip(4, 250).astype(np.float32), 0.3, gloss)


def random_skin(rng: np.random.Generator) -> tuple[Skin, np.ndarray]:
    """Skin, and a hair colour that goes with it."""
    level = rng.uniform(0, len(SKIN_TONES) - 1)
    tone = np.array([np.interp(level, np.arange(len(SKIN_TONES)), c) for c in SKIN_TONES.T])
    dark = level > 4
    hair = HAIR_TONES[rng.integers(0, 3)] if dark else HAIR_TONES[rng.integers(0, len(HAIR_TONES))]
    lips = tone * np.array([0.82, 0.58, 0.60]) + rng.uniform(0, 25) * np.array([1, 0, 0.2])
    iris = np.array([(74, 52, 36), (52, 36, 26), (84, 104, 128), (88, 98, 66)], float)[
        rng.choice(4, p=[0.4, 0.3, 0.2, 0.1] if not dark else [0.3, 0.7, 0, 0])
    ]
    return Skin(tone, np.minimum(hair * 0.9, 110), lips, iris), hair


def paint_skin(rest: np.ndarray, skin: Skin) -> tuple[np.ndarray, np.ndarray]:
    """Colours (N, 3) and gloss (N,) of bare skin at positions (N, 3) of the T-pose."""
    blotch = waves(rest, 0.05, np.random.default_rng(4))
    colour = skin.tone * (1 + 0.03 * blotch)[:, None]
    gloss = np.full(len(rest), 0.10)
    head = np.flatnonzero(rest[:, 1] > 0.56)
    if len(head):
        face, face_gloss = colour[head], gloss[head]
        _paint_face(face, face_gloss, rest[head], skin)
        colour[head], gloss[head] = face, face_gloss
    return colour, gloss


def _paint_face(colour: np.ndarray, gloss: np.ndarray, rest: np.ndarray, skin: Skin) -> None:
    x, y, z = np.abs(rest[:, 0]), rest[:, 1], rest[:, 2]
    front = z > 0.09
    cheek = np.exp(-(((x - 0.040) / 0.022) ** 2) - ((y - 0.640) / 0.016) ** 2) * (z > 0.06)
    _blend(colour, skin.tone * np.array([1.05, 0.86, 0.82]), 0.6 * cheek)
    lip = np.where(y > 0.6055, 0.0085, 0.0105) * np.sqrt((1 - (x / 0.026) ** 2).clip(0))
    _blend(colour, skin.lips, 0.85 * _edge(lip - np.abs(y - 0.6055)) * front)
    _blend(colour, skin.lips * 0.5, 0.9 * (np.abs(y - 0.6055) < 0.0011) * (x < 0.0235) * front)
    nostril = np.exp(-(((x - 0.010) / 0.004) ** 2) - ((y - 0.6265) / 0.003) ** 2)
    _blend(colour, skin.tone * 0.45, 0.8 * nostril * front)
    eye = np.hypot((x - 0.0305) / 0.0135, (y - 0.6745) / 0.0058)
    socket = np.exp(-(((eye - 1.1) / 0.7) ** 2))
    _blend(colour, skin.tone * 0.72, 0.45 * socket * front)
    _blend(colour, np.array([238.0, 234.0, 228.0]), _edge((1 - eye) * 0.0058) * front)
    centre = np.hypot(x - 0.0305, y - 0.675)
    for radius, tint in ((0.0056, skin.iris), (0.0026, np.array([18.0, 14.0, 12.0]))):
        _blend(colour, tint, _edge(radius - centre) * (eye < 1) * front)
    lash = np.exp(-(((eye - 1.08) / 0.12) ** 2)) * (y > 0.674)
    _blend(colour, np.array([36.0, 24.0, 20.0]), 0.9 * lash * front)
    gloss[(eye < 1) & front] = 0.6
    brow = 0.0036 - np.abs(y - (0.6935 - 8.0 * (x - 0.034) ** 2)) - 0.0025 * ramp(x - 0.03, 0.02)
    _blend(colour, skin.hair, 0.85 * _edge(brow) * (x > 0.011) * (x < 0.049) * front)


def _edge(distance: np.ndarray) -> np.ndarray:
    """A soft outline, 1.5 mm wide."""
    return (distance / 0.0015 + 0.5).clip(0.0, 1.0)


def _blend(colour: np.ndarray, other: np.ndarray, share: np.ndarray) -> None:
    colour += np.asarray(share, float)[:, None] * (other - colour)


def paint_cloth(uv: np.ndarray, rest: np.ndarray, material: Material) -> np.ndarray:
    """Colours (N, 3) float32 at texture coordinates (N, 2) metres; the badge is placed by `rest` (N, 3)."""
    texel = np.floor(uv.astype(np.float64) * (TILE / material.metres) * (1, -1)).astype(int) % TILE
    out = material.tile[texel[:, 1], texel[:, 0]]
    if material.badge is not None:
        height, width = material.badge.shape[:2]
        j = (width * (0.5 + rest[:, 0] / 0.26)).astype(int)
        i = (height * (0.5 - (rest[:, 1] - 0.32) / 0.156)).astype(int)
        on = np.flatnonzero((rest[:, 2] > 0.03) & (j >= 0) & (j < width) & (i >= 0) & (i < height))
        ink = material.badge[i[on], j[on]]
        out[on] += ink[:, 3:] * (ink[:, :3] - out[on])
    return out


def random_look(rng: np.random.Generator) -> Look:
    """A person's."""
    skin, hair_tone = random_skin(rng)
    patterns = {
        "top": rng.choice(PATTERNS, p=[0.36, 0.18, 0.12, 0.14, 0.12, 0.08]),
        "lower": rng.choice(PATTERNS, p=[0.45, 0.06, 0.08, 0.31, 0.06, 0.04]),
        "coat": rng.choice(PATTERNS, p=[0.5, 0.0, 0.15, 0.35, 0.0, 0.0]),
        "hat": rng.choice(PATTERNS, p=[0.6, 0.1, 0.1, 0.2, 0.0, 0.0]),
        "socks": rng.choice(PATTERNS, p=[0.6, 0.3, 0.0, 0.1, 0.0, 0.0]),
    }
    materials = {name: cloth(rng, str(pattern)) for name, pattern in patterns.items()}
    materials["shoes"] = plain(garment_colour(rng), float(rng.uniform(0.05, 0.35)), rng)
    materials["hair"] = strands(rng, hair_tone)
    return Look(materials, skin)


def random_occluder_look(rng: np.random.Generator) -> Look:
    pattern = str(rng.choice(PATTERNS, p=[0.4, 0.15, 0.1, 0.25, 0.05, 0.05]))
    green = np.array([58.0, 104.0, 46.0]) + rng.normal(0, 14, 3)
    return Look({"occluder": cloth(rng, pattern), "leaves": plain(green, 0.15, rng, 9.0)}, None)
