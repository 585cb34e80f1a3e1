"""COCO's `person_keypoints_*.json` as a source: every person with enough keypoints, crowds skipped."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from dsr_fit.boxes import Box
from dsr_fit.dataset.entries import Entry, Person, Source
from dsr_fit.errors import InputError
from dsr_fit.joints import COCO_17_SLOTS, empty_keypoints
from dsr_fit.observe.perception import MIN_KEYPOINTS

FLAG_CONFIDENCE = np.array([0.0, 0.5, 1.0])
"""COCO's visibility flags as confidence: not labelled, labelled but hidden, visible."""


def read_coco(path: Path, images: Path) -> Source:
    """Images that show people with at least `MIN_KEYPOINTS` keypoints, in the order of the file's images.

    A person's box and the polygons of its segmentation are kept where they are given; `iscrowd` is skipped.
    Raises InputError when the file is no such json.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names = {image["id"]: str(image["file_name"]) for image in content["images"]}
        annotations = content["annotations"]
        if not isinstance(annotations, list):
            raise TypeError("`annotations` is no list")
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(
            f"{path}: not COCO keypoint annotations ({type(error).__name__}: {error}); "
            "`images` and `annotations` as in person_keypoints_val2017.json work"
        ) from None
    people: dict[Any, list[Person]] = {}
    left_out = 0
    for number, annotation in enumerate(annotations):
        person = _person(path, number, annotation)
        image = annotation.get("image_id") if isinstance(annotation, dict) else None
        if person is None or image not in names:
            left_out += 1
            continue
        people.setdefault(image, []).append(person)
    entries = [
        Entry(names[image], tuple(_numbered(people[image], number) for number in range(len(people[image]))))
        for image in names
        if image in people
    ]
    return Source(images, entries, "coco", left_out)


def _numbered(people: list[Person], number: int) -> Person:
    person = people[number]
    return Person(number, person.keypoints, person.bbox, person.outline, person.source_id, "coco")


def _person(path: Path, number: int, annotation: Any) -> Person | None:
    """None for crowds and people with too few keypoints; NaN points count as not labelled."""
    if not isinstance(annotation, dict) or annotation.get("iscrowd"):
        return None
    try:
        table = np.array(annotation.get("keypoints") or np.zeros(51), dtype=np.float64).reshape(17, 3)
        flags = np.nan_to_num(table[:, 2]).clip(0, 2)
        whole = (flags == flags.round()).all()
        table[:, 2] = FLAG_CONFIDENCE[flags.astype(int)] if whole else flags.clip(0, 1)
        table[~np.isfinite(table).all(1)] = 0
        keypoints = empty_keypoints()
        keypoints[list(COCO_17_SLOTS)] = np.where(table[:, 2:] > 0, table, 0)
        if (keypoints[:, 2] > 0).sum() < MIN_KEYPOINTS:
            return None
        bbox = annotation.get("bbox")
        box: Box | None = None
        if bbox is not None:
            x, y, width, height = (float(value) for value in bbox)
            box = (x, y, width, height)
        return Person(0, keypoints, box, _outline(annotation.get("segmentation")), int(annotation.get("id", -1)))
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: annotation {number} can't be read ({error})") from None


def _outline(segmentation: Any) -> tuple[np.ndarray, ...]:
    """Polygons; run lengths, which COCO uses for crowds, are not used."""
    if not isinstance(segmentation, list):
        return ()
    polygons = (np.array(flat, dtype=np.float32).reshape(-1, 2) for flat in segmentation if len(flat) >= 6)
    return tuple(polygon for polygon in polygons if np.isfinite(polygon).all())
