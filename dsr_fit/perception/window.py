"""The square of an image that a parser looks at."""

from __future__ import annotations

import numpy as np

from dsr_fit.camera import Crop
from dsr_fit.types import Detection

WINDOW_MARGIN = 1.15
"""Side of the window over the side of the fit's crop."""


def window_around(detection: Detection, shape: tuple[int, int]) -> Crop:
    """The square of the image that is looked at: around the keypoints, else the mask, else all of (H, W)."""
    if (detection.keypoints[:, 2] > 0.2).any():
        crop = Crop.around(detection.keypoints)
        return Crop(crop.center, WINDOW_MARGIN * crop.side)
    height, width = shape
    left, top, right, bottom = 0.0, 0.0, float(width), float(height)
    if detection.person_mask is not None and (detection.person_mask > 0.5).any():
        rows, columns = np.nonzero(detection.person_mask > 0.5)
        left, top, right, bottom = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    side = WINDOW_MARGIN * max(right - left, bottom - top)
    return Crop((float(left + right) / 2, float(top + bottom) / 2), float(side))


def window_matrix(window: Crop, size: int) -> np.ndarray:
    """(2, 3) from the image's pixels to the window's, in OpenCV's convention (centres at whole numbers)."""
    scale = size / window.side
    x, y = window.origin
    return np.array([[scale, 0, (0.5 - x) * scale - 0.5], [0, scale, (0.5 - y) * scale - 0.5]])
