"""HMR's data: training batches, validation people, rendered people as labels, and the training put together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from dsr_fit.assets import required, sha256, shipped
from dsr_fit.body.body import Body
from dsr_fit.body.files import OPEN_BODY
from dsr_fit.body.parameters import Parameters
from dsr_fit.camera import spin_translation
from dsr_fit.errors import InputError, UsageError
from dsr_fit.joints import MIN_KEYPOINTS
from dsr_fit.priors.semantic import load_semantic_prior
from dsr_fit.regressor.checkpoints import load_hmr_checkpoint
from dsr_fit.regressor.hmr import CropEstimate
from dsr_fit.regressor.hmr_regressor import IMAGENET_MEAN, IMAGENET_STD, check_body
from dsr_fit.rotation import matrix_to_axis_angle, sixd_to_matrix
from dsr_fit.synthetic.dataset import read_cases
from dsr_fit.synthetic.people import ClothedCase
from dsr_fit.training.hmr_crops import CropBatch, draw, sample, stacked
from dsr_fit.training.hmr_module import HmrTraining, crop_camera
from dsr_fit.training.losses import MID_HIP
from dsr_fit.training.pictures import PANEL, PICTURED, drawn_people
from dsr_fit.training.pseudo_labels import PseudoLabels
from dsr_fit.training.regressor_training import TrainingData
from dsr_fit.training.settings import TrainSettings
from dsr_fit.training.splits import MAX_VALIDATION, Report, read_splits

BATCH = 64


class HmrData(TrainingData):
    """Crops of people in photos and of rendered people; either may be missing, but not both."""

    def __init__(
        self,
        labels: PseudoLabels | None,
        rendered: PseudoLabels | None,
        settings: TrainSettings,
        held_out: PseudoLabels | None = None,
    ) -> None:
        """`held_out` are people for validation."""
        super().__init__(settings)
        self.sources, self.held_out, self.size = (labels, rendered), held_out, settings.batch or BATCH
        count = 0 if held_out is None else min(len(held_out), MAX_VALIDATION)
        self.validation = [range(start, min(start + self.size, count)) for start in range(0, count, self.size)]

    def batch(self, epoch: int, step: int, rank: int = 0, ranks: int = 1) -> CropBatch:
        """Augmented; `synthetic_share` of the people are rendered if there are photos too."""
        number, samples = epoch * self.settings.epoch + step, []
        for place, (people, row) in enumerate(self.people(number, rank, ranks)):
            change = draw(np.random.default_rng([self.settings.seed, number, rank, place]))
            weight = float(people.quality[row]) if self.settings.by_quality else 1.0
            samples.append(sample(people, row, change, weight))
        return stacked(samples)

    def people(self, number: int, rank: int = 0, ranks: int = 1) -> list[tuple[PseudoLabels, int]]:
        """Everyone in the training's batch of this number, and their rows: everyone once per pass, in a new order each
        pass."""
        labels, rendered = self.sources
        share = 0.0 if rendered is None else 1.0 if labels is None else self.settings.synthetic_share
        drawn, chosen = round(self.size * share), []
        for group, (people, count) in enumerate(((labels, self.size - drawn), (rendered, drawn))):
            first = (number * ranks + rank) * count
            for position in range(first, first + count):
                assert people is not None
                turn, place = divmod(position, len(people))
                chosen.append((people, int(_order(self.settings.seed, group, turn, len(people))[place])))
        return chosen

    def validation_batch(self, key: Sequence[int]) -> CropBatch:
        assert self.held_out is not None
        return stacked([sample(self.held_out, row) for row in key])

    def pictured(self) -> CropBatch:
        """Crops of a few people without augmentation: held-out people if any, else of all; the same every time."""
        sources = [people for people in (self.sources if self.held_out is None else [self.held_out]) if people]
        everybody = [(people, row) for people in sources for row in range(len(people))]
        chosen = np.linspace(0, len(everybody) - 1, min(PICTURED, len(everybody))).astype(int)
        return stacked([sample(*everybody[place]) for place in chosen])

    def picture(self, module: HmrTraining) -> np.ndarray:
        crops = self.pictured()
        estimate = CropEstimate(*(value.cpu() for value in module.estimate(crops.images.to(module.device))))
        pose = matrix_to_axis_angle(sixd_to_matrix(estimate.pose.unflatten(1, (24, 6)))).flatten(1)
        parameters = Parameters(pose[:, :3], pose[:, 3:], estimate.betas, spin_translation(estimate.crop_cam))
        mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
        photos = (255 * (crops.images * std + mean)).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        windows = crop_camera(PANEL).expand(len(photos), -1)
        return drawn_people(module.body, parameters, windows, list(photos), crops.keypoints, list(crops.labels.numpy()))


@lru_cache(maxsize=4)
def _order(seed: int, group: int, turn: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, group, turn]).permutation(count)


def prepare(settings: TrainSettings, body: Body, report: Report) -> tuple[HmrTraining, HmrData]:
    """The module and its data. Raises InputError and UsageError for settings or files that can't be used."""
    if not settings.labels and settings.synthetic is None:
        raise UsageError("HMR is trained on images: give --labels, or --synthetic with a folder of rendered people")
    labels, held_out = read_splits(settings, body, report) if settings.labels else (None, None)
    rendered = None if settings.synthetic is None else read_rendered_people(settings.synthetic, body)
    prior = load_semantic_prior(body, settings.prior_path()) if settings.weights.rendered else None
    path = required("regressor", str(settings.regressor_name()), "this --regressor")
    check_body(body, path.name)
    network = load_hmr_checkpoint(path, settings.smpl_mean_params)
    return HmrTraining(network, body, prior, settings), HmrData(labels, rendered, settings, held_out or None)


def read_rendered_people(folder: Path, body: Body) -> PseudoLabels:
    """Rendered people of `dsr_fit.synthetic.dataset` with at least `MIN_KEYPOINTS` visible keypoints, as exact labels.

    Their parameters are the open body's; any other body is trained on their 2D and 3D keypoints alone. Raises
    InputError as `read_cases` does, and if there is nobody.
    """
    records = [_record(case) for case in read_cases(folder) if case.keypoint_visibility.sum() >= MIN_KEYPOINTS]
    if not records:
        raise InputError(f"{folder}: nobody in it has {MIN_KEYPOINTS} visible keypoints; generate more people")
    arrays = {name: np.stack([record[name] for record in records]) for name in records[0]}
    seeds = arrays.pop("seed")
    own = body.sha256 == sha256(shipped(OPEN_BODY))
    for name in ("full_pose", "betas", "cam_t") if not own else ():
        arrays[name] = np.zeros_like(arrays[name])
    return PseudoLabels(
        images=folder.absolute(),
        imgname=tuple(f"{seed:06d}.png" for seed in seeds),
        has_body=np.full(len(seeds), own),
        quality=np.ones(len(seeds), np.float32),
        accepted=np.ones(len(seeds), bool),
        unjudged=np.zeros(len(seeds), bool),
        label_maps=tuple(folder.absolute() / f"{seed:06d}_labels.png" for seed in seeds),
        **arrays,
    )


def _record(case: ClothedCase) -> dict[str, np.ndarray]:
    keypoints = case.keypoints
    keypoints[~case.keypoint_visibility] = 0
    about = np.concatenate([case.joints - case.joints[MID_HIP], np.ones((49, 1))], 1)
    height, width = case.labels.shape
    return {
        "seed": np.array(case.seed),
        "keypoints": keypoints,
        "world": about.astype(np.float32),
        "full_pose": np.concatenate([case.global_orient, case.body_pose]),
        "betas": case.betas,
        "cam_t": case.cam_t,
        "intrinsics": np.array([case.focal_length, width / 2, height / 2], np.float32),
        "image_size": np.array([width, height]),
    }
