"""Names and index tables of joints and keypoints: SMPL's 24 joints, the 49 keypoints of SPIN, EFT and DSR.

The tables are facts of the file formats; every keypoint source is mapped to the 49 slots by name.
"""

from __future__ import annotations

import numpy as np

SMPL_JOINTS: tuple[str, ...] = (
    "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle",
    "right_ankle", "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head",
    "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
    "left_hand", "right_hand",
)  # fmt: skip

SMPL_PARENTS: tuple[int, ...] = (
    -1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21,
)  # fmt: skip

BODY_25: tuple[str, ...] = (
    "Nose", "Neck", "RShoulder", "RElbow", "RWrist", "LShoulder", "LElbow", "LWrist", "MidHip", "RHip",
    "RKnee", "RAnkle", "LHip", "LKnee", "LAnkle", "REye", "LEye", "REar", "LEar", "LBigToe", "LSmallToe",
    "LHeel", "RBigToe", "RSmallToe", "RHeel",
)  # fmt: skip

SPIN_24: tuple[str, ...] = (
    "Right Ankle", "Right Knee", "Right Hip", "Left Hip", "Left Knee", "Left Ankle", "Right Wrist",
    "Right Elbow", "Right Shoulder", "Left Shoulder", "Left Elbow", "Left Wrist", "Neck (LSP)",
    "Top of Head (LSP)", "Pelvis (MPII)", "Thorax (MPII)", "Spine (H36M)", "Jaw (H36M)", "Head (H36M)",
    "Nose (COCO)", "Left Eye", "Right Eye", "Left Ear", "Right Ear",
)  # fmt: skip

KEYPOINTS_49: tuple[str, ...] = BODY_25 + SPIN_24
"""BODY_25 first, then the 24 joints of SPIN: 49 slots, the order of every keypoint array in this package."""

KEYPOINT_INDEX: dict[str, int] = {name: index for index, name in enumerate(KEYPOINTS_49)}

MIN_KEYPOINTS = 4
"""A person with fewer usable keypoints can't be fitted."""


def _other_side(name: str, sides: tuple[tuple[str, str], ...]) -> str:
    for left, right in sides:
        for own, other in ((left, right), (right, left)):
            if name.startswith(own):
                return other + name.removeprefix(own)
    return name


MIRRORED_JOINTS: tuple[int, ...] = tuple(
    SMPL_JOINTS.index(_other_side(name, (("left_", "right_"),))) for name in SMPL_JOINTS
)
"""Each of SMPL's joints in a mirror."""

# In the first block `L` and `R` stand before the part's capital, in the second the sides are words.
_SIDES = {name: (("L", "R"),) if name[:2].isupper() else (("Left ", "Right "),) for name in KEYPOINTS_49}
MIRRORED_KEYPOINTS: tuple[int, ...] = tuple(KEYPOINT_INDEX[_other_side(name, _SIDES[name])] for name in KEYPOINTS_49)
"""Each of the 49 keypoints in a mirror."""

# OpenPose's 18-point layout, each point's slot among the 49.
OPENPOSE_18_SLOTS: tuple[int, ...] = tuple(
    KEYPOINT_INDEX[name]
    for name in (
        "Nose", "Neck", "RShoulder", "RElbow", "RWrist", "LShoulder", "LElbow", "LWrist", "RHip", "RKnee",
        "RAnkle", "LHip", "LKnee", "LAnkle", "REye", "LEye", "REar", "LEar",
    )
)  # fmt: skip

# COCO's 17 points fill the second block: nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles (left first).
COCO_17_SLOTS: tuple[int, ...] = tuple(
    25 + index for index in (19, 20, 21, 22, 23, 9, 8, 10, 7, 11, 6, 3, 2, 4, 1, 5, 0)
)

BODY_25_OF_COCO = (0, 16, 15, 18, 17, 5, 2, 6, 3, 7, 4, 12, 9, 13, 10, 14, 11)
"""BODY_25's slots of COCO's 17 keypoints."""


def coco_keypoints(keypoints: np.ndarray) -> np.ndarray:
    """(17, 3) COCO keypoints of (49, 3), each from its more confident slot."""
    coco, body_25 = keypoints[list(COCO_17_SLOTS)], keypoints[list(BODY_25_OF_COCO)]
    return np.where(coco[:, 2:] >= body_25[:, 2:], coco, body_25)


# MediaPipe's 33 landmarks; those without a slot (mouth, eye corners, fingers) are left out.
MEDIAPIPE_33_TO_SLOT: dict[int, int] = {
    index: KEYPOINT_INDEX[name]
    for index, name in {
        0: "Nose", 2: "LEye", 5: "REye", 7: "LEar", 8: "REar", 11: "LShoulder", 12: "RShoulder", 13: "LElbow",
        14: "RElbow", 15: "LWrist", 16: "RWrist", 23: "LHip", 24: "RHip", 25: "LKnee", 26: "RKnee",
        27: "LAnkle", 28: "RAnkle", 29: "LHeel", 30: "RHeel", 31: "LBigToe", 32: "RBigToe",
    }.items()
}  # fmt: skip

# From smplx's 45 SMPL joints (24 + 21 picked vertices) followed by the 9 rows of J_regressor_extra.npy.
SMPLX54_TO_49: tuple[int, ...] = (
    24, 12, 17, 19, 21, 16, 18, 20, 0, 2, 5, 8, 1, 4, 7, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34,
    8, 5, 45, 46, 4, 7, 21, 19, 17, 16, 18, 20, 47, 48, 49, 50, 51, 52, 53, 24, 26, 25, 28, 27,
)  # fmt: skip

# Vertices that smplx appends to SMPL's 24 joints, in its order (24..44); only those used above matter here.
SMPL_VERTEX_JOINTS: tuple[int, ...] = (
    332, 6260, 2800, 4071, 583, 3216, 3226, 3387, 6617, 6624, 6787,  # face and feet
    2746, 2319, 2445, 2556, 2673, 6191, 5782, 5905, 6016, 6133,  # finger tips
)  # fmt: skip


def mirrored_pose(pose: np.ndarray) -> np.ndarray:
    """(N, 72) or, without the root, (N, 69) axis-angle as a mirror shows it, x turned over."""
    joints = np.array(MIRRORED_JOINTS)
    order = joints if pose.shape[1] == 72 else joints[1:] - 1
    return (pose.reshape(len(pose), -1, 3)[:, order] * np.array([1, -1, -1], pose.dtype)).reshape(pose.shape)


def empty_keypoints() -> np.ndarray:
    """A (49, 3) array of pixels and confidence with every slot unobserved (confidence 0)."""
    return np.zeros((len(KEYPOINTS_49), 3), dtype=np.float32)
