"""SMPL's skeleton and linear blend skinning in numpy, for the tools that build and draw the open body."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from dsr_fit.joints import SMPL_JOINTS
from dsr_fit.joints import SMPL_PARENTS as PARENTS

JOINT = {name: index for index, name in enumerate(SMPL_JOINTS)}
_SWAP = {"left": "right", "right": "left"}
MIRROR_JOINT = np.array([JOINT["_".join(_SWAP.get(word, word) for word in name.split("_"))] for name in SMPL_JOINTS])
"""The joint on the other side of each of the 24."""


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
