"""Upper and lower garment: where clothes of one colour end and those of another begin along the body."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.ndimage import gaussian_filter

from dsr_fit.labels import LABEL_INDEX
from dsr_fit.observe.limbs import SIDES, Skeleton2D

SAME_GARMENT = 0.6
"""Overlap (Bhattacharyya) of the colour histograms above and below, from which on both are one garment."""

BINS = (6, 10, 10)
"""Of L, a, b."""

ROUNDS = 3
"""How often the two garments' colours are learned anew from the pixels that they won."""


def split_garments(lab: np.ndarray, clothes: np.ndarray, skeleton: Skeleton2D) -> np.ndarray:
    """(H, W) uint8 labels as if every pixel were clothed; the caller cuts out the rest.

    lab: (H, W, 3) `skin.to_lab` colours; clothes: (H, W) bool, the person's pixels that are not skin, hair
    or shoes. Two colour histograms, seeded at the chest and at the legs, compete for the pixels, with the
    hips as the likely border. Where they are alike it is one garment: a dress if the knees are bare, else
    two parted at the hips.
    """
    neck = skeleton.middle("left_shoulder", "right_shoulder")
    hips = skeleton.middle("left_hip", "right_hip")
    upper, lower = LABEL_INDEX["upperclothes"], LABEL_INDEX["pants"]
    if neck is None or hips is None or np.linalg.norm(hips - neck) < 2:
        return np.full(clothes.shape, upper, dtype=np.uint8)
    axis = (hips - neck) / float((hips - neck) @ (hips - neck))
    y, x = np.mgrid[: clothes.shape[0], : clothes.shape[1]] + 0.5
    along = (x - neck[0]) * axis[0] + (y - neck[1]) * axis[1]  # 0 at the shoulders, 1 at the hips
    knees_bare = _knees_bare(clothes, skeleton)
    if knees_bare:
        lower = LABEL_INDEX["skirt"]

    bins = _colour_bins(lab)
    is_lower = along > 1.0
    above, below = clothes & (along < 0.75), clothes & (along > 1.3)
    if min(above.sum(), below.sum()) >= 30:
        overlap = float(np.sqrt(_histogram(bins[above]) * _histogram(bins[below])).sum())
        if overlap > SAME_GARMENT:
            if knees_bare:
                return np.full(clothes.shape, LABEL_INDEX["dress"], dtype=np.uint8)
        else:
            sigma = 0.02 * skeleton.pixels_per_metre
            for _ in range(ROUNDS):
                ratio = np.log(_histogram(bins[below]) / _histogram(bins[above]))[bins]
                evidence = cv2.GaussianBlur(np.where(clothes, ratio.clip(-3, 3), 0), (0, 0), sigma)
                is_lower = evidence + 3.0 * (along - 1.0).clip(-1.5, 1.5) > 0
                above, below = clothes & ~is_lower, clothes & is_lower
                if min(above.sum(), below.sum()) < 30:
                    break
    return np.where(is_lower, lower, upper).astype(np.uint8)


def _colour_bins(lab: np.ndarray) -> np.ndarray:
    """(H, W) int: which histogram bin each colour falls into."""
    low, high = np.array([0, -30, -30]), np.array([100, 40, 40])
    cells = ((lab - low) / (high - low) * BINS).astype(int).clip(0, np.array(BINS) - 1)
    return (cells[..., 0] * BINS[1] + cells[..., 1]) * BINS[2] + cells[..., 2]


def _histogram(bins: np.ndarray) -> np.ndarray:
    """(bins,) probabilities, smoothed over neighbouring bins and nowhere zero."""
    counts = np.bincount(bins, minlength=int(np.prod(BINS))).reshape(BINS).astype(np.float64)
    smooth = gaussian_filter(counts / counts.sum(), 0.6, mode="nearest").ravel() + 1e-4
    return smooth / smooth.sum()


def _knees_bare(clothes: np.ndarray, skeleton: Skeleton2D) -> bool:
    """Whether both legs show skin just below the knee."""
    height, width = clothes.shape
    for side in SIDES:
        knee, hip = skeleton.points.get(f"{side}_knee"), skeleton.points.get(f"{side}_hip")
        if knee is None or hip is None:
            return False
        x, y = knee + 0.25 * (knee - hip)
        if not (0 <= x < width and 0 <= y < height) or clothes[int(y), int(x)]:
            return False
    return True
