"""Small operations on (H, W) bool regions and label maps."""

from __future__ import annotations

import cv2
import numpy as np


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
