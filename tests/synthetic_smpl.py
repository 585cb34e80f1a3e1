"""A stand-in for the official SMPL file: its shapes and formats, none of its content."""

from __future__ import annotations

import pickle
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from dsr_fit.joints import SMPL_PARENTS

VERTICES, FACES = 6890, 13776

JOINT_VERTICES = np.random.default_rng(5).choice(VERTICES, 17, replace=False)
"""The stand-in for J_regressor_h36m picks one vertex a joint, so that moving a vertex moves one joint."""


def h36m_regressor() -> np.ndarray:
    """(17, 6890)."""
    matrix = np.zeros((17, VERTICES))
    matrix[np.arange(17), JOINT_VERTICES] = 1
    return matrix


def synthetic_smpl(seed: int = 0) -> dict[str, np.ndarray]:
    """SMPL's arrays at their true shapes: vertices scattered about a skeleton, weights by nearest joints."""
    rng = np.random.default_rng(seed)
    joints = np.zeros((24, 3))
    for joint, parent in enumerate(SMPL_PARENTS[1:], start=1):
        joints[joint] = joints[parent] + rng.normal(scale=0.2, size=3)
    nearest = rng.integers(0, 24, VERTICES)
    v_template = joints[nearest] + rng.normal(scale=0.05, size=(VERTICES, 3))
    distance = np.linalg.norm(v_template[:, None] - joints, axis=-1)
    weights = np.exp(-((distance / 0.1) ** 2))
    weights[weights < np.sort(weights, 1)[:, -4:-3]] = 0
    weights /= weights.sum(1, keepdims=True)
    regressor = np.zeros((24, VERTICES))
    for joint in range(24):
        members = rng.choice(np.flatnonzero(nearest == joint), 20, replace=False)
        regressor[joint, members] = rng.dirichlet(np.ones(20))
    parents = np.array(SMPL_PARENTS)
    parents[0] = 2**32 - 1
    return {
        "v_template": v_template,
        "shapedirs": rng.normal(scale=0.01, size=(VERTICES, 3, 10)),
        "posedirs": rng.normal(scale=0.002, size=(VERTICES, 3, 207)),
        "weights": weights,
        "J_regressor": regressor,
        "kintree_table": np.stack([parents, np.arange(24)]).astype(np.uint32),
        "f": rng.integers(0, VERTICES, (FACES, 3)).astype(np.uint32),
    }


@contextmanager
def chumpy_stand_in() -> Iterator[type]:
    """A module that pickles as chumpy's; gone again afterwards, as it is for our users."""

    class Ch:
        def __init__(self, x: np.ndarray) -> None:
            self.x = x

    Ch.__module__, Ch.__qualname__ = "chumpy.ch", "Ch"
    package, module = types.ModuleType("chumpy"), types.ModuleType("chumpy.ch")
    module.Ch = Ch  # type: ignore[attr-defined]
    package.ch = module  # type: ignore[attr-defined]
    sys.modules.update({"chumpy": package, "chumpy.ch": module})
    try:
        yield Ch
    finally:
        del sys.modules["chumpy"], sys.modules["chumpy.ch"]


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def write_pickle(path: Path, arrays: dict[str, np.ndarray], protocol: int = 2) -> Path:
    """As the official files are: chumpy arrays, a sparse joint regressor, and keys that nobody needs."""
    with chumpy_stand_in() as chumpy_array:
        content: dict[str, Any] = dict(arrays)
        for key in ("v_template", "shapedirs", "posedirs", "weights"):
            content[key] = chumpy_array(arrays[key])
        content["J_regressor"] = sparse.csc_matrix(arrays["J_regressor"])
        content["bs_style"] = "lbs"
        path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path
