"""Priors on shape and pose, and closeness to the initial estimate."""

from __future__ import annotations

from torch import Tensor

from dsr_fit.rotation import matrix_to_axis_angle
from dsr_fit.terms.residual import Dual, Residual

# Axis-angle components of `body_pose` that bend an elbow or a knee, with the sign that is forwards (SMPLify).
BENDS: tuple[tuple[int, float], ...] = (
    (3 * (4 - 1), 1.0),  # left knee, about x
    (3 * (5 - 1), 1.0),  # right knee
    (3 * (18 - 1) + 1, -1.0),  # left elbow, about y
    (3 * (19 - 1) + 1, 1.0),  # right elbow
)
ADULTS = (1.45, 2.05)
"""Metres of stature of all but a few adults in a thousand."""
STATURE_UNIT = 0.03
"""Metres beyond it that cost 1."""
BEND_UNIT = 0.1
"""Radians of backward bend that cost 1."""


def betas(values: Dual) -> Residual:
    """Mean square of (B, 10): the negative log-density of a unit Gaussian, up to scale."""
    return Residual(values, 1 / values.value.shape[1])


def stature(height: Dual) -> Residual:
    """Squared hinge on statures (B, 1), metres, outside `ADULTS`, in units of `STATURE_UNIT`^2."""
    low, high = ADULTS
    tall, short = (height.value - high).clamp(min=0), (low - height.value).clamp(min=0)
    beyond = tall - short
    slope = None if height.slope is None else height.slope * (beyond != 0)[..., None]
    return Residual(Dual(beyond, slope) * (1 / STATURE_UNIT))


def bending(body_pose: Dual) -> Residual:
    """Squared hinge on elbows and knees that bend backwards, in units of `BEND_UNIT`^2, summed; (B, 69)."""
    # By views: an index made from a list would be copied to a GPU each time.
    bends = ((body_pose[:, component : component + 1], sign) for component, sign in BENDS)
    forward = Dual.joined([bend if sign > 0 else bend * sign for bend, sign in bends])
    slope = None if forward.slope is None else forward.slope * (forward.value < 0)[..., None]
    return Residual(Dual(forward.value.clamp(max=0), slope) * (1 / BEND_UNIT))


def turned(rotations: Tensor, start: Tensor) -> Tensor:
    """(B, J, 3) axis-angle that turns local rotations (B, J, 3, 3) `start` into `rotations`."""
    return matrix_to_axis_angle(start.mT @ rotations)


def initial(turn: Dual, spread: Tensor, shape: Dual) -> Residual:
    """Mean square distance to the initial estimate.

    `turn` (B, 24, 3) radians each joint is turned from it, in units of the joint's `spread` (B, 24): how far off the
    estimate is likely to be; `shape` (B, 10) difference of betas.
    """
    turn = turn * (1 / (spread[..., None] * spread.shape[1] ** 0.5))
    turn = Dual(turn.value.flatten(1), None if turn.slope is None else turn.slope.flatten(1, 2))
    return Residual(Dual.joined([turn, shape * (shape.value.shape[1] ** -0.5)]))
