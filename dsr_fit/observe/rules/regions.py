"""Regions of pixels: a person's mask grown from keypoints, and small operations on (H, W) bool regions and labels."""

from __future__ import annotations

import cv2
import numpy as np

from dsr_fit.observe.limbs import Skeleton2D, capsule_distances

NO_BOX = (0, 0, 1, 1)  # GrabCut reads it only where no mask is given

GRABCUT_SIDE = 256
"""Longer side in pixels of the crop that GrabCut works on."""


def disk(radius: float) -> np.ndarray:
    """Structuring element of a radius in pixels, 1 at least."""
    size = 2 * max(1, round(radius)) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))


def opened(region: np.ndarray, radius: float) -> np.ndarray:
    """Without specks and threads thinner than the disk."""
    return cv2.morphologyEx(region.astype(np.uint8), cv2.MORPH_OPEN, disk(radius)) > 0


def connected(region: np.ndarray, seed: np.ndarray) -> np.ndarray:
    """The connected pieces of a region that touch the seed."""
    _, pieces = cv2.connectedComponents(region.astype(np.uint8), connectivity=4)
    touched = np.unique(pieces[seed & region])
    return np.isin(pieces, touched[touched > 0])


def spread(labels: np.ndarray) -> np.ndarray:
    """(H, W) labels where every background pixel has taken the label nearest to it."""
    _, nearest = cv2.distanceTransformWithLabels(
        (labels == 0).astype(np.uint8), cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL
    )
    lookup = np.zeros(int(nearest.max()) + 1, dtype=np.uint8)
    lookup[nearest[labels > 0]] = labels[labels > 0]
    return lookup[nearest]


def mask_from_keypoints(image: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
    """(H, W) float32 person mask, 0 or 1 with blurred edges, grown by GrabCut from capsules around the bones.

    image: (H, W, 3) uint8; keypoints: (49, 3). Zeros where no point is usable.
    """
    height, width = image.shape[:2]
    mask = np.zeros((height, width), dtype=np.float32)
    skeleton = Skeleton2D.from_keypoints(keypoints)
    capsules = skeleton.capsules()
    if not capsules:
        return mask
    ends = np.array([end for capsule in capsules for end in (capsule.start, capsule.end)])
    margin = 0.3 * skeleton.pixels_per_metre
    left, top = np.maximum(ends.min(axis=0) - margin, 0).astype(int)
    right, bottom = np.minimum(np.ceil(ends.max(axis=0) + margin), [width, height]).astype(int)
    if right - left < 2 or bottom - top < 2:
        return mask
    scale = min(1.0, GRABCUT_SIDE / max(right - left, bottom - top))
    small = cv2.resize(image[top:bottom, left:right], None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    moved = keypoints.copy()
    moved[:, :2] = (moved[:, :2] - [left, top]) * scale
    nearest = capsule_distances(Skeleton2D.from_keypoints(moved).capsules(), *small.shape[:2]).min(axis=0)
    state = np.full(nearest.shape, cv2.GC_BGD, dtype=np.uint8)
    state[nearest < 2.4] = cv2.GC_PR_BGD
    state[nearest < 1.2] = cv2.GC_PR_FGD
    state[nearest < 0.5] = cv2.GC_FGD
    if (state == cv2.GC_BGD).any() and (state == cv2.GC_FGD).any():
        cv2.setRNGSeed(0)  # GrabCut's k-means draws from OpenCV's global generator
        cv2.grabCut(small, state, NO_BOX, np.zeros((1, 65)), np.zeros((1, 65)), 2, cv2.GC_INIT_WITH_MASK)
    person = ((state == cv2.GC_FGD) | (state == cv2.GC_PR_FGD)).astype(np.float32)
    person = cv2.GaussianBlur(person, (0, 0), 1.0)
    mask[top:bottom, left:right] = cv2.resize(person, (right - left, bottom - top), interpolation=cv2.INTER_LINEAR)
    return mask
