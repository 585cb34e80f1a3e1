"""Metrics of bodies, and confidence intervals of their means.

Points are in metres, errors in millimetres, angles in degrees; ratios are not per cent. Items with NaN or infinity in
their input get NaN without affecting the others (except in `pck`). The bootstrap rejects NaN, so callers must count
failed fits instead of silently dropping them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy import stats
from torch import Tensor

from dsr_fit.assets import shipped
from dsr_fit.body.body import Body
from dsr_fit.joints import SMPL_JOINTS
from dsr_fit.rotation import angle_between, axis_angle_to_matrix, matrix_to_axis_angle

MILLIMETRES = 1000.0
RESAMPLES = 9999

LIMITED_JOINTS = tuple(
    name
    for name in SMPL_JOINTS[1:]
    if not name.endswith(("collar", "foot", "hand"))  # hardly moved by motion capture
)
LIMIT_MARGIN = 5.0
"""Degrees beyond a joint's limit that still count as within: people differ by as much."""


def mpjpe(joints: Tensor, true_joints: Tensor, root: Sequence[int] | None = (0,)) -> Tensor:
    """Mean per-joint position error (B,), mm, of joints (B, J, 3) in metres.

    Both are centred on the mean of the joints `root` (the pelvis, or both hips), as by Ionescu et al. 2014 (Human3.6M,
    protocol 1); `root=None` compares them where they are.
    """
    if root is not None:
        joints, true_joints = (x - x[:, list(root)].mean(1, keepdim=True) for x in (joints, true_joints))
    return _mean_distance(joints, true_joints)


def pa_mpjpe(joints: Tensor, true_joints: Tensor) -> Tensor:
    """MPJPE (B,), mm, after `procrustes` alignment (Human3.6M's protocol 2), of joints (B, J, 3)."""
    return _mean_distance(procrustes(joints, true_joints), true_joints)


def pve(vertices: Tensor, true_vertices: Tensor, pelvis: Tensor, true_pelvis: Tensor) -> Tensor:
    """Per-vertex error (B,), mm, also called MPVPE or V2V, with the pelvis joints (B, 3) aligned.

    `vertices` (B, V, 3) metres, of one topology.
    """
    return _mean_distance(vertices - pelvis[:, None], true_vertices - true_pelvis[:, None])


def pa_pve(vertices: Tensor, true_vertices: Tensor) -> Tensor:
    """Per-vertex error (B,), mm, after `procrustes` alignment, of vertices (B, V, 3)."""
    return _mean_distance(procrustes(vertices, true_vertices), true_vertices)


def t_pose_pve(betas: Tensor, true_betas: Tensor, body: Body, *, scale_corrected: bool = False) -> Tensor:
    """Per-vertex error (B,), mm, of the shapes of betas (B, 10) in T-pose: PVE-T, shape without pose.

    `scale_corrected` is PVE-T-SC (Sengupta et al. 2020, STRAPS, for SSP-3D): each body is centred on its vertices' mean
    and scaled to the true body's root mean square size, so stature doesn't count.
    """
    vertices, true_vertices = (
        body.v_template + torch.einsum("vcs,bs->bvc", body.shapedirs, each) for each in (betas, true_betas)
    )
    if scale_corrected:
        vertices, true_vertices = (x - x.mean(1, keepdim=True) for x in (vertices, true_vertices))
        size, true_size = (x.square().sum((1, 2), keepdim=True).sqrt() for x in (vertices, true_vertices))
        vertices = vertices * (true_size / size)
    return _mean_distance(vertices, true_vertices)


def joint_angle_error(rotations: Tensor, true_rotations: Tensor) -> Tensor:
    """Mean geodesic angle (B,), degrees, between rotation matrices (B, J, 3, 3); MPJAE with world rotations.

    Pass all 24 of SMPL's joints, or leave out the first for the body's pose without its orientation.
    """
    return torch.rad2deg(angle_between(rotations, true_rotations)).mean(-1)


def area_inflation(coverage: Tensor, true_coverage: Tensor) -> Tensor:
    """Area of the rendered body over the true unclothed body's, minus 1, (B,).

    Coverage (B, H, W), 0..1 or bool: 0.1 is drawn 10 % too large. NaN where the true body covers nothing.
    """
    true_area = true_coverage.double().sum((1, 2))
    ratio = coverage.double().sum((1, 2)) / true_area - 1
    return torch.where(true_area > 0, ratio, torch.nan)


def mask_iou(mask: Tensor, true_mask: Tensor) -> Tensor:
    """Intersection over union (B,) of masks (B, H, W) bool; NaN where both are empty."""
    union = (mask | true_mask).sum((1, 2))
    return torch.where(union > 0, (mask & true_mask).sum((1, 2)) / union, torch.nan)


def pck(
    points: Tensor, true_points: Tensor, visible: Tensor, threshold: float, box_size: Tensor | None = None
) -> Tensor:
    """Percentage of correct keypoints, as a share (B,): visible points within the threshold of the truth.

    Points (B, K, 2) in pixels, `visible` (B, K) bool. `threshold` is in pixels, or, given `box_size` (B,) in
    pixels, a fraction of it (Yang and Ramanan 2013). A NaN point is a miss; no visible point gives NaN.
    """
    limit = threshold if box_size is None else threshold * box_size[:, None]
    correct = ((points - true_points).norm(dim=-1) <= limit) & visible
    count = visible.sum(1)
    return torch.where(count > 0, correct.sum(1) / count, torch.nan)


def procrustes(points: Tensor, target: Tensor) -> Tensor:
    """`points` (B, N, 3) aligned to `target` (B, N, 3) by the least-squares similarity transform.

    Umeyama 1991, equations 40 to 43: a rotation, never a reflection. Coincident points map to the target's mean.
    """
    finite = (points.isfinite() & target.isfinite()).all(-1).all(-1)[:, None, None]
    mean, target_mean = points.mean(1, keepdim=True), target.mean(1, keepdim=True)
    centred, wanted = points - mean, target - target_mean
    # A non-finite item would fail the whole batch's decomposition.
    u, s, vt = torch.linalg.svd(torch.where(finite, wanted.mT @ centred, 0.0))
    sign = torch.ones_like(s)
    sign[:, 2] = torch.linalg.det(u @ vt).sign()
    rotation = u @ (sign[..., None] * vt)
    spread = centred.square().sum((1, 2)).clamp(min=torch.finfo(points.dtype).tiny)
    scale = (s * sign).sum(1) / spread
    aligned = scale[:, None, None] * centred @ rotation.mT + target_mean
    return torch.where(finite, aligned, torch.nan)


def _mean_distance(points: Tensor, target: Tensor) -> Tensor:
    distance = MILLIMETRES * (points - target).norm(dim=-1).mean(1)
    return torch.where(distance.isfinite(), distance, torch.nan)


def joint_angles(body_pose: Tensor) -> Tensor:
    """(B, 69) -> (B, 23, 4) degrees: twist about the joint's bone, swing about the two other axes, and the total.

    R = swing x twist; the bone's axis is x for collars and arms, y elsewhere.
    """
    rotation = axis_angle_to_matrix(body_pose.unflatten(1, (23, 3)))
    vector = matrix_to_axis_angle(rotation)
    total = vector.norm(dim=-1, keepdim=True)
    w, xyz = (total / 2).cos(), vector * torch.sinc(total / (2 * torch.pi)) / 2  # the quaternion
    arms = ("collar", "shoulder", "elbow", "wrist", "hand")
    bone = torch.eye(3).to(vector)[[0 if name.endswith(arms) else 1 for name in SMPL_JOINTS[1:]]]
    twist = 2 * torch.atan2((xyz * bone).sum(-1, keepdim=True), w) * bone  # within half a turn, since w >= 0
    swing = matrix_to_axis_angle(rotation @ axis_angle_to_matrix(twist).mT)
    return torch.rad2deg(torch.cat([torch.where(bone > 0, twist, swing), total], -1))


def implausible_joints(body_pose: Tensor) -> Tensor:
    """(B, 69) -> (B,) share of joints outside the range of motion capture (`priors/pose/joint_limits.json`)."""
    table = json.loads(shipped("priors/pose/joint_limits.json").read_text(encoding="utf-8"))
    limits = body_pose.new_tensor([table[name] for name in LIMITED_JOINTS])  # (J, 4, 2)
    angles = joint_angles(body_pose)[:, [SMPL_JOINTS.index(name) - 1 for name in LIMITED_JOINTS]]
    outside = (angles < limits[..., 0] - LIMIT_MARGIN) | (angles > limits[..., 1] + LIMIT_MARGIN)
    return outside.any(-1).to(body_pose.dtype).mean(1)


@dataclass(frozen=True)
class Interval:
    """A mean and its confidence interval."""

    mean: float
    low: float  # NaN when there are fewer than two values
    high: float
    count: int


def bootstrap(
    values: ArrayLike, weights: ArrayLike | None = None, *, seed: int = 0, confidence: float = 0.95
) -> Interval:
    """The mean of values (N,), weighted if weights (N,) are given, with its BCa interval (Efron 1987).

    Items are resampled together with their weights. Raises ValueError for values or weights that are not
    finite, weights that are negative or sum to zero, and lists that are empty or of different lengths.
    """
    x = np.asarray(values, dtype=np.float64)
    w = np.ones_like(x) if weights is None else np.asarray(weights, dtype=np.float64)
    if x.ndim != 1 or w.shape != x.shape or len(x) == 0:
        raise ValueError(f"values {x.shape} and weights {w.shape} must be non-empty lists of the same length")
    if not (np.isfinite(x).all() and np.isfinite(w).all()):
        count = int((~np.isfinite(x) | ~np.isfinite(w)).sum())
        raise ValueError(f"{count} of {len(x)} values or weights are not finite: leave them out, and report how many")
    if (w < 0).any() or w.sum() == 0:
        raise ValueError("weights must not be negative, nor all zero")
    x, w = x[w > 0], w[w > 0]
    mean = float(np.average(x, weights=w))
    if len(x) < 2:
        return Interval(mean, np.nan, np.nan, len(x))
    if np.ptp(x) == 0:  # BCa divides by the values' spread
        return Interval(mean, mean, mean, len(x))
    found = stats.bootstrap(
        (x, w), _weighted_mean, paired=True, vectorized=True, n_resamples=RESAMPLES, batch=512,
        confidence_level=confidence, method="BCa", rng=np.random.default_rng(seed),
    ).confidence_interval  # fmt: skip
    return Interval(mean, float(found.low), float(found.high), len(x))


def paired_difference(values: ArrayLike, baseline: ArrayLike, weights: ArrayLike | None = None) -> Interval:
    """`bootstrap` of values - baseline (N,), item by item: negative where errors went down.

    Raises ValueError like `bootstrap`, or when the lists' lengths differ.
    """
    x, y = np.asarray(values, dtype=np.float64), np.asarray(baseline, dtype=np.float64)
    if x.shape != y.shape:
        raise ValueError(f"paired values have different shapes, {x.shape} and {y.shape}")
    return bootstrap(x - y, weights)


def _weighted_mean(values: np.ndarray, weights: np.ndarray, axis: int) -> np.ndarray:
    return (values * weights).sum(axis) / weights.sum(axis)
