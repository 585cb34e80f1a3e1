"""Agreement with observed points: in the image, in 3D, and of the two with each other."""

from __future__ import annotations

import torch
from torch import Tensor

from dsr_fit.camera import project, translation_from_keypoints
from dsr_fit.terms.residual import Dual, Residual

NEAREST = 0.05
"""Metres of depth below which a point's projection is linearised as if it lay there."""

COMPARED = 8
"""Points seen both in the image and in 3D from which on these two are compared; unsure ones count as parts of one."""

SUREST = 0.0015
"""Disagreement, over the landmarks' spread, below which points are taken for no surer: .8 mm of a whole body."""


def keypoints(
    points: Dual,  # (B, N, 3) metres, camera frame
    intrinsics: Tensor,  # (B, 4) pixels
    observed: Tensor,  # (B, N, 2) pixels
    confidence: Tensor,  # (B, N) 0..1, 0 where unobserved
    box: Tensor,  # (B,) longer side of the keypoints' box, pixels
    certainty: Tensor,  # (B,) by how much more the points weigh than a detector's
    unit: float,
    robust: float,
) -> Residual:
    """Reprojection: the mean of confidence^2 times Geman-McClure of the error over the box's side, in `unit`^2.

    The robust reprojection error of SMPLify (Bogo et al. 2016, equation 2), relative to the person's size.
    """
    error = (projected(points, intrinsics) - observed) * (1 / box[:, None, None])
    return Residual(error, certainty[:, None] * _shares(confidence) / unit**2, robust)


def world_landmarks(
    points: Dual,  # (B, N, 3) metres, camera axes
    observed: Tensor,  # (B, N, 3) metres about an origin of the detector's
    confidence: Tensor,  # (B, N) 0..1, 0 where unobserved
    certainty: Tensor,  # (B,) as for keypoints
    unit: float,
) -> Residual:
    """Agreement with 3D landmarks up to translation: mean of confidence^2 times the squared error, in `unit`^2."""
    weights = confidence.square()
    error = (points - observed).less_mean(weights / weights.sum(1, keepdim=True).clamp(min=1e-9))
    return Residual(error, certainty[:, None] * _shares(confidence) / unit**2)


def disagreement(
    pixels: Tensor,  # (B, N, 2)
    confidence: Tensor,  # (B, N) 0..1, 0 where unobserved
    world: Tensor,  # (B, N, 3) metres about any origin, camera axes
    world_confidence: Tensor,  # (B, N)
    intrinsics: Tensor,  # (B, 4) pixels
) -> Tensor:
    """(B,) by how much keypoints and 3D landmarks disagree, over the landmarks' spread; infinity for who has too few.

    The distance of each landmark from its keypoint's ray, once the landmarks are moved to where these are least, as the
    root of the mean square.
    """
    weights, deep, pixels = confidence.double().square() * (world_confidence > 0), world.double(), pixels.double()
    intrinsics = intrinsics.double()
    placed = deep + translation_from_keypoints(deep, pixels, weights, intrinsics)[:, None]
    rays = (pixels - intrinsics[:, None, 2:]) / intrinsics[:, None, :2]
    total = weights.sum(1).clamp(min=1e-9)
    share = (weights / total[:, None])[..., None]
    missed = (share * (placed[..., :2] - rays * placed[..., 2:]).square()).sum((1, 2))
    spread = (share * (deep - (share * deep).sum(1, keepdim=True)).square()).sum((1, 2))
    count = total.square() / weights.square().sum(1).clamp(min=1e-9)
    missed = missed * 2 * count / (2 * count - 3).clamp(min=1)  # three numbers of the move were free
    found = (missed / spread.clamp(min=1e-9)).sqrt()
    return torch.where((count > COMPARED - 0.5) & found.isfinite(), found, torch.inf).to(world.dtype)


def certainty(disagreement: Tensor, usual: float) -> Tensor:
    """(B,) by how much more points weigh than a detector's, whose disagreement is at least the `usual` one.

    Errors are taken to be as large as the disagreement, and least squares weighs by their inverse square. Ours never
    agrees with itself to a millimetre; points that were measured do, and priors should not hold against them.
    """
    if usual <= SUREST:
        return torch.ones_like(disagreement)
    return (usual / disagreement.clamp(SUREST, usual)).square()


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
