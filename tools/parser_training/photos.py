"""Annotated photos as the parser is trained on them, in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dsr_fit.evaluate import ccp
from dsr_fit.labels import OCCLUDER
from dsr_fit.perception.detector import MediaPipeDetector
from dsr_fit.perception.images import read_image
from dsr_fit.perception.network import CLASSES
from dsr_fit.perception.network_parser import window_around
from dsr_fit.perception.skeleton import point_array
from dsr_fit.types import Detection

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


def detect(folder: Path, number: str, detector: MediaPipeDetector, cache: Path | None) -> Detection | None:
    """The detector's finding, from the cache's `NUMBER.npz` where there is one."""
    kept = cache / f"{number}.npz" if cache else None
    if kept and kept.exists():
        with np.load(kept, allow_pickle=False) as file:
            if "keypoints" not in file:
                return None
            return Detection(file["keypoints"], file["world"], file["mask"].astype(np.float32) / 255, "mediapipe")
    found = detector.detect(read_image(ccp.photo_path(folder, number))[0])
    if kept:
        kept.parent.mkdir(parents=True, exist_ok=True)
        arrays = {"missing": np.array(True)}
        for person in found[:1]:
            assert person.person_mask is not None
            assert person.world_landmarks is not None
            mask = np.rint(255 * person.person_mask).astype(np.uint8)
            arrays = {"keypoints": person.keypoints, "world": person.world_landmarks, "mask": mask}
        np.savez_compressed(kept, **arrays)  # type: ignore[arg-type]
    return found[0] if found else None


def load_photos(folder: Path, split: str, cache: Path | None) -> list[Photo]:
    """The annotated photos of a split in which the detector finds the person."""
    detector = MediaPipeDetector()
    photos = []
    for number in ccp.photo_numbers(folder, split):
        found = detect(folder, number, detector, cache)
        if found is not None and found.person_mask is not None:
            image, _ = read_image(ccp.photo_path(folder, number))
            labels = ccp.read_annotation(folder, number, found.keypoints)
            photos.append(_shrunk(number, image, labels, found))
    return photos


def _shrunk(number: str, image: np.ndarray, labels: np.ndarray, found: Detection) -> Photo:
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
