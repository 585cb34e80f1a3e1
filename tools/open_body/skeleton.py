"""SMPL's skeleton, and plain linear blend skinning in numpy for the tools that build and draw the open body."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

JOINT_NAMES = (
    "pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle",
    "right_ankle", "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head",
    "left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist",
    "left_hand", "right_hand",
)  # fmt: skip
PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
MIRROR_JOINT = np.array([0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22])
JOINT = {name: index for index, name in enumerate(JOINT_NAMES)}

# OpenPose's BODY_25, then the 24 joints of LSP, MPII, H36M and COCO that SPIN, EFT and DSR train on.
KEYPOINT_NAMES = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow",
    "left_wrist", "mid_hip", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle",
    "right_eye", "left_eye", "right_ear", "left_ear", "left_big_toe", "left_small_toe", "left_heel",
    "right_big_toe", "right_small_toe", "right_heel",
    "right_ankle_2", "right_knee_2", "right_hip_2", "left_hip_2", "left_knee_2", "left_ankle_2",
    "right_wrist_2", "right_elbow_2", "right_shoulder_2", "left_shoulder_2", "left_elbow_2", "left_wrist_2",
    "neck_lsp", "head_top_lsp", "pelvis_mpii", "thorax_mpii", "spine_h36m", "jaw_h36m", "head_h36m",
    "nose_2", "left_eye_2", "right_eye_2", "left_ear_2", "right_ear_2",
)  # fmt: skip


def rotation_matrices(pose: np.ndarray) -> np.ndarray:
    """Axis-angle (24, 3) in radians to rotation matrices (24, 3, 3)."""
    return Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix()


def global_transforms(joints: np.ndarray, pose: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Global rotations (24, 3, 3) and translations (24, 3): joint j moves a rest point x to R[j] @ x + t[j].

    Args:
        joints: rest joints (24, 3), metres.
        pose: axis-angle of each joint relative to its parent (24, 3), radians.
    """
    local = rotation_matrices(pose)
    rotation, position = np.empty((24, 3, 3)), np.empty((24, 3))
    rotation[0], position[0] = local[0], joints[0]
    for j in range(1, 24):
        parent = PARENTS[j]
        rotation[j] = rotation[parent] @ local[j]
        position[j] = position[parent] + rotation[parent] @ (joints[j] - joints[parent])
    return rotation, position - np.einsum("jab,jb->ja", rotation, joints)


def skin(vertices: np.ndarray, joints: np.ndarray, weights: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Pose a rest body by linear blend skinning.

    Args:
        vertices: rest vertices (V, 3), metres.
        joints: rest joints (24, 3).
        weights: skinning weights (V, 24).
        pose: axis-angle of each joint relative to its parent (24, 3), radians.

    Returns:
        posed vertices (V, 3); the root joint stays where it is.
    """
    rotation, offset = global_transforms(joints, pose)
    blended = np.einsum("vj,jab->vab", weights, rotation)
    return np.einsum("vab,vb->va", blended, vertices) + weights @ offset
