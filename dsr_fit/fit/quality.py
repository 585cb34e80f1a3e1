"""How well a fit lies on what was observed: metrics on the hard render, judged on the label map the fit itself saw."""

from __future__ import annotations

import torch
from torch import Tensor

from dsr_fit.body import Body
from dsr_fit.camera import crop_intrinsics, project
from dsr_fit.fit.batch import Batch, Points
from dsr_fit.fit.parameters import Parameters
from dsr_fit.labels import MC_LABELS
from dsr_fit.priors import SemanticPrior
from dsr_fit.render.renderer import Renderer

RESOLUTION = 224
MIN_CONFIDENCE = 0.3


def keypoint_errors(keypoints: Tensor, points: Points) -> tuple[Tensor, Tensor]:
    """Mean error of (B, 49, 3) keypoints over the confident points: pixels (B,), and relative to the box (B,)."""
    seen = points.confidence > MIN_CONFIDENCE
    error = (project(keypoints, points.intrinsics) - points.pixels).norm(dim=-1)
    pixels = torch.where(seen, error, 0).sum(1) / seen.sum(1)
    return pixels, pixels / points.box


def metrics(
    parameters: Parameters, body: Body, batch: Batch, renderer: Renderer, prior: SemanticPrior
) -> dict[str, Tensor]:
    """The contract's metrics, name -> (B,). NaN where there is nothing to judge by.

    `mc_iou`: IoU of {body pixels whose most likely label is a valid MC label} with the observed MC mask;
    `containment`: share of body pixels whose observed label is not background; `silhouette_iou`: IoU with the
    person mask. Occluder and unknown pixels are left out.
    """
    device = body.v_template.device
    posed = parameters.pose(body)
    pixels, relative = keypoint_errors(posed.keypoints, batch.points.to(device))
    targets = batch.targets(RESOLUTION, "paper4", class_weights=False).to(device)
    window = crop_intrinsics(batch.points.intrinsics.to(device), batch.crops, RESOLUTION)
    channels = {"face_attributes" if prior.per_face else "attributes": prior.probabilities}
    render = renderer(posed.vertices(), window, RESOLUTION, **channels)
    known = targets.known > 0
    covered = (render.rast[..., 3] > 0) & known
    likely = render.attributes.argmax(-1)
    valid = batch.mc_valid.to(device)
    expected = torch.zeros_like(covered)
    for column, label in enumerate(MC_LABELS):
        expected |= (likely == label) & valid[:, column, None, None]
    observed = (targets.mc_mask > 0) & known
    person = targets.person > 0
    return {
        "keypoint_error_px": pixels,
        "keypoint_error_rel": relative,
        "mc_iou": torch.where(targets.mc_seen > 0, _iou(covered & expected, observed), torch.nan),
        "containment": (covered & person).sum((1, 2)) / covered.sum((1, 2)),
        "silhouette_iou": _iou(covered, person & known),
    }


def _iou(a: Tensor, b: Tensor) -> Tensor:
    return (a & b).sum((1, 2)) / (a | b).sum((1, 2))
