"""What a run fits: images, and the people that are known to be in them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dsr_fit.boxes import Box
from dsr_fit.dataset.names import image_path


@dataclass(frozen=True)
class Person:
    """A person annotated in an image; pixels of the full image."""

    number: int
    """Index of the person in the image, from 0, in the file's order."""
    keypoints: np.ndarray | None = None
    """(49, 3) x, y, confidence; None: the detector finds them in `bbox`."""
    bbox: Box | None = None
    """x, y, width, height."""
    outline: tuple[np.ndarray, ...] = ()
    """Polygons (n, 2) of the person's mask, if any."""
    source_id: int = -1
    """COCO's annotation id, or the row of a SPIN file; -1 without one."""
    origin: str = "unknown"
    """Source of the keypoints: "openpose", "coco", "spin"."""


@dataclass(frozen=True)
class Entry:
    """One image to fit; a run's smallest unit of work."""

    imgname: str
    """Relative to the source's folder of images, as `dsr_fit.dataset.names` stores it."""
    people: tuple[Person, ...] | None = None
    """None: whoever the detector finds, or the people of `keypoint_file`."""
    keypoint_file: Path | None = None
    """OpenPose's file of this image, read when the image is observed."""
    size: tuple[int, int] | None = None
    """Width and height that the source says the image has."""

    def digest(self) -> str:
        """What the source asks for in this image, as a hash."""
        hashed = hashlib.sha256(f"{self.keypoint_file is not None}".encode())
        for person in self.people or ():
            hashed.update(f"{person.number} {person.source_id} {person.bbox}\0".encode())
            hashed.update(b"" if person.keypoints is None else person.keypoints.tobytes())
            for polygon in person.outline:
                hashed.update(polygon.tobytes())
        return hashed.hexdigest()[:16]


@dataclass(frozen=True)
class Source:
    """All images of a run, in order; the order decides which are fitted together."""

    images: Path
    """Folder that names are relative to."""
    entries: Sequence[Entry]
    kind: str
    """`folder`, `openpose`, `coco`, `spin` or `list`."""
    left_out: int = 0
    """Annotated people that can't be fitted: crowds, too few keypoints."""
    left_files: tuple[str, ...] = ()
    """Files of a folder that are hidden, or no images of a format that is read."""
    repeated: int = 0
    """Further mentions of images that are named more than once."""
    repeated_people: int = 0
    """Further annotations of people who are annotated more than once in the same way."""

    def __len__(self) -> int:
        return len(self.entries)

    def files(self, entry: Entry) -> list[Path]:
        """The files that an entry's fit is made from."""
        return [image_path(self.images, entry.imgname), *filter(None, [entry.keypoint_file])]

    def sha256(self) -> str:
        """Of the images' names and whom to fit in them."""
        names = "".join(f"{entry.imgname}\0{entry.digest()}\0" for entry in self.entries)
        return hashlib.sha256(names.encode()).hexdigest()

    def finds_people(self) -> bool:
        """Whether the detector decides in any image who is in it."""
        return any(entry.people is None and entry.keypoint_file is None for entry in self.entries)

    def brings_keypoints(self) -> bool:
        """Whether any keypoints come with the source instead of from the detector."""
        return any(
            entry.keypoint_file is not None or any(person.keypoints is not None for person in entry.people or ())
            for entry in self.entries
        )
