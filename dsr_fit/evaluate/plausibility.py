"""Joints that bend as no recorded person's did: outside the 99.5 % range of motion capture."""

from __future__ import annotations

import json

import numpy as np
import torch
from torch import Tensor

from dsr_fit.assets import shipped
from dsr_fit.joints import SMPL_JOINTS
from dsr_fit.rotation import axis_angle_to_matrix, matrix_to_quaternion

RANGE = 99.5
"""Per cent of motion capture's poses that lie within the limits of one quantity."""
RECORDED = tuple(
    name
    for name in SMPL_JOINTS[1:]
    if not any(part in name for part in ("collar", "foot", "hand"))  # hardly moved by motion capture
)
MARGIN = 5.0
"""Degrees beyond the range that still count as within it: other people's joints differ by as much."""


def joint_angles(body_pose: Tensor) -> Tensor:
    """(B, 69) -> (B, 23, 4) degrees: twist about the joint's bone, swing about the two other axes, and the total.

    R = swing x twist, the bone's axis x for collars and arms, y elsewhere.
    """
    quaternion = matrix_to_quaternion(axis_angle_to_matrix(body_pose.unflatten(1, (23, 3))))
    names = SMPL_JOINTS[1:]
    arms = ("collar", "shoulder", "elbow", "wrist", "hand")
    bone = torch.tensor([0 if any(arm in name for arm in arms) else 1 for name in names], device=body_pose.device)
    w = quaternion[..., 0]
    along = quaternion[..., 1:].gather(2, bone.expand(len(w), 23)[..., None])[..., 0]
    half = torch.atan2(along, w)  # between -pi/2 and pi/2, since w >= 0
    axis = torch.nn.functional.one_hot(bone, 3).to(quaternion)
    swing = _times_inverse(quaternion, torch.cat([half.cos()[..., None], half.sin()[..., None] * axis], -1))
    sine = swing[..., 1:].norm(dim=-1, keepdim=True)
    vector = 2 * torch.atan2(sine, swing[..., :1]) * swing[..., 1:] / sine.clamp(min=1e-9)
    vector = torch.where(axis > 0, 2 * half[..., None], vector)  # a swing has no part along the bone
    total = 2 * torch.atan2(quaternion[..., 1:].norm(dim=-1), w)
    return torch.rad2deg(torch.cat([vector, total[..., None]], -1))


def _times_inverse(a: Tensor, b: Tensor) -> Tensor:
    """Quaternion a times the inverse of the unit quaternion b, (..., 4) w first."""
    w, v = a[..., :1], a[..., 1:]
    x, u = b[..., :1], -b[..., 1:]
    dot = (v * u).sum(-1, keepdim=True)
    return torch.cat([w * x - dot, w * u + x * v + torch.linalg.cross(v, u)], -1)


def learn_limits(body_pose: np.ndarray) -> dict[str, list[list[float]]]:
    """Joint -> [lowest, highest] degrees of its four `joint_angles`, over (N, 69) poses and their mirror images."""
    angles = joint_angles(torch.from_numpy(np.asarray(body_pose, np.float64))).numpy()
    tail = (100 - RANGE) / 2
    limits = {}
    for name in RECORDED:
        other = name.replace("left", "other").replace("right", "left").replace("other", "right")
        sign = np.array([1.0, -1.0, -1.0, 1.0])
        rows = [SMPL_JOINTS.index(each) - 1 for each in (name, other)]
        both = np.concatenate([angles[:, rows[0]], angles[:, rows[1]] * sign])
        limits[name] = np.percentile(both, [tail, 100 - tail], axis=0).T.round(2).tolist()
    return limits


def implausible_joints(body_pose: Tensor) -> Tensor:
    """(B, 69) -> (B,) share of the recorded joints that are turned beyond motion capture's range."""
    table = json.loads(shipped("priors/pose/joint_limits.json").read_text(encoding="utf-8"))
    limits = body_pose.new_tensor([table[name] for name in RECORDED])  # (J, 4, 2)
    angles = joint_angles(body_pose)[:, [SMPL_JOINTS.index(name) - 1 for name in RECORDED]]
    outside = (angles < limits[..., 0] - MARGIN) | (angles > limits[..., 1] + MARGIN)
    return outside.any(-1).to(body_pose.dtype).mean(1)
