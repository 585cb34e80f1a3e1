"""HMR's training as a Lightning module: that of SPIN and DSR, with our rendered terms.

The terms are rendered with the crop's camera, in which HMR predicts. Their forms are those of a fit
(`FitConfig.semantics`) or, with `RELEASED`, those of DSR's code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from dsr_fit.body.body import Body, Posed
from dsr_fit.camera import SPIN_FOCAL, SPIN_RESOLUTION, project, spin_translation
from dsr_fit.config import Semantics
from dsr_fit.errors import UsageError
from dsr_fit.evaluate import metrics
from dsr_fit.fitting.metrics import keypoint_errors
from dsr_fit.labels import valid_mc_labels
from dsr_fit.observe.batch import Points, targets_of
from dsr_fit.optimise.objective import TERMS, Rendered, channels_of, rendered_energies
from dsr_fit.priors.semantic import SemanticPrior
from dsr_fit.regressor.hmr import CropEstimate, Hmr
from dsr_fit.render.renderer import Renderer
from dsr_fit.rotation import angle_between, sixd_to_matrix
from dsr_fit.terms.points import box_side
from dsr_fit.training import losses
from dsr_fit.training.hmr_crops import CropAugmentation, CropBatch, CropBatches, CropChange, sample, stacked
from dsr_fit.training.losses import HmrWeights, diverged
from dsr_fit.training.pictures import drawn_crops, save_picture
from dsr_fit.training.pseudo_labels import PseudoLabels
from dsr_fit.training.splits import MAX_VALIDATION

RELEASED = Semantics(c_form="released", class_weights=True, outfits=False)
"""The DSR terms of the released code, which also skips DSR-C for images without a minimally clothed label."""

UNIT_FOCAL = SPIN_FOCAL / (SPIN_RESOLUTION / 2)
"""Focal length of the crop's camera in coordinates of -1..1."""


@dataclass(frozen=True)
class HmrOptions:
    """Length, learning rate, weights and augmentation."""

    steps: int = 100_000
    steps_per_epoch: int = 1000
    batch: int = 64
    learning_rate: float = 3e-5
    seed: int = 0
    weights: HmrWeights = field(default_factory=HmrWeights)
    semantics: Semantics = field(default_factory=Semantics)
    """Forms of the DSR terms; `RELEASED` has those of DSR's code."""
    dsr_after: float = 0.1
    """Share of the steps before the rendered terms start: they need a body near its image."""
    resolution: int = 112
    """Pixels of the crop's render."""
    augmentation: CropAugmentation = field(default_factory=CropAugmentation)
    rendered_share: float = 0.25
    """Share of rendered people in each batch, if there are any."""
    by_quality: bool = True
    """Weight people by the gate's probability that their fits are good."""
    workers: int = 0
    """Processes that read images; 0: the training process."""
    pictures: int = 6
    """People in the picture of each epoch."""

    def __post_init__(self) -> None:
        counts = (self.steps, self.steps_per_epoch, self.batch, self.resolution)
        if min(counts) < 1 or min(self.workers, self.pictures) < 0 or not self.learning_rate > 0:
            raise UsageError("steps, steps_per_epoch, batch, resolution and learning_rate must be positive")
        if not 0 <= self.dsr_after <= 1 or not 0 <= self.rendered_share <= 1:
            raise UsageError("dsr_after and rendered_share are shares, from 0 to 1")

    @property
    def epochs(self) -> int:
        return -(-self.steps // self.steps_per_epoch)


class _DeviceState(NamedTuple):
    """What the losses need, on one device."""

    device: torch.device
    body: Body
    prior: SemanticPrior | None
    renderer: Renderer


class HmrTraining(lightning.LightningModule):
    """Trains an `Hmr` (`network`) for the body of its labels."""

    def __init__(
        self,
        body: Body,
        network: Hmr,
        labels: Sequence[PseudoLabels],
        options: HmrOptions,
        *,
        semantic_prior: SemanticPrior | None = None,
        rendered: PseudoLabels | None = None,
        validation: PseudoLabels | None = None,
        pictures: Path | None = None,
    ) -> None:
        """`rendered`: people with exact labels; `validation`: people who are only scored; `pictures`: folder for a
        picture after each epoch.

        Raises UsageError if there is no one to train on, or no semantic prior for the DSR terms.
        """
        super().__init__()
        self.network = network.train().requires_grad_(True)
        self.options, self.pictures = options, pictures
        self.wanted = {term.name for term in TERMS if term.rendered and getattr(options.weights, term.name)}
        if self.wanted and semantic_prior is None:
            raise UsageError(
                "the DSR terms need a semantic prior of the body; give one with --semantic-prior, or weigh them 0"
            )
        if semantic_prior is not None and not options.semantics.outfits:
            semantic_prior = replace(semantic_prior, outfits=None)
        self._sources, self._validation = (list(labels), rendered), validation
        self._body, self._prior = body, semantic_prior
        self._cached: _DeviceState | None = None
        self._batches()  # raises now if there is no one to train on

    def _batches(self, rank: int = 0, ranks: int = 1) -> CropBatches:
        options, (labels, rendered) = self.options, self._sources
        return CropBatches(
            labels, rendered, batch=options.batch, rendered_share=options.rendered_share,
            augmentation=options.augmentation, by_quality=options.by_quality, resolution=options.resolution,
            seed=options.seed, rank=rank, ranks=ranks,
        )  # fmt: skip

    def train_dataloader(self) -> DataLoader[CropBatch]:
        """The current epoch's batches, each process its own: the trainer must not add a distributed sampler."""
        batches = self._batches(self.trainer.global_rank, self.trainer.world_size)
        return DataLoader(batches, batch_size=None, sampler=_Epoch(self), num_workers=self.options.workers)

    def val_dataloader(self) -> DataLoader[CropBatch] | list[CropBatch]:
        """The validation people, without augmentation; [] without any."""
        if self._validation is None:
            return []
        people, options = self._validation, self.options
        crops = _PlainCrops(people, min(len(people), MAX_VALIDATION), options.resolution)
        return DataLoader(crops, options.batch, collate_fn=stacked, num_workers=options.workers)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.network.parameters(), self.options.learning_rate)

    def training_step(self, batch: CropBatch, batch_idx: int) -> Tensor:
        # Dropout draws from torch's generator, which a checkpoint doesn't hold.
        torch.manual_seed(1_000_003 * self.options.seed + self.global_step)
        estimate = self.network(batch.images)
        with torch.autocast(self.device.type, enabled=False):
            total, means = self.losses(CropEstimate(*(value.float() for value in estimate)), batch)
        if not bool(total.isfinite()):
            raise diverged(self.global_step)
        self.log("loss", total, prog_bar=True, on_step=False, on_epoch=True, batch_size=len(batch.images))
        for name, value in means.items():
            self.log(f"loss_{name}", value, on_step=False, on_epoch=True, batch_size=len(batch.images))
        return total

    def losses(self, estimate: CropEstimate, batch: CropBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The total loss, and each loss's unweighted mean."""
        state = self._on_device()
        skeleton = state.body.skeleton
        rotations = sixd_to_matrix(estimate.pose.unflatten(1, (24, 6)))
        posed = posed_by_crop(state.body, rotations, estimate)
        projected = project(posed.keypoints, posed.keypoints.new_tensor([[UNIT_FOCAL, UNIT_FOCAL, 0.0, 0.0]]))
        defined = skeleton.keypoint_valid.to(projected.dtype)[:, None]
        observed = torch.cat([batch.keypoints[..., :2], batch.keypoints[..., 2:] * defined], 2)
        values = {
            "keypoints_2d": losses.keypoints_2d(projected, observed),
            "keypoints_3d": losses.keypoints_3d(posed.keypoints, self._keypoints_3d(batch, state.body)),
            "pose": losses.pose(rotations, batch.rotations),
            "betas": losses.betas(estimate.betas, batch.betas),
            "camera": losses.camera(estimate.crop_cam),
        }
        if self.wanted and self.global_step >= self.options.dsr_after * self.options.steps:
            values |= self._rendered(posed, batch, state)
        known = {"pose": batch.has_body, "betas": batch.has_body}
        return losses.combine(values, batch.weight, known, self.options.weights)

    def _keypoints_3d(self, batch: CropBatch, body: Body) -> Tensor:
        """(B, 49, 4) keypoints about the mid-hip: of the known body, else the observed ones."""
        valid = body.skeleton.keypoint_valid.to(batch.world.dtype)[:, None]
        points = body.skeleton.keypoints(batch.rotations, batch.betas)
        about = points - points[:, losses.MID_HIP : losses.MID_HIP + 1]
        own = torch.cat([about, valid.expand(len(about), -1, -1)], 2)
        observed = torch.cat([batch.world[..., :3], batch.world[..., 3:] * valid], 2)
        return torch.where(batch.has_body[:, None, None] > 0, own, observed)

    def _rendered(self, posed: Posed, batch: CropBatch, state: _DeviceState) -> dict[str, Tensor]:
        assert state.prior is not None
        semantics, size = self.options.semantics, batch.small_labels.shape[1]
        labels = batch.labels.cpu().numpy()
        mc_valid = np.stack([valid_mc_labels(each) for each in labels])
        targets = targets_of(batch.small_labels.cpu().numpy(), mc_valid, semantics.label_set, semantics.class_weights)
        targets = targets.to(state.device)
        shown = channels_of(state.prior, list(labels), torch.from_numpy(mc_valid).to(state.device), semantics.label_set)
        focal, center = SPIN_FOCAL * size / SPIN_RESOLUTION, size / 2
        window = posed.keypoints.new_tensor([[focal, focal, center, center]]).expand(len(labels), -1)
        kind = {"face_attributes" if state.prior.per_face else "attributes": shown}
        render = state.renderer(posed.vertices(), window, size, **kind)
        values = rendered_energies(Rendered(render, targets, semantics), self.wanted)
        if semantics.c_form == "released" and "dsr_c" in values:
            values["dsr_c"] = values["dsr_c"] * targets.mc_seen
        return values

    @torch.no_grad()
    def validation_step(self, batch: CropBatch, batch_idx: int) -> None:
        """Keypoint error, and the distance to the fitted bodies where known."""
        estimate = CropEstimate(*(value.float() for value in self.network(batch.images)))
        body, rotations = self._on_device().body, sixd_to_matrix(estimate.pose.unflatten(1, (24, 6)))
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
        for name, value in scores.items():
            self.log(f"{name}_photos", value.mean(), batch_size=len(value))

    def _on_device(self) -> _DeviceState:
        if self._cached is None or self._cached.device != self.device:
            body, prior = self._body.to(self.device), self._prior and self._prior.to(self.device)
            kind = "cuda" if self.device.type == "cuda" else "cpu"
            renderer = Renderer(body.faces, body.num_vertices, device=kind)
            self._cached = _DeviceState(self.device, body, prior, renderer)
        return self._cached

    def on_train_epoch_end(self) -> None:
        """Save a picture of the current estimates for a few people."""
        if self.pictures is None or not self.options.pictures or not self.trainer.is_global_zero:
            return
        crops = self.examples()
        self.network.eval()
        with torch.no_grad():
            estimate = self.network(crops.images.to(self.device))
        self.network.train()
        picture = drawn_crops(
            crops.images, CropEstimate(*(value.float().cpu() for value in estimate)), self._body.to("cpu")
        )
        save_picture(self.pictures, picture, self.trainer)

    def examples(self) -> CropBatch:
        """Crops of a few people without augmentation: validation people if any, else of all; the same every epoch."""
        labels, rendered = self._sources
        shown = (*labels, rendered) if self._validation is None else (self._validation,)
        everybody = [(people, row) for people in shown if people for row in range(len(people))]
        count = min(self.options.pictures, len(everybody))
        chosen = [everybody[place] for place in np.linspace(0, len(everybody) - 1, count).astype(int)]
        return stacked([sample(people, row, CropChange(), self.options.resolution) for people, row in chosen])


class _PlainCrops(Dataset[CropBatch]):
    """The first people's crops without augmentation."""

    def __init__(self, people: PseudoLabels, count: int, resolution: int) -> None:
        self.people, self.count, self.resolution = people, count, resolution

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> CropBatch:
        return sample(self.people, row, CropChange(), self.resolution)


class _Epoch(Sampler[int]):
    """Numbers of the current epoch's batches; the last epoch ends with the last step."""

    def __init__(self, training: HmrTraining) -> None:
        self.training = training

    def _numbers(self) -> range:
        # By steps: a resumed training still reports the epoch that it has finished.
        options, first = self.training.options, self.training.global_step
        times = self.training.trainer.accumulate_grad_batches
        return range(times * first, times * min(first + options.steps_per_epoch, options.steps))

    def __iter__(self) -> Iterator[int]:
        return iter(self._numbers())

    def __len__(self) -> int:
        return len(self._numbers())


def posed_by_crop(body: Body, rotations: Tensor, estimate: CropEstimate) -> Posed:
    """Bodies in the frame of the crop's camera; `rotations` (B, 24, 3, 3) are those of `estimate`."""
    moved = body.skeleton.transforms(rotations, body.skeleton.joints_at_rest(estimate.betas))
    cam_t = spin_translation(estimate.crop_cam)
    keypoints = body.skeleton.keypoints(rotations, estimate.betas, moved) + cam_t[:, None]
    return Posed(body, rotations, estimate.betas, moved, keypoints, cam_t)


def _points(batch: CropBatch, valid: Tensor) -> Points:
    """The observed keypoints that are `valid` (49,), in pixels of the crop's camera, as a fit takes them."""
    pixels = SPIN_RESOLUTION / 2 * (batch.keypoints[..., :2] + 1)
    camera = pixels.new_tensor([SPIN_FOCAL, SPIN_FOCAL, SPIN_RESOLUTION / 2, SPIN_RESOLUTION / 2])
    return Points(
        pixels=pixels,
        confidence=batch.keypoints[..., 2] * valid,
        box=box_side(pixels, batch.keypoints[..., 2]),
        world=batch.world[..., :3],
        world_confidence=batch.world[..., 3],
        intrinsics=camera.expand(len(pixels), 4),
    )
