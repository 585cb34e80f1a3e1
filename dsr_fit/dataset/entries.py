"""What a source lists: images, and the people in them that a dataset's files name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dsr_fit.boxes import Box


@dataclass(frozen=True)
class Person:
    """Somebody whom a dataset's file names in an image, pixels of the full image."""

    number: int
    """Which person of the image, from 0, in the file's order."""
    keypoints: np.ndarray | None = None
    """(49, 3) x, y, confidence; None where the detector is to find them in `bbox`."""
    bbox: Box | None = None
    """x, y, width, height."""
    outline: tuple[np.ndarray, ...] = ()
    """Polygons (n, 2) that the person fills; or none."""
    source_id: int = -1
    """The file's own number: COCO's annotation id, the row of a SPIN file; -1 where it has none."""
    origin: str = "unknown"
    """Where the keypoints come from: "openpose", "coco", "spin"."""


@dataclass(frozen=True)
class Entry:
    """One image to be fitted; the unit that a run is cut into."""

    imgname: str
    """Relative to the source's folder of images, with forward slashes."""
    people: tuple[Person, ...] | None = None
    """None: whoever the detector finds, or the people of `keypoint_file`."""
    keypoint_file: Path | None = None
    """OpenPose's file of this image, read when its turn comes."""


@dataclass(frozen=True)
class Source:
    """All images of a run, in the order that decides which are fitted together."""

    images: Path
    """Folder that names are relative to."""
    entries: Sequence[Entry]
    kind: str
    """`folder`, `openpose`, `coco`, `spin` or `list`."""
    left_out: int = 0
    """People that the source's file names and that can't be fitted: crowds, too few keypoints."""

    def __len__(self) -> int:
        return len(self.entries)

    def brings_keypoints(self) -> bool:
        """Whether anybody's keypoints come with it rather than from the detector."""
        return any(
            entry.keypoint_file is not None or any(person.keypoints is not None for person in entry.people or ())
            for entry in self.entries
        )
