"""Poses of people who stand: motion capture is mostly movement, and people in photos mostly stand."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from dsr_fit.joints import SMPL_JOINTS

_INDEX = {name: row for row, name in enumerate(SMPL_JOINTS)}
_SIDES = ("left", "right")

KEPT = 0.3
"""Share that is kept of the turns of the spine, the hips out of the plane of walking, and the ankles: scaled rather
than drawn anew, since motion capture spreads the trunk's turns over its joints by rule."""

STRAIGHT_KNEE, RELAXED_KNEE = 12.0, 40.0
"""Degrees, the most that the knee bends of a leg that carries, and of one that doesn't."""

TILT, THIGH = 2.0, 4.0
"""Degrees, standard deviations of the pelvis about upright and of a carrying thigh about the trunk."""


def stand(full_pose: np.ndarray, rng: np.random.Generator, relaxed: float = 0.0) -> np.ndarray:
    """(N, 72) poses in a world with y up -> the same people standing: heading, head and arms as they were.

    A share `relaxed` of them stands on one leg, with the other bent, the foot somewhere in front or behind.
    """
    count = len(full_pose)
    one_leg = rng.uniform(size=count) < relaxed
    free = rng.integers(2, size=count)
    thighs, knees = np.zeros((2, count, 2))
    for number in range(2):
        bent = one_leg & (free == number)
        knees[:, number] = rng.uniform(0, np.where(bent, RELAXED_KNEE, STRAIGHT_KNEE))
        thighs[:, number] = rng.normal(0, THIGH, count)
        thighs[:, number] -= np.where(bent, rng.uniform(0, 1, count) * knees[:, number], 0)
    return straightened(full_pose, thighs, knees, rng.normal(0, TILT, (count, 3)))


def straightened(full_pose: np.ndarray, thighs: np.ndarray, knees: np.ndarray, tilt: np.ndarray) -> np.ndarray:
    """(N, 72) poses in a world with y up -> the same with these turns, in degrees; heading, head and arms as they were.

    `thighs` and `knees`: (N, 2) left and right, in the plane of walking; `tilt`: (N, 3) of the pelvis about upright.
    """
    pose = full_pose.astype(np.float64).reshape(-1, 24, 3).copy()
    pose[:, [_INDEX[name] for name in ("spine1", "spine2", "spine3")]] *= KEPT
    for number, side in enumerate(_SIDES):
        pose[:, _INDEX[f"{side}_hip"]] *= KEPT
        pose[:, _INDEX[f"{side}_hip"], 0] = np.radians(thighs[:, number])
        pose[:, _INDEX[f"{side}_knee"]] = np.radians(knees[:, number])[:, None] * [1, 0, 0]
        pose[:, _INDEX[f"{side}_ankle"]] *= KEPT
    turned = Rotation.from_rotvec(pose[:, 0]).as_matrix()
    heading = Rotation.from_rotvec(np.arctan2(turned[:, 0, 2], turned[:, 2, 2])[:, None] * [0, 1, 0])
    pose[:, 0] = (heading * Rotation.from_rotvec(np.radians(tilt))).as_rotvec()
    return pose.reshape(-1, 72)
