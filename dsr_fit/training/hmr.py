"""HMR's training as a Lightning module: SPIN's and DSR's, with the rendered terms of our fits.

The terms are rendered by the crop's camera, in which HMR knows a body. Their forms are those of a fit
(`FitConfig.semantics`) or, by `RELEASED`, those of DSR's code.
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
from dsr_fit.regressor.hmr import Hmr, Seen
from dsr_fit.render.renderer import Renderer
from dsr_fit.rotation import angle_between, sixd_to_matrix
from dsr_fit.terms.points import box_side
from dsr_fit.training import losses
from dsr_fit.training.hmr_crops import Augmentation, Change, CropBatch, CropBatches, sample, stacked
from dsr_fit.training.hmr_picture import picture_of
from dsr_fit.training.labelled import WATCHED
from dsr_fit.training.losses import HmrWeights, diverged
from dsr_fit.training.pictures import keep_picture
from dsr_fit.training.pseudo_labels import PseudoLabels

RELEASED = Semantics(c_form="released", class_weights=True, outfits=False)
"""The DSR terms of the released code, which also leaves DSR-C out of pictures without a minimally clothed label."""

UNIT_FOCAL = SPIN_FOCAL / (SPIN_RESOLUTION / 2)
"""Of the crop's camera in coordinates of -1..1."""


@dataclass(frozen=True)
class HmrOptions:
    """How long, how fast, and what counts how much."""

    steps: int = 100_000
    steps_per_epoch: int = 1000
    batch: int = 64
    learning_rate: float = 3e-5
    seed: int = 0
    weights: HmrWeights = field(default_factory=HmrWeights)
    semantics: Semantics = field(default_factory=Semantics)
    """Forms of the DSR terms; `RELEASED` has those of DSR's code."""
    dsr_after: float = 0.1
    """Share of the steps before the rendered terms start: they say nothing where a body isn't near its picture."""
    resolution: int = 112
    """Pixels of the crop's render."""
    augmentation: Augmentation = field(default_factory=Augmentation)
    rendered_share: float = 0.25
    """Of each batch, where there are rendered people."""
    by_quality: bool = True
    """People count by the gate's probability that their fits are good."""
    workers: int = 0
    """Processes that read images; 0: the training's own."""
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


class _Room(NamedTuple):
    """What the losses need on one device."""

    device: torch.device
    body: Body
    prior: SemanticPrior | None
    renderer: Renderer


class HmrTraining(lightning.LightningModule):
    """Trains an `Hmr`, for the body that its labels are of. What it has learnt is `network`."""

    def __init__(
        self,
        body: Body,
        network: Hmr,
        labels: Sequence[PseudoLabels],
        options: HmrOptions,
        *,
        semantic_prior: SemanticPrior | None = None,
        rendered: PseudoLabels | None = None,
        watched: PseudoLabels | None = None,
        pictures: Path | None = None,
    ) -> None:
        """`rendered` are people of known truth; the training is judged by those of `watched`, of whom it learns
        nothing; `pictures` is a folder for an example picture of each epoch.

        Raises UsageError where there is nobody to learn from, or no semantic prior for the DSR terms.
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
        self._sources, self._watched = (list(labels), rendered), watched
        self._body, self._prior = body, semantic_prior
        self._known: _Room | None = None
        self._batches()  # what can't be learnt from is refused now

    def _batches(self, rank: int = 0, ranks: int = 1) -> CropBatches:
        options, (labels, rendered) = self.options, self._sources
        return CropBatches(
            labels, rendered, batch=options.batch, rendered_share=options.rendered_share,
            augmentation=options.augmentation, by_quality=options.by_quality, resolution=options.resolution,
            seed=options.seed, rank=rank, ranks=ranks,
        )  # fmt: skip

    def train_dataloader(self) -> DataLoader[CropBatch]:
        """Batches of the current epoch, each process its own: a trainer must put no sampler of its own before them."""
        batches = self._batches(self.trainer.global_rank, self.trainer.world_size)
        return DataLoader(batches, batch_size=None, sampler=_Epoch(self), num_workers=self.options.workers)

    def val_dataloader(self) -> DataLoader[CropBatch] | list[CropBatch]:
        """Everybody who is watched, unchanged; nothing without such."""
        if self._watched is None:
            return []
        people, options = self._watched, self.options
        crops = _Unchanged(people, min(len(people), WATCHED), options.resolution)
        return DataLoader(crops, options.batch, collate_fn=stacked, num_workers=options.workers)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.network.parameters(), self.options.learning_rate)

    def training_step(self, batch: CropBatch, batch_idx: int) -> Tensor:
        # Dropout draws from torch's generator, which a checkpoint doesn't hold.
        torch.manual_seed(1_000_003 * self.options.seed + self.global_step)
        seen = self.network(batch.images)
        with torch.autocast(self.device.type, enabled=False):
            total, means = self.losses(Seen(*(value.float() for value in seen)), batch)
        if not bool(total.isfinite()):
            raise diverged(self.global_step)
        self.log("loss", total, prog_bar=True, on_step=False, on_epoch=True, batch_size=len(batch.images))
        for name, value in means.items():
            self.log(f"loss_{name}", value, on_step=False, on_epoch=True, batch_size=len(batch.images))
        return total

    def losses(self, seen: Seen, batch: CropBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum that is minimised, and each loss's unweighted mean."""
        room = self._room()
        skeleton = room.body.skeleton
        rotations = sixd_to_matrix(seen.pose.unflatten(1, (24, 6)))
        posed = posed_by_crop(room.body, rotations, seen)
        projected = project(posed.keypoints, posed.keypoints.new_tensor([[UNIT_FOCAL, UNIT_FOCAL, 0.0, 0.0]]))
        defined = skeleton.keypoint_valid.to(projected.dtype)[:, None]
        observed = torch.cat([batch.keypoints[..., :2], batch.keypoints[..., 2:] * defined], 2)
        values = {
            "keypoints_2d": losses.keypoints_2d(projected, observed),
            "keypoints_3d": losses.keypoints_3d(posed.keypoints, self._in_space(batch, room.body)),
            "pose": losses.pose(rotations, batch.rotations),
            "betas": losses.betas(seen.betas, batch.betas),
            "camera": losses.camera(seen.crop_cam),
        }
        if self.wanted and self.global_step >= self.options.dsr_after * self.options.steps:
            values |= self._rendered(posed, batch, room)
        known = {"pose": batch.has_body, "betas": batch.has_body}
        return losses.combine(values, batch.weight, known, self.options.weights)

    def _in_space(self, batch: CropBatch, body: Body) -> Tensor:
        """(B, 49, 4) keypoints about the mid-hip: of the known body, else those that somebody has seen."""
        valid = body.skeleton.keypoint_valid.to(batch.world.dtype)[:, None]
        points = body.skeleton.keypoints(batch.rotations, batch.betas)
        about = points - points[:, losses.MID_HIP : losses.MID_HIP + 1]
        own = torch.cat([about, valid.expand(len(about), -1, -1)], 2)
        seen = torch.cat([batch.world[..., :3], batch.world[..., 3:] * valid], 2)
        return torch.where(batch.has_body[:, None, None] > 0, own, seen)

    def _rendered(self, posed: Posed, batch: CropBatch, room: _Room) -> dict[str, Tensor]:
        assert room.prior is not None
        semantics, size = self.options.semantics, batch.small_labels.shape[1]
        labels = batch.labels.cpu().numpy()
        mc_valid = np.stack([valid_mc_labels(each) for each in labels])
        targets = targets_of(batch.small_labels.cpu().numpy(), mc_valid, semantics.label_set, semantics.class_weights)
        targets = targets.to(room.device)
        shown = channels_of(room.prior, list(labels), torch.from_numpy(mc_valid).to(room.device), semantics.label_set)
        focal, center = SPIN_FOCAL * size / SPIN_RESOLUTION, size / 2
        window = posed.keypoints.new_tensor([[focal, focal, center, center]]).expand(len(labels), -1)
        kind = {"face_attributes" if room.prior.per_face else "attributes": shown}
        render = room.renderer(posed.vertices(), window, size, **kind)
        values = rendered_energies(Rendered(render, targets, semantics), self.wanted)
        if semantics.c_form == "released" and "dsr_c" in values:
            values["dsr_c"] = values["dsr_c"] * targets.mc_seen
        return values

    @torch.no_grad()
    def validation_step(self, batch: CropBatch, batch_idx: int) -> None:
        """How far the keypoints are missed, and how far off the fitted bodies are where there are such."""
        seen = Seen(*(value.float() for value in self.network(batch.images)))
        body, rotations = self._room().body, sixd_to_matrix(seen.pose.unflatten(1, (24, 6)))
        posed = posed_by_crop(body, rotations, seen)
        points = _points(batch, body.skeleton.keypoint_valid)
        scores = {"keypoint_error_rel": keypoint_errors(posed.keypoints, points)[1]}
        known = batch.has_body > 0
        if bool(known.any()):
            truth = posed_by_crop(body, batch.rotations, Seen(seen.pose, batch.betas, seen.crop_cam))
            joints, true_joints = posed.joints()[known], truth.joints()[known]
            scores |= {
                "mpjpe": metrics.mpjpe(joints, true_joints),
                "pa_mpjpe": metrics.pa_mpjpe(joints, true_joints),
                "root_angle": angle_between(rotations[:, 0], batch.rotations[:, 0])[known].rad2deg(),
            }
        for name, value in scores.items():
            self.log(f"{name}_photos", value.mean(), batch_size=len(value))

    def _room(self) -> _Room:
        if self._known is None or self._known.device != self.device:
            body, prior = self._body.to(self.device), self._prior and self._prior.to(self.device)
            kind = "cuda" if self.device.type == "cuda" else "cpu"
            renderer = Renderer(body.faces, body.num_vertices, device=kind)
            self._known = _Room(self.device, body, prior, renderer)
        return self._known

    def on_train_epoch_end(self) -> None:
        """A picture of what a few people look like to the network by now."""
        if self.pictures is None or not self.options.pictures or not self.trainer.is_global_zero:
            return
        crops = self.examples()
        self.network.eval()
        with torch.no_grad():
            seen = self.network(crops.images.to(self.device))
        self.network.train()
        picture = picture_of(crops.images, Seen(*(value.float().cpu() for value in seen)), self._body.to("cpu"))
        keep_picture(self.pictures, picture, self.trainer)

    def examples(self) -> CropBatch:
        """Crops of a few people, unchanged: of those who are watched, else of all; the same in every epoch."""
        labels, rendered = self._sources
        shown = (*labels, rendered) if self._watched is None else (self._watched,)
        everybody = [(people, row) for people in shown if people for row in range(len(people))]
        count = min(self.options.pictures, len(everybody))
        chosen = [everybody[place] for place in np.linspace(0, len(everybody) - 1, count).astype(int)]
        return stacked([sample(people, row, Change(), self.options.resolution) for people, row in chosen])


class _Unchanged(Dataset[CropBatch]):
    """The crops of the first people, as they are."""

    def __init__(self, people: PseudoLabels, count: int, resolution: int) -> None:
        self.people, self.count, self.resolution = people, count, resolution

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> CropBatch:
        return sample(self.people, row, Change(), self.resolution)


class _Epoch(Sampler[int]):
    """Numbers of the batches of the epoch that the training is in: the last one ends with the last step."""

    def __init__(self, training: HmrTraining) -> None:
        self.training = training

    def _numbers(self) -> range:
        # By steps: a training that is taken up again still says that it is in the epoch which it has ended.
        options, first = self.training.options, self.training.global_step
        times = self.training.trainer.accumulate_grad_batches
        return range(times * first, times * min(first + options.steps_per_epoch, options.steps))

    def __iter__(self) -> Iterator[int]:
        return iter(self._numbers())

    def __len__(self) -> int:
        return len(self._numbers())


def posed_by_crop(body: Body, rotations: Tensor, seen: Seen) -> Posed:
    """Bodies in the frame of the crop's camera; `rotations` (B, 24, 3, 3) are those of `seen`."""
    moved = body.skeleton.transforms(rotations, seen.betas)
    cam_t = spin_translation(seen.crop_cam)
    keypoints = body.skeleton.keypoints(rotations, seen.betas, moved) + cam_t[:, None]
    return Posed(body, rotations, seen.betas, moved, keypoints, cam_t)


def _points(batch: CropBatch, valid: Tensor) -> Points:
    """What was observed, as a fit has it: by the crop's camera, in its pixels; of keypoints that are `valid` (49,)."""
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
