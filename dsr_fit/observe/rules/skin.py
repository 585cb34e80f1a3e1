"""Skin colour of one person, learned from the face."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from dsr_fit.observe.limbs import Skeleton2D

# Skin of all shades in CIE L a b, read off the annotated skin of street photos.
GENERIC_MEAN = np.array([55.0, 11.5, 14.5], dtype=np.float32)
GENERIC_STD = np.array([20.0, 6.5, 8.5], dtype=np.float32)

SKIN_HUES = (0.2, 1.5)
"""Radians of the hue angle in the a b plane that skin of any shade has under daylight."""

# The least and the most spread of a face's skin: shading moves lightness, little moves chroma.
FACE_MIN_STD = np.array([11.0, 3.0, 3.5], dtype=np.float32)
FACE_MAX_STD = np.array([16.0, 6.5, 8.0], dtype=np.float32)

# Lightness, log chroma and hue (radians) of bare limbs against the face's middle: mean and spread over the
# training people of Clothing Co-Parsing. Shade and tan move skin along the first two, clothes differ in the
# third: of legs 3 deviations keep 91 % of the bare and 4 % of the covered; in Lab it is 88 % and 8 % at best.
LIMB_OFFSETS: dict[str, tuple[np.ndarray, np.ndarray]] = {
    "Arm": (np.array([8.6, -0.20, 0.05]), np.array([13.0, 0.26, 0.15])),
    "Leg": (np.array([-3.6, -0.04, 0.06]), np.array([14.0, 0.25, 0.16])),
}

# The spread within one limb.
LIMB_MIN_STD = np.array([8.5, 3.0, 3.0], dtype=np.float32)
LIMB_MAX_STD = np.array([13.0, 5.0, 6.0], dtype=np.float32)

SHOE_MAX_STD = np.array([18.0, 7.0, 9.0], dtype=np.float32)

GREY_CHROMA = 3.0
"""An image whose mean chroma is below this is greyscale: only lightness tells skin."""


@dataclass(frozen=True)
class SkinModel:
    """A Gaussian in L, a, b with independent axes."""

    mean: np.ndarray
    """(3,) L 0..100, a, b."""

    std: np.ndarray
    """(3,)"""

    def distance(self, lab: np.ndarray) -> np.ndarray:
        """(...) float32 distance of (..., 3) colours from the mean in standard deviations."""
        return np.sqrt((((lab - self.mean) / self.std) ** 2).sum(axis=-1))


def fit_colour(colours: np.ndarray, min_std: np.ndarray, max_std: np.ndarray) -> SkinModel:
    """Median and median deviation of (n, 3) colours, the deviation kept within limits."""
    mean = np.median(colours, axis=0)
    spread = 1.48 * np.median(np.abs(colours - mean), axis=0)
    return SkinModel(mean.astype(np.float32), spread.clip(min_std, max_std).astype(np.float32))


def to_lab(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) float32 CIE L (0..100), a, b of a uint8 RGB image."""
    return cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


def learn_skin(lab: np.ndarray, skeleton: Skeleton2D) -> SkinModel:
    """Skin of the person's face in a `to_lab` picture that the skeleton is in.

    The cheeks and the nose are sampled (eyes may be behind sunglasses, the forehead under hair). Where the
    face isn't seen, or most of the sample can't be skin, it is the generic model; in greyscale it is grey.
    """
    generic = SkinModel(GENERIC_MEAN, GENERIC_STD)
    sample = _face_sample(lab, skeleton)
    if len(sample) < 8:
        return generic
    if float(np.abs(lab[..., 1:]).mean()) < GREY_CHROMA:
        return fit_colour(sample, FACE_MIN_STD * [0.6, 1, 1], FACE_MAX_STD)
    hue, chroma = _hue(sample), _chroma(sample)
    plausible = (hue > SKIN_HUES[0]) & (hue < SKIN_HUES[1]) & (chroma > 4) & (chroma < 60)
    if plausible.mean() < 0.3:
        return generic
    return fit_colour(sample[plausible], FACE_MIN_STD, FACE_MAX_STD)


def limb_distance(lab: np.ndarray, face: SkinModel, limb: str) -> np.ndarray:
    """(...) standard deviations of (..., 3) colours from what an "Arm" or "Leg" of that face has."""
    if np.hypot(*face.mean[1:]) < GREY_CHROMA:
        return face.distance(lab)
    mean, std = LIMB_OFFSETS[limb]
    hue = (_hue(lab) - _hue(face.mean) + np.pi) % (2 * np.pi) - np.pi
    chroma = np.log(_chroma(lab) / _chroma(face.mean))
    offsets = np.stack([lab[..., 0] - face.mean[0], chroma, hue], axis=-1)
    return np.sqrt((((offsets - mean) / std) ** 2).sum(axis=-1))


def _hue(lab: np.ndarray) -> np.ndarray:
    return np.arctan2(lab[..., 2], lab[..., 1])


def _chroma(lab: np.ndarray) -> np.ndarray:
    """At least 2: below that hue and the logarithm mean nothing."""
    return np.hypot(lab[..., 1], lab[..., 2]).clip(2)


def _face_sample(lab: np.ndarray, skeleton: Skeleton2D) -> np.ndarray:
    """(n, 3) colours around the nose and the cheeks."""
    nose = skeleton.points.get("nose")
    if nose is None:
        return np.empty((0, 3), dtype=np.float32)
    height, width = lab.shape[:2]
    ears = [skeleton.points[name] for name in ("left_ear", "right_ear") if name in skeleton.points]
    places = [nose, *(nose + 0.35 * (ear - nose) for ear in ears)]
    mask = np.zeros((height, width), dtype=np.uint8)
    radius = max(1, round(0.028 * skeleton.pixels_per_metre))
    for x, y in places:
        cv2.circle(mask, (int(x), int(y + radius * 0.5)), radius, (1,), -1)
    return lab[mask > 0]
