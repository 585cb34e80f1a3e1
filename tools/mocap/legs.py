"""Legs as long as the recorded person's: CMU's skeletons have longer ones, so that whoever stands crouches.

A marker fit that makes thigh and shin too long reaches the floor by bending the knee: people who stand still have knees
of 15 to 30 degrees there, and so does the leg that carries a walker, where it is vertical. Lengths off by 2 % explain
25 degrees of a straight knee, and 3 of one bent by 90. So each subject's leg is shortened until those legs are
straight; hip and foot stay where they are, and the foot keeps its turn.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from mocap.retarget import JOINT, SIDES, our_positions

STRAIGHT = 6.0  # degrees of flexion at which adults stand at ease; the open body's T-pose has 3
SOFT = 0.002  # share of a leg over which one that would be overlong becomes straight, so that no two become the same
VERTICAL, CARRYING, UPRIGHT = 12.0, 8.0, 20.0  # degrees off the vertical: both legs, the one that carries, the trunk
STILL = 0.5  # metres a second of the fastest joint
FEWEST = 50  # frames of standing still
PERCENTILE = 10.0  # of the legs that carry, where nobody stands still


def flexion(joints: np.ndarray, side: str) -> np.ndarray:
    """Degrees (T,) between thigh and shin, from joints (T, 24, 3); 0 is straight."""
    hip, knee, ankle = (joints[:, JOINT[f"{side}_{name}"]] for name in ("hip", "knee", "ankle"))
    return _angle(knee - hip, ankle - knee)


def stance_flexion(clips: list[np.ndarray], rest_joints: np.ndarray, fps: float) -> float:
    """Degrees of the knees of a subject who stands, from rotation vectors (T, 24, 3) of all clips.

    The median of the straighter knee over frames of standing still; where there are too few, the `PERCENTILE` of the
    lower foot's leg, where that is vertical under an upright trunk. NaN where there are none.
    """
    still, carrying = [], []
    for pose in clips:
        joints = our_positions(pose, rest_joints)
        knees = np.stack([flexion(joints, side) for side in SIDES], 1)
        ankles, hips = (joints[:, [JOINT[f"{side}_{name}"] for side in SIDES]] for name in ("ankle", "hip"))
        leans = _angle(hips - ankles, np.array([0.0, 1.0, 0.0]))
        upright = _angle(joints[:, JOINT["neck"]] - joints[:, JOINT["pelvis"]], np.array([0.0, 1.0, 0.0])) < UPRIGHT
        speed = np.linalg.norm(np.gradient(joints, axis=0), axis=2).max(1) * fps
        still.append(knees[upright & (leans.max(1) < VERTICAL) & (speed < STILL)].min(1))
        rows, lower = np.arange(len(pose)), ankles[..., 1].argmin(1)
        carrying.append(knees[rows, lower][upright & (leans[rows, lower] < CARRYING)])
    standing, carriers = np.concatenate(still), np.concatenate(carrying)
    if len(standing) >= FEWEST:
        return float(np.median(standing))
    return float(np.percentile(carriers, PERCENTILE)) if len(carriers) else np.nan


def excess_length(flexion_degrees: float) -> float:
    """Share by which legs are too long that bend by so much where they should by `STRAIGHT`; 0 where they don't."""
    if not flexion_degrees > STRAIGHT:
        return 0.0
    missing = SOFT * np.log(np.expm1((1 - np.cos(np.radians(STRAIGHT / 2))) / SOFT))
    return float((1 - missing) / np.cos(np.radians(flexion_degrees / 2)) - 1)


def shortened_legs(pose: np.ndarray, excess: float, rest_joints: np.ndarray) -> np.ndarray:
    """Rotation vectors (T, 24, 3) with hip and ankle as far apart as legs shorter by `excess` have them.

    Thigh and shin turn in their own plane, and the line from hip to ankle keeps its direction. No leg becomes
    straighter than the T-pose's; one that is stays.
    """
    pose = pose.copy()
    joints, rest = our_positions(pose, rest_joints), our_positions(np.zeros((1, 24, 3)), rest_joints)[0]
    local = {name: Rotation.from_rotvec(pose[:, JOINT[name]]) for name in JOINT}
    pelvis = Rotation.from_rotvec(pose[:, 0])
    for side in SIDES:
        hip, knee, ankle = (JOINT[f"{side}_{name}"] for name in ("hip", "knee", "ankle"))
        thigh, shin = joints[:, knee] - joints[:, hip], joints[:, ankle] - joints[:, knee]
        upper, lower = (np.linalg.norm(each, axis=1) for each in (thigh, shin))
        reach = np.linalg.norm(thigh + shin, axis=1)
        longest = np.linalg.norm(rest[ankle] - rest[hip])
        missing = np.logaddexp(0, (1 - reach * (1 + excess) / longest) / SOFT) * SOFT
        target = reach if excess == 0 else np.maximum(reach, longest * (1 - missing))
        axis = np.cross(thigh, shin)
        axis /= np.maximum(np.linalg.norm(axis, axis=1, keepdims=True), 1e-9)
        first = _corner(upper, reach, lower) - _corner(upper, target, lower)  # turns the thigh towards the line
        second = _corner(lower, reach, upper) - _corner(lower, target, upper)
        up_turn, low_turn = (Rotation.from_rotvec(axis * angle[:, None]) for angle in (first, -second))
        world_thigh = pelvis * local[f"{side}_hip"]
        world_shin = world_thigh * local[f"{side}_knee"]
        world_foot = world_shin * local[f"{side}_ankle"]
        world_thigh, world_shin = up_turn * world_thigh, low_turn * world_shin
        pose[:, hip] = (pelvis.inv() * world_thigh).as_rotvec()
        pose[:, knee] = (world_thigh.inv() * world_shin).as_rotvec()
        pose[:, ankle] = (world_shin.inv() * world_foot).as_rotvec()
    return pose


def _corner(beside: np.ndarray, other: np.ndarray, opposite: np.ndarray) -> np.ndarray:
    """Angle between two sides of a triangle, radians, by the law of cosines."""
    cosine = (beside**2 + other**2 - opposite**2) / (2 * beside * other)
    return np.arccos(cosine.clip(-1, 1))


def _angle(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Degrees between vectors (..., 3)."""
    return np.rad2deg(np.arctan2(np.linalg.norm(np.cross(a, b), axis=-1), (a * b).sum(-1)))
