"""Priors on shape and pose, and closeness to the initial estimate."""

from __future__ import annotations

import torch
from torch import Tensor

from dsr_fit.terms.residual import Dual, Residual
from dsr_fit.terms.turns import rotation_vectors

# Axis-angle components of `body_pose` that bend an elbow or a knee, with the sign that is forwards (SMPLify).
BENDS: tuple[tuple[int, float], ...] = (
    (3 * (4 - 1), 1.0),  # left knee, about x
    (3 * (5 - 1), 1.0),  # right knee
    (3 * (18 - 1) + 1, -1.0),  # left elbow, about y
    (3 * (19 - 1) + 1, 1.0),  # right elbow
)
_KNEES = slice(BENDS[0][0], BENDS[1][0] + 1, 3)
_LEFT_ELBOW, _RIGHT_ELBOW = (slice(component, component + 1) for component, _ in BENDS[2:])
ADULTS = (1.45, 2.05)
"""Metres of stature of all but a few adults in a thousand."""
STATURE_UNIT = 0.03
"""Metres beyond it that cost 1."""
BEND_UNIT = 0.1
"""Radians of backward bend that cost 1."""


def betas(values: Dual) -> Residual:
    """Mean square of (B, 10): the negative log-density of a unit Gaussian, up to scale."""
    return Residual(values, 1 / values.value.shape[1])


def stature(height: Dual, known: Tensor | None = None) -> Residual:
    """Squared hinge on statures (B, 1), metres, outside `ADULTS`, in units of `STATURE_UNIT`^2.

    `known` (B, 1) are heights that take the range's place, NaN where none does.
    """
    low, high = ADULTS if known is None else (known.nan_to_num(nan=bound) for bound in ADULTS)
    tall, short = (height.value - high).clamp(min=0), (low - height.value).clamp(min=0)
    beyond = tall - short
    slope = None if height.slope is None else height.slope * ((height.value <= low) | (height.value >= high))[..., None]
    return Residual(Dual(beyond, slope) * (1 / STATURE_UNIT))


def bending(body_pose: Dual) -> Residual:
    """Squared hinge on elbows and knees that bend backwards, in units of `BEND_UNIT`^2, summed; (B, 69)."""
    forward = _forward(body_pose)
    slope = None if forward.slope is None else forward.slope * (forward.value < 0)[..., None]
    return Residual(Dual(forward.value.clamp(max=0), slope) * (1 / BEND_UNIT))


def straight(body_pose: Dual, peaks: Tensor) -> Residual:
    """How far from straight knees and elbows are that may be; (B, 69).

    A bend b > 0 of a limb has the density 1 + h exp(-b^2 / 2 w^2) over the pose prior's, where `peaks` (2, 2) holds h
    and w of knees and elbows: a half-normal peak at straight, and nothing else. By expectation maximisation it is a
    squared error in units of w, weighted by the chance that the limb is one of the peak; `straight_energy` is the
    density's.
    """
    bend = _forward(body_pose)
    height, width = peaks.repeat_interleave(2, 0).unbind(1)
    slope = None if bend.slope is None else bend.slope * (bend.value > 0)[..., None]
    error = Dual(bend.value.clamp(min=0), slope) * (1 / width)
    peak = height * torch.exp(error.value.square() / -2)
    error = Dual(error.value[..., None], None if error.slope is None else error.slope[:, :, None])
    return Residual(error, peak / (1 + peak))


def straight_energy(body_pose: Tensor, peaks: Tensor) -> Tensor:
    """(B,) -2 log of the densities of `straight`, relative to their peaks, summed over the four limbs."""
    height, width = peaks.repeat_interleave(2, 0).unbind(1)
    bend = _forward(Dual(body_pose)).value.clamp(min=0) / width
    return 2 * (torch.log1p(height) - torch.log1p(height * torch.exp(bend.square() / -2))).sum(1)


def _forward(body_pose: Dual) -> Dual:
    """(B, 4) radians by which knees and elbows, left and right, are bent forwards."""
    # By views, and few of them: an index made from a list would be copied to a GPU each time.
    return Dual.joined([body_pose[:, _KNEES], body_pose[:, _LEFT_ELBOW] * -1.0, body_pose[:, _RIGHT_ELBOW]])


def turned(rotations: Tensor, start: Tensor) -> Tensor:
    """(B, J, 3) axis-angle that turns local rotations (B, J, 3, 3) `start` into `rotations`."""
    return rotation_vectors(start.mT @ rotations)


def initial_points(points: Dual, estimate: Tensor, shares: Tensor, unit: float) -> Residual:
    """Mean square distance of keypoints (B, N, 3), metres, to those of the initial estimate, in `unit`, up to a
    translation; `shares` (B, N) in the mean sum to 1. It keeps how deep limbs lie, which the estimate knows best.
    """
    return Residual((points - estimate).less_mean(shares), shares / unit**2)


def initial(turn: Dual, spread: Tensor, shape: Dual) -> Residual:
    """Mean square distance to the initial estimate.

    `turn` (B, 24, 3) radians each joint is turned from it, in units of the joint's `spread` (B, 24): how far off the
    estimate is likely to be; `shape` (B, 10) difference of betas.
    """
    turn = turn * (1 / (spread[..., None] * spread.shape[1] ** 0.5))
    turn = Dual(turn.value.flatten(1), None if turn.slope is None else turn.slope.flatten(1, 2))
    return Residual(Dual.joined([turn, shape * (shape.value.shape[1] ** -0.5)]))
