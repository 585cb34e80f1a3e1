"""The initial estimate that the `initial` term stays close to, and the expected error of each joint."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dsr_fit.body.parameters import Parameters
from dsr_fit.rotation import axis_angle_to_matrix
from dsr_fit.tensors import Tensors

UNSURE = 0.3
"""Expected error of each joint where the regressor predicts none, radians."""


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
