"""The open regressor's training as a Lightning module: losses on synthetic people and photos, schedule, scores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dsr_fit.body.body import Body
from dsr_fit.camera import project
from dsr_fit.config import FitConfig, Weights
from dsr_fit.evaluate import metrics
from dsr_fit.fitting.metrics import keypoint_errors
from dsr_fit.optimise.anchor import Anchor
from dsr_fit.optimise.objective import Objective
from dsr_fit.priors.pose import load_pose_prior
from dsr_fit.priors.semantic import SemanticPrior
from dsr_fit.regressor.open_network import (
    Placed,
    Prediction,
    RegressorInput,
    RegressorNetwork,
    in_crop,
    in_full_precision,
    place,
)
from dsr_fit.regressor.open_regressor import parameters_of, write_network
from dsr_fit.rotation import angle_between
from dsr_fit.training.open_photos import WINDOW, WINDOW_PIXELS, PhotoBatch, mirrored
from dsr_fit.training.regressor_training import RegressorTraining
from dsr_fit.training.settings import RESOLUTION, SCRATCH, TrainSettings
from dsr_fit.training.synthetic.samples import Truth

WEIGHT_DECAY = 0.02
SCRATCH_RATE, LEARNING_RATE = 8e-4, 2e-4
"""Highest learning rate: from scratch, and from trained weights."""

WARM_UP = 0.04
"""Share of the steps with a rising learning rate."""

RECIPE = Weights(
    keypoints=2.0, dsr_mc=0.3, dsr_c=0.2, silhouette=0.3,
    world_landmarks=0, betas=0, stature=0, pose=0, bending=0, straight=0, tilt=0, initial=0, initial_points=0,
)  # fmt: skip
"""What `LossWeights` multiply: keypoints per half a crop's side, as on synthetic people; rendered terms weigh about as
much, as they do in a fit. Parameters are weighted as on synthetic people."""

BODY_LOSSES = ("points", "rotations", "root", "shape", "depth")
"""Losses on photos against the fitted body."""


class TrainingBatch(NamedTuple):
    """Synthetic people, people in photos, or both; Lightning moves it to the device."""

    synthetic: tuple[RegressorInput, Truth] | None
    photos: PhotoBatch | None


class OpenTraining(RegressorTraining):
    """Trains a `RegressorNetwork`."""

    network: RegressorNetwork

    def __init__(
        self,
        network: RegressorNetwork,
        body: Body,
        semantic_prior: SemanticPrior | None,
        settings: TrainSettings,
        *,
        learns_to_see: bool = False,
    ) -> None:
        """`learns_to_see`: what sums up the landmark network's features is untrained."""
        super().__init__(network, body, semantic_prior, settings)
        self.learns_to_see = learns_to_see
        self.shape_metric = shape_metric(body)
        weights = settings.weights
        terms = {name: getattr(RECIPE, name) * getattr(weights, name) for name in ("dsr_mc", "dsr_c", "silhouette")}
        self.config = FitConfig(weights=replace(RECIPE, keypoints=0, **terms), semantics=settings.semantics)
        self.pose_prior = load_pose_prior("ranges")

    def on_fit_start(self) -> None:
        super().on_fit_start()
        self.shape_metric, self.pose_prior = self.shape_metric.to(self.device), self.pose_prior.to(self.device)

    def write(self, path: Path) -> None:
        write_network(path, self.network, self.body)

    def loss(self, batch: TrainingBatch) -> tuple[Tensor, int]:
        parts, counts = [], []
        if batch.synthetic is not None:
            parts.append(self._on_synthetic(*batch.synthetic))
            counts.append(len(batch.synthetic[0]))
        if batch.photos is not None:
            parts.append(self._on_photos(batch.photos))
            counts.append(len(batch.photos))
        total = sum(count * part for count, part in zip(counts, parts, strict=True)) / sum(counts)
        assert isinstance(total, Tensor)
        return total, sum(counts)

    def _on_synthetic(self, inputs: RegressorInput, truth: Truth) -> Tensor:
        predictions, turns = self.network(inputs, self.body.skeleton), inputs.turns()
        with in_full_precision(turns):
            values = [self.losses(prediction, inputs, turns, truth) for prediction in predictions]
        self.log_losses(values[-1], len(inputs))
        return self._of_predictions([torch.stack(list(value.values())).sum() for value in values])

    def _on_photos(self, photos: PhotoBatch) -> Tensor:
        inputs, turns, skeleton = photos.inputs, photos.inputs.turns(), self.body.skeleton
        predictions = self.network(inputs, skeleton)
        # Observations have equal weights; fitted bodies are weighted by quality.
        trusted = photos.weight * photos.has_body
        trusted = trusted / trusted.sum().clamp(min=1e-6)
        evenly = torch.full_like(trusted, 1 / len(photos))
        with in_full_precision(turns):
            bodies = [mirrored(place(prediction, inputs, turns, skeleton), photos.mirror) for prediction in predictions]
            values = [self.photo_losses(body, photos) for body in bodies]
            if self.renders:
                values[-1] |= self.rendered_losses(bodies[-1], photos)
            means = [
                {name: _mean(loss, trusted if name in BODY_LOSSES else evenly) for name, loss in value.items()}
                for value in values
            ]
        self.log_losses(means[-1], len(photos), "photo_")
        nothing = 0 * predictions[-1].pose.sum()  # keeps the graph until the first term begins
        return self._of_predictions([torch.stack([nothing, *mean.values()]).sum() for mean in means])

    def _of_predictions(self, losses: list[Tensor]) -> Tensor:
        return losses[-1] + self.settings.synthetic_weights.earlier * torch.stack(losses[:-1]).sum()

    def losses(self, prediction: Prediction, inputs: RegressorInput, turns: Tensor, truth: Truth) -> dict[str, Tensor]:
        """Each weighted loss of one of the network's predictions."""
        settings, skeleton = self.settings.synthetic_weights, self.body.skeleton
        ours = place(prediction, inputs, turns, skeleton)
        keypoints = skeleton.keypoints(truth.rotations, truth.betas) + truth.cam_t[:, None]
        theirs = Placed(truth.rotations, truth.betas, truth.cam_t, keypoints)
        flat = in_crop(ours.keypoints, inputs.crop) - in_crop(theirs.keypoints, inputs.crop)
        deep = _about_hips(ours.keypoints) - _about_hips(theirs.keypoints)
        turned = (ours.rotations - theirs.rotations).abs().mean((2, 3))
        shape = ours.betas - theirs.betas
        angle = angle_between(ours.rotations, theirs.rotations).detach()
        missed = _joints(ours.rotations, ours.betas, self.body) - _joints(truth.rotations, truth.betas, self.body)
        missed = (missed - missed[:, :1]).detach().norm(dim=-1).mean(1, keepdim=True)
        depth = (
            prediction.pelvis(inputs.crop)[:, 2] / (theirs.cam_t + skeleton.joints_at_rest(truth.betas)[:, 0])[:, 2]
        ).log()
        return {
            "pixels": settings.pixels * F.smooth_l1_loss(flat.clamp(-2, 2), torch.zeros_like(flat), beta=0.02),
            "points": settings.points * deep.norm(dim=-1).mean(),
            "rotations": settings.rotations * turned[:, 1:].mean(),
            "root": settings.root * turned[:, 0].mean(),
            "shape": settings.shape * self._t_pose(shape).mean(),
            "depth": settings.depth * depth.abs().mean(),
            "spread": settings.spread * (prediction.spread + angle * (-prediction.spread).exp()).mean(),
            "error": settings.error * (prediction.error + missed * (-prediction.error).exp()).mean(),
        }

    def photo_losses(self, ours: Placed, photos: PhotoBatch) -> dict[str, Tensor]:
        """Each weighted loss (B,) against observations and the fitted body that needs no rendering."""
        weights, each = self.settings.weights, self.settings.synthetic_weights
        losses = {}
        if weights.keypoints:
            points = photos.observed.points.to(ours.betas.device)
            half = WINDOW_PIXELS / WINDOW / 2
            off = (_projected(ours.keypoints, points.intrinsics) - points.pixels) / half
            cost = F.smooth_l1_loss(off.clamp(-2, 2), torch.zeros_like(off), beta=0.02, reduction="none").mean(-1)
            mean = (points.confidence * cost).sum(1) / points.confidence.sum(1).clamp(min=1e-6)
            losses["keypoints"] = weights.keypoints * RECIPE.keypoints * mean
        if weights.parameters:
            skeleton, truth = self.body.skeleton, photos.truth
            theirs = skeleton.keypoints(truth.rotations, truth.betas)
            deep = (_about_hips(ours.keypoints) - _about_hips(theirs)).norm(dim=-1)
            turned = (ours.rotations - truth.rotations).abs().mean((2, 3))
            shape = ours.betas - truth.betas
            our_depth, their_depth = (
                (cam_t + skeleton.joints_at_rest(betas)[:, 0])[:, 2].clamp(min=0.05)
                for cam_t, betas in ((ours.cam_t, ours.betas), (truth.cam_t, truth.betas))
            )
            terms = {  # `BODY_LOSSES`
                "points": each.points * deep.mean(1),
                "rotations": each.rotations * turned[:, 1:].mean(1),
                "root": each.root * turned[:, 0],
                "shape": each.shape * self._t_pose(shape).mean(1),
                "depth": each.depth * (our_depth / their_depth).log().abs(),
            }
            losses |= {name: weights.parameters * term for name, term in terms.items()}
        return losses

    def rendered_losses(self, ours: Placed, photos: PhotoBatch) -> dict[str, Tensor]:
        """Each weighted rendered term (B,), the same as a fit's."""
        assert self.semantic_prior is not None
        parameters = parameters_of(ours)
        objective = Objective.of(
            self.body, photos.observed, self.renderer, self.semantic_prior, self.pose_prior, self.config, RESOLUTION,
            Anchor.of(parameters, self.body.skeleton),
        )  # fmt: skip
        return {name: objective.active[name] * value for name, value in objective(parameters).items()}

    def _t_pose(self, betas: Tensor) -> Tensor:
        """(B, 10) differences -> (B, 2) distance of the T-pose's vertices, see `shape_metric`."""
        return (torch.einsum("bi,kij,bj->bk", betas, self.shape_metric, betas) + 1e-8).sqrt()

    def scores(self, batch: TrainingBatch) -> dict[str, Tensor]:
        found = {}
        if batch.synthetic is not None:
            inputs, truth = batch.synthetic
            blind = replace(inputs, world=0 * inputs.world, labels_seen=0 * inputs.labels_seen)
            kinds = {"": inputs, "_keypoints_only": replace(blind, features_seen=0 * inputs.features_seen)}
            if self.network.sight is not None:
                kinds["_without_features"] = replace(inputs, features_seen=0 * inputs.features_seen)
            for kind, seen in kinds.items():
                scores = scores_of(self.estimate(seen), truth, self.body)
                found |= {name + kind: value for name, value in scores.items()}
        if batch.photos is not None:
            found |= {f"{name}_photos": value for name, value in self._photo_scores(batch.photos).items()}
        return found

    def _photo_scores(self, photos: PhotoBatch) -> dict[str, Tensor]:
        """Keypoint error, and the distance to the fitted bodies where known."""
        placed, known = self.estimate(photos.inputs), photos.has_body > 0
        points = photos.observed.points.to(placed.betas.device)
        scores = {"keypoint_error_rel": keypoint_errors(placed.keypoints, points)[1]}
        if bool(known.any()):
            compared = scores_of(placed, photos.truth, self.body)
            scores |= {name: compared[name][known] for name in ("mpjpe", "pa_mpjpe", "root_angle")}
        return scores

    def estimate(self, inputs: RegressorInput) -> Placed:
        """The last prediction."""
        return place(self.network(inputs, self.body.skeleton)[-1], inputs, inputs.turns(), self.body.skeleton)

    def configure_optimizers(self):
        settings = self.settings
        rate = settings.learning_rate or (SCRATCH_RATE if settings.regressor == SCRATCH else LEARNING_RATE)
        # What was added to sum up features starts from nothing, whatever the rest starts from.
        groups: dict[float, list[Tensor]] = {}
        for name, parameter in self.named_parameters():
            new = self.learns_to_see and name.startswith("network.sight.")
            groups.setdefault(max(rate, SCRATCH_RATE) if new else rate, []).append(parameter)
        optimizer = torch.optim.AdamW(
            [{"params": parameters, "lr": highest} for highest, parameters in groups.items()], weight_decay=WEIGHT_DECAY
        )
        if settings.schedule == "one-cycle":
            steps = max(settings.steps, 8)  # torch's cycle needs a step or two to rise in
            rising = max(WARM_UP, 2 / steps)
            highest = [group["lr"] for group in optimizer.param_groups]
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, highest, steps, pct_start=rising)
        else:
            rising = max(1, round(WARM_UP * settings.steps))
            schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1, (step + 1) / rising))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _mean(loss: Tensor, share: Tensor) -> Tensor:
    """Weighted sum; a loss without weight may be anything, NaN included."""
    return torch.where(share > 0, share * loss, 0).sum()


def _projected(points: Tensor, intrinsics: Tensor) -> Tensor:
    """As `project`, with points behind the camera clamped to 5 cm in front of it."""
    return project(torch.cat([points[..., :2], points[..., 2:].clamp(min=0.05)], -1), intrinsics)


def _about_hips(keypoints: Tensor) -> Tensor:
    return keypoints - keypoints[:, 8:9]


def shape_metric(body: Body) -> Tensor:
    """(2, 10, 10): differences of betas -> mean square distance of the T-pose's vertices, metres^2; the second one
    without what a change of scale explains."""
    dirs = body.shapedirs.flatten(0, 1).double()  # (3V, 10)
    template = (body.v_template - body.v_template.mean(0)).flatten().double()
    scaled = dirs - template[:, None] * (template @ dirs) / template.square().sum()
    return torch.stack([d.T @ d / body.num_vertices for d in (dirs, scaled)]).float()


def scores_of(placed: Placed, truth: Truth, body: Body) -> dict[str, Tensor]:
    """Metrics (B,) in mm and degrees, SMPL's 24 joints."""
    ours, theirs = (
        _joints(rotations, betas, body)
        for rotations, betas in ((placed.rotations, placed.betas), (truth.rotations, truth.betas))
    )
    return {
        "mpjpe": metrics.mpjpe(ours, theirs),
        "pa_mpjpe": metrics.pa_mpjpe(ours, theirs),
        "t_pose_pve_sc": metrics.t_pose_pve(placed.betas, truth.betas, body, scale_corrected=True),
        "t_pose_floor": metrics.t_pose_pve(0 * truth.betas, truth.betas, body, scale_corrected=True),
        "root_angle": angle_between(placed.rotations[:, 0], truth.rotations[:, 0]).rad2deg(),
    }


def _joints(rotations: Tensor, betas: Tensor, body: Body) -> Tensor:
    rest = body.skeleton.joints_at_rest(betas)
    return body.skeleton.positions(body.skeleton.world_rotations(rotations), rest)
