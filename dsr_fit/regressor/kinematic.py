"""The regressor without weights: inverse kinematics to the detector's 3D landmarks, camera from the 2D keypoints.

For bodies without a trained regressor. Without 3D landmarks, the mean pose is fitted to the keypoints from several
headings, and the fit of lowest energy is returned.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NoReturn

import torch
from torch import Tensor

from dsr_fit.body.body import Body
from dsr_fit.camera import translation_from_keypoints
from dsr_fit.config import FitConfig, LeastSquares
from dsr_fit.errors import UsageError
from dsr_fit.joints import KEYPOINT_INDEX
from dsr_fit.observe.batch import Batch, Points
from dsr_fit.optimise.least_squares import POSE, Problem, State, solve
from dsr_fit.priors.pose import load_pose_prior
from dsr_fit.regressor.protocol import Estimate
from dsr_fit.rotation import axis_angle_to_matrix

SHOULDERS = [KEYPOINT_INDEX[name] for name in ("LShoulder", "RShoulder", "Left Shoulder", "Right Shoulder")]
HIPS = [KEYPOINT_INDEX[name] for name in ("LHip", "RHip", "Left Hip", "Right Hip")]
LIMB_SHARE = 0.05


class KinematicRegressor:
    """Estimates any body (`Regressor`)."""

    name = fingerprint = "kinematic"
    needs_image = False
    people_at_once = None
    eft_learning_rate = 0.0

    def __init__(self, body: Body, config: FitConfig) -> None:
        self.skeleton, self.pose_prior = body.skeleton, load_pose_prior("ranges")
        # The peak of straight limbs would hold knees that start near it.
        weights = replace(config.weights, pose=config.least_squares.pose, straight=0.0, initial=0.0, initial_points=0.0)
        self.config = replace(config, weights=weights)

    def problem(self, batch: Batch) -> Problem:
        """With the wide pose prior: a mixture would keep a body in the component that it starts in."""
        return Problem.of(batch, self.skeleton, self.pose_prior, self.config)

    def __call__(self, batch: Batch) -> Estimate:
        return Estimate(estimate(self.problem(batch), self.config.least_squares).parameters())

    def start(self, batch: Batch, estimate: Estimate) -> State:
        """The estimate fitted to all observed points, still with the wide pose prior."""
        settings = self.config.least_squares
        return solve(self.problem(batch), State.of(estimate.parameters), settings.steps, settings.damping)

    def variables(self, batch: Batch, layers: tuple[str, ...]) -> NoReturn:
        """Raises UsageError, as `movable` does."""
        self.movable(layers)

    def movable(self, layers: tuple[str, ...]) -> NoReturn:
        """Raises UsageError: it has no weights."""
        raise UsageError(
            "the kinematic estimate has no weights to fit; give a --regressor, or leave it out for the open body's own"
        )


def estimate(problem: Problem, settings: LeastSquares) -> State:
    """Initial pose, mean shape and translation of every person of the problem."""
    has_world = (problem.points.world_confidence > 0).sum(1) >= 4
    headings = 1 if bool(has_world.all()) else settings.headings
    trials = problem.repeat(headings)
    state = State(
        _start_rotations(trials, has_world.repeat_interleave(headings), headings),
        torch.zeros_like(trials.points.pixels[:, :10, 0]),
        torch.zeros_like(trials.points.world[:, 0]),
    )
    in_3d = replace(trials, weights=replace(trials.weights, keypoints=0.0))
    state = solve(in_3d, state, settings.pose_steps, settings.damping, free=POSE)
    state = replace(state, cam_t=_translation(trials, state))
    if headings == 1:
        return state
    fitted = solve(trials, state, settings.steps, settings.damping)
    energy = trials.energy(fitted).nan_to_num(nan=torch.inf).view(-1, headings)
    best = torch.arange(len(energy), device=energy.device) * headings + energy.argmin(1)
    return fitted.rows(best).where(~has_world, state.rows(best))


def _translation(problem: Problem, state: State) -> Tensor:
    points = problem.points
    keypoints = problem.skeleton.keypoints(state.rotations, state.betas)
    return translation_from_keypoints(keypoints, points.pixels, points.confidence.square(), points.intrinsics)


def _start_rotations(problem: Problem, has_world: Tensor, headings: int) -> Tensor:
    """(B, 24, 3, 3): the prior's mean pose, rotated to the 3D landmarks, or upright and facing one of the headings."""
    points, prior = problem.points, problem.pose_prior
    body = axis_angle_to_matrix(prior.center.unflatten(0, (23, 3))).expand(len(has_world), -1, -1, -1)
    eye = torch.eye(3, dtype=body.dtype, device=body.device).expand(len(has_world), 1, 3, 3)
    rotations = torch.cat([eye, body], 1)
    aligned = _align(problem.skeleton.keypoints(rotations, body.new_zeros(len(body), 10)), points)
    upright = _upright(points, headings)
    return torch.cat([torch.where(has_world[:, None, None], aligned, upright)[:, None], body], 1)


def _align(keypoints: Tensor, points: Points) -> Tensor:
    """Rotation (B, 3, 3) that aligns `keypoints` (B, 49, 3) with the 3D landmarks by least squares (Kabsch).

    The torso has nearly all of the weight, since limbs have a pose of their own; they matter where fewer than three of
    its points are observed.
    """
    weights = points.world_confidence.square() * LIMB_SHARE
    weights[:, SHOULDERS + HIPS] /= LIMB_SHARE
    share = (weights / weights.sum(1, keepdim=True).clamp(min=1e-9))[..., None]
    source = keypoints - (share * keypoints).sum(1, keepdim=True)
    target = points.world - (share * points.world).sum(1, keepdim=True)
    u, _, vh = torch.linalg.svd((share * target).transpose(1, 2) @ source)
    sign = torch.linalg.det(u @ vh)
    flip = torch.diag_embed(torch.stack([torch.ones_like(sign), torch.ones_like(sign), sign], -1))
    return u @ flip @ vh


def _upright(points: Points, headings: int) -> Tensor:
    """Rotations (B, 3, 3) of a body whose spine follows the image's torso, turned to each heading in a row."""
    shoulder = _mean_point(points, SHOULDERS)
    hip = _mean_point(points, HIPS)
    spine = torch.where(torch.isnan(shoulder - hip), points.pixels.new_tensor([0.0, -1.0]), shoulder - hip)
    roll = torch.atan2(spine[:, 0], -spine[:, 1])
    count = len(roll)
    turn = torch.arange(count, device=roll.device) % headings * (2 * math.pi / headings)
    zero = torch.zeros_like(roll)
    to_camera = axis_angle_to_matrix(torch.stack([zero + math.pi, zero, zero], 1))
    rolled = axis_angle_to_matrix(torch.stack([zero, zero, roll], 1))
    turned = axis_angle_to_matrix(torch.stack([zero, turn.to(roll.dtype), zero], 1))
    return rolled @ to_camera @ turned


def _mean_point(points: Points, slots: list[int]) -> Tensor:
    """(B, 2) mean of the observed among these slots; NaN where none is."""
    weights = points.confidence[:, slots, None]
    return (weights * points.pixels[:, slots]).sum(1) / weights.sum(1)
