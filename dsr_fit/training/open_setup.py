"""The open regressor's training, put together from settings."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dsr_fit.assets import sha256, shipped
from dsr_fit.body.body import Body
from dsr_fit.body.files import OPEN_BODY
from dsr_fit.dataset.settings import Settings
from dsr_fit.errors import InputError, UsageError
from dsr_fit.priors.recorded_poses import load_poses
from dsr_fit.priors.semantic import load_semantic_prior
from dsr_fit.regressor.open_network import RegressorNetwork
from dsr_fit.regressor.open_regressor import OpenRegressor
from dsr_fit.training.labelled import Report, read_labelled
from dsr_fit.training.open import OpenTraining
from dsr_fit.training.open_data import OpenData, Supply
from dsr_fit.training.open_photos import Photos
from dsr_fit.training.settings import SCRATCH, TrainSettings
from dsr_fit.training.synthetic.bare import BareSampler
from dsr_fit.training.synthetic.people import HELD_OUT_SEED, People, read_people
from dsr_fit.training.synthetic.samples import Mix, Sampler


def prepare(settings: TrainSettings, files: Settings, body: Body, report: Report) -> tuple[OpenTraining, OpenData]:
    """What learns, and what it learns from. Raises InputError and UsageError for what can't be trained with."""
    network = _network(files.regressor_name(), body).train().requires_grad_(True)
    photos, watched = _photos(settings, body, report)
    sampler = held_out = None
    if photos is None or settings.synthetic_share > 0:
        sampler, held_out = _synthetic(settings.synthetic, body)
    rendered = photos is not None and settings.weights.rendered
    prior = load_semantic_prior(body, files.prior_path()) if rendered else None
    return OpenTraining(network, body, prior, settings), OpenData(Supply(sampler, photos, held_out, watched), settings)


def _network(regressor: str | None, body: Body) -> RegressorNetwork:
    if regressor == SCRATCH:
        return RegressorNetwork()
    own = regressor not in (None, "open")
    return OpenRegressor(body, Path(str(regressor)).expanduser() if own else None).network


def _photos(settings: TrainSettings, body: Body, report: Report) -> tuple[Photos | None, Photos | None]:
    """People in photos to learn from, and to watch the training by."""
    if not settings.labels:
        return None, None
    train, watched = (
        Photos(labels, body.skeleton.keypoint_valid, settings.by_quality)
        for labels in read_labelled(settings, body, report)
    )
    return train, watched if len(watched) else None


def _synthetic(folder: Path | None, body: Body) -> tuple[Sampler, People | None]:
    """Synthetic people to learn from, and those held out whom the detector found."""
    poses, mix = load_poses().part(held_out=False), Mix()
    if folder is None:
        return BareSampler(poses, body.skeleton, mix), None
    if body.sha256 != sha256(shipped(OPEN_BODY)):
        raise UsageError(f"--synthetic {folder}: these people have the open body, not {body.name}; leave it out")
    seeds = _seeds(folder)
    if not any(seed < HELD_OUT_SEED for seed in seeds):
        raise InputError(f"--synthetic {folder}: holds no synthetic people; tools/train_regressor.py makes them")
    sampler = Sampler(read_people(folder, held_out=False), poses, body.skeleton, mix)
    if not len(sampler.seen):
        raise InputError(f"--synthetic {folder}: holds no painted people whose errors the others could borrow")
    if not any(seed >= HELD_OUT_SEED for seed in seeds):
        return sampler, None
    held_out = read_people(folder, held_out=True)
    return sampler, held_out.rows(np.flatnonzero((held_out.keypoints[..., 2] > 0).sum(1) >= 8))


def _seeds(folder: Path) -> list[int]:
    return [int(path.stem) for path in folder.glob("[0-9]*.npz") if path.stem.isdigit()]
