"""Clips of DeepMimic's humanoid (Peng et al. 2018), JSON with one row of 44 numbers a frame.

Its frame has x forward, y up, z to the right, and its arms hang at rest; the reader turns it to x left, z
forward.
"""

from __future__ import annotations

import json

import numpy as np
from scipy.spatial.transform import Rotation

from mocap.clip import Clip, Skeleton, chain

TO_LEFT_UP_FORWARD = np.array([[0.0, 0.0, -1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
"""Turns the files' axes into ours."""

# Joint, parent, offset from it (metres, in the files' axes, as the character has it), numbers a frame.
_JOINTS = (
    ("root", None, (0, 0, 0), 4),
    ("chest", "root", (0, 0.236, 0), 4),
    ("neck", "chest", (0, 0.224, 0), 4),
    ("right_hip", "root", (0, 0, 0.085), 4),
    ("right_knee", "right_hip", (0, -0.422, 0), 1),
    ("right_ankle", "right_knee", (0, -0.410, 0), 4),
    ("right_shoulder", "chest", (-0.024, 0.244, 0.183), 4),
    ("right_elbow", "right_shoulder", (0, -0.275, 0), 1),
    ("left_hip", "root", (0, 0, -0.085), 4),
    ("left_knee", "left_hip", (0, -0.422, 0), 1),
    ("left_ankle", "left_knee", (0, -0.410, 0), 4),
    ("left_shoulder", "chest", (-0.024, 0.244, -0.183), 4),
    ("left_elbow", "left_shoulder", (0, -0.275, 0), 1),
    ("right_wrist", "right_elbow", (0, -0.259, 0), 0),
    ("left_wrist", "left_elbow", (0, -0.259, 0), 0),
    ("right_toe", "right_ankle", (0.134, -0.05, 0), 0),
    ("left_toe", "left_ankle", (0.134, -0.05, 0), 0),
    ("head_end", "neck", (0, 0.28, 0), 0),
)
_NAMES = tuple(name for name, *_ in _JOINTS)
_ROOT_START = 4  # after the frame's duration and the root's place
_WIDTH = _ROOT_START + sum(count for *_, count in _JOINTS)

SKELETON = Skeleton(
    _NAMES,
    tuple(-1 if parent is None else _NAMES.index(parent) for _, parent, *_ in _JOINTS),
    np.array([offset for _, _, offset, _ in _JOINTS]) @ TO_LEFT_UP_FORWARD.T,
)


def read_deepmimic(text: str, name: str) -> Clip:
    """A clip of the JSON text. Joints with one number turn about z (to the right), quaternions are w, x, y,
    z.

    Raises ValueError when rows don't have 44 numbers.
    """
    frames = np.array(json.loads(text)["Frames"], dtype=np.float64)
    if frames.ndim != 2 or frames.shape[1] != _WIDTH:
        raise ValueError(f"{name}: frames of shape {frames.shape}, each must have {_WIDTH} numbers")
    local = np.tile(np.eye(3), (len(frames), len(_JOINTS), 1, 1))
    start = _ROOT_START
    for index, (*_, count) in enumerate(_JOINTS):
        values = frames[:, start : start + count]
        if count == 4:
            local[:, index] = Rotation.from_quat(values[:, [1, 2, 3, 0]]).as_matrix()
        elif count == 1:
            local[:, index] = Rotation.from_euler("z", values).as_matrix()
        start += count
    turned = TO_LEFT_UP_FORWARD @ local @ TO_LEFT_UP_FORWARD.T
    return Clip(name, 1.0 / float(np.median(frames[:-1, 0])), SKELETON, chain(turned, SKELETON.parents))
