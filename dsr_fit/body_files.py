"""Body files: ours, official SMPL `.npz`, official SMPL `.pkl`. Read without chumpy and without running code."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from dsr_fit.assets import licensed, sha256, shipped
from dsr_fit.body import Body, build_body
from dsr_fit.errors import InputError
from dsr_fit.joints import (
    KEYPOINTS_49,
    SMPL_PARENTS,
    SMPL_VERTEX_JOINTS,
    SMPLX54_TO_49,
)
from dsr_fit.safe_pickle import read_pickle

REQUIRED = ("v_template", "shapedirs", "weights", "kintree_table", "f")
_TRIPLETS = ("J_regressor", "keypoint_regressor")
_TRIPLET_KEYS = tuple(f"{name}_{part}" for name in _TRIPLETS for part in ("row", "col", "val"))
_KEYS = (*REQUIRED, "posedirs", "J_regressor", "keypoint_names", "body_name", *_TRIPLET_KEYS)
NUM_BETAS = 10


def load_body(body: str | Path = "open", joint_regressor_extra: str | Path | None = None) -> Body:
    """A body by name ("open", the one that ships) or path.

    Official SMPL files lack keypoint regressors: their keypoints follow SPIN, the nine of `J_regressor_extra.npy`
    left undefined when that file is not given. Raises InputError for files that are missing, incomplete or refused.
    """
    path = shipped("priors/open_body/body.npz") if str(body) == "open" else Path(body)
    if not path.is_file():
        raise InputError(f"{path}: no such body file; give an SMPL .pkl or .npz, or `open` for the one that ships")
    arrays = read_pickle(path, _KEYS) if path.suffix == ".pkl" else _read_npz(path)
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
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in _KEYS if key in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        reason = "it holds pickled objects" if "allow_pickle" in str(error) else str(error)
        raise InputError(f"{path}: not a readable .npz body ({reason}); official .pkl and .npz files work") from None


def _check(path: Path, arrays: dict[str, np.ndarray]) -> None:
    missing = [key for key in REQUIRED if key not in arrays]
    if "J_regressor" not in arrays and "J_regressor_row" not in arrays:
        missing.append("J_regressor")
    if missing:
        raise InputError(f"{path}: not a complete SMPL body, it lacks {', '.join(missing)}")
    vertices = len(arrays["v_template"]) if arrays["v_template"].ndim == 2 else 0
    expected = {
        "v_template": (vertices, 3),
        "shapedirs": (vertices, 3, max(arrays["shapedirs"].shape[-1], NUM_BETAS)),
        "weights": (vertices, 24),
        "posedirs": (vertices, 3, 207),
        "kintree_table": (2, 24),
    }
    for key, shape in expected.items():
        if key in arrays and arrays[key].shape != shape:
            raise InputError(f"{path}: `{key}` has shape {arrays[key].shape}, expected {shape}")
        if key in arrays and not np.all(np.isfinite(arrays[key])):
            raise InputError(f"{path}: `{key}` holds values that are not finite")
    faces = arrays["f"]
    if faces.ndim != 2 or faces.shape[1] != 3 or faces.min() < 0 or faces.max() >= vertices:
        raise InputError(f"{path}: `f` must be (F, 3) indices of the {vertices} vertices")
    if tuple(arrays["kintree_table"][0, 1:].astype(np.int64)) != SMPL_PARENTS[1:]:
        raise InputError(f"{path}: `kintree_table` is not SMPL's tree of 24 joints")


def _matrix(path: Path, arrays: dict[str, np.ndarray], name: str, rows: int) -> np.ndarray:
    """Dense (rows, V) regressor, stored dense or as triplets."""
    vertices = len(arrays["v_template"])
    if f"{name}_row" in arrays:
        row, col = (arrays[f"{name}_{part}"].astype(np.int64) for part in ("row", "col"))
        if row.min() < 0 or row.max() >= rows or col.min() < 0 or col.max() >= vertices:
            raise InputError(f"{path}: `{name}` has entries outside {rows} x {vertices}")
        matrix = np.zeros((rows, vertices))
        np.add.at(matrix, (row, col), arrays[f"{name}_val"])
        return matrix
    matrix = np.asarray(arrays[name], dtype=np.float64)
    if matrix.shape != (rows, vertices):
        raise InputError(f"{path}: `{name}` has shape {matrix.shape}, expected {(rows, vertices)}")
    return matrix


def _spin_keypoints(path: Path, vertices: int, extra: Path | None) -> tuple[np.ndarray, dict[int, int]]:
    """SPIN's 49 keypoints of official SMPL: 24 joints, picked vertices, and nine regressed from vertices."""
    if vertices != 6890:
        raise InputError(
            f"{path}: {vertices} vertices without a `keypoint_regressor`; only SMPL's own 6890 have known keypoints"
        )
    regressor = np.zeros((49, vertices))
    joint_of_keypoint: dict[int, int] = {}
    nine = None
    if extra is not None:
        try:
            nine = np.load(extra, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(f"{extra}: not a readable .npy file ({error})") from None
        if nine.shape != (9, vertices):
            raise InputError(f"{extra}: has shape {nine.shape}, expected (9, 6890)")
    for keypoint, index in enumerate(SMPLX54_TO_49):
        if index < 24:
            joint_of_keypoint[keypoint] = index
        elif index < 45:
            regressor[keypoint, SMPL_VERTEX_JOINTS[index - 24]] = 1
        elif nine is not None:
            regressor[keypoint] = nine[index - 45]
    return regressor, joint_of_keypoint
