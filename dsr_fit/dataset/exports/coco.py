"""COCO keypoints: where the fits' joints are in the image, with the fit's quality as `score`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from dsr_fit.dataset.exports.labels import Label, annotation_ids, by_image, projected
from dsr_fit.io.files import replacing
from dsr_fit.joints import COCO_17_SLOTS

NAMES = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
    "right_ankle",
)  # fmt: skip
SKELETON = (
    (16, 14), (14, 12), (17, 15), (15, 13), (12, 13), (6, 12), (7, 13), (6, 7), (6, 8), (7, 9), (8, 10), (9, 11),
    (2, 3), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7),
)  # fmt: skip

DETECTOR_SLOTS = (0, 16, 15, 18, 17, 5, 2, 6, 3, 7, 4, 12, 9, 13, 10, 14, 11)
"""The same points in BODY_25, whose observation says whether a point is visible."""

MIN_CONFIDENCE = 0.3


def write_coco(labels: Iterable[Label], out: Path, images: Path) -> int:
    """Write `images`, `annotations` and `categories` as in `person_keypoints_*.json`.

    v is 2 for joints that were observed, 1 for those that only the body tells, 0 outside the image. An image's id is
    the number that is its name, as in COCO, where all names are distinct numbers; else they are counted from 1. An
    annotation's is the source's, or counted from 1 where those aren't distinct.
    """
    del images
    groups = list(by_image(labels))
    ids = _ids([imgname for imgname, _ in groups])
    numbers = iter(annotation_ids([label for _, people in groups for label in people], first=1))
    listed, annotations = [], []
    for imgname, people in groups:
        width, height = (int(value) for value in people[0].row["image_size"])
        listed.append({"id": ids[imgname], "file_name": people[0].imgname, "width": width, "height": height})
        annotations += [_annotation(next(numbers), ids[imgname], label) for label in people]
    category = {"id": 1, "name": "person", "supercategory": "person", "keypoints": NAMES, "skeleton": SKELETON}
    content = {"images": listed, "annotations": annotations, "categories": [category]}
    with replacing(out) as temporary:
        temporary.write_text(json.dumps(content, allow_nan=False), encoding="utf-8")
    return len(annotations)


def _ids(names: list[str]) -> dict[str, int]:
    stems = [PurePosixPath(name).stem for name in names]
    if all(stem.isdecimal() for stem in stems) and len({int(stem) for stem in stems}) == len(names):
        return {name: int(stem) for name, stem in zip(names, stems, strict=True)}
    return {name: number + 1 for number, name in enumerate(names)}


def _annotation(number: int, image: int, label: Label) -> dict[str, Any]:
    row = label.row
    slots = list(COCO_17_SLOTS)
    points = projected(row)[slots]
    observed = np.maximum(row["keypoints"][slots, 2], row["keypoints"][list(DETECTOR_SLOTS), 2]) > MIN_CONFIDENCE
    inside = ((points >= 0) & (points <= row["image_size"])).all(1) & (label.joints[slots, 3] > 0)
    flags = np.where(inside, np.where(observed, 2, 1), 0)
    table = np.column_stack([np.where(inside[:, None], points, 0), flags])
    shown = points[inside] if inside.any() else points
    low, size = shown.min(0), np.ptp(shown, axis=0)
    return {
        "id": number,
        "image_id": image,
        "category_id": 1,
        "keypoints": [round(float(value), 3) for value in table.ravel()],
        "num_keypoints": int((flags > 0).sum()),
        "bbox": [round(float(value), 3) for value in (*low, *size)],
        "area": round(float(size.prod()), 3),
        "iscrowd": 0,
        "score": row["quality"] if row["quality"] is not None else 1.0,
    }
