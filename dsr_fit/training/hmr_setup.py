"""HMR's training put together from settings, and rendered people as its labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dsr_fit.assets import required, sha256, shipped
from dsr_fit.body.body import Body
from dsr_fit.body.files import OPEN_BODY
from dsr_fit.dataset.settings import Settings
from dsr_fit.errors import UsageError
from dsr_fit.observe.perception import MIN_KEYPOINTS
from dsr_fit.priors.semantic import load_semantic_prior
from dsr_fit.regressor.checkpoints import load_hmr_checkpoint, save_hmr_checkpoint
from dsr_fit.regressor.hmr_regressor import check_body
from dsr_fit.synthetic.dataset import read_cases
from dsr_fit.synthetic.people import ClothedCase
from dsr_fit.training.hmr_module import HmrOptions, HmrTraining
from dsr_fit.training.losses import MID_HIP, HmrWeights
from dsr_fit.training.pseudo_labels import PseudoLabels
from dsr_fit.training.settings import LossWeights, TrainSettings
from dsr_fit.training.splits import Report, read_splits

BATCH, LEARNING_RATE = 64, 3e-5


def prepare(settings: TrainSettings, files: Settings, body: Body, report: Report) -> HmrTraining:
    """The module with its data. Raises InputError and UsageError for settings or files that can't be used."""
    if not settings.labels and settings.synthetic is None:
        raise UsageError("HMR is trained on images: give --labels, or --synthetic with a folder of rendered people")
    options = HmrOptions(
        steps=settings.steps,
        steps_per_epoch=settings.epoch,
        batch=settings.batch or BATCH,
        learning_rate=settings.learning_rate or LEARNING_RATE,
        seed=settings.seed,
        weights=weights_of(settings.weights),
        semantics=settings.semantics,
        dsr_after=settings.dsr_after,
        rendered_share=settings.synthetic_share,
        by_quality=settings.by_quality,
    )
    labels, validation = read_splits(settings, body, report) if settings.labels else (None, None)
    rendered = None if settings.synthetic is None else read_rendered_people(settings.synthetic, body)
    prior = load_semantic_prior(body, files.prior_path()) if settings.weights.rendered else None
    path = required("regressor", str(files.regressor_name()), "this --regressor")
    check_body(body, path.name)
    network = load_hmr_checkpoint(path, settings.smpl_mean_params)
    return HmrTraining(
        body,
        network,
        [] if labels is None else [labels],
        options,
        semantic_prior=prior,
        rendered=rendered,
        validation=validation if validation is not None and len(validation) else None,
        pictures=settings.out / "pictures",
    )


def weights_of(given: LossWeights) -> HmrWeights:
    """DSR's weights times the given ones."""
    usual = HmrWeights()
    return HmrWeights(
        keypoints_2d=usual.keypoints_2d * given.keypoints,
        keypoints_3d=usual.keypoints_3d * given.parameters,
        pose=usual.pose * given.parameters,
        betas=usual.betas * given.parameters,
        camera=usual.camera,
        dsr_mc=usual.dsr_mc * given.dsr_mc,
        dsr_c=usual.dsr_c * given.dsr_c,
        silhouette=usual.dsr_mc * given.silhouette,
        everything=usual.everything,
    )


def write_checkpoint(path: Path, module: HmrTraining) -> None:
    """As a checkpoint with SPIN's names, which `--regressor` reads."""
    save_hmr_checkpoint(path, module.network)


def read_rendered_people(folder: Path, body: Body) -> PseudoLabels:
    """Rendered people of `dsr_fit.synthetic.dataset` with at least `MIN_KEYPOINTS` visible keypoints, as exact labels.

    Their parameters are the open body's; any other body is trained on their 2D and 3D keypoints alone. Raises
    InputError as `read_cases` does.
    """
    records = [_record(case) for case in read_cases(folder) if case.keypoint_visibility.sum() >= MIN_KEYPOINTS]
    arrays = {name: np.stack([record[name] for record in records]) for name in records[0]}
    seeds = arrays.pop("seed")
    own = body.sha256 == sha256(shipped(OPEN_BODY))
    for name in ("full_pose", "betas", "cam_t") if not own else ():
        arrays[name] = np.zeros_like(arrays[name])
    return PseudoLabels(
        images=folder.absolute(),
        imgname=tuple(f"{seed:06d}.png" for seed in seeds),
        person=np.zeros(len(seeds), int),
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
