"""Small bodies for tests that need kinematics and no surface."""

from __future__ import annotations

from functools import cache

import numpy as np

from dsr_fit.body.body import Body, build_body
from dsr_fit.joints import BODY_25, KEYPOINTS_49, SMPL_JOINTS, SMPL_PARENTS

_REST = {
    "pelvis": (0, 0, 0), "left_hip": (0.08, -0.06, 0), "left_knee": (0.1, -0.45, 0), "left_ankle": (0.1, -0.87, -0.03),
    "left_foot": (0.12, -0.93, 0.1), "spine1": (0, 0.11, 0), "spine2": (0, 0.25, 0), "spine3": (0, 0.31, 0.02),
    "neck": (0, 0.52, -0.02), "head": (0, 0.6, 0.03), "left_collar": (0.08, 0.43, -0.02),
    "left_shoulder": (0.18, 0.45, -0.03), "left_elbow": (0.44, 0.44, -0.05), "left_wrist": (0.69, 0.45, -0.05),
    "left_hand": (0.78, 0.45, -0.06),
}  # fmt: skip

_NEAREST = {
    "Nose": "head", "Neck": "neck", "MidHip": "pelvis", "Eye": "head", "Ear": "head", "Shoulder": "shoulder",
    "Elbow": "elbow", "Wrist": "wrist", "Hip": "hip", "Knee": "knee", "Ankle": "ankle", "Toe": "foot", "Heel": "ankle",
}  # fmt: skip


def rest_joints() -> np.ndarray:
    """(24, 3) metres, T-pose, mirror symmetric."""
    joints = np.zeros((24, 3))
    for index, name in enumerate(SMPL_JOINTS):
        joints[index] = _REST[name.replace("right_", "left_")]
        if name.startswith("right_"):
            joints[index, 0] *= -1
    return joints


@cache
def stick_body() -> Body:
    """Four vertices a joint, rigidly bound to it; BODY_25 keypoints beside their joints; betas that resize limbs."""
    joints = rest_joints()
    rng = np.random.default_rng(0)
    corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) * 0.04
    v_template = (joints[:, None] + corners).reshape(-1, 3)
    dirs = rng.normal(scale=0.01, size=(24, 1, 3, 10)).repeat(4, 1).reshape(-1, 3, 10)
    dirs[..., 0] = 0.03 * v_template
    weights = np.eye(24).repeat(4, 0)
    keypoints = np.zeros((49, len(v_template)))
    for slot, name in enumerate(KEYPOINTS_49[: len(BODY_25)]):
        suffix = next(value for key, value in _NEAREST.items() if name.endswith(key))
        side = {"L": "left_", "R": "right_"}.get(name[0], "") if suffix in _SIDED else ""
        joint = SMPL_JOINTS.index(side + suffix)
        keypoints[slot, 4 * joint : 4 * joint + 4] = rng.dirichlet(np.ones(4))
    return build_body(
        name="stick",
        sha256="0" * 64,
        v_template=v_template,
        shapedirs=dirs,
        posedirs=None,
        weights=weights,
        faces=np.array([[0, 1, 2]]),
        parents=SMPL_PARENTS,
        joint_regressor=np.eye(24).repeat(4, 1) / 4,
        posed_keypoints=keypoints,
    )


_SIDED = {"shoulder", "elbow", "wrist", "hip", "knee", "ankle", "foot"}
