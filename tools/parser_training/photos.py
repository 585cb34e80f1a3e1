"""Annotated photos as the parser is trained on them, in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from annotated import AnnotatedPhotos

from dsr_fit.evaluate import ccp
from dsr_fit.io.images import read_image
from dsr_fit.labels import OCCLUDER
from dsr_fit.observation import Detection
from dsr_fit.observe.crop import window_around
from dsr_fit.observe.network_parser import CLASSES, point_array

KEPT_SIDE = 448
"""Longer side of the person's window in pixels; larger photos are shrunk to it."""


@dataclass(frozen=True)
class Photo:
    """One annotated person."""

    number: str
    image: np.ndarray  # (H, W, 3) uint8 RGB
    classes: np.ndarray  # (H, W) uint8: 0..19 labels, 20 occluder, 255 unknown
    mask: np.ndarray  # (H, W) uint8 the detector's, 255 on the person
    points: np.ndarray  # (21, 3) float32 pixels and confidence
    center: tuple[float, float]  # of the window, pixels
    side: float  # of the window, pixels


def classes_of(labels: np.ndarray) -> np.ndarray:
    """(H, W) labels as the network numbers them: the occluder is the last class, unknown stays 255."""
    return np.where(labels == OCCLUDER, CLASSES - 1, labels).astype(np.uint8)


def load_photos(folder: Path, split: str, findings: Path | None) -> list[Photo]:
    """The annotated photos of a split in which the detector finds the person; `findings` keeps what it finds."""
    seen = AnnotatedPhotos(folder, findings)
    photos = []
    for number in ccp.photo_numbers(folder, split):
        found = seen.detection(number)
        if found is not None and found.person_mask is not None:
            image, _ = read_image(ccp.photo_path(folder, number))
            labels = ccp.read_annotation(folder, number, found.keypoints)
            photos.append(shrunk(number, image, labels, found))
    return photos


def shrunk(number: str, image: np.ndarray, labels: np.ndarray, found: Detection) -> Photo:
    """The photo as it is kept; `labels` (H, W), 254 occluder, 255 unknown."""
    window = window_around(found, (image.shape[0], image.shape[1]))
    scale = min(1.0, KEPT_SIDE / window.side)
    size = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    zoom = np.array([size[0] / image.shape[1], size[1] / image.shape[0], 1], np.float32)
    assert found.person_mask is not None
    center = np.array(window.center) * zoom[:2]
    return Photo(
        number,
        cv2.resize(image, size, interpolation=cv2.INTER_AREA),
        cv2.resize(classes_of(labels), size, interpolation=cv2.INTER_NEAREST),
        cv2.resize((255 * found.person_mask).astype(np.uint8), size, interpolation=cv2.INTER_AREA),
        (point_array(found.keypoints) * zoom).astype(np.float32),
        (float(center[0]), float(center[1])),
        window.side * scale,
    )
