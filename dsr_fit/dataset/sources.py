"""Images and people to fit, listed from a folder, a list, OpenPose, COCO or SPIN files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from dsr_fit.boxes import Box
from dsr_fit.errors import InputError, UsageError
from dsr_fit.io.spin_file import SpinFile, read_spin
from dsr_fit.joints import COCO_17_SLOTS, empty_keypoints
from dsr_fit.observe.perception import MIN_KEYPOINTS

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
OPENPOSE_SUFFIX = "_keypoints.json"

FLAG_CONFIDENCE = np.array([0.0, 0.5, 1.0])
"""COCO's visibility flags as confidence: not labelled, labelled but hidden, visible."""


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
    """Relative to the source's folder of images, with forward slashes."""
    people: tuple[Person, ...] | None = None
    """None: the person the detector finds, or the people of `keypoint_file`."""
    keypoint_file: Path | None = None
    """OpenPose's file of this image, read when the image is observed."""


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

    def __len__(self) -> int:
        return len(self.entries)

    def brings_keypoints(self) -> bool:
        """Whether any keypoints come with the source instead of from the detector."""
        return any(
            entry.keypoint_file is not None or any(person.keypoints is not None for person in entry.people or ())
            for entry in self.entries
        )


def open_source(path: Path, images: Path | None = None, keypoints: Path | None = None) -> Source:
    """List the images and people of a source, whose kind its path decides.

    Args:
        path: a folder (searched for images, its subfolders too), a COCO `.json`, a SPIN `.npz`, or a `.txt` with one
            image a line.
        images: folder that the names of a file are relative to; default: the file's own.
        keypoints: folder of OpenPose's `NAME_keypoints.json`, laid out as the images are; default: those beside the
            images, if any.
    Raises: InputError when it can't be read or lists nothing; UsageError for options that don't go together.
    """
    if not path.exists():
        raise InputError(f"{path}: no such source; a folder of images, COCO .json, SPIN .npz or a .txt list work")
    if path.is_dir():
        if images is not None:
            raise UsageError(f"--images {images}: {path} is a folder of images itself; leave the option out")
        source = _with_openpose(_folder(path), keypoints)
    else:
        suffix = path.suffix.lower()
        if suffix not in _FILES:
            known = ", ".join(_FILES)
            raise InputError(f"{path}: not a source; a folder of images, or a file that ends in {known} works")
        if keypoints is not None and suffix != ".txt":
            raise UsageError(f"--keypoints {keypoints}: {path} has its own keypoints; leave the option out")
        source = _FILES[suffix](path, (images or path.parent).absolute())
        if suffix == ".txt":
            source = _with_openpose(source, keypoints)
    if not source.images.is_dir():
        raise InputError(f"{source.images}: no such folder of images; name it with --images")
    if not len(source):
        raise InputError(f"{path}: lists no images with people to fit ({source.left_out} people left out)")
    return source


def _folder(path: Path) -> Source:
    """Images of a folder and its subfolders, by name; hidden ones are skipped."""
    names = []
    for parent, folders, files in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        inside = PurePosixPath(Path(parent).relative_to(path).as_posix())
        names += [
            str(inside / name)
            for name in files
            if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")
        ]
    return Source(path.absolute(), [Entry(name) for name in sorted(names)], "folder")


def _list(path: Path, images: Path) -> Source:
    """One image a line; empty lines and lines that start with # are skipped, duplicates are fitted once."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a list of images ({error}); a text file with one name a line works") from None
    names = dict.fromkeys(line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#"))
    return Source(images, [Entry(name) for name in names], "list")


def _with_openpose(source: Source, keypoints: Path | None) -> Source:
    """The same images with OpenPose's file of each; with `keypoints` every image needs one."""
    if keypoints is not None and not keypoints.is_dir():
        raise InputError(f"--keypoints {keypoints}: no such folder; it holds NAME{OPENPOSE_SUFFIX} for each image")
    root = source.images if keypoints is None else keypoints.absolute()
    files = [(root / entry.imgname).with_suffix("") for entry in source.entries]
    files = [file.with_name(file.name + OPENPOSE_SUFFIX) for file in files]
    used = [keypoints is not None or file.exists() for file in files]
    if not any(used):
        return source
    entries = [
        replace(entry, keypoint_file=file) if uses else entry
        for entry, file, uses in zip(source.entries, files, used, strict=True)
    ]
    return replace(source, entries=entries, kind="openpose")


def read_coco(path: Path, images: Path) -> Source:
    """Images that show people with at least `MIN_KEYPOINTS` keypoints, in the order of the file's images.

    Boxes and polygons of the segmentation are used if given; `iscrowd` is skipped.
    Raises InputError when the file isn't COCO keypoint annotations.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
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
        person = _coco_person(path, number, annotation)
        if person is None or annotation.get("image_id") not in names:
            left_out += 1
            continue
        others = people.setdefault(annotation["image_id"], [])
        others.append(replace(person, number=len(others)))
    entries = [Entry(names[image], tuple(people[image])) for image in names if image in people]
    return Source(images, entries, "coco", left_out)


def _coco_person(path: Path, number: int, annotation: Any) -> Person | None:
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
        outline = _outline(annotation.get("segmentation"))
        identity = int(annotation.get("id", -1))
        if not -(2**63) <= identity < 2**63:
            raise ValueError(f"id {identity}: at most 64 bits")
        return Person(0, keypoints, box, outline, identity, "coco")
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: annotation {number} can't be read ({error})") from None


def _outline(segmentation: Any) -> tuple[np.ndarray, ...]:
    """Polygons; run-length encodings, which COCO uses for crowds, are ignored."""
    if not isinstance(segmentation, list):
        return ()
    polygons = (np.array(flat, dtype=np.float32).reshape(-1, 2) for flat in segmentation if len(flat) >= 6)
    return tuple(polygon for polygon in polygons if np.isfinite(polygon).all())


def read_spin_people(path: Path, images: Path) -> Source:
    """Every row: the keypoints of `part` where at least `MIN_KEYPOINTS` are usable, else the detector's in its box.

    Images are in the order of their first rows, people of an image in that of their rows.
    Raises InputError when the file can't be read.
    """
    file = read_spin(path)
    people: dict[str, list[Person]] = {}
    for row, imgname in enumerate(file.imgname):
        others = people.setdefault(imgname, [])
        others.append(_spin_person(file, row, len(others)))
    return Source(images, [Entry(imgname, tuple(persons)) for imgname, persons in people.items()], "spin")


def _spin_person(file: SpinFile, row: int, number: int) -> Person:
    keypoints = empty_keypoints()
    if file.part is not None:
        part = file.part[row].astype(np.float32)
        usable = np.isfinite(part).all(1) & (part[:, 2] > 0)
        keypoints[25:] = np.where(usable[:, None], part, 0)
        keypoints[:, 2] = keypoints[:, 2].clip(0, 1)
    found = int((keypoints[:, 2] > 0.2).sum()) >= MIN_KEYPOINTS
    return Person(number, keypoints if found else None, file.box(row), (), row, "spin")


_FILES: dict[str, Callable[[Path, Path], Source]] = {".json": read_coco, ".npz": read_spin_people, ".txt": _list}
