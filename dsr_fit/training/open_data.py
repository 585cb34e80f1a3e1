"""The open regressor's data: training batches, validation people, and the training put together from settings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from dsr_fit.assets import sha256, shipped
from dsr_fit.body.body import Body
from dsr_fit.body.files import OPEN_BODY
from dsr_fit.dataset.settings import Settings
from dsr_fit.errors import InputError, UsageError
from dsr_fit.observe.crop import cut
from dsr_fit.priors.recorded_poses import load_poses
from dsr_fit.priors.semantic import load_semantic_prior
from dsr_fit.regressor.open_network import RegressorInput, RegressorNetwork
from dsr_fit.regressor.open_regressor import OpenRegressor, parameters_of
from dsr_fit.training.open_module import OpenTraining, TrainingBatch
from dsr_fit.training.open_photos import PhotoAugmentation, Photos
from dsr_fit.training.pictures import PANEL, crop_window, drawn_people
from dsr_fit.training.settings import SCRATCH, TrainSettings
from dsr_fit.training.splits import MAX_VALIDATION, Report, read_splits
from dsr_fit.training.synthetic.people import HELD_OUT_SEED, People, read_people
from dsr_fit.training.synthetic.samples import Mix, Sampler, Truth, finish, scene_of
from dsr_fit.view.overlay import PAPER

BATCH = 512
VALIDATION_BATCH = 64
PICTURED = 6
"""Synthetic people, and people in photos, drawn after each epoch."""


@dataclass(frozen=True)
class BatchSource:
    """The sources of people, and batches drawn from them."""

    sampler: Sampler | None
    photos: Photos | None
    held_out: People | None = None
    """Synthetic people for validation."""
    held_out_photos: Photos | None = None
    augmentation: PhotoAugmentation = field(default_factory=PhotoAugmentation)

    def batch(self, size: int, share: float, key: tuple[int, ...]) -> TrainingBatch:
        """`size` people, this share of them synthetic if there are photos too; the same key gives the same batch."""
        synthetic = size if self.photos is None else round(share * size) if self.sampler is not None else 0
        rng, photo_rng = (np.random.default_rng([*key, kind]) for kind in (0, 1))
        return TrainingBatch(
            self.sampler.batch(synthetic, rng) if self.sampler is not None and synthetic else None,
            self.photos.batch(size - synthetic, self.augmentation, photo_rng)
            if self.photos is not None and size > synthetic
            else None,
        )


class EpochBatches(IterableDataset[TrainingBatch]):
    """The batches of one epoch."""

    def __init__(self, source: BatchSource, settings: TrainSettings, epoch: int, rank: int = 0) -> None:
        self.source, self.settings, self.epoch, self.rank = source, settings, epoch, rank

    def __iter__(self) -> Iterator[TrainingBatch]:
        settings = self.settings
        for step in range(settings.steps_of(self.epoch)):
            key = (settings.seed, self.epoch, step, self.rank)
            yield self.source.batch(settings.batch or BATCH, settings.synthetic_share, key)


class OpenData(lightning.LightningDataModule):
    """Apart from the module, which is copied to average its weights."""

    def __init__(self, source: BatchSource, settings: TrainSettings) -> None:
        super().__init__()
        self.source, self.settings = source, settings

    def train_dataloader(self) -> DataLoader[TrainingBatch]:
        assert self.trainer is not None
        batches = EpochBatches(self.source, self.settings, self.trainer.current_epoch, self.trainer.global_rank)
        return DataLoader(batches, batch_size=None)

    def val_dataloader(self) -> DataLoader[TrainingBatch]:
        return DataLoader(self.validation_batches(), batch_size=None)  # type: ignore[arg-type]

    def validation_batches(self) -> list[TrainingBatch]:
        """Everyone held out, with all observations."""
        steps, photos = [], self.source.held_out_photos
        if self.source.held_out is not None and len(self.source.held_out):
            steps.append(TrainingBatch(_all_seen(self.source.held_out), None))
        if photos is not None:
            starts = range(0, min(len(photos), MAX_VALIDATION), VALIDATION_BATCH)
            chosen = [np.arange(start, min(start + VALIDATION_BATCH, len(photos))) for start in starts]
            steps += [TrainingBatch(None, photos.whole(rows)) for rows in chosen]
        return steps

    @torch.no_grad()
    def picture(self, module: OpenTraining) -> np.ndarray:
        """(H, W, 3) uint8 RGB: the estimates for the same few people each time, held-out ones if there are any."""
        source, pictures = self.source, []
        if source.sampler is not None:
            if source.held_out is not None and len(source.held_out):
                inputs, _ = _all_seen(source.held_out.rows(np.arange(min(len(source.held_out), PICTURED))))
            else:
                inputs, _ = source.sampler.batch(PICTURED, np.random.default_rng(self.settings.seed))
            pictures.append(_drawn(module, inputs, [None] * len(inputs)))
        photos = source.held_out_photos or source.photos
        if photos is not None:
            rows = np.arange(min(len(photos), PICTURED))
            pictures.append(_drawn(module, photos.whole(rows).inputs, [_photo(photos, int(row)) for row in rows]))
        return np.concatenate(pictures)


def _all_seen(people: People) -> tuple[RegressorInput, Truth]:
    """With all that detector and parser found."""
    return finish(scene_of(people, people.parsed), np.zeros(len(people), bool))


def _photo(photos: Photos, row: int) -> np.ndarray | None:
    """The crop of the photo, or None if it can't be read."""
    try:
        return cut(photos.labels.image(row), photos.labels.crop(row), PANEL, PAPER)
    except InputError:
        return None


def _drawn(module: OpenTraining, inputs: RegressorInput, photos: list[np.ndarray | None]) -> np.ndarray:
    learning = module.training
    placed = module.eval().estimate(inputs.to(module.device))
    module.train(learning)
    return drawn_people(
        module.body, parameters_of(placed), crop_window(inputs.crop), photos, inputs.points, list(inputs.labels.numpy())
    )


def prepare(settings: TrainSettings, files: Settings, body: Body, report: Report) -> tuple[OpenTraining, OpenData]:
    """The module and its data. Raises InputError and UsageError for settings or files that can't be used."""
    network = _network(files.regressor_name(), body).train().requires_grad_(True)
    photos, validation = _photos(settings, body, report)
    sampler = held_out = None
    if photos is None or settings.synthetic_share > 0:
        sampler, held_out = _synthetic(settings.synthetic, body)
    rendered = photos is not None and settings.weights.rendered
    prior = load_semantic_prior(body, files.prior_path()) if rendered else None
    return OpenTraining(network, body, prior, settings), OpenData(
        BatchSource(sampler, photos, held_out, validation), settings
    )


def _network(regressor: str | None, body: Body) -> RegressorNetwork:
    if regressor == SCRATCH:
        return RegressorNetwork()
    own = regressor not in (None, "open")
    return OpenRegressor(body, Path(str(regressor)).expanduser() if own else None).network


def _photos(settings: TrainSettings, body: Body, report: Report) -> tuple[Photos | None, Photos | None]:
    """People in photos, for training and for validation."""
    if not settings.labels:
        return None, None
    train, validation = (
        Photos(labels, body.skeleton.keypoint_valid, settings.by_quality)
        for labels in read_splits(settings, body, report)
    )
    return train, validation if len(validation) else None


def _synthetic(folder: Path | None, body: Body) -> tuple[Sampler, People | None]:
    """Synthetic people to train on, and held-out ones that the detector found."""
    poses, mix = load_poses().part(held_out=False), Mix()
    if folder is None:
        return Sampler(None, poses, body.skeleton, mix), None
    if body.sha256 != sha256(shipped(OPEN_BODY)):
        raise UsageError(f"--synthetic {folder}: these people have the open body, not {body.name}; leave it out")
    seeds = _seeds(folder)
    if not any(seed < HELD_OUT_SEED for seed in seeds):
        raise InputError(f"--synthetic {folder}: holds no synthetic people; tools/train_regressor.py makes them")
    sampler = Sampler(read_people(folder, held_out=False), poses, body.skeleton, mix)
    if not len(sampler.painted):
        raise InputError(f"--synthetic {folder}: holds no painted people, whose detector errors the others need")
    if not any(seed >= HELD_OUT_SEED for seed in seeds):
        return sampler, None
    held_out = read_people(folder, held_out=True)
    return sampler, held_out.rows(np.flatnonzero((held_out.keypoints[..., 2] > 0).sum(1) >= 8))


def _seeds(folder: Path) -> list[int]:
    return [int(path.stem) for path in folder.glob("[0-9]*.npz") if path.stem.isdigit()]
