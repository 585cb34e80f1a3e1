"""Crops of pictures and label maps, and the window of an image that a parser sees."""

from __future__ import annotations

import cv2
import numpy as np

from dsr_fit.camera import Crop
from dsr_fit.observation import Detection

WINDOW_MARGIN = 1.15
"""Side of the window over the side of the fit's crop."""


def window_around(detection: Detection, shape: tuple[int, int]) -> Crop:
    """The square of the image that a parser sees: around the keypoints, else the mask, else all of (H, W)."""
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


def cut(image: np.ndarray, window: Crop, size: int, border: int) -> np.ndarray:
    """(size, size[, 3]): what the window shows of (H, W[, 3]); see `warp`."""
    return warp(image, window.matrix(size), size, border)


def warp(image: np.ndarray, matrix: np.ndarray, size: int, border: int | None, *, nearest: bool = False) -> np.ndarray:
    """(size, size[, 3]) of (H, W[, 3]) under a (2, 3) similarity as `Crop.matrix` gives; `border` beyond the image, or
    where it is None the image's edge.

    Where much is shrunk, areas are averaged: bilinear samples alone would skip over fine detail. `nearest` takes the
    nearest pixel instead, for labels.
    """
    corners = np.array([[0, 0], [size, 0], [0, size], [size, size]]) - matrix[:, 2]
    reached = np.linalg.solve(matrix[:, :2], corners.T).T
    low = np.clip(np.floor(reached.min(0)) - 2, 0, None).astype(int)
    high = np.minimum(np.ceil(reached.max(0)) + 2, image.shape[1::-1]).astype(int)
    if border is None:  # a part is needed even of an image that lies beside the crop
        low = np.minimum(low, np.array(image.shape[1::-1]) - 1)
        high = np.maximum(high, low + 1)
    if (high <= low).any():
        return np.full((size, size, *image.shape[2:]), border, image.dtype)
    part = image[low[1] : high[1], low[0] : high[0]]
    turn, shift = matrix[:, :2], matrix[:, 2] + matrix[:, :2] @ low
    shrink = 2 * float(np.hypot(*turn[:, 0]))
    if shrink < 1 and not nearest:
        whole = high - low
        small = np.maximum(1, np.rint(shrink * whole)).astype(int)
        part = cv2.resize(part, (int(small[0]), int(small[1])), interpolation=cv2.INTER_AREA)
        turn = turn * (whole / small)
    centred = np.column_stack([turn, shift + turn @ (0.5, 0.5) - 0.5])  # OpenCV counts from pixels' centres
    flags = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR
    if border is None:
        return cv2.warpAffine(part, centred, (size, size), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return cv2.warpAffine(
        part, centred, (size, size), flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=(border,) * 3
    )


def seen_part(matrix: np.ndarray, size: int, shape: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the part of an (H, W) image about a crop of (size, size)."""
    corners = np.array([[0, 0], [size, 0], [0, size], [size, size]]) - matrix[:, 2]
    reached = np.linalg.solve(matrix[:, :2], corners.T).T
    left, top = np.clip(np.floor(reached.min(0)), 0, shape[::-1]).astype(int)
    right, bottom = np.clip(np.ceil(reached.max(0)), (left, top), shape[::-1]).astype(int)
    return int(left), int(top), int(right), int(bottom)


def put_back(labels: np.ndarray, matrix: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(S, S) labels of a crop -> (H, W) of the image, the nearest one; background outside the crop.

    `matrix` (2, 3) leads from pixels of the image to those of the crop, as `Crop.matrix` gives it.
    """
    full = np.zeros(shape, labels.dtype)
    left, top, right, bottom = seen_part(matrix, len(labels), shape)
    if right == left or bottom == top:
        return full
    turn, shift = matrix[:, :2], matrix[:, 2] + matrix[:, :2] @ (left, top)
    centred = np.column_stack([turn, shift + turn @ (0.5, 0.5) - 0.5])  # OpenCV counts from pixels' centres
    full[top:bottom, left:right] = cv2.warpAffine(
        labels, centred, (right - left, bottom - top), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    )
    return full
