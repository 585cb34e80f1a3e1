"""Priors on shape and pose, and closeness to where the fit started."""

from __future__ import annotations

from torch import Tensor

from dsr_fit.rotation import matrix_to_axis_angle

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


def betas(values: Tensor) -> Tensor:
    """Mean square of (B, 10): the negative log-density of a unit Gaussian, up to scale."""
    return values.square().mean(1)


def too_short_or_tall(height: Tensor) -> Tensor:
    """(B,) metres of stature -> signed metres beyond `ADULTS`, 0 within."""
    low, high = ADULTS
    return (height - high).clamp(min=0) - (low - height).clamp(min=0)


def stature(height: Tensor) -> Tensor:
    """Squared hinge on statures (B,) in metres that adults don't have, in units of `STATURE_UNIT`^2."""
    return (too_short_or_tall(height) / STATURE_UNIT).square()


def bends(body_pose: Tensor) -> Tensor:
    """(B, 69) -> (B, 4) signed forward bend of knees and elbows, radians."""
    index = [component for component, _ in BENDS]
    return body_pose[:, index] * body_pose.new_tensor([sign for _, sign in BENDS])


def bending(body_pose: Tensor) -> Tensor:
    """Squared hinge on elbows and knees that bend backwards, in units of `BEND_UNIT`^2, summed: (B, 69) -> (B,)."""
    return (bends(body_pose).clamp(max=0) / BEND_UNIT).square().sum(1)


def turned(rotations: Tensor, start: Tensor) -> Tensor:
    """(B, J, 3) axis-angle that turns local rotations (B, J, 3, 3) `start` into `rotations`."""
    return matrix_to_axis_angle(start.mT @ rotations)


def initial(turn: Tensor, spread: Tensor, shape: Tensor) -> Tensor:
    """Mean square distance to the initial estimate.

    `turn` (B, 24, 3) radians each joint is turned from it, in units of the joint's `spread` (B, 24): how far off the
    estimate is likely to be; `shape` (B, 10) difference of betas.
    """
    return (turn.square().sum(-1) / spread.square()).mean(1) + shape.square().mean(1)
