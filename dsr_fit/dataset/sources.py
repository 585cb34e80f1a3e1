"""From a path to the images and people of a run: folders, lists, OpenPose, COCO and SPIN files."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from dsr_fit.dataset.coco_source import read_coco
from dsr_fit.dataset.entries import Entry, Source
from dsr_fit.dataset.spin_source import read_spin_people
from dsr_fit.errors import InputError, UsageError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
OPENPOSE_SUFFIX = "_keypoints.json"


def open_source(path: Path, images: Path | None = None, keypoints: Path | None = None) -> Source:
    """Find out what a source is, and list it.

    Args:
        path: a folder (searched for images, its subfolders too), a COCO `.json`, a SPIN `.npz`, or a `.txt` with one
            image a line.
        images: folder that the names of a file are relative to; default: the file's own.
        keypoints: folder of OpenPose's `NAME_keypoints.json`, laid out as the images are; without it those beside
            the images are used, where there are any.
    Raises: InputError when it can't be read or lists nothing; UsageError for options that don't go together.
    """
    if not path.exists():
        raise InputError(f"{path}: no such source; a folder of images, COCO .json, SPIN .npz or a .txt list work")
    if path.is_dir():
        if images is not None:
            raise UsageError(f"--images {images}: {path} is a folder of images itself; leave the option out")
        source = _with_openpose(_folder(path), keypoints)
    else:
        if path.suffix not in _FILES:
            known = ", ".join(_FILES)
            raise InputError(f"{path}: not a source; a folder of images, or a file that ends in {known} works")
        if keypoints is not None and path.suffix != ".txt":
            raise UsageError(f"--keypoints {keypoints}: {path} has its own keypoints; leave the option out")
        source = _FILES[path.suffix](path, (images or path.parent).absolute())
        if path.suffix == ".txt":
            source = _with_openpose(source, keypoints)
    if not source.images.is_dir():
        raise InputError(f"{source.images}: no such folder of images; name it with --images")
    if not len(source):
        raise InputError(f"{path}: lists no images with people to fit ({source.left_out} people left out)")
    return source


def _folder(path: Path) -> Source:
    """Images of a folder and its subfolders, by name; hidden ones are left alone."""
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
    """One image a line; empty lines and those that start with # are skipped. Named twice, it is fitted once."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a list of images ({error}); a text file with one name a line works") from None
    names = dict.fromkeys(line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#"))
    return Source(images, [Entry(name) for name in names], "list")


def _with_openpose(source: Source, keypoints: Path | None) -> Source:
    """The same images with OpenPose's file of each; every image needs one where the folder was named."""
    if keypoints is not None and not keypoints.is_dir():
        raise InputError(f"--keypoints {keypoints}: no such folder; it holds NAME{OPENPOSE_SUFFIX} for each image")
    root = source.images if keypoints is None else keypoints.absolute()
    files = [root / PurePosixPath(entry.imgname).with_suffix("") for entry in source.entries]
    files = [file.with_name(file.name + OPENPOSE_SUFFIX) for file in files]
    if keypoints is None:
        present = [file.exists() for file in files]
        if not any(present):
            return source
        pairs = zip(source.entries, files, present, strict=True)
        entries = [replace(entry, keypoint_file=file) if there else entry for entry, file, there in pairs]
    else:
        pairs = zip(source.entries, files, strict=True)
        entries = [replace(entry, keypoint_file=file) for entry, file in pairs]
    return replace(source, entries=entries, kind="openpose")


_FILES: dict[str, Callable[[Path, Path], Source]] = {".json": read_coco, ".npz": read_spin_people, ".txt": _list}
