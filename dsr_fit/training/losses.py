"""HMR's training losses as released with DSR (Dwivedi et al. 2021): pure functions, one value per person.

The rendered losses are the fit's own terms (`dsr_fit.terms`). B people, 49 keypoints, 24 rotations.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dsr_fit.joints import KEYPOINT_INDEX
from dsr_fit.training.settings import LossWeights

MID_HIP = KEYPOINT_INDEX["MidHip"]


DSR_WEIGHTS = {
    "keypoints_2d": 5.0, "keypoints_3d": 5.0, "pose": 1.0, "betas": 0.001, "camera": 1.0, "dsr_mc": 0.1, "dsr_c": 0.1,
    "silhouette": 0.1,
}  # fmt: skip
"""DSR's weight of each loss; `camera` is against bodies behind the camera, `silhouette` is off there."""

FACTOR = 60.0
"""Of the weighted sum."""


def weights_of(given: LossWeights) -> dict[str, float]:
    """DSR's weights times the given ones."""
    factors = {**vars(given), "keypoints_2d": given.keypoints, "camera": 1.0}
    return {name: weight * factors.get(name, given.parameters) for name, weight in DSR_WEIGHTS.items()}


def keypoints_2d(
    projected: Tensor,  # (B, 49, 2) -1..1 from side to side of the crop
    observed: Tensor,  # (B, 49, 3) the same, and confidence; 0 where unobserved
) -> Tensor:  # (B,)
    """Confidence times squared error, averaged over all slots and both axes, so that few keypoints weigh little."""
    return (observed[..., 2:] * (projected - observed[..., :2]).square()).mean((1, 2))


def keypoints_3d(
    points: Tensor,  # (B, 49, 3) metres
    known: Tensor,  # (B, 49, 4) metres about the mid-hip, and confidence; 0 where unknown
) -> Tensor:  # (B,) 0 if nothing is known
    """Confidence times squared error about the mid-hip, averaged over the known slots and the axes."""
    about = points - points[:, MID_HIP : MID_HIP + 1]
    cost = known[..., 3] * (about - known[..., :3]).square().mean(2)
    return cost.sum(1) / (known[..., 3] > 0).sum(1).clamp(min=1)


def pose(rotations: Tensor, known: Tensor) -> Tensor:
    """Mean squared difference of rotation matrices, (B, 24, 3, 3) each -> (B,)."""
    return (rotations - known).square().mean((1, 2, 3))


def betas(values: Tensor, known: Tensor) -> Tensor:
    """Mean squared difference, (B, 10) each -> (B,)."""
    return (values - known).square().mean(1)


def camera(crop_cam: Tensor) -> Tensor:
    """exp(-10 s)^2 of SPIN's s, tx, ty: (B, 3) -> (B,). A scale below zero is a body behind the camera."""
    return (-10 * crop_cam[:, 0]).exp().square()


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of (B,) values; 0 without any weight. A value of weight 0 may be anything, NaN included."""
    counted = torch.where(weights > 0, values, 0)
    return (weights * counted).sum() / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)


def combine(
    values: Mapping[str, Tensor], people: Tensor, known: Mapping[str, Tensor], weights: Mapping[str, float]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The total loss, and each loss's unweighted mean.

    Args:
        values: loss name -> (B,) of each person.
        people: (B,) each person's weight, such as the quality of its label.
        known: loss name -> (B,) 1 if the person has this loss's label; all ones by default.
        weights: loss name -> weight.
    """
    everybody = torch.ones_like(people)
    means = {name: weighted_mean(value, people * known.get(name, everybody)) for name, value in values.items()}
    total = torch.stack([weights[name] * mean for name, mean in means.items()]).sum()
    return FACTOR * total, means
