"""Which frames are kept: plausible ones, far enough from each other; and which clips are held out."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from mocap.retarget import JOINT, SIDES

HYPEREXTENSION = 12.0  # degrees past straight; the open body's straight legs measure -3
SIDEWAYS = 20.0  # degrees that a shin or forearm may leave the plane in which the hinge bends it
MOST = {
    "knee": 160.0, "elbow": 160.0, "hip": 150.0, "spine1": 60.0, "spine2": 60.0, "spine3": 60.0, "neck": 75.0,
    "head": 75.0, "ankle": 75.0, "wrist": 100.0,
}  # fmt: skip
"""Degrees of rotation that a joint may make."""


def hinge_angles(pose: np.ndarray, side: str, joint: str) -> tuple[np.ndarray, np.ndarray]:
    """Degrees of bending (T,) and sideways (T,) of a knee or an elbow, from rotation vectors (T, 24, 3).

    Bending is signed, negative past straight: shins swing backwards from hanging, forearms forwards from the
    T-pose.
    """
    turn = Rotation.from_rotvec(pose[:, JOINT[f"{side}_{joint}"]])
    if joint == "knee":
        x, y, z = turn.apply([0.0, -1.0, 0.0]).T
        return np.rad2deg(np.arctan2(-z, -y)), np.rad2deg(np.arcsin(np.abs(x).clip(0, 1)))
    out = 1.0 if side == "left" else -1.0
    x, y, z = turn.apply([out, 0.0, 0.0]).T
    return np.rad2deg(np.arctan2(z, out * x)), np.rad2deg(np.arcsin(np.abs(y).clip(0, 1)))


def implausible(pose: np.ndarray) -> dict[str, np.ndarray]:
    """For each reason to drop a pose, whether it holds (T,), from rotation vectors (T, 24, 3)."""
    reasons: dict[str, np.ndarray] = {}
    for joint in ("knee", "elbow"):
        bends, strays = zip(*(hinge_angles(pose, side, joint) for side in SIDES), strict=True)
        reasons[f"{joint} hyperextended"] = np.any(np.stack(bends) < -HYPEREXTENSION, axis=0)
        reasons[f"{joint} bent sideways"] = np.any(np.stack(strays) > SIDEWAYS, axis=0)
    angle = np.rad2deg(np.linalg.norm(pose, axis=2))
    for name, most in MOST.items():
        joints = [JOINT[each] for each in (name, f"left_{name}", f"right_{name}") if each in JOINT]
        reasons[f"{name} turned too far"] = (angle[:, joints] > most).any(1)
    return reasons


def upright_heading(turn: Rotation) -> Rotation:
    """The part of world rotations that turns about the vertical (y)."""
    quaternion = turn.as_quat()
    quaternion[:, [0, 2]] = 0.0
    still = np.linalg.norm(quaternion, axis=1) < 1e-9
    quaternion[still] = [0.0, 0.0, 0.0, 1.0]
    return Rotation.from_quat(quaternion)


def features(pose: np.ndarray) -> np.ndarray:
    """(T, 216) such that a distance is, for small angles, the root mean square angle over joints, in radians.

    The heading is left out: two poses that differ by it alone are one.
    """
    flat = Rotation.from_rotvec(pose.reshape(-1, 3))
    matrices = flat.as_matrix().reshape(-1, 24, 3, 3)
    root = Rotation.from_rotvec(pose[:, 0])
    matrices[:, 0] = (upright_heading(root).inv() * root).as_matrix()
    return (matrices.reshape(-1, 216) / np.sqrt(2 * 24)).astype(np.float32)


def farthest_points(points: np.ndarray, count: int) -> tuple[np.ndarray, float]:
    """Greedy k-centre: start at the first point, then always take the one farthest from all taken.

    Returns:
        sorted indices, and the radius: every point lies this near a taken one, and taken ones lie this far
        apart.
    """
    distance = np.full(len(points), np.inf, np.float32)
    squares = np.einsum("nf,nf->n", points, points)
    taken, farthest = [], 0
    for _ in range(min(count, len(points))):
        taken.append(farthest)
        np.minimum(distance, squares + squares[farthest] - 2 * points @ points[farthest], out=distance)
        farthest = int(distance.argmax())
    return np.sort(np.array(taken)), float(np.sqrt(max(distance[farthest], 0.0)))


def stood_for(points: np.ndarray, taken: np.ndarray) -> np.ndarray:
    """(len(taken),) how many of the points have this taken one as the nearest."""
    kept = points[taken]
    squares = np.einsum("nf,nf->n", kept, kept)
    counts = np.zeros(len(taken), np.int64)
    for start in range(0, len(points), 1024):
        nearest = (squares - 2 * points[start : start + 1024] @ kept.T).argmin(1)
        counts += np.bincount(nearest, minlength=len(taken))
    return counts


def hold_out(groups: dict[str, list[str]], share: float, seed: int) -> list[str]:
    """Clips to hold out: about `share` of each group, at least one, chosen by seed; further groups change nothing."""
    random = np.random.default_rng(seed)
    chosen = []
    for names in groups.values():
        chosen += random.choice(sorted(names), max(1, round(share * len(names))), replace=False).tolist()
    return sorted(chosen)
