"""Boxes around people: x, y, width, height in pixels."""

from __future__ import annotations

import numpy as np

Box = tuple[float, float, float, float]
"""x, y, width, height in full-image pixels."""


def keypoint_box(keypoints: np.ndarray, min_confidence: float = 0.3) -> Box:
    """Box of the (49, 3) keypoints above a confidence; of all observed ones where none is; else zeros."""
    chosen = keypoints[keypoints[:, 2] > min_confidence]
    if not len(chosen):
        chosen = keypoints[keypoints[:, 2] > 0]
    if not len(chosen):
        return (0.0, 0.0, 0.0, 0.0)
    low, high = chosen[:, :2].min(axis=0), chosen[:, :2].max(axis=0)
    return (float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1]))


def widened(box: Box, margin: float) -> Box:
    """The box with a share of its longer side added on every side."""
    x, y, width, height = box
    extra = margin * max(width, height)
    return (x - extra, y - extra, width + 2 * extra, height + 2 * extra)


def area(box: Box) -> float:
    """Square pixels."""
    return box[2] * box[3]


def shared_area(first: Box, second: Box) -> float:
    """Square pixels that two boxes have in common."""
    width = min(first[0] + first[2], second[0] + second[2]) - max(first[0], second[0])
    height = min(first[1] + first[3], second[1] + second[3]) - max(first[1], second[1])
    return max(width, 0.0) * max(height, 0.0)


def joint_area(first: Box, second: Box) -> float:
    """Square pixels that two boxes cover together; `shared_area` over this is their IoU."""
    return area(first) + area(second) - shared_area(first, second)
