"""Evaluation of a regressor: its estimates, and the fits that start from them, one value per person.

On annotated photos both are compared with the annotation; on rendered people, seen through the whole pipeline, with the
true bodies. Two regressors' values on the same people can be compared pairwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from dsr_fit.body.parameters import Parameters
from dsr_fit.config import Weights
from dsr_fit.dataset.progress import Report
from dsr_fit.dataset.run import Resources
from dsr_fit.dataset.schema import Row
from dsr_fit.dataset.settings import Settings
from dsr_fit.errors import InputError
from dsr_fit.evaluate import ccp
from dsr_fit.evaluate.benchmark import Values, metrics_on_cases, to_columns
from dsr_fit.evaluate.cached_source import CachedSource, row_parameters, seed_of
from dsr_fit.evaluate.metrics import implausible_joints
from dsr_fit.fitting import metrics as fit_metrics
from dsr_fit.fitting.fitter import Fitter
from dsr_fit.io.files import read_arrays, replacing
from dsr_fit.observation import Observation
from dsr_fit.observe.batch import Batch
from dsr_fit.regressor.protocol import Regressor

PHOTO_METRICS = (
    "keypoint_error_rel", "containment", "area_ratio", "mc_iou", "silhouette_iou", "implausible_joints",
)  # fmt: skip
BATCH = 64


@dataclass(frozen=True)
class EvaluationSets:
    """What a regressor is evaluated on; either may be missing."""

    photos: CachedSource | None = None
    """Clothing Co-Parsing (`dsr_fit.evaluate.cached_source.photo_source`)."""
    cases: CachedSource | None = None
    """Rendered people (`dsr_fit.evaluate.cached_source.case_source`)."""


def evaluate(
    settings: Settings,
    sets: EvaluationSets,
    out: Path,
    resources: Resources | None = None,
    report: Report | None = None,
) -> None:
    """Evaluate the regressor of these settings; writes `photos.npz` and `cases.npz` unless they exist.

    `name` (P,) are the images of the people whom the detector found. `estimate_METRIC` and `fit_METRIC` (P,) are
    `PHOTO_METRICS` or `benchmark.CASE_METRICS`, NaN where unknown; also `estimate_energy`, `fit_energy` (the weighted
    sum of all terms) and `fit_iterations`. Fits are kept in `out`, so an interrupted run is resumed.
    Raises: see `dsr_fit.dataset.run.run`.
    """
    for kind, people in (("photos", sets.photos), ("cases", sets.cases)):
        path = out / f"{kind}.npz"
        if people is None or path.exists():
            continue
        rows = list(people.fit(settings, out / kind, resources, report))
        fitter = settings.fitter()
        observations = [people.observation(row["imgname"], fitter.regressor.needs_image) for row in rows]
        pairs = [(row, item) for row, item in zip(rows, observations, strict=True) if item is not None]
        if not pairs:
            raise InputError(f"{people.source.images}: the detector finds nobody in its {len(rows)} images")
        on_photos = people is sets.photos
        values = _values(fitter, people, on_photos, [row for row, _ in pairs], [item for _, item in pairs])
        with replacing(path, durable=True) as temporary:
            np.savez(temporary, **values)  # type: ignore[arg-type]


def read_values(path: Path) -> Values:
    """What `evaluate` wrote. Raises InputError for a file that is damaged or something else."""
    try:
        values = read_arrays(path)
        if not isinstance(values, dict) or "name" not in values:
            raise ValueError("no `name`")
    except ValueError as error:
        raise InputError(f"{path}: not the values of an evaluation ({error}); remove it, and run again") from None
    return values


def estimate(regressor: Regressor, keypoint_valid: torch.Tensor, people: Sequence[Observation]) -> list[Parameters]:
    """The regressor's estimates, each a batch of 1 on the CPU. `keypoint_valid` (49,) is the body's."""
    found: list[Parameters] = []
    for start in range(0, len(people), BATCH):
        batch = Batch(list(people[start : start + BATCH]), crop_camera=False, keypoint_valid=keypoint_valid)
        parameters = regressor(batch).parameters
        found += [parameters.map(lambda value, row=row: value[row : row + 1].cpu()) for row in range(len(batch))]
    return found


@torch.no_grad()
def metrics_on_photos(fitter: Fitter, bodies: Sequence[Parameters | None], annotated: Sequence[Observation]) -> Values:
    """`PHOTO_METRICS` of bodies (a batch of 1 each) against the annotation; NaN where there is no body.

    The fitter's semantic prior says which parts of a body are minimally clothed.
    """

    def measured(parameters: Parameters, truth: Observation) -> dict[str, float]:
        batch = Batch([truth], crop_camera=False, keypoint_valid=fitter.body.skeleton.keypoint_valid)
        shared = (parameters, fitter.body, batch, fitter.renderer, fitter.semantic_prior)
        masks = fit_metrics.hard_masks(*shared)
        return {
            **{name: float(value) for name, value in fit_metrics.metrics(*shared).items()},
            "area_ratio": float(masks.body.sum() / masks.person.sum()),
            "implausible_joints": float(implausible_joints(parameters.body_pose)),
        }

    pairs = zip(bodies, annotated, strict=True)
    return to_columns([None if body is None else measured(body, truth) for body, truth in pairs], PHOTO_METRICS)


def _values(
    fitter: Fitter, people: CachedSource, on_photos: bool, rows: list[Row], observations: list[Observation]
) -> Values:
    bodies: dict[str, Sequence[Parameters | None]] = {
        "estimate": estimate(fitter.regressor, fitter.body.skeleton.keypoint_valid, observations),
        "fit": [row_parameters(row) for row in rows],
    }
    names = [row["imgname"] for row in rows]
    if on_photos:
        folder = people.source.images.parent
        labels = [
            ccp.read_annotation(folder, Path(name).stem, item.detection.keypoints)
            for name, item in zip(names, observations, strict=True)
        ]
        truth = [
            replace(item, labels=each, labels_source="annotation")
            for item, each in zip(observations, labels, strict=True)
        ]
        measured = {who: metrics_on_photos(fitter, each, truth) for who, each in bodies.items()}
    else:
        folder, seeds = people.source.images, [seed_of(name) for name in names]
        focal_lengths = [item.focal_length for item in observations]
        measured = {who: metrics_on_cases(fitter, folder, seeds, each, focal_lengths) for who, each in bodies.items()}
    measured["estimate"]["energy"] = np.array([_energy(row, fitter.config.weights, "_initial") for row in rows])
    measured["fit"]["energy"] = np.array([_energy(row, fitter.config.weights, "") for row in rows])
    measured["fit"]["iterations"] = np.array([row["iterations"] for row in rows], np.float64)
    columns = {f"{who}_{name}": array for who, values in measured.items() for name, array in values.items()}
    return {"name": np.array(names), **columns}


def _energy(row: Row, weights: Weights, when: str) -> float:
    """The weighted sum of all terms of a row; NaN without a fit."""
    terms = [(weight, row[f"energy_{name}{when}"]) for name, weight in vars(weights).items() if weight > 0]
    return float(sum(weight * (np.nan if value is None else value) for weight, value in terms))
