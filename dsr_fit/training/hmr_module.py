"""HMR's training as a Lightning module: that of SPIN and DSR, with our rendered terms.

The terms are rendered with the crop's camera, in which HMR predicts. Their forms are those of a fit
(`FitConfig.semantics`) or, with `RELEASED`, those of DSR's code.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dsr_fit.body.body import Body, Posed
from dsr_fit.camera import SPIN_FOCAL, SPIN_RESOLUTION, project, spin_translation
from dsr_fit.config import Semantics
from dsr_fit.evaluate import metrics
from dsr_fit.fitting.metrics import keypoint_errors
from dsr_fit.labels import valid_mc_labels
from dsr_fit.observe.batch import Points, targets_of
from dsr_fit.optimise.objective import TERMS, Rendered, channels_of, rendered_energies
from dsr_fit.priors.semantic import SemanticPrior
from dsr_fit.regressor.checkpoints import save_hmr_checkpoint
from dsr_fit.regressor.hmr import CropEstimate, Hmr
from dsr_fit.rotation import angle_between, sixd_to_matrix
from dsr_fit.terms.points import box_side
from dsr_fit.training import losses
from dsr_fit.training.hmr_crops import CropBatch
from dsr_fit.training.regressor_training import RegressorTraining
from dsr_fit.training.settings import RESOLUTION, TrainSettings

RELEASED = Semantics(c_form="released", class_weights=True, outfits=False)
"""The DSR terms of the released code, which also skips DSR-C for images without a minimally clothed label."""

UNIT_FOCAL = SPIN_FOCAL / (SPIN_RESOLUTION / 2)
"""Focal length of the crop's camera in coordinates of -1..1."""

LEARNING_RATE = 3e-5


class HmrTraining(RegressorTraining):
    """Trains an `Hmr`."""

    network: Hmr

    def __init__(self, network: Hmr, body: Body, semantic_prior: SemanticPrior | None, settings: TrainSettings) -> None:
        super().__init__(network.train().requires_grad_(True), body, semantic_prior, settings)
        self.weights = losses.weights_of(settings.weights)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.network.parameters(), self.settings.learning_rate or LEARNING_RATE)

    def write(self, path: Path) -> None:
        """As a checkpoint with SPIN's names."""
        save_hmr_checkpoint(path, self.network)

    def estimate(self, images: Tensor) -> CropEstimate:
        """In single precision, whatever the network's layers have."""
        return CropEstimate(*(value.float() for value in self.network(images)))

    def loss(self, batch: CropBatch) -> tuple[Tensor, int]:
        estimate = self.estimate(batch.images)
        with torch.autocast(self.device.type, enabled=False):
            total, means = self.losses(estimate, batch)
        self.log_losses(means, len(batch.images))
        return total, len(batch.images)

    def losses(self, estimate: CropEstimate, batch: CropBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The total loss, and each loss's unweighted mean."""
        skeleton = self.body.skeleton
        rotations = sixd_to_matrix(estimate.pose.unflatten(1, (24, 6)))
        posed = posed_by_crop(self.body, rotations, estimate)
        projected = project(posed.keypoints, posed.keypoints.new_tensor([[UNIT_FOCAL, UNIT_FOCAL, 0.0, 0.0]]))
        defined = skeleton.keypoint_valid.to(projected.dtype)[:, None]
        observed = torch.cat([batch.keypoints[..., :2], batch.keypoints[..., 2:] * defined], 2)
        values = {
            "keypoints_2d": losses.keypoints_2d(projected, observed),
            "keypoints_3d": losses.keypoints_3d(posed.keypoints, self._keypoints_3d(batch)),
            "pose": losses.pose(rotations, batch.rotations),
            "betas": losses.betas(estimate.betas, batch.betas),
            "camera": losses.camera(estimate.crop_cam),
        }
        if self.renders:
            values |= self._rendered(posed, batch)
        known = {"pose": batch.has_body, "betas": batch.has_body}
        return losses.combine(values, batch.weight, known, self.weights)

    def _keypoints_3d(self, batch: CropBatch) -> Tensor:
        """(B, 49, 4) keypoints about the mid-hip: of the known body, else the observed ones."""
        valid = self.body.skeleton.keypoint_valid.to(batch.world.dtype)[:, None]
        points = self.body.skeleton.keypoints(batch.rotations, batch.betas)
        about = points - points[:, losses.MID_HIP : losses.MID_HIP + 1]
        own = torch.cat([about, valid.expand(len(about), -1, -1)], 2)
        observed = torch.cat([batch.world[..., :3], batch.world[..., 3:] * valid], 2)
        return torch.where(batch.has_body[:, None, None] > 0, own, observed)

    def _rendered(self, posed: Posed, batch: CropBatch) -> dict[str, Tensor]:
        assert self.semantic_prior is not None
        semantics = self.settings.semantics
        labels = batch.labels.cpu().numpy()
        mc_valid = np.stack([valid_mc_labels(each) for each in labels])
        targets = targets_of(batch.small_labels.cpu().numpy(), mc_valid, semantics.label_set, semantics.class_weights)
        targets = targets.to(self.device)
        shown = channels_of(
            self.semantic_prior, list(labels), torch.from_numpy(mc_valid).to(self.device), semantics.label_set
        )
        window = crop_camera(RESOLUTION).to(posed.keypoints.device).expand(len(labels), -1)
        kind = {"face_attributes" if self.semantic_prior.per_face else "attributes": shown}
        render = self.renderer(posed.vertices(), window, RESOLUTION, **kind)
        wanted = {term.name for term in TERMS if term.rendered and self.weights[term.name]}
        values = rendered_energies(Rendered(render, targets, semantics), wanted)
        if semantics.c_form == "released" and "dsr_c" in values:
            values["dsr_c"] = values["dsr_c"] * targets.mc_seen
        return values

    def scores(self, batch: CropBatch) -> dict[str, Tensor]:
        """Keypoint error, and the distance to the fitted bodies where known."""
        estimate = self.estimate(batch.images)
        body, rotations = self.body, sixd_to_matrix(estimate.pose.unflatten(1, (24, 6)))
        posed = posed_by_crop(body, rotations, estimate)
        points = _points(batch, body.skeleton.keypoint_valid)
        scores = {"keypoint_error_rel": keypoint_errors(posed.keypoints, points)[1]}
        known = batch.has_body > 0
        if bool(known.any()):
            truth = posed_by_crop(body, batch.rotations, CropEstimate(estimate.pose, batch.betas, estimate.crop_cam))
            joints, true_joints = posed.joints()[known], truth.joints()[known]
            scores |= {
                "mpjpe": metrics.mpjpe(joints, true_joints),
                "pa_mpjpe": metrics.pa_mpjpe(joints, true_joints),
                "root_angle": angle_between(rotations[:, 0], batch.rotations[:, 0])[known].rad2deg(),
            }
        return {f"{name}_photos": value for name, value in scores.items()}


def crop_camera(size: int) -> Tensor:
    """(1, 4) fx, fy, cx, cy of the camera in which HMR predicts, for a crop of this many pixels a side."""
    focal, center = SPIN_FOCAL * size / SPIN_RESOLUTION, size / 2
    return torch.tensor([[focal, focal, center, center]])


def posed_by_crop(body: Body, rotations: Tensor, estimate: CropEstimate) -> Posed:
    """Bodies in the frame of the crop's camera; `rotations` (B, 24, 3, 3) are those of `estimate`."""
    moved = body.skeleton.transforms(rotations, estimate.betas)
    cam_t = spin_translation(estimate.crop_cam)
    keypoints = body.skeleton.keypoints(rotations, estimate.betas, moved) + cam_t[:, None]
    return Posed(body, rotations, estimate.betas, moved, keypoints, cam_t)


def _points(batch: CropBatch, valid: Tensor) -> Points:
    """The observed keypoints that are `valid` (49,), in pixels of the crop's camera, as a fit takes them."""
    pixels = SPIN_RESOLUTION / 2 * (batch.keypoints[..., :2] + 1)
    return Points(
        pixels=pixels,
        confidence=batch.keypoints[..., 2] * valid,
        box=box_side(pixels, batch.keypoints[..., 2]),
        world=batch.world[..., :3],
        world_confidence=batch.world[..., 3],
        intrinsics=crop_camera(SPIN_RESOLUTION).to(pixels).expand(len(pixels), 4),
    )
