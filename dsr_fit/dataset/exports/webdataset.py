"""HMR2's WebDataset: a tar of images, each followed by its people (`data.pyd`) and their masks (`detection.npz`)."""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from dsr_fit.dataset.exports.labels import Label, by_image
from dsr_fit.dataset.names import image_path
from dsr_fit.dataset.records import unpack_labels
from dsr_fit.errors import InputError
from dsr_fit.io.files import replacing
from dsr_fit.labels import shows_person

JOINTS = 44
"""BODY_25, then the first 19 of SPIN's 24."""


def write_webdataset(labels: Iterable[Label], out: Path, images: Path) -> int:
    """Write a tar. Raises InputError where an image is gone; names are the images', slashes become `__`."""
    people_written = 0
    keys: set[str] = set()
    with replacing(out) as temporary, tarfile.open(temporary, "w") as archive:
        for imgname, people in by_image(labels):
            path = image_path(images, imgname)
            if not path.is_file():
                raise InputError(f"{path}: the image is gone; --images names the folder that it is in now")
            key = _key(imgname, keys)
            _add(archive, f"{key}.data.pyd", pickle.dumps([_person(i, label) for i, label in enumerate(people)], 4))
            _add(archive, f"{key}.detection.npz", _masks(people))
            _add(archive, f"{key}{path.suffix.lower()}", path.read_bytes())
            people_written += len(people)
    return people_written


def _key(imgname: str, taken: set[str]) -> str:
    """A sample's name, without dots and slashes, that no other has (a.jpg and a.png are two samples)."""
    stem = str(Path(imgname).with_suffix("")).replace("/", "__").replace(".", "_")
    key, number = stem, 1
    while key in taken:
        number += 1
        key = f"{stem}_{number}"
    taken.add(key)
    return key


def _person(number: int, label: Label) -> dict[str, Any]:
    """Of plain numpy arrays and numbers only."""
    row, one = label.row, np.float32(label.is_smpl)
    loss = np.empty((), dtype=object)  # read with `.item()`
    loss[()] = {"reprojection_loss": float(row["energy_keypoints"])}
    return {
        "keypoints_2d": row["keypoints"][:JOINTS].astype(np.float32),
        "keypoints_3d": label.joints[:JOINTS].astype(np.float32),
        "center": row["bbox_center"].astype(np.float32),
        "scale": np.full(2, row["bbox_scale"], np.float32),
        "body_pose": (label.pose * one).astype(np.float32),
        "betas": (label.betas * one).astype(np.float32),
        "has_body_pose": one,
        "has_betas": one,
        "personid": row["person"],
        "extra_info": {"fitting_loss": loss, "detection_npz_idx": number},
    }


def _masks(people: list[Label]) -> bytes:
    """`masks` (P, H, W) bool: what each person's label map says is the person."""
    masks = np.stack([shows_person(unpack_labels(label.row["labels"])) for label in people])
    file = io.BytesIO()
    np.savez_compressed(file, masks=masks)
    return file.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))
