"""A dataset in SPIN's or DSR's `.npz` format as a source: one person a row, rows of one image together."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dsr_fit.dataset.entries import Entry, Person, Source
from dsr_fit.io.spin_file import SpinFile, read_spin
from dsr_fit.joints import empty_keypoints
from dsr_fit.observe.perception import MIN_KEYPOINTS


def read_spin_people(path: Path, images: Path) -> Source:
    """Every row: by its `part` where that has at least `MIN_KEYPOINTS` keypoints, else whom the detector finds in its
    box. Images are in the order of their first rows, people of an image in that of theirs.
    Raises InputError when the file can't be read.
    """
    file = read_spin(path)
    people: dict[str, list[Person]] = {}
    for row, imgname in enumerate(file.imgname):
        others = people.setdefault(imgname, [])
        others.append(_person(file, row, len(others)))
    return Source(images, [Entry(imgname, tuple(persons)) for imgname, persons in people.items()], "spin")


def _person(file: SpinFile, row: int, number: int) -> Person:
    keypoints = empty_keypoints()
    if file.part is not None:
        part = file.part[row].astype(np.float32)
        usable = np.isfinite(part).all(1) & (part[:, 2] > 0)
        keypoints[25:] = np.where(usable[:, None], part, 0)
        keypoints[:, 2] = keypoints[:, 2].clip(0, 1)
    found = int((keypoints[:, 2] > 0.2).sum()) >= MIN_KEYPOINTS
    return Person(number, keypoints if found else None, file.box(row), (), row, "spin")
