"""The benchmark of rendered clothed people: their observations, and errors of bodies against the ground truth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from dsr_fit.body.parameters import Parameters
from dsr_fit.boxes import joint_area, keypoint_box, shared_area
from dsr_fit.camera import Crop, project, ray_rotation
from dsr_fit.errors import InputError
from dsr_fit.evaluate import PerceptionKind, metrics
from dsr_fit.fitting.fitter import Fitter
from dsr_fit.fitting.result import FitResult
from dsr_fit.observation import Detection, Observation
from dsr_fit.observe.perception import Perception
from dsr_fit.rotation import angle_between, axis_angle_to_matrix
from dsr_fit.synthetic import ClothedCase
from dsr_fit.synthetic.dataset import read_case

TUNING_SEED = 0
"""First seeds of the cases for tuning, and of those for reported figures."""

# Errors of MediaPipe's 3D landmarks on 43 tuning cases: rotation about the camera's axes, scale, and scatter.
TURN_SD = np.radians([7.0, 10.0, 2.5])
SCALE_SD = 0.07
SCATTER_SD = 0.045  # metres per axis

SAME_PERSON = 0.4  # IoU of the keypoints' boxes; below it the detector found someone else
PCK_THRESHOLD = 0.05  # of the longer side of the true keypoints' box
METRICS: dict[str, str] = {
    "area_inflation": "area inflation, %",
    "t_pose_pve_sc": "T-pose PVE, scale removed, mm",
    "t_pose_pve": "T-pose PVE, mm",
    "pve": "PVE, mm",
    "pa_pve": "PA-PVE, mm",
    "mpjpe": "MPJPE, mm",
    "pa_mpjpe": "PA-MPJPE, mm",
    "angle": "joint angle error, deg",
    "mask_iou": "IoU with the true body, %",
    "pck": f"PCK at {100 * PCK_THRESHOLD:.0f} % of the box, %",
}
CASE_METRICS = (*METRICS, "orientation")

Values = dict[str, np.ndarray]
"""Metric -> (N,), NaN where unknown."""


@dataclass(frozen=True)
class ObservedCase:
    """A case's seed and its observation."""

    seed: int
    observation: Observation | None
    reason: str = ""  # why there is no observation


def observe_truth(case: ClothedCase, noise: float) -> Observation:
    """True labels, focal length and visible keypoints with Gaussian noise; 3D landmarks as wrong as MediaPipe's.

    `noise` is the standard deviation per axis, relative to the longer side of the keypoints' box; it is fixed by the
    seed.
    """
    rng = np.random.default_rng(case.seed)
    visible = case.keypoint_visibility[:25]
    focal, _, cx, cy = case.intrinsics
    pixels = case.joints[:25, :2] / case.joints[:25, 2:] * focal + (cx, cy)
    side = np.ptp(pixels[visible], axis=0).max()
    keypoints = np.zeros((49, 3), np.float32)
    keypoints[:25, :2] = pixels + rng.normal(0, noise * side, (25, 2))
    keypoints[:25, 2] = visible
    turn = Rotation.from_rotvec(rng.normal(0, TURN_SD)).as_matrix()
    straight = ray_rotation(Crop.around(keypoints), focal, (cx, cy)).numpy()
    about_hips = (case.joints[:25] - case.joints[8]) @ straight.T
    world = np.zeros((49, 4), np.float32)
    world[:25, :3] = about_hips @ turn.T * np.exp(rng.normal(0, SCALE_SD)) + rng.normal(0, SCATTER_SD, (25, 3))
    world[:25, 3] = visible
    keypoints[~(keypoints[:, 2] > 0)] = 0
    detection = Detection(keypoints, world, source="truth")
    return Observation(case.image, detection, case.labels, "truth", focal)


def observe_image(case: ClothedCase, image: Path, perception: Perception) -> ObservedCase:
    """By detector and parser, from the image alone; no observation if the person is missed or someone else found."""
    try:
        observation = perception.observe(image)
    except InputError as error:
        return ObservedCase(case.seed, None, str(error).replace(f"{image.parent}/", ""))
    true_box, box = keypoint_box(case.keypoints), keypoint_box(observation.detection.keypoints)
    if shared_area(true_box, box) < SAME_PERSON * joint_area(true_box, box):
        return ObservedCase(case.seed, None, "the detector chose somebody else")
    return ObservedCase(case.seed, observation)


def observe_cases(
    folder: Path, seeds: Sequence[int], kind: PerceptionKind, noise: float, perception: Perception | None = None
) -> Iterator[ObservedCase]:
    """Observe each case of a folder, from its truth (`perfect`) or its image (`whole`)."""
    perception = perception or Perception()
    for seed in seeds:
        case = read_case(folder, seed)
        if kind == "perfect":
            yield ObservedCase(seed, observe_truth(case, noise))
        else:
            yield observe_image(case, folder / f"{seed:06d}.png", perception)


def fit_all(fitter: Fitter, observations: Sequence[Observation], batch_size: int = 16) -> Iterator[FitResult]:
    """Fit in batches; results are in order."""
    for start in range(0, len(observations), batch_size):
        yield from fitter.fit(list(observations[start : start + batch_size]))


@torch.no_grad()
def case_metrics(fitter: Fitter, case: ClothedCase, found: Parameters) -> dict[str, float]:
    """`METRICS` of one body (parameters with a batch of 1) against the case's truth.

    Joints are SMPL's 24; PVE and MPJPE are about the pelvis. Areas and masks are of the unclothed bodies, ignoring
    occluders; the body is drawn with the case's camera (see `at_focal`).
    """
    true = case.parameters()
    ours, theirs = found.pose(fitter.body), true.pose(fitter.body)
    joints, true_joints = ours.joints(), theirs.joints()
    vertices, true_vertices = ours.vertices(), theirs.vertices()
    intrinsics = torch.tensor([case.intrinsics]).float()
    pixels, true_pixels = (project(each.keypoints[:, :25], intrinsics) for each in (ours, theirs))
    height, width = case.labels.shape
    mask, true_mask = (fitter.renderer(v, intrinsics, (height, width)).mask for v in (vertices, true_vertices))
    visible = torch.from_numpy(case.keypoint_visibility[None, :25])
    side = (true_pixels[visible].amax(0) - true_pixels[visible].amin(0)).max()[None]
    values = {
        "area_inflation": 100 * metrics.area_inflation(mask, true_mask),
        "t_pose_pve_sc": metrics.t_pose_pve(found.betas, true.betas, fitter.body, scale_corrected=True),
        "t_pose_pve": metrics.t_pose_pve(found.betas, true.betas, fitter.body),
        "pve": metrics.pve(vertices, true_vertices, joints[:, 0], true_joints[:, 0]),
        "pa_pve": metrics.pa_pve(vertices, true_vertices),
        "mpjpe": metrics.mpjpe(joints, true_joints),
        "pa_mpjpe": metrics.pa_mpjpe(joints, true_joints),
        "angle": metrics.joint_angle_error(_rotations(found), _rotations(true)),
        "mask_iou": 100 * metrics.mask_iou(mask, true_mask),
        "pck": 100 * metrics.pck(pixels, true_pixels, visible, PCK_THRESHOLD, side),
    }
    return {name: float(value) for name, value in values.items()}


def metrics_on_cases(
    fitter: Fitter,
    folder: Path,
    seeds: Sequence[int],
    bodies: Sequence[Parameters | None],
    focal_lengths: Sequence[float],
) -> Values:
    """`CASE_METRICS` of bodies, placed by cameras with these focal lengths in pixels; NaN where there is no body."""

    def measured(case: ClothedCase, parameters: Parameters, focal: float) -> dict[str, float]:
        values = case_metrics(fitter, case, at_focal(parameters, focal, case.focal_length))
        turned = angle_between(*(axis_angle_to_matrix(each.global_orient) for each in (parameters, case.parameters())))
        return {**values, "orientation": float(turned.rad2deg())}

    people = zip(seeds, bodies, focal_lengths, strict=True)
    rows = [None if body is None else measured(read_case(folder, seed), body, focal) for seed, body, focal in people]
    return to_columns(rows, CASE_METRICS)


@torch.no_grad()
def vertex_errors(fitter: Fitter, folder: Path, seeds: Sequence[int], bodies: Sequence[Parameters]) -> np.ndarray:
    """(N,) PVE alone, mm; independent of the camera."""

    def pve(*both: Parameters) -> float:
        ours, theirs = (each.pose(fitter.body) for each in both)
        return float(metrics.pve(ours.vertices(), theirs.vertices(), ours.joints()[:, 0], theirs.joints()[:, 0]))

    people = zip(bodies, seeds, strict=True)
    return np.array([pve(body, read_case(folder, seed).parameters()) for body, seed in people])


def to_columns(rows: Sequence[Mapping[str, float] | None], names: Sequence[str]) -> Values:
    """Name -> (N,), NaN where a row is None."""
    return {name: np.array([np.nan if row is None else row[name] for row in rows], np.float64) for name in names}


def at_focal(parameters: Parameters, own: float, other: float) -> Parameters:
    """The depth rescaled from one focal length to another, so the body has the same size in pixels."""
    return replace(parameters, cam_t=parameters.cam_t * torch.tensor([1.0, 1.0, other / own]))


def run(fitter: Fitter, folder: Path, observed: Sequence[ObservedCase]) -> Iterator[dict[str, float]]:
    """`case_metrics` of the fit of every case that has an observation, in order."""
    pairs = [(item.seed, item.observation) for item in observed if item.observation is not None]
    results = fit_all(fitter, [observation for _, observation in pairs])
    for (seed, _), result in zip(pairs, results, strict=True):
        case = read_case(folder, seed)
        yield case_metrics(fitter, case, at_focal(result.parameters(), result.focal_length, case.focal_length))


def _rotations(parameters: Parameters) -> Tensor:
    return axis_angle_to_matrix(parameters.full_pose.unflatten(1, (24, 3)))
