"""Agreement with observed points: in the image, and in 3D."""

from __future__ import annotations

from torch import Tensor

from dsr_fit.camera import project
from dsr_fit.terms.residual import Dual, Residual

NEAREST = 0.05
"""Metres of depth below which a point's projection is linearised as if it lay there."""


def keypoints(
    points: Dual,  # (B, N, 3) metres, camera frame
    intrinsics: Tensor,  # (B, 4) pixels
    observed: Tensor,  # (B, N, 2) pixels
    confidence: Tensor,  # (B, N) 0..1, 0 where unobserved
    box: Tensor,  # (B,) longer side of the keypoints' box, pixels
    unit: float,
    robust: float,
) -> Residual:
    """Reprojection: the mean of confidence^2 times Geman-McClure of the error over the box's side, in `unit`^2.

    The robust reprojection error of SMPLify (Bogo et al. 2016, equation 2), relative to the person's size.
    """
    error = (projected(points, intrinsics) - observed) * (1 / box[:, None, None])
    return Residual(error, _shares(confidence) / unit**2, robust)


def world_landmarks(
    points: Dual,  # (B, N, 3) metres, camera axes
    observed: Tensor,  # (B, N, 3) metres about an origin of the detector's
    confidence: Tensor,  # (B, N) 0..1, 0 where unobserved
    unit: float,
) -> Residual:
    """Agreement with 3D landmarks up to translation: mean of confidence^2 times the squared error, in `unit`^2."""
    weights = confidence.square()
    error = (points - observed).less_mean(weights / weights.sum(1, keepdim=True).clamp(min=1e-9))
    return Residual(error, _shares(confidence) / unit**2)


def projected(points: Dual, intrinsics: Tensor) -> Dual:
    """(B, N, 3) metres -> (B, N, 2) pixels."""
    pixels = project(points.value, intrinsics)
    if points.slope is None:
        return Dual(pixels)
    depth = points.value[..., 2:].clamp(min=NEAREST)
    sideways = points.slope[:, :, :2] - (points.value[..., :2] / depth)[..., None] * points.slope[:, :, 2:]
    return Dual(pixels, (intrinsics[:, None, :2] / depth)[..., None] * sideways)


def _shares(confidence: Tensor) -> Tensor:
    """(B, N) confidence^2 over the number of observed points."""
    return confidence.square() / (confidence > 0).sum(1, keepdim=True).clamp(min=1)


def box_side(observed: Tensor, confidence: Tensor, min_confidence: float = 0.2) -> Tensor:
    """(B,) longer side of the box of the confident points, pixels; at least 1."""
    seen = (confidence > min_confidence)[..., None]
    low = observed.masked_fill(~seen, float("inf")).amin(1)
    high = observed.masked_fill(~seen, float("-inf")).amax(1)
    return (high - low).amax(1).clamp(min=1.0)
