"""What the processes of a run send each other: observed people, and rows. Light to import, small to send."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from PIL import Image

from dsr_fit.dataset.fingerprints import Fingerprint
from dsr_fit.observation import Detection, Observation


@dataclass(frozen=True)
class PackedObservation:
    """An observation with its label map packed and without its image, which only some regressors need."""

    keypoints: np.ndarray  # (49, 3)
    world_landmarks: np.ndarray | None  # (49, 4)
    labels: bytes
    """PNG of the (H, W) label map."""
    labels_source: str
    keypoints_source: str
    agreement: float | None
    focal_length: float
    image_size: tuple[int, int]  # width, height
    features: np.ndarray | None = None  # (D,) float16

    @classmethod
    def of(cls, observation: Observation) -> PackedObservation:
        detection = observation.detection
        return cls(
            detection.keypoints,
            detection.world_landmarks,
            pack_labels(observation.labels),
            observation.labels_source,
            detection.source,
            detection.agreement,
            observation.focal_length,
            observation.image_size,
            detection.features,
        )

    def observation(self) -> Observation:
        """As the fitter takes it, with a black image (a view of one pixel, without memory of its own)."""
        width, height = self.image_size
        black = np.broadcast_to(np.zeros(3, np.uint8), (height, width, 3))
        detection = Detection(
            self.keypoints, self.world_landmarks, None, self.keypoints_source, self.agreement, features=self.features
        )
        return Observation(black, detection, unpack_labels(self.labels), self.labels_source, self.focal_length)


@dataclass(frozen=True)
class PersonObservation:
    """One person of one image, found or not."""

    imgname: str
    person: int
    source_id: int = -1
    found: PackedObservation | None = None
    reason: str = ""
    """Why there is nothing to fit."""
    timings_s: dict[str, float] = field(default_factory=dict)
    files: Fingerprint | None = None
    """What the image's files held; None where that isn't known."""

    def named(self) -> dict[str, Any]:
        """The columns of a row that say who it is, and from what files."""
        columns = {"imgname": self.imgname, "person": self.person, "source_id": self.source_id}
        if self.files is None:
            return columns
        files = self.files
        return {**columns, "input_bytes": files.size, "input_mtime_ns": files.mtime_ns, "input_sha256": files.sha256}


@dataclass(frozen=True)
class FittedBatch:
    """The rows (`dsr_fit.dataset.schema`) of one batch of images, in order, and the seconds they took."""

    rows: list[dict[str, Any]]
    timings_s: dict[str, float] = field(default_factory=dict)


def failed_rows(people: list[PersonObservation], reason: str) -> list[dict[str, Any]]:
    """Rows of people whose batch could not be fitted."""
    return [{**one.named(), "status": "failed", "reason": one.reason or reason} for one in people]


def pack_labels(labels: np.ndarray) -> bytes:
    """(H, W) uint8 -> PNG."""
    file = io.BytesIO()
    Image.fromarray(labels).save(file, format="PNG", compress_level=3)
    return file.getvalue()


def unpack_labels(png: bytes) -> np.ndarray:
    """PNG -> (H, W) uint8."""
    labels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED)
    assert labels is not None
    return labels
