"""What a fit is held to by the `initial` term: an estimate, and how far off each joint of it is likely to be."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dsr_fit.body.parameters import Parameters
from dsr_fit.rotation import axis_angle_to_matrix
from dsr_fit.tensors import Tensors

UNSURE = 0.3
"""Radians that each joint of an estimate is taken to be off where its regressor doesn't say."""


@dataclass(frozen=True)
class Anchor(Tensors):
    """An estimate of B people."""

    rotations: Tensor  # (B, 24, 3, 3) local, root first
    betas: Tensor  # (B, 10)
    spread: Tensor  # (B, 24) radians

    @classmethod
    def of(cls, parameters: Parameters, spread: Tensor | None = None) -> Anchor:
        rotations = axis_angle_to_matrix(parameters.full_pose.detach().unflatten(1, (24, 3)))
        if spread is None:
            spread = rotations.new_full(rotations.shape[:2], UNSURE)
        return cls(rotations, parameters.betas.detach(), spread.detach())
