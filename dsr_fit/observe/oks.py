"""Object keypoint similarity (OKS, COCO's keypoint task): how far two sets of keypoints are the same person."""

from __future__ import annotations

import numpy as np

SIGMAS = 2 * np.array(
    [0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089,
     0.089]
)  # fmt: skip
"""(17,) spread of each keypoint over the square root of the person's area (COCO's constants, doubled as there)."""


def similarity(first: np.ndarray, second: np.ndarray, area: float, minimum: float = 0.2) -> float:
    """OKS of (17, 3) x, y, confidence; `area` in square pixels of the same image.

    Over the keypoints that both see with more than the minimum confidence; 0 where they share fewer than three.
    """
    both = (first[:, 2] > minimum) & (second[:, 2] > minimum)
    if both.sum() < 3:
        return 0.0
    squared = np.square(first[both, :2] - second[both, :2]).sum(1)
    return float(np.exp(-squared / (2 * max(area, 1.0) * SIGMAS[both] ** 2)).mean())


COCO_IN_BLAZEPOSE = [0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28]
"""BlazePose's landmarks of COCO's 17 keypoints."""
