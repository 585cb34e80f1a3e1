"""HMR's training, put together from settings."""

from __future__ import annotations

from pathlib import Path

from dsr_fit.assets import required
from dsr_fit.body.body import Body
from dsr_fit.dataset.settings import Settings
from dsr_fit.errors import UsageError
from dsr_fit.priors.semantic import load_semantic_prior
from dsr_fit.regressor.checkpoints import load_hmr_checkpoint, save_hmr_checkpoint
from dsr_fit.regressor.hmr_regressor import check_body
from dsr_fit.training.hmr import HmrOptions, HmrTraining
from dsr_fit.training.labelled import Report, read_labelled
from dsr_fit.training.losses import HmrWeights
from dsr_fit.training.rendered_people import read_rendered_people
from dsr_fit.training.settings import LossWeights, TrainSettings

BATCH, LEARNING_RATE = 64, 3e-5


def prepare(settings: TrainSettings, files: Settings, body: Body, report: Report) -> HmrTraining:
    """What learns, with what it learns from. Raises InputError and UsageError for what can't be trained with."""
    if not settings.labels and settings.synthetic is None:
        raise UsageError("HMR learns from pictures: give --labels, or --synthetic with the folder of rendered people")
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
    labels, watched = read_labelled(settings, body, report) if settings.labels else (None, None)
    rendered = None if settings.synthetic is None else read_rendered_people(settings.synthetic, body)
    prior = load_semantic_prior(body, files.prior_path()) if settings.weights.rendered else None
    path = required("regressor", str(files.regressor_name()), "this --regressor")
    check_body(body, path.name)
    network = load_hmr_checkpoint(path, settings.smpl_mean_params)
    pictures = settings.out / "pictures"
    return HmrTraining(
        body,
        network,
        [] if labels is None else [labels],
        options,
        semantic_prior=prior,
        rendered=rendered,
        watched=watched if watched is not None and len(watched) else None,
        pictures=pictures,
    )


def weights_of(given: LossWeights) -> HmrWeights:
    """DSR's weights times those given."""
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


def write(path: Path, module: HmrTraining) -> None:
    """By SPIN's names, as `--regressor` takes them."""
    save_hmr_checkpoint(path, module.network)
