"""Photos and drawings with annotated people, of several data sets' test images in COCO's format (Lin et al. 2014).

Their keypoints are brought to COCO's 17 by name: AI Challenger has 14 without a face, MHP 16 and JHMDB 15 without one,
PoseTrack 17 without eyes, Human-Art COCO's own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dsr_fit.boxes import Box

COCO_17 = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip

SETS = {
    "aic": ("test_aic.json", ""),
    "humanart": ("test_humanart.json", "HumanArt/images/"),
    "jhmdb": ("test_jhmdb_sub1.json", ""),
    "mhp": ("test_mhp.json", ""),
    "posetrack18": ("annotations/test_posetrack18_val.json", ""),
}
"""Folder -> its annotation, and what its file names have in front that the folder has not."""

BARE = ("coco", "deepfasion2")
"""Folders whose photos have nobody's keypoints."""


@dataclass(frozen=True)
class WildPerson:
    """An annotated person."""

    keypoints: np.ndarray
    """(17, 3) float64 pixels in COCO's order, and 1 where annotated, else 0."""
    box: Box

    @property
    def count(self) -> int:
        """Of annotated keypoints among the 17."""
        return int(self.keypoints[:, 2].sum())


@dataclass(frozen=True)
class WildPhoto:
    """A photo with those of its people who are annotated."""

    path: Path
    people: tuple[WildPerson, ...]


def read_wild(folder: Path) -> Iterator[WildPhoto]:
    """The photos, by set."""
    for name, (annotation, prefix) in SETS.items():
        yield from _read(folder / name, folder / name / annotation, prefix)
    for name in BARE:
        for path in sorted((folder / name).glob("*.jpg")):
            yield WildPhoto(path, ())


def _read(folder: Path, annotation: Path, prefix: str) -> Iterator[WildPhoto]:
    table = json.loads(annotation.read_text(encoding="utf-8"))
    slots = coco_slots(table["categories"][0]["keypoints"])
    for image in table["images"]:
        people = [
            WildPerson(_coco(one["keypoints"], slots), tuple(one["bbox"]))
            for one in table["annotations"]
            if one["image_id"] == image["id"]
        ]
        yield WildPhoto(folder / image["file_name"].removeprefix(prefix), tuple(people))


def coco_slots(names: list[str]) -> dict[int, int]:
    """Index of a set's keypoint -> its place among COCO's 17, of those which are there."""
    plain = [name.lower().replace(" ", "_").replace("-", "_") for name in names]
    return {index: COCO_17.index(name) for index, name in enumerate(plain) if name in COCO_17}


def _coco(values: list[float], slots: dict[int, int]) -> np.ndarray:
    points = np.array(values).reshape(-1, 3)
    keypoints = np.zeros((17, 3))
    for index, slot in slots.items():
        if points[index, 2] > 0:
            keypoints[slot] = (*points[index, :2], 1)
    return keypoints
