"""Detections and observations: the input of a fit.

Frames and units are those of `docs/conventions.md`: pixels of the full image with the centre of pixel (0, 0) at
(0.5, 0.5); metres in the camera frame x right, y down, z forward.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


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

    @property
    def image_size(self) -> tuple[int, int]:
        """Width, height."""
        return self.image.shape[1], self.image.shape[0]

    @property
    def principal_point(self) -> tuple[float, float]:
        return self.image.shape[1] / 2, self.image.shape[0] / 2
