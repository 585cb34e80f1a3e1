"""The initial estimate that a fit stays close to: its rotations, with the expected error of each, and its keypoints."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dsr_fit.body.parameters import Parameters
from dsr_fit.body.skeleton import Skeleton
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
    keypoints: Tensor  # (B, 49, 3) metres, camera axes, about any origin
    shares: Tensor  # (B, 49) of each keypoint in their mean, 0 where the body defines none

    @classmethod
    def of(cls, parameters: Parameters, skeleton: Skeleton, spread: Tensor | None = None) -> Anchor:
        parameters = parameters.detach()
        rotations = axis_angle_to_matrix(parameters.full_pose.unflatten(1, (24, 3)))
        if spread is None:
            spread = rotations.new_full(rotations.shape[:2], UNSURE)
        keypoints = skeleton.keypoints(rotations, parameters.betas)
        valid = skeleton.keypoint_valid.to(keypoints).expand(keypoints.shape[:2])
        return cls(rotations, parameters.betas, spread.detach(), keypoints, valid / valid.sum(1, keepdim=True))
