"""Body files: ours, official SMPL `.npz`, official SMPL `.pkl`. Read without chumpy, running no code."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from dsr_fit.assets import licensed, sha256, shipped
from dsr_fit.body.body import Body, build_body
from dsr_fit.errors import InputError
from dsr_fit.io.files import read_arrays
from dsr_fit.joints import (
    KEYPOINTS_49,
    SMPL_PARENTS,
    SMPL_VERTEX_JOINTS,
    SMPLX54_TO_49,
)

REQUIRED = ("v_template", "shapedirs", "weights", "kintree_table", "f")
_TRIPLETS = ("J_regressor", "keypoint_regressor")
_TRIPLET_KEYS = tuple(f"{name}_{part}" for name in _TRIPLETS for part in ("row", "col", "val"))
_KEYS = (*REQUIRED, "posedirs", "J_regressor", "keypoint_names", "body_name", *_TRIPLET_KEYS)
NUM_BETAS = 10

OPEN_BODY = "priors/open_body/body.npz"
"""The open body's file among the shipped ones."""


def load_body(body: str | Path = "open", joint_regressor_extra: str | Path | None = None) -> Body:
    """A body by name ("open", the one that ships) or path.

    Official SMPL files lack keypoint regressors: their keypoints follow SPIN, the nine of
    `J_regressor_extra.npy` left undefined, with a warning, when that file is not given. Raises InputError for
    files that are missing, incomplete or refused.
    """
    path = shipped(OPEN_BODY) if str(body) == "open" else Path(body)
    if not path.is_file():
        raise InputError(f"{path}: no such body file; give an SMPL .pkl or .npz, or `open` for the one that ships")
    arrays = _read_pickle(path) if path.suffix.lower() == ".pkl" else _read_npz(path)
    _check(path, arrays)
    regressor = _matrix(path, arrays, "J_regressor", 24)
    if "keypoint_regressor_row" in arrays:
        names = tuple(str(name) for name in arrays.get("keypoint_names", ()))
        if names != KEYPOINTS_49:
            raise InputError(f"{path}: `keypoint_names` must be the 49 names of docs/conventions.md, in order")
        keypoints, joint_of_keypoint = _matrix(path, arrays, "keypoint_regressor", 49), None
    else:
        extra = licensed("joint_regressor_extra", None if joint_regressor_extra is None else str(joint_regressor_extra))
        keypoints, joint_of_keypoint = _spin_keypoints(path, len(arrays["v_template"]), extra)
    posedirs = arrays.get("posedirs")
    return build_body(
        name=str(arrays.get("body_name", path.stem)),
        sha256=sha256(path),
        v_template=arrays["v_template"],
        shapedirs=arrays["shapedirs"][..., :NUM_BETAS],
        posedirs=posedirs if posedirs is not None and np.any(posedirs) else None,
        weights=arrays["weights"],
        faces=arrays["f"],
        parents=SMPL_PARENTS,
        joint_regressor=regressor,
        posed_keypoints=keypoints,
        joint_of_keypoint=joint_of_keypoint,
    )


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    try:
        arrays = read_arrays(path)
    except ValueError as error:
        raise InputError(f"{path}: not a readable .npz body ({error}); official .pkl and .npz files work") from None
    if isinstance(arrays, np.ndarray):
        raise InputError(f"{path}: holds one array, not a body; official .pkl and .npz files work")
    return {key: arrays[key] for key in _KEYS if key in arrays}


def _check(path: Path, arrays: dict[str, np.ndarray]) -> None:
    missing = [key for key in REQUIRED if key not in arrays]
    for name in _TRIPLETS:
        parts = [f"{name}_{part}" for part in ("row", "col", "val")]
        if any(part in arrays for part in parts):
            missing += [part for part in parts if part not in arrays]
        elif name == "J_regressor" and name not in arrays:
            missing.append(name)
    if missing:
        raise InputError(f"{path}: not a complete SMPL body, it lacks {', '.join(missing)}")
    vertices = len(arrays["v_template"]) if arrays["v_template"].ndim == 2 else 0
    betas = arrays["shapedirs"].shape[-1] if arrays["shapedirs"].ndim == 3 else 0
    expected = {
        "v_template": (vertices, 3),
        "shapedirs": (vertices, 3, max(betas, NUM_BETAS)),
        "weights": (vertices, 24),
        "posedirs": (vertices, 3, 207),
        "kintree_table": (2, 24),
    }
    for key, shape in expected.items():
        if key in arrays:
            _numbers(path, key, arrays[key], shape)
    faces = arrays["f"]
    shaped = faces.dtype.kind in "fiu" and faces.ndim == 2 and faces.shape[1] == 3 and len(faces) > 0
    if not shaped or faces.min() < 0 or faces.max() >= vertices:
        raise InputError(f"{path}: `f` must be (F, 3) indices of the {vertices} vertices")
    if tuple(arrays["kintree_table"][0, 1:].astype(np.int64)) != SMPL_PARENTS[1:]:
        raise InputError(f"{path}: `kintree_table` is not SMPL's tree of 24 joints")


def _numbers(path: Path, name: str, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The array, where it holds finite numbers of that shape. Raises InputError elsewhere."""
    if array.shape != shape:
        raise InputError(f"{path}: `{name}` has shape {array.shape}, expected {shape}")
    if array.dtype.kind not in "fiu" or not np.all(np.isfinite(array)):
        raise InputError(f"{path}: `{name}` holds values that are not finite numbers")
    return array


def _read_pickle(path: Path) -> dict[str, np.ndarray]:
    from dsr_fit.io.safe_pickle import read_pickle  # with scipy, which the bodies that ship do without

    return read_pickle(path, _KEYS)


def _matrix(path: Path, arrays: dict[str, np.ndarray], name: str, rows: int) -> np.ndarray:
    """Dense (rows, V) regressor, stored dense or as triplets."""
    vertices = len(arrays["v_template"])
    matrix = arrays.get(name)
    if f"{name}_row" in arrays:
        row, col, val = (arrays[f"{name}_{part}"] for part in ("row", "col", "val"))
        try:
            places = (row.astype(np.int64), col.astype(np.int64))
            if any(len(place) and place.min() < 0 for place in places):
                raise ValueError("negative indices")
            matrix = np.zeros((rows, vertices))
            np.add.at(matrix, places, val.astype(np.float64))
        except (ValueError, TypeError, IndexError) as error:
            raise InputError(f"{path}: `{name}_row`, `_col` and `_val` are no {rows} x {vertices} ({error})") from None
    return _numbers(path, name, np.asarray(matrix), (rows, vertices)).astype(np.float64)


def _spin_keypoints(path: Path, vertices: int, extra: Path | None) -> tuple[np.ndarray, dict[int, int]]:
    """SPIN's 49 keypoints of official SMPL: 24 joints, picked vertices, and nine regressed from vertices."""
    if vertices != 6890:
        raise InputError(f"{path}: {vertices} vertices without a `keypoint_regressor`; only SMPL has known ones")
    regressor = np.zeros((49, vertices))
    joint_of_keypoint: dict[int, int] = {}
    nine = None
    if extra is not None:
        try:
            nine = read_arrays(extra)
        except ValueError as error:
            raise InputError(f"{extra}: not a readable .npy file ({error})") from None
        if isinstance(nine, dict):
            raise InputError(f"{extra}: holds {len(nine)} arrays, expected one of shape (9, {vertices})")
        _numbers(extra, "J_regressor_extra", nine, (9, vertices))
    else:
        logging.getLogger("dsr_fit").warning(
            "%s: nine of the 49 keypoints stay unused without --joint-regressor-extra J_regressor_extra.npy",
            path,
        )
    for keypoint, index in enumerate(SMPLX54_TO_49):
        if index < 24:
            joint_of_keypoint[keypoint] = index
        elif index < 45:
            regressor[keypoint, SMPL_VERTEX_JOINTS[index - 24]] = 1
        elif nine is not None:
            regressor[keypoint] = nine[index - 45]
    return regressor, joint_of_keypoint
