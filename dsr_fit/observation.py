"""Detections and observations: the input of a fit.

Frames and units are those of `docs/conventions.md`: pixels of the full image with the centre of pixel (0, 0) at
(0.5, 0.5); metres in the camera frame x right, y down, z forward.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from dsr_fit.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

HEIGHT_RANGE = (0.4, 2.6)
"""Metres, shorter than a newborn child and almost as tall as anybody ever was."""


def check_height(height: float | None) -> None:
    """Raises UsageError for a height in metres that nobody has."""
    low, high = HEIGHT_RANGE
    if height is None or low <= height <= high:
        return
    meant = f"; did you mean {height / 100:.2f}?" if low <= height / 100 <= high else ""
    raise UsageError(f"--height {height:g}: metres, so between {low:g} and {high:g}{meant}")


def check_held(height: float | None, weight: float) -> None:
    """Raises UsageError for a height that nothing holds: `weight` is the fit's `weights.stature`."""
    if height is not None and not weight:
        raise UsageError("a known height is held by weights.stature, which is 0; change that, or leave the height out")


@dataclass(frozen=True)
class Look:
    """What the landmark network saw of one person in a turned square of the image; a parser goes on from it."""

    matrix: np.ndarray
    """(2, 3) from pixels of the image to those of the 256 px crop."""
    features: tuple[Tensor, ...]
    """The encoder's, (C, S, S) float16 at 128, 64, 32, 16 and 8 px."""
    mask: np.ndarray
    """(256, 256) float32 probability of this person."""
    others: np.ndarray | None = None
    """(256, 256) bool, pixels that show other people."""


@dataclass(frozen=True)
class Detection:
    """One person found in an image, by a detector or read from a keypoint file."""

    keypoints: np.ndarray
    """(49, 3) float32 x, y in full-image pixels and confidence 0..1; unobserved slots are zero."""

    world_landmarks: np.ndarray | None = None
    """(49, 4) float32 x, y, z in metres about the mid-hip and confidence, in the axes of a camera that looks straight
    at the person (along the ray to the middle of its keypoints); None without 3D."""

    person_mask: np.ndarray | None = None
    """(H, W) float32 probability that the pixel shows this person, full image; None when not available."""

    source: str = "unknown"
    """The detector or file format: "blazepose-heavy", "openpose", "coco", ..."""

    agreement: float | None = None
    """0..1, how far the person finder and the landmark network saw the same person (OKS); None without a finder."""

    others: np.ndarray | None = None
    """(H, W) bool, pixels that show other people; None where nobody else is near."""

    look: Look | None = None
    """None for people whom the landmark network has not seen, or the smaller one has."""

    features: np.ndarray | None = None
    """(22666,) float16, see `dsr_fit.observe.pose_features`; None as `look`, which they outlive."""


@dataclass(frozen=True)
class Observation:
    """The fit's input: one person of one image."""

    image: np.ndarray
    """(H, W, 3) uint8 RGB, upright (EXIF rotation applied)."""

    detection: Detection

    labels: np.ndarray
    """(H, W) uint8: 0..19 of `dsr_fit.labels.LABELS`, 253 another person, 254 occluder, 255 unknown."""

    labels_source: str
    """The parser's name, or the label map's file name."""

    focal_length: float
    """Pixels of the full image; the principal point is the image's centre."""

    timings_s: dict[str, float] = field(default_factory=dict)
    """Seconds of `detect` and `parse`."""

    height: float | None = None
    """Metres from sole to crown; None where it isn't known."""

    @property
    def image_size(self) -> tuple[int, int]:
        """Width, height."""
        return self.image.shape[1], self.image.shape[0]

    @property
    def principal_point(self) -> tuple[float, float]:
        return self.image.shape[1] / 2, self.image.shape[0] / 2
