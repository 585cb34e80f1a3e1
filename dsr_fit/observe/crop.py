"""The square of an image that a parser looks at."""

from __future__ import annotations

import math

import cv2
import numpy as np

from dsr_fit.camera import Crop
from dsr_fit.observation import Detection

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


def cut(image: np.ndarray, window: Crop, size: int, border: int) -> np.ndarray:
    """(size, size[, 3]) uint8: what the window shows of (H, W[, 3]); `border` where it lies beyond the image.

    Where the window is shrunk much, areas are averaged: bilinear samples alone would skip over fine detail.
    """
    height, width = image.shape[:2]
    x, y = window.origin
    left, top = max(0, math.floor(x) - 2), max(0, math.floor(y) - 2)
    right, bottom = min(width, math.ceil(x + window.side) + 2), min(height, math.ceil(y + window.side) + 2)
    if right <= left or bottom <= top:
        return np.full((size, size, *image.shape[2:]), border, np.uint8)
    part = image[top:bottom, left:right]
    matrix = window_matrix(Crop((window.center[0] - left, window.center[1] - top), window.side), size)
    return warped(part, matrix, size, border)


def warped(part: np.ndarray, matrix: np.ndarray, size: int, border: int) -> np.ndarray:
    """(size, size[, 3]) uint8 of (H, W[, 3]) under a (2, 3) similarity in OpenCV's convention; else as `cut`."""
    matrix = matrix.copy()
    shrink = min(1.0, 2 * float(np.hypot(*matrix[:, 0])))
    if shrink < 1:
        whole = np.array(part.shape[1::-1])
        small = np.maximum(1, np.rint(shrink * whole)).astype(int)
        part = cv2.resize(part, (int(small[0]), int(small[1])), interpolation=cv2.INTER_AREA)
        scale = small / whole
        # Centres of pixels at whole numbers, before and after.
        matrix[:, 2] += matrix[:, :2] @ (0.5 / scale - 0.5)
        matrix[:, :2] /= scale
    return cv2.warpAffine(
        part, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(border,) * 3
    )


def put_back(labels: np.ndarray, window: Crop, shape: tuple[int, int]) -> np.ndarray:
    """(S, S) labels of the window -> (H, W) of the image, the nearest one; background outside the window."""
    size = len(labels)
    full = np.zeros(shape, labels.dtype)
    places = []
    for length, start in zip(shape, window.origin[::-1], strict=True):
        cells = np.floor((np.arange(length) + 0.5 - start) * size / window.side).astype(int)
        places.append((np.flatnonzero((cells >= 0) & (cells < size)), cells))
    (rows, row_cells), (columns, column_cells) = places
    full[np.ix_(rows, columns)] = labels[np.ix_(row_cells[rows], column_cells[columns])]
    return full
