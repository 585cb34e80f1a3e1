"""Agreement with observed points: in the image, and in 3D."""

from __future__ import annotations

import torch
from torch import Tensor


def geman_mcclure(squared: Tensor, scale: float) -> Tensor:
    """Robust version of a squared error: quadratic well below `scale`, at most scale^2 (Geman and McClure 1987)."""
    return squared / (1 + squared / scale**2)


def observed_mean(values: Tensor, confidence: Tensor) -> Tensor:
    """Mean over the observed entries (confidence > 0) of each image, (B, N) -> (B,); 0 where none is."""
    return values.sum(1) / (confidence > 0).sum(1).clamp(min=1)


def keypoints(
    projected: Tensor,  # (B, N, 2) pixels
    observed: Tensor,  # (B, N, 2) pixels
    confidence: Tensor,  # (B, N) 0..1, 0 where unobserved
    box: Tensor,  # (B,) longer side of the keypoints' box, pixels
    unit: float,
    robust: float,
) -> Tensor:  # (B,)
    """Reprojection: confidence^2 times Geman-McClure of the error over the box's side, in units of `unit`^2."""
    error = (projected - observed) / box[:, None, None]
    cost = confidence.square() * geman_mcclure(error.square().sum(-1), robust)
    return observed_mean(cost, confidence) / unit**2


def world_landmarks(
    points: Tensor,  # (B, N, 3) metres, camera axes
    observed: Tensor,  # (B, N, 3) metres about an origin of the detector's
    confidence: Tensor,  # (B, N) 0..1, 0 where unobserved
    unit: float,
) -> Tensor:  # (B,)
    """Agreement with a detector's 3D landmarks up to translation, in units of `unit`^2."""
    weights = confidence.square()[..., None]
    difference = points - observed
    mean = (weights * difference).sum(1, keepdim=True) / weights.sum(1, keepdim=True).clamp(min=1e-9)
    cost = weights[..., 0] * (difference - mean).square().sum(-1)
    return observed_mean(cost, confidence) / unit**2


def box_side(observed: Tensor, confidence: Tensor, min_confidence: float = 0.2) -> Tensor:
    """(B,) longer side of the box of the confident points, pixels; at least 1."""
    seen = (confidence > min_confidence)[..., None]
    low = observed.masked_fill(~seen, torch.inf).amin(1)
    high = observed.masked_fill(~seen, -torch.inf).amax(1)
    return (high - low).amax(1).clamp(min=1.0)
