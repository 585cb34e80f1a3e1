"""Bodies judged, whoever estimated them: on annotated photos, and on rendered people whose bodies are known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from dsr_fit.body.parameters import Parameters
from dsr_fit.evaluate import metrics
from dsr_fit.evaluate.benchmark import METRICS, at_focal, judge
from dsr_fit.evaluate.metrics import implausible_joints
from dsr_fit.fitting import metrics as quality
from dsr_fit.fitting.fitter import Fitter
from dsr_fit.fitting.result import FitResult
from dsr_fit.observation import Observation
from dsr_fit.observe.batch import Batch
from dsr_fit.regressor.protocol import Regressor
from dsr_fit.rotation import angle_between, axis_angle_to_matrix
from dsr_fit.synthetic.dataset import read_case

ON_PHOTOS = ("keypoint_error_rel", "containment", "area_ratio", "mc_iou", "silhouette_iou", "implausible_joints")
ON_CASES = (*METRICS, "orientation")
BATCH = 64

Values = dict[str, np.ndarray]
"""Metric -> (N,), NaN where there is nothing to judge by."""


def estimate(regressor: Regressor, keypoint_valid: torch.Tensor, told: Sequence[Observation]) -> list[Parameters]:
    """The regressor's bodies as they are, a batch of 1 each on the CPU. `keypoint_valid` (49,) is the body's."""
    found: list[Parameters] = []
    for start in range(0, len(told), BATCH):
        batch = Batch(list(told[start : start + BATCH]), crop_camera=False, keypoint_valid=keypoint_valid)
        parameters = regressor(batch).parameters
        found += [parameters.map(lambda value, row=row: value[row : row + 1].cpu()) for row in range(len(batch))]
    return found


@torch.no_grad()
def judge_on_photos(umpire: Fitter, bodies: Sequence[Parameters], annotated: Sequence[Observation]) -> Values:
    """Metrics of `ON_PHOTOS` against the annotation; the umpire's semantic prior says what a body shows bare."""
    rows = []
    for parameters, truth in zip(bodies, annotated, strict=True):
        batch = Batch([truth], crop_camera=False, keypoint_valid=umpire.body.skeleton.keypoint_valid)
        shared = (parameters, umpire.body, batch, umpire.renderer, umpire.semantic_prior)
        masks = quality.hard_masks(*shared)
        measured = {name: float(value) for name, value in quality.metrics(*shared).items()}
        measured["area_ratio"] = float(masks.body.sum() / masks.person.sum())
        measured["implausible_joints"] = float(implausible_joints(parameters.body_pose))
        rows.append(measured)
    return _columns(rows, ON_PHOTOS)


def judge_on_cases(
    umpire: Fitter, folder: Path, seeds: Sequence[int], bodies: Sequence[Parameters], focal_lengths: Sequence[float]
) -> Values:
    """Metrics of `ON_CASES` against the truth. `focal_lengths`: those that the bodies were placed with, pixels."""
    rows = []
    for seed, parameters, focal in zip(seeds, bodies, focal_lengths, strict=True):
        case = read_case(folder, seed)
        true = torch.from_numpy(case.global_orient)[None]
        turned = angle_between(*(axis_angle_to_matrix(each) for each in (parameters.global_orient, true)))
        values = judge(umpire, case, at_focal(parameters, focal, case.focal_length))
        rows.append({**values, "orientation": float(turned.rad2deg())})
    return _columns(rows, ON_CASES)


@torch.no_grad()
def vertex_errors(umpire: Fitter, folder: Path, seeds: Sequence[int], bodies: Sequence[Parameters]) -> np.ndarray:
    """(N,) PVE alone, mm, which no camera matters to."""
    errors = []
    for seed, parameters in zip(seeds, bodies, strict=True):
        case = read_case(folder, seed)
        true = Parameters(*(torch.from_numpy(getattr(case, name))[None] for name in vars(parameters)))
        ours, theirs = (each.pose(umpire.body) for each in (parameters, true))
        pelvises = ours.joints()[:, 0], theirs.joints()[:, 0]
        errors.append(float(metrics.pve(ours.vertices(), theirs.vertices(), *pelvises)))
    return np.array(errors)


def bodies_of(results: Sequence[FitResult]) -> list[Parameters]:
    return [result.parameters() for result in results]


def _columns(rows: Sequence[dict[str, float]], names: Sequence[str]) -> Values:
    return {name: np.array([row[name] for row in rows], np.float64) for name in names}
