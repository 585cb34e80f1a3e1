"""The human parser that ships: the network of `perception.network` on a window around the person."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dsr_fit.assets import shipped
from dsr_fit.camera import Crop
from dsr_fit.errors import InputError
from dsr_fit.labels import LEFT_RIGHT_PAIRS, OCCLUDER
from dsr_fit.perception.network import CLASSES, POINTS, STRIDE, ParserNetwork, prepare
from dsr_fit.perception.skeleton import point_array
from dsr_fit.types import Detection

WINDOW_MARGIN = 1.15
"""Side of the window over the side of the fit's crop."""

SIZE = 320
"""Pixels of the window's side that the network looks at."""

OUTSIDE = 127
"""Grey of what lies outside the image."""

PAPER_SCALES = (0.5, 0.75, 1.0, 1.5)
PAPER_LARGEST = 1080
"""DSR's supplementary: scales that are averaged, each with its mirror image; scale 1 alone for larger images."""

Protocol = Literal["fast", "paper"]


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
