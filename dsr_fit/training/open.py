"""The regressor's training as a Lightning module: batches without end, losses, schedule, validation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import lightning
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from dsr_fit.body import Body
from dsr_fit.evaluate import metrics
from dsr_fit.evaluate.poses import load_poses
from dsr_fit.regressor.network import Guess, Placed, RegressorNetwork, Sight, Size, in_crop, place
from dsr_fit.rotation import angle_between
from dsr_fit.training.synthetic.people import People
from dsr_fit.training.synthetic.samples import Mix, Sampler, Truth, finish, scene_of


@dataclass(frozen=True)
class Settings:
    """How long, how fast, and what counts how much."""

    epochs: int = 60
    steps: int = 200
    """Batches an epoch."""
    batch: int = 512
    learning_rate: float = 8e-4
    weight_decay: float = 0.02
    size: Size = field(default_factory=Size)
    mix: Mix = field(default_factory=Mix)
    earlier: float = 0.4
    """Weight of each guess but the last."""
    pixels: float = 2.0
    """Keypoints in the crop, per half a crop's side."""
    points: float = 5.0
    """Keypoints in space about the mid-hip, per metre."""
    rotations: float = 1.0
    root: float = 2.0
    shape: float = 10.0
    """Vertices of the T-pose, root mean square, per metre: as they are, and again with the scale removed."""
    depth: float = 0.5
    spread: float = 0.05
    error: float = 0.05
    seed: int = 0


class Batches(IterableDataset[tuple[Sight, Truth]]):
    """One epoch."""

    def __init__(self, sampler: Sampler, settings: Settings, epoch: int) -> None:
        self.sampler, self.settings, self.epoch = sampler, settings, epoch

    def __iter__(self) -> Iterator[tuple[Sight, Truth]]:
        for step in range(self.settings.steps):
            rng = np.random.default_rng([self.settings.seed, self.epoch, step])
            yield self.sampler.batch(self.settings.batch, rng)


class RegressorTraining(lightning.LightningModule):
    """Trains a `RegressorNetwork`."""

    def __init__(self, body: Body, train: People, held_out: People, settings: Settings) -> None:
        super().__init__()
        self.body, self.settings = body, settings
        self.sampler = Sampler(train, load_poses().part(held_out=False), body.skeleton, settings.mix)
        self.held_out = held_out.rows(np.flatnonzero((held_out.keypoints[..., 2] > 0).sum(1) >= 8))
        self.network = RegressorNetwork(settings.size)
        self.shape_metric = shape_metric(body)

    def train_dataloader(self) -> DataLoader[tuple[Sight, Truth]]:
        return DataLoader(Batches(self.sampler, self.settings, self.current_epoch), batch_size=None)

    def val_dataloader(self) -> DataLoader[tuple[Sight, Truth]]:
        people = self.held_out
        batch = finish(scene_of(people, people.parsed), np.zeros(len(people), bool))
        return DataLoader([batch], batch_size=None)  # type: ignore[arg-type]

    def transfer_batch_to_device(self, batch: tuple[Sight, Truth], device: torch.device, dataloader_idx: int):
        return batch

    def training_step(self, batch: tuple[Sight, Truth], batch_idx: int) -> Tensor:
        # Dropout draws from torch's generator, which a checkpoint doesn't hold.
        torch.manual_seed(1_000_003 * self.settings.seed + self.global_step)
        sight, truth = batch
        guesses, turns = self.network(sight, self.body.skeleton), sight.turns()
        with torch.autocast("cpu", enabled=False):
            values = [self.losses(guess, sight, turns, truth) for guess in guesses]
        of_guesses = torch.stack([torch.stack(list(value.values())).sum() for value in values])
        total = of_guesses[-1] + self.settings.earlier * of_guesses[:-1].sum()
        self.log("loss", total, prog_bar=True, on_step=False, on_epoch=True, batch_size=len(sight))
        for name, value in values[-1].items():
            self.log(f"loss_{name}", value, on_step=False, on_epoch=True, batch_size=len(sight))
        return total

    def losses(self, guess: Guess, sight: Sight, turns: Tensor, truth: Truth) -> dict[str, Tensor]:
        """Each weighted loss of one guess."""
        settings, skeleton = self.settings, self.body.skeleton
        ours = place(guess, sight, turns, skeleton)
        keypoints = skeleton.keypoints(truth.rotations, truth.betas) + truth.cam_t[:, None]
        theirs = Placed(truth.rotations, truth.betas, truth.cam_t, keypoints)
        flat = in_crop(ours.keypoints, sight.place) - in_crop(theirs.keypoints, sight.place)
        deep = _about_hips(ours.keypoints) - _about_hips(theirs.keypoints)
        turned = (ours.rotations - theirs.rotations).abs().mean((2, 3))
        shape = ours.betas - theirs.betas
        angle = angle_between(ours.rotations, theirs.rotations).detach()
        missed = _joints(ours.rotations, ours.betas, self.body) - _joints(theirs.rotations, theirs.betas, self.body)
        missed = missed.detach().norm(dim=-1).mean(1, keepdim=True)
        depth = (
            guess.pelvis(sight.place)[:, 2] / (theirs.cam_t + skeleton.joints_at_rest(truth.betas)[:, 0])[:, 2]
        ).log()
        return {
            "pixels": settings.pixels * F.smooth_l1_loss(flat.clamp(-2, 2), torch.zeros_like(flat), beta=0.02),
            "points": settings.points * deep.norm(dim=-1).mean(),
            "rotations": settings.rotations * turned[:, 1:].mean(),
            "root": settings.root * turned[:, 0].mean(),
            "shape": settings.shape
            * (torch.einsum("bi,kij,bj->bk", shape, self.shape_metric, shape) + 1e-8).sqrt().mean(),
            "depth": settings.depth * depth.abs().mean(),
            "spread": settings.spread * (guess.spread + angle * (-guess.spread).exp()).mean(),
            "error": settings.error * (guess.error + missed * (-guess.error).exp()).mean(),
        }

    @torch.no_grad()
    def validation_step(self, batch: tuple[Sight, Truth], batch_idx: int) -> None:
        sight, truth = batch
        with torch.autocast("cpu", enabled=False):
            blind = replace(sight, world=0 * sight.world, labels_seen=0 * sight.labels_seen)
            for name, seen in (("", sight), ("_keypoints_only", blind)):
                placed = place(self.network(seen, self.body.skeleton)[-1], seen, seen.turns(), self.body.skeleton)
                for metric, value in judge(placed, truth, self.body).items():
                    self.log(metric + name, value.mean(), batch_size=len(sight))

    def configure_optimizers(self):
        settings = self.settings
        optimizer = torch.optim.AdamW(self.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
        steps = settings.epochs * settings.steps
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, steps, pct_start=0.04)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _about_hips(keypoints: Tensor) -> Tensor:
    return keypoints - keypoints[:, 8:9]


def shape_metric(body: Body) -> Tensor:
    """(2, 10, 10): differences of betas -> mean square distance of the T-pose's vertices, metres^2; the second one
    without what a change of scale explains."""
    dirs = body.shapedirs.flatten(0, 1).double()  # (3V, 10)
    template = (body.v_template - body.v_template.mean(0)).flatten().double()
    scaled = dirs - template[:, None] * (template @ dirs) / template.square().sum()
    return torch.stack([d.T @ d / body.num_vertices for d in (dirs, scaled)]).float()


def judge(placed: Placed, truth: Truth, body: Body) -> dict[str, Tensor]:
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
