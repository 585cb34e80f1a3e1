"""The images of a source, listed from a folder, a list, or files of annotations."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from dsr_fit.dataset.annotations import read_coco, read_spin_people
from dsr_fit.dataset.names import image_path, normalised, stored_name
from dsr_fit.dataset.sources import Entry, Source
from dsr_fit.errors import InputError, UsageError
from dsr_fit.io.images import is_image

OPENPOSE_SUFFIX = "_keypoints.json"

KINDS_NAMED = 5
"""Kinds of left out files that are named; the rest is counted."""

SIDECARS = (".json", ".txt", ".npz", ".parquet")
"""Files beside images that nobody expects to be fitted."""

FOLDERS = ("overlays", "parts", "plans")
"""What a run writes into its folder of results."""


def open_source(
    path: Path, images: Path | None = None, keypoints: Path | None = None, out: Path | None = None
) -> Source:
    """List the images and people of a source, whose kind its path decides.

    Args:
        path: a folder (searched for images, its subfolders too), a COCO `.json`, a SPIN `.npz`, or a `.txt` with one
            image a line.
        images: folder that the names of a file are relative to; default: the file's own.
        keypoints: folder of OpenPose's `NAME_keypoints.json`, laid out as the images are; default: those beside the
            images, if any.
        out: folder of the results; nothing in it is an input.
    Raises: InputError when it can't be read or lists nothing; UsageError for options that don't go together.
    """
    if not path.exists():
        raise InputError(f"{path}: no such source; a folder of images, COCO .json, SPIN .npz or a .txt list work")
    if path.is_dir():
        if images is not None:
            raise UsageError(f"--images {images}: {path} is a folder of images itself; leave the option out")
        source = _with_openpose(_folder(path, out), keypoints)
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
        people = f" ({source.left_out} people left out)" if source.left_out else ""
        raise InputError(f"{path}: lists no images with people to fit{people}")
    return source


def described(left: Sequence[str]) -> str:
    """What is left out, counted by its kind: `3 .heic, 1 hidden and 2 more, such as IMG_1.heic`."""
    counts = Counter(map(_kind, left))
    named = dict(counts.most_common(KINDS_NAMED))
    others = counts.total() - sum(named.values())
    more = f" and {others} more" if others else ""
    return ", ".join(f"{number} {kind}" for kind, number in named.items()) + f"{more}, such as {left[0]}"


def _kind(name: str) -> str:
    """What a file is counted as."""
    path = PurePosixPath(name)
    if path.name.startswith("."):
        return "hidden"
    return "folder(s) not searched" if name.endswith("/") else path.suffix.lower() or "without a suffix"


def _is_meant(name: str) -> bool:
    """Whether somebody may have wanted this file to be fitted: not what programs keep beside images."""
    path = PurePosixPath(name)
    return is_image(name) if path.name.startswith(".") else path.suffix.lower() not in SIDECARS


def _folder(path: Path, out: Path | None) -> Source:
    """Images of a folder and its subfolders, by name; hidden ones, and those of the results, are skipped.

    Raises InputError where there are none.
    """
    left: list[str] = []

    def unreadable(error: OSError) -> None:
        left.append(f"{Path(error.filename).relative_to(path).as_posix()}/")

    own = set() if out is None else {out.resolve(), *(out.resolve() / name for name in FOLDERS)}
    own -= {path.resolve(), *path.resolve().parents}  # results beside their images, or above them
    names = []
    for parent, folders, files in os.walk(path, onerror=unreadable):
        inside = PurePosixPath(Path(parent).relative_to(path).as_posix())
        here = [name for name in sorted(folders) if not name.startswith(".")]
        left += [f"{inside / name}/" for name in folders if name.startswith(".")]
        folders[:] = [name for name in here if (Path(parent) / name).resolve() not in own]
        left += [f"{inside / name}/" for name in folders if (Path(parent) / name).is_symlink()]
        for name in files:
            (names if is_image(name) and not name.startswith(".") else left).append(str(inside / name))
    left = [stored_name(name) for name in sorted(left)]
    if not names:
        raise InputError(f"{path}: no images to fit; it {f'holds {described(left)}' if left else 'is empty'}")
    entries = [Entry(name) for name in sorted(map(stored_name, names))]
    return Source(path.absolute(), entries, "folder", left_files=tuple(filter(_is_meant, left)))


def _list(path: Path, images: Path) -> Source:
    """One image a line; empty lines and lines that start with # are skipped, an image named again is fitted once."""
    try:
        text = path.read_bytes().decode("utf-8-sig", "surrogateescape")  # names may be of any bytes
        lines = [line.strip() for line in text.splitlines()]
        names = [stored_name(normalised(line, images)) for line in lines if line and not line.startswith("#")]
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a list of images ({error}); a text file with one name a line works") from None
    entries = [Entry(name) for name in dict.fromkeys(names)]
    return Source(images, entries, "list", repeated=len(names) - len(entries))


def _with_openpose(source: Source, keypoints: Path | None) -> Source:
    """The same images with OpenPose's file of each; with `keypoints` every image needs one."""
    if keypoints is not None and not keypoints.is_dir():
        raise InputError(f"--keypoints {keypoints}: no such folder; it holds NAME{OPENPOSE_SUFFIX} for each image")
    root = source.images if keypoints is None else keypoints.absolute()
    entries = []
    for entry in source.entries:
        image = image_path(root, entry.imgname)
        file = image.parent / f"{image.stem}{OPENPOSE_SUFFIX}"
        used = keypoints is not None or os.path.exists(file)
        entries.append(replace(entry, keypoint_file=file) if used else entry)
    with_files = any(entry.keypoint_file is not None for entry in entries)
    return replace(source, entries=entries, kind="openpose") if with_files else source


_FILES: dict[str, Callable[[Path, Path], Source]] = {".json": read_coco, ".npz": read_spin_people, ".txt": _list}
