"""The open regressor's data: training batches, validation people, and the training put together from settings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from dsr_fit.assets import sha256, shipped
from dsr_fit.body.body import Body
from dsr_fit.body.files import OPEN_BODY
from dsr_fit.errors import InputError, UsageError
from dsr_fit.observe.crop import cut
from dsr_fit.priors.recorded_poses import load_poses
from dsr_fit.priors.semantic import load_semantic_prior
from dsr_fit.regressor.open_network import RegressorInput, RegressorNetwork
from dsr_fit.regressor.open_regressor import OpenRegressor, parameters_of
from dsr_fit.training.open_module import OpenTraining, TrainingBatch
from dsr_fit.training.open_photos import PhotoAugmentation, Photos
from dsr_fit.training.photo_features import photo_features
from dsr_fit.training.pictures import PANEL, PICTURED, crop_window, drawn_people
from dsr_fit.training.pseudo_labels import PseudoLabels
from dsr_fit.training.regressor_training import TrainingData
from dsr_fit.training.settings import SCRATCH, TrainSettings
from dsr_fit.training.splits import MAX_VALIDATION, Report, read_splits
from dsr_fit.training.synthetic.people import HELD_OUT_SEED, People, read_features, read_people
from dsr_fit.training.synthetic.samples import Mix, Sampler, Truth, finish, scene_of
from dsr_fit.view.overlay import PAPER

BATCH = 512
VALIDATION_BATCH = 64
SIGHT = 256
"""Numbers that sum up features, in a network that is trained to take them."""


@dataclass(frozen=True)
class HeldOut:
    """Synthetic people for validation, whom the detector has found."""

    people: People
    features: np.ndarray | None  # (N, D), see `read_features`

    def all_seen(self, most: int | None = None) -> tuple[RegressorInput, Truth]:
        """The first ones, with all that detector and parser found."""
        people = self.people.rows(np.arange(len(self.people))[:most])
        features = None if self.features is None else self.features[:most]
        return finish(scene_of(people, people.parsed, features=features), np.zeros(len(people), bool))


class OpenData(TrainingData):
    """Synthetic people and people in photos; either may be missing."""

    def __init__(
        self,
        sampler: Sampler | None,
        photos: Photos | None,
        settings: TrainSettings,
        held_out: HeldOut | None = None,
        held_out_photos: Photos | None = None,
    ) -> None:
        """`held_out` and `held_out_photos` are for validation, with all observations."""
        super().__init__(settings)
        self.sampler, self.photos, self.held_out, self.held_out_photos = sampler, photos, held_out, held_out_photos
        count = 0 if held_out_photos is None else min(len(held_out_photos), MAX_VALIDATION)
        self.validation = [
            *([None] if held_out is not None and len(held_out.people) else []),
            *(np.arange(start, min(start + VALIDATION_BATCH, count)) for start in range(0, count, VALIDATION_BATCH)),
        ]

    def batch(self, epoch: int, step: int, rank: int = 0, ranks: int = 1) -> TrainingBatch:
        """`synthetic_share` of the people are synthetic if there are photos too."""
        size, sampler, photos = self.settings.batch or BATCH, self.sampler, self.photos
        synthetic = size if photos is None else round(self.settings.synthetic_share * size) if sampler else 0
        rng, photo_rng = (np.random.default_rng([self.settings.seed, epoch, step, rank, kind]) for kind in (0, 1))
        return TrainingBatch(
            sampler.batch(synthetic, rng) if sampler is not None and synthetic else None,
            photos.batch(size - synthetic, PhotoAugmentation(), photo_rng)
            if photos is not None and size > synthetic
            else None,
        )

    def validation_batch(self, key: np.ndarray | None) -> TrainingBatch:
        """Photos of these rows, or all synthetic people for None."""
        if key is None:
            assert self.held_out is not None
            return TrainingBatch(self.held_out.all_seen(), None)
        assert self.held_out_photos is not None
        return TrainingBatch(None, self.held_out_photos.whole(key))

    @torch.no_grad()
    def picture(self, module: OpenTraining) -> np.ndarray:
        pictures = []
        if self.sampler is not None:
            if self.held_out is not None and len(self.held_out.people):
                inputs, _ = self.held_out.all_seen(PICTURED)
            else:
                inputs, _ = self.sampler.batch(PICTURED, np.random.default_rng(self.settings.seed))
            pictures.append(_drawn(module, inputs, [None] * len(inputs)))
        photos = self.held_out_photos or self.photos
        if photos is not None:
            rows = np.arange(min(len(photos), PICTURED))
            pictures.append(_drawn(module, photos.whole(rows).inputs, [_photo(photos, int(row)) for row in rows]))
        return np.concatenate(pictures)


def _photo(photos: Photos, row: int) -> np.ndarray | None:
    """The crop of the photo, or None if it can't be read."""
    try:
        return cut(photos.labels.image(row), photos.labels.crop(row), PANEL, PAPER)
    except InputError:
        return None


def _drawn(module: OpenTraining, inputs: RegressorInput, photos: list[np.ndarray | None]) -> np.ndarray:
    placed = module.estimate(inputs.to(module.device))
    return drawn_people(
        module.body, parameters_of(placed), crop_window(inputs.crop), photos, inputs.points, list(inputs.labels.numpy())
    )


def prepare(settings: TrainSettings, body: Body, report: Report) -> tuple[OpenTraining, OpenData]:
    """The module and its data. Raises InputError and UsageError for settings or files that can't be used."""
    network = _network(settings.regressor_name(), body)
    splits = read_splits(settings, body, report) if settings.labels else None
    sampler = held_out = None
    if splits is None or settings.synthetic_share > 0:
        sampler, held_out = _synthetic(settings.synthetic, body)
    learns_to_see = sampler is not None and sampler.features is not None and network.sight is None
    if learns_to_see:
        network = network.seeing(SIGHT)
    network.train().requires_grad_(True)
    photos = validation = None
    if splits is not None:
        photos, validation = (
            Photos(labels, body.skeleton.keypoint_valid, settings.by_quality, features)
            for labels, features in zip(splits, _photo_features(splits, settings, network), strict=True)
        )
    rendered = photos is not None and settings.weights.rendered
    prior = load_semantic_prior(body, settings.prior_path()) if rendered else None
    shown = validation if validation is not None and len(validation) else None
    module = OpenTraining(network, body, prior, settings, learns_to_see=learns_to_see)
    return module, OpenData(sampler, photos, settings, held_out, shown)


def _network(regressor: str | None, body: Body) -> RegressorNetwork:
    if regressor == SCRATCH:
        return RegressorNetwork()
    own = regressor not in (None, "open")
    return OpenRegressor(body, Path(str(regressor)).expanduser() if own else None).network


def _photo_features(
    splits: tuple[PseudoLabels, PseudoLabels], settings: TrainSettings, network: RegressorNetwork
) -> list[np.ndarray | None]:
    """Of the people to train on and of those for validation, for a network that takes them."""
    if network.sight is None:
        return [None, None]
    return [photo_features(labels, settings.features or settings.out / "features") for labels in splits]


def _synthetic(folder: Path | None, body: Body) -> tuple[Sampler, HeldOut | None]:
    """Synthetic people to train on, and held-out ones that the detector found."""
    poses, mix = load_poses().part(held_out=False), Mix()
    if folder is None:
        return Sampler(None, poses, body.skeleton, mix), None
    if body.sha256 != sha256(shipped(OPEN_BODY)):
        raise UsageError(f"--synthetic {folder}: these people have the open body, not {body.name}; leave it out")
    seeds = _seeds(folder)
    if not any(seed < HELD_OUT_SEED for seed in seeds):
        raise InputError(f"--synthetic {folder}: holds no synthetic people; tools/train_regressor.py makes them")
    sampler = Sampler(
        read_people(folder, held_out=False), poses, body.skeleton, mix, read_features(folder, held_out=False)
    )
    if not len(sampler.painted):
        raise InputError(f"--synthetic {folder}: holds no painted people, whose detector errors the others need")
    if not any(seed >= HELD_OUT_SEED for seed in seeds):
        return sampler, None
    held_out, features = read_people(folder, held_out=True), read_features(folder, held_out=True)
    found = np.flatnonzero((held_out.keypoints[..., 2] > 0).sum(1) >= 8)
    return sampler, HeldOut(held_out.rows(found), features[found] if len(features) else None)


def _seeds(folder: Path) -> list[int]:
    return [int(path.stem) for path in folder.glob("[0-9]*.npz") if path.stem.isdigit()]
