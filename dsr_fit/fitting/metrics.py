"""How well a fit lies on what was observed: metrics on the hard render, judged on the label map the fit itself saw."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dsr_fit.body.body import Body
from dsr_fit.body.parameters import Parameters
from dsr_fit.camera import crop_intrinsics, project
from dsr_fit.labels import MC_LABELS
from dsr_fit.observe.batch import Batch, Points
from dsr_fit.observe.checks import MIN_CONFIDENCE
from dsr_fit.priors.semantic import SemanticPrior
from dsr_fit.render.renderer import Renderer

RESOLUTION = 224


def keypoint_errors(keypoints: Tensor, points: Points) -> tuple[Tensor, Tensor]:
    """Mean error of (B, 49, 3) keypoints over the confident points: pixels (B,), and relative to the box (B,)."""
    seen = points.confidence > MIN_CONFIDENCE
    error = (project(keypoints, points.intrinsics) - points.pixels).norm(dim=-1)
    pixels = error.masked_fill(~seen, 0).sum(1) / seen.sum(1)
    return pixels, pixels / points.box


@dataclass(frozen=True)
class Masks:
    """Hard masks (B, S, S) bool of the crop, occluder and unknown pixels left out of all of them."""

    body: Tensor
    """The rendered body."""
    person: Tensor
    """Observed labels of the person."""
    body_mc: Tensor
    """Body pixels whose most likely label is one of the image's valid MC labels."""
    observed_mc: Tensor
    """Observed pixels of those labels."""


def hard_masks(parameters: Parameters, body: Body, batch: Batch, renderer: Renderer, prior: SemanticPrior) -> Masks:
    """Render the bodies at 224 px and set them beside the batch's label maps."""
    device = body.v_template.device
    targets = batch.targets(RESOLUTION, "paper4", class_weights=False).to(device)
    window = crop_intrinsics(batch.points.intrinsics.to(device), batch.crops, RESOLUTION)
    worn = prior.dressed(batch.labels)
    channels = {"face_attributes" if worn.per_face else "attributes": worn.probabilities}
    render = renderer(parameters.pose(body).vertices(), window, RESOLUTION, **channels)
    known = targets.known > 0
    covered = render.mask & known
    likely = torch.full(covered.shape, -1, device=device)
    likely[covered] = render.attributes[covered].argmax(-1)
    minimal = torch.zeros_like(covered)
    for valid, label in zip(batch.mc_valid.to(device).T, MC_LABELS, strict=True):
        minimal |= (likely == label) & valid[:, None, None]
    return Masks(covered, (targets.person > 0) & known, covered & minimal, (targets.mc_mask > 0) & known)


def metrics(
    parameters: Parameters, body: Body, batch: Batch, renderer: Renderer, prior: SemanticPrior
) -> dict[str, Tensor]:
    """The contract's metrics, name -> (B,). NaN where there is nothing to judge by.

    `mc_iou`: IoU of {body pixels whose most likely label is a valid MC label} with the observed MC mask;
    `containment`: share of body pixels whose observed label is not background; `silhouette_iou`: IoU with the
    person mask.
    """
    points = batch.points.to(body.v_template.device)
    pixels, relative = keypoint_errors(parameters.pose(body).keypoints, points)
    masks = hard_masks(parameters, body, batch, renderer, prior)
    return {
        "keypoint_error_px": pixels,
        "keypoint_error_rel": relative,
        "mc_iou": _iou(masks.body_mc, masks.observed_mc).masked_fill(~masks.observed_mc.any(2).any(1), torch.nan),
        "containment": (masks.body & masks.person).sum((1, 2)) / masks.body.sum((1, 2)),
        "silhouette_iou": _iou(masks.body, masks.person),
    }


def _iou(a: Tensor, b: Tensor) -> Tensor:
    return (a & b).sum((1, 2)) / (a | b).sum((1, 2))
