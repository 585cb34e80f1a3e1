"""The datasets of SPIN (Kolotouros et al. 2019): one `.npz` with a row for each person of each image.

Names may be stored as text, as bytes, or as pickled objects; these are read without running code from the file.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from dsr_fit.boxes import Box
from dsr_fit.errors import InputError, one_line
from dsr_fit.io.files import check_file
from dsr_fit.io.safe_pickle import load_pickle

SCALE_PIXELS = 200.0
"""Side of the person's square box over SPIN's `scale`, pixels."""

_TEXTS = ("imgname", "gender")
_SHAPES: dict[str, tuple[int, ...]] = {
    "center": (2,), "scale": (), "part": (24, 3), "openpose": (25, 3), "S": (24, 4), "pose": (72,), "shape": (10,),
    "has_smpl": (),
}  # fmt: skip
_FULL_CAMERA: dict[str, tuple[int, ...]] = {
    "global_orient": (3,), "cam_t": (3,), "focal_length": (), "principal_point": (2,), "image_size": (2,),
}  # fmt: skip
_REQUIRED = ("imgname", "center", "scale")

_FARTHEST = 1e9
"""Pixels, and confidence: keypoints beyond are taken to lie here, in single precision's range, and refused when they
are observed."""


@dataclass(frozen=True)
class FullCamera:
    """What our own exports add: the full image's camera, in which SPIN's `pose` has another orientation."""

    global_orient: np.ndarray  # (N, 3) axis-angle
    cam_t: np.ndarray  # (N, 3) metres
    focal_length: np.ndarray  # (N,) pixels
    principal_point: np.ndarray  # (N, 2) pixels
    image_size: np.ndarray  # (N, 2) width, height


@dataclass(frozen=True)
class SpinFile:
    """The columns of a file, N rows; None where the file lacks one. Pixels of the full image, metres."""

    path: Path
    imgname: tuple[str, ...]
    """Relative to the folder of the images."""
    center: np.ndarray  # (N, 2) middle of the person's box
    scale: np.ndarray  # (N,) side of the box / 200
    part: np.ndarray | None  # (N, 24, 3) keypoints and confidence, SPIN's 24 joints
    joints: np.ndarray | None  # (N, 24, 4) `S`: 3D joints and confidence, camera axes, about the pelvis
    pose: np.ndarray | None  # (N, 72) axis-angle, global orientation first, camera frame
    betas: np.ndarray | None  # (N, 10) `shape`
    has_smpl: np.ndarray  # (N,) bool: pose and betas are known; all where the file doesn't say
    gender: tuple[str, ...] | None
    """`m`, `f`, or what else the file says."""
    openpose: np.ndarray | None = None  # (N, 25, 3) keypoints and confidence, BODY_25
    full: FullCamera | None = None

    def __len__(self) -> int:
        return len(self.imgname)

    def box(self, row: int) -> Box:
        """x, y, width, height of the row's person, pixels."""
        side = SCALE_PIXELS * float(self.scale[row])
        x, y = (float(middle) - side / 2 for middle in self.center[row])
        return x, y, side, side


def read_spin(path: Path) -> SpinFile:
    """Read a file. Raises InputError where it isn't one, is damaged, lacks columns or has a column's shape wrong."""
    check_file(path, "dataset in SPIN's .npz format")
    columns = _columns(path)
    missing = [name for name in _REQUIRED if name not in columns]
    if missing:
        raise InputError(f"{path}: not a dataset in SPIN's format, it lacks {', '.join(missing)}")
    texts = {name: _texts(path, name, columns[name]) for name in _TEXTS if name in columns}
    count = len(texts["imgname"])
    if count == 0:
        raise InputError(f"{path}: holds no rows")
    if "gender" in texts and len(texts["gender"]) != count:
        raise InputError(f"{path}: `gender` has {len(texts['gender'])} rows, `imgname` {count}")
    shapes = _SHAPES | _FULL_CAMERA
    numbers = {
        name: _numbers(path, name, columns[name], (count, *shape)) for name, shape in shapes.items() if name in columns
    }
    for name in ("part", "openpose"):
        if name in numbers:
            points = numbers[name]
            lost = np.isinf(points) & (True, True, False)
            numbers[name] = np.where(lost, np.nan, points.clip(-_FARTHEST, _FARTHEST))
    full = {name: numbers[name] for name in _FULL_CAMERA if name in numbers}
    return SpinFile(
        path=path,
        imgname=texts["imgname"],
        center=numbers["center"],
        scale=numbers["scale"],
        part=numbers.get("part"),
        joints=numbers.get("S"),
        pose=numbers.get("pose"),
        betas=numbers.get("shape"),
        has_smpl=numbers.get("has_smpl", np.ones(count)) > 0,
        gender=texts.get("gender"),
        openpose=numbers.get("openpose"),
        full=FullCamera(**full) if len(full) == len(_FULL_CAMERA) else None,
    )


def _columns(path: Path) -> dict[str, np.ndarray]:
    """The columns that we use, as stored."""
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            present = [name for name in (*_TEXTS, *_SHAPES, *_FULL_CAMERA) if f"{name}.npy" in archive.namelist()]
            return {name: _column(path, archive, f"{name}.npy") for name in present}
    except InputError:
        raise
    except Exception as error:  # damaged content makes zipfile, zlib and numpy's header parser raise anything
        raise InputError(f"{path}: not a readable .npz ({one_line(error)})") from None


def _column(path: Path, archive: zipfile.ZipFile, member: str) -> np.ndarray:
    with archive.open(member) as file:
        version = npy.read_magic(file)
        read_header: Callable = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        _, _, dtype = read_header(file)
        if dtype.hasobject:  # numpy would run the pickle that follows
            return np.asarray(load_pickle(file, path))
    with archive.open(member) as file:
        return npy.read_array(file, allow_pickle=False)


def _texts(path: Path, name: str, column: np.ndarray) -> tuple[str, ...]:
    if column.ndim == 2 and column.shape[1] == 1:
        column = column[:, 0]
    entries = column.ravel().tolist()
    if column.ndim != 1 or not all(isinstance(entry, str | bytes) for entry in entries):
        raise InputError(f"{path}: `{name}` must be a list of texts, it is {column.dtype} of shape {column.shape}")
    return tuple(entry.decode("utf-8", "surrogateescape") if isinstance(entry, bytes) else entry for entry in entries)


def _numbers(path: Path, name: str, column: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    if column.shape == (*shape, 1):
        column = column[..., 0]
    try:
        column = column.astype(np.float64)
    except (TypeError, ValueError):
        raise InputError(f"{path}: `{name}` holds something else than numbers") from None
    if column.shape != shape:
        raise InputError(f"{path}: `{name}` has shape {column.shape}, expected {shape}")
    return column
