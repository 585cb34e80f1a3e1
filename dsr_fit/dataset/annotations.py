"""Sources that say who is in each image: COCO's keypoint annotations and SPIN's data sets."""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dsr_fit.boxes import Box
from dsr_fit.dataset.names import normalised, stored_name
from dsr_fit.dataset.sources import Entry, Person, Source
from dsr_fit.errors import InputError
from dsr_fit.io.spin_file import SpinFile, read_spin
from dsr_fit.joints import COCO_17_SLOTS, MIN_KEYPOINTS, empty_keypoints

FLAG_CONFIDENCE = np.array([0.0, 0.5, 1.0])
"""COCO's visibility flags as confidence: not labelled, labelled but hidden, visible."""

FAR = 1e9
"""Pixels; single precision holds them, and no image is so large."""


class _People:
    """People by image, numbered in the order they come in; one who is annotated again in the same way is counted."""

    def __init__(self, imgnames: Iterable[str] = ()) -> None:
        self.of: dict[str, list[Person]] = {name: [] for name in imgnames}
        self.repeated = 0
        self._known: set[Hashable] = set()

    def add(self, imgname: str, person: Person) -> None:
        arrays = (() if person.keypoints is None else (person.keypoints,)) + person.outline
        content = imgname, person.bbox, *(array.tobytes() for array in arrays)
        if content in self._known:
            self.repeated += 1
            return
        self._known.add(content)
        others = self.of.setdefault(imgname, [])
        others.append(replace(person, number=len(others)))


def read_coco(path: Path, images: Path) -> Source:
    """Images that show people with at least `MIN_KEYPOINTS` keypoints, in the order of the file's images.

    Boxes and polygons of the segmentation are used if given; `iscrowd` is skipped.
    Raises InputError when the file isn't COCO keypoint annotations, or has two images of one id.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        listed: dict[Hashable, Entry] = {}
        for image in content["images"]:
            entry = _coco_image(image, images)
            other = listed.setdefault(image["id"], entry)
            if other.imgname != entry.imgname:
                raise ValueError(f"{other.imgname} and {entry.imgname} have the same id")
        annotations = content["annotations"]
        if not isinstance(annotations, list):
            raise TypeError("`annotations` is no list")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(
            f"{path}: not COCO keypoint annotations ({type(error).__name__}: {error}); "
            "`images` and `annotations` as in person_keypoints_val2017.json work"
        ) from None
    # By name, not by id: an image that is listed twice is one image with the people of both.
    people = _People(entry.imgname for entry in listed.values())
    left_out = 0
    for number, annotation in enumerate(annotations):
        person = _coco_person(path, number, annotation)
        image = None if person is None else _entry_of(listed, annotation.get("image_id"))
        if person is None or image is None:
            left_out += 1
            continue
        people.add(image.imgname, person)
    first = {entry.imgname: entry for entry in reversed(listed.values())}
    entries = [replace(first[name], people=tuple(those)) for name, those in people.of.items() if those]
    repeated = len(content["images"]) - len(people.of)
    return Source(images, entries, "coco", left_out, repeated=repeated, repeated_people=people.repeated)


def _coco_image(image: dict[str, Any], images: Path) -> Entry:
    """An image of the file, yet without its people."""
    width, height = image.get("width"), image.get("height")
    size = (int(width), int(height)) if isinstance(width, (int, float)) and isinstance(height, (int, float)) else None
    return Entry(stored_name(normalised(str(image["file_name"]), images)), size=size)


def _entry_of(listed: dict[Any, Entry], image: Any) -> Entry | None:
    """The image with an id; None for one that isn't listed, or no id at all."""
    return listed.get(image) if isinstance(image, Hashable) else None


def _coco_person(path: Path, number: int, annotation: Any) -> Person | None:
    """None for crowds and people with too few keypoints; NaN points count as not labelled."""
    if not isinstance(annotation, dict) or annotation.get("iscrowd"):
        return None
    try:
        given = annotation.get("keypoints") or [0] * 51
        if len(given) != 51:
            raise ValueError(f"{len(given) / 3:g} keypoints; COCO has 17, each with x, y and visibility")
        table = np.array(given, dtype=np.float64).reshape(17, 3)
        flags = np.nan_to_num(table[:, 2]).clip(0, FAR)
        table[:, 2] = FLAG_CONFIDENCE[flags.astype(int)] if np.isin(flags, (0, 1, 2)).all() else flags
        table[~np.isfinite(table).all(1)] = 0
        table = table.clip(-FAR, FAR)
        keypoints = empty_keypoints()
        keypoints[list(COCO_17_SLOTS)] = np.where(table[:, 2:] > 0, table, 0)
        if (keypoints[:, 2] > 0).sum() < MIN_KEYPOINTS:
            return None
        bbox = annotation.get("bbox")
        box: Box | None = None
        if bbox is not None:
            x, y, width, height = (float(value) for value in bbox)
            box = (x, y, width, height)
        source_id = int(annotation.get("id", -1))
        if not -(2**63) <= source_id < 2**63:
            raise ValueError(f"its id {source_id} has more than 64 bits")
        return Person(0, keypoints, box, _outline(annotation.get("segmentation")), source_id, "coco")
    except (TypeError, ValueError, OverflowError, KeyError) as error:
        raise InputError(f"{path}: annotation {number} can't be read ({error})") from None


def _outline(segmentation: Any) -> tuple[np.ndarray, ...]:
    """Polygons; run-length encodings, which COCO uses for crowds, are ignored."""
    if not isinstance(segmentation, list):
        return ()
    polygons = (np.array(flat, dtype=np.float64).reshape(-1, 2) for flat in segmentation if len(flat) >= 6)
    return tuple(polygon.astype(np.float32) for polygon in polygons if (np.abs(polygon) < FAR).all())


def read_spin_people(path: Path, images: Path) -> Source:
    """Every row, repeated ones once.

    Their keypoints are those of `part` where at least `MIN_KEYPOINTS` are usable, else the detector's in the row's box.
    Images are in the order of their first rows, people of an image in that of their rows.
    Raises InputError when the file can't be read.
    """
    file = read_spin(path)
    people = _People()
    for row, imgname in enumerate(file.imgname):
        try:
            name = stored_name(normalised(imgname, images))
        except ValueError as error:
            raise InputError(f"{path}: row {row}: {error}") from None
        people.add(name, _spin_person(file, row))
    entries = [Entry(imgname, tuple(persons)) for imgname, persons in people.of.items()]
    return Source(images, entries, "spin", repeated_people=people.repeated)


def _spin_person(file: SpinFile, row: int) -> Person:
    keypoints = empty_keypoints()
    if file.part is not None:
        part = file.part[row].astype(np.float32)
        usable = np.isfinite(part).all(1) & (part[:, 2] > 0)
        keypoints[25:] = np.where(usable[:, None], part, 0)
    found = int((keypoints[:, 2] > 0.2).sum()) >= MIN_KEYPOINTS
    return Person(0, keypoints if found else None, file.box(row), (), row, "spin")
