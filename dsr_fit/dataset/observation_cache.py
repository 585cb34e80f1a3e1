"""What perception found in an image, kept in a file: neither regressor nor fit plays a part in it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from dsr_fit.dataset.entries import Entry
from dsr_fit.dataset.records import Found, Seen
from dsr_fit.dataset.worker import Work
from dsr_fit.errors import InputError
from dsr_fit.io.files import beneath, read_arrays, replacing

_ARRAYS = ("keypoints", "world_landmarks")


class KeptPerceiver:
    """A stage that looks at an image once: what is in the folder is read instead, unless the image is newer."""

    def __init__(self, folder: Path, images: Path, make: Callable[[], Work]) -> None:
        """`make` builds the stage that looks, when the first image needs it; `images` is the source's folder."""
        self.folder, self.images, self.make = folder, images, make
        self.work: Work | None = None

    def __call__(self, entry: Entry) -> list[Seen]:
        path = kept_path(self.folder, entry.imgname)
        if path.exists() and not _newer(self.images / entry.imgname, path):
            return read_seen(path, entry.imgname)
        self.work = self.work or self.make()
        seen = self.work(entry)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_seen(path, seen)
        return seen


def _newer(image: Path, finding: Path) -> bool:
    """Whether an image was written after it was looked at, as one that was damaged and is mended."""
    return image.exists() and image.stat().st_mtime_ns > finding.stat().st_mtime_ns


def kept_path(folder: Path, imgname: str) -> Path:
    """`FOLDER/IMGNAME.npz`."""
    return beneath(folder, f"{imgname}.npz")


def write_seen(path: Path, seen: list[Seen]) -> None:
    """The people of one image, found or not."""
    arrays: dict[str, np.ndarray] = {}
    people = []
    for number, one in enumerate(seen):
        told: dict[str, Any] = {"person": one.person, "source_id": one.source_id, "reason": one.reason}
        if one.found is not None:
            told["found"] = {
                name: getattr(one.found, name)
                for name in ("labels_source", "keypoints_source", "focal_length", "image_size")
            }
            arrays[f"labels_{number}"] = np.frombuffer(one.found.labels, np.uint8)
            for name in _ARRAYS:
                if getattr(one.found, name) is not None:
                    arrays[f"{name}_{number}"] = getattr(one.found, name)
        people.append(told)
    with replacing(path) as temporary:
        np.savez(temporary, people=np.array(json.dumps(people)), **arrays)  # type: ignore[arg-type]


def read_seen(path: Path, imgname: str) -> list[Seen]:
    """The same again, the time that it took left out. Raises InputError for a file that is damaged or another's."""
    try:
        arrays = read_arrays(path)
        if not isinstance(arrays, dict):
            raise ValueError("one array alone")
        return [_seen(arrays, number, imgname, told) for number, told in enumerate(json.loads(str(arrays["people"])))]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not what perception found ({' '.join(str(error).split())}); remove it") from None


def _seen(arrays: dict[str, np.ndarray], number: int, imgname: str, told: dict[str, Any]) -> Seen:
    seen = Seen(imgname, told["person"], told["source_id"], reason=told["reason"])
    if "found" not in told:
        return seen
    values = {name: arrays.get(f"{name}_{number}") for name in _ARRAYS}
    found = {**told["found"], "image_size": tuple(told["found"]["image_size"])}
    return replace(seen, found=Found(**values, labels=arrays[f"labels_{number}"].tobytes(), **found))  # type: ignore[arg-type]
