"""Gravity: how bodies are held, what is known of the camera, and that a standing body comes out upright."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from test_least_squares import _problem, _state

from dsr_fit.config import CameraTilt, FitConfig, Weights
from dsr_fit.errors import UsageError
from dsr_fit.joints import mirrored_pose
from dsr_fit.optimise.least_squares import Problem, State, solve
from dsr_fit.priors.pose import load_pose_prior
from dsr_fit.priors.recorded_poses import load_poses
from dsr_fit.priors.tilt import ANYHOW, FEATURES, TiltPrior, Vertical, _with_gradient, energy
from dsr_fit.rotation import axis_angle_to_matrix
from dsr_fit.synthetic.staging import camera_rotation

FLIP = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))  # the world's axes in a level camera
USUAL = CameraTilt()


def _prior() -> TiltPrior:
    prior = load_pose_prior("learned").tilt
    assert prior is not None
    return prior.to(dtype=torch.float64)


def _vertical(count: int, pitch: float | None = None, roll: float | None = None) -> Vertical:
    return Vertical.of(torch.eye(3, dtype=torch.float64).expand(count, 3, 3), USUAL, pitch, roll)


def _recorded(held_out: bool, step: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """Roots (N, 3, 3) in a level camera, and poses (N, 69)."""
    poses = torch.from_numpy(load_poses().part(held_out).full_pose[::step]).double()
    return FLIP @ axis_angle_to_matrix(poses[:, :3]), poses[:, 3:]


def _one_gaussian() -> TiltPrior:
    """Of which the upward direction is always the pelvis's y."""
    count = len(FEATURES)
    one = torch.ones(1, dtype=torch.float64)
    up = torch.tensor([[0.0, 1.0, 0.0]], dtype=torch.float64)
    eye = torch.eye(count, dtype=torch.float64)[None]
    return TiltPrior(torch.zeros_like(eye[:, 0]), eye, 0 * one, up, torch.zeros_like(eye[:, :3]), 0.1 * one)


def test_up_is_the_rendered_cameras() -> None:
    for pitch, roll in ((0.0, 0.0), (20.0, 0.0), (0.0, 10.0), (-15.0, 30.0)):
        up = _vertical(1, pitch, roll).up[0]
        expected = camera_rotation(math.radians(pitch), math.radians(roll))[:, 1]
        torch.testing.assert_close(up, torch.from_numpy(expected))


def test_one_gaussian_costs_the_squared_angle_and_a_tail() -> None:
    angle = torch.tensor([0.0, 0.05, 0.2], dtype=torch.float64)
    zero = torch.zeros_like(angle)
    forwards = FLIP @ axis_angle_to_matrix(torch.stack([angle, zero, zero], 1))
    found = energy(_one_gaussian(), _vertical(3, 0.0, 0.0), forwards, torch.zeros(3, 69, dtype=torch.float64))
    pelvis, camera = 0.1**2, math.radians(USUAL.known_spread) ** 2
    squared = ((1 - angle.cos()) ** 2 / pelvis + angle.sin() ** 2 / (pelvis + camera)).neg() / 2
    peak = (1 - ANYHOW) / (2 * math.pi * (pelvis + camera))
    density = peak * squared.exp() + ANYHOW / (4 * math.pi)
    torch.testing.assert_close(found, -2 * torch.log(density / peak))


def test_an_unknown_camera_costs_less_than_a_known_one_and_bodies_anywhere_are_borne() -> None:
    tipped = FLIP @ axis_angle_to_matrix(torch.tensor([[0.3, 0.0, 0.0], [2.0, 0.0, 0.0]], dtype=torch.float64))
    pose = torch.zeros(2, 69, dtype=torch.float64)
    rise = {
        pitch: energy(_prior(), _vertical(2, pitch), tipped, pose)
        - energy(_prior(), _vertical(2, pitch), FLIP.expand(2, 3, 3), pose)
        for pitch in (None, 0.0)
    }
    assert rise[None][0] < rise[0.0][0]  # leaning by 17 degrees
    for values in rise.values():
        assert values[1] < 2 * math.log(1e4)  # lying on straight legs: unusual, not impossible


def test_the_gradient_is_that_of_finite_differences() -> None:
    generator = torch.Generator().manual_seed(0)
    root, pose = _recorded(held_out=True)
    turn = axis_angle_to_matrix(0.3 * torch.randn(len(root), 3, dtype=torch.float64, generator=generator))
    vertical = replace(_vertical(len(root)), axes=turn)
    inputs = [root.requires_grad_(), pose.requires_grad_()]
    torch.testing.assert_close(*_slopes(lambda r, p: energy(_prior(), vertical, r, p), inputs), atol=1e-5, rtol=1e-5)


def test_the_kernel_is_its_readable_twin() -> None:
    generator = torch.Generator().manual_seed(0)
    root, pose = _recorded(held_out=True)
    turn = axis_angle_to_matrix(0.3 * torch.randn(len(root), 3, dtype=torch.float64, generator=generator))
    vertical = replace(_vertical(len(root)), axes=turn)
    value, *gradients = _with_gradient(_prior(), vertical, root, pose)
    root, pose = root.requires_grad_(), pose.requires_grad_()
    found = energy(_prior(), vertical, root, pose)
    torch.testing.assert_close(found, value)  # both in double precision
    for ours, theirs in zip(torch.autograd.grad(found.sum(), [root, pose]), gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


def _slopes(function, inputs: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """The derivative along a random direction, by autograd and by central differences, for each row."""
    generator = torch.Generator().manual_seed(1)
    directions = [torch.randn(each.shape, dtype=each.dtype, generator=generator) for each in inputs]
    gradients = torch.autograd.grad(function(*inputs).sum(), inputs)
    analytic = sum((g * d).flatten(1).sum(1) for g, d in zip(gradients, directions, strict=True))
    with torch.no_grad():
        ahead, behind = (
            function(*(each + step * d for each, d in zip(inputs, directions, strict=True))) for step in (1e-6, -1e-6)
        )
    return torch.as_tensor(analytic), (ahead - behind) / 2e-6


def test_mirror_images_cost_the_same() -> None:
    poses = load_poses().part(True).full_pose[::40].astype(np.float64)
    costs = []
    for each in (poses, mirrored_pose(poses)):
        root = FLIP @ axis_angle_to_matrix(torch.from_numpy(each[:, :3]))
        costs.append(energy(_prior(), _vertical(len(each)), root, torch.from_numpy(each[:, 3:])))
    torch.testing.assert_close(costs[0], costs[1], atol=1e-4, rtol=1e-4)


def test_recorded_people_are_held_as_people_are() -> None:
    """Seen as recorded they cost less than tipped by 40 degrees, which is beyond all cameras."""
    root, pose = _recorded(held_out=True)
    tipped = axis_angle_to_matrix(torch.tensor([math.radians(40), 0.0, 0.0], dtype=torch.float64)) @ root
    vertical = _vertical(len(root))
    assert (
        float((energy(_prior(), vertical, root, pose) < energy(_prior(), vertical, tipped, pose)).double().mean()) > 0.8
    )


def test_nobody_is_rounded_by_the_others() -> None:
    root, pose = (each.float() for each in _recorded(held_out=True))
    prior, vertical = _prior().to(dtype=torch.float32), _vertical(len(root)).to(dtype=torch.float32)
    together = energy(prior, vertical, root, pose)
    row = torch.tensor([3])
    assert torch.equal(energy(prior, vertical.rows(row), root[row], pose[row]), together[row])


def _tilted_problem(truth: State, weights: Weights) -> Problem:
    prior = replace(load_pose_prior().to(dtype=torch.float64), tilt=_one_gaussian())
    return replace(
        _problem(truth, world=False, weights=weights), pose_prior=prior, vertical=_vertical(len(truth.betas))
    )


def test_least_squares_follows_one_gaussian_exactly() -> None:
    problem, state = _tilted_problem(_state(2, 0.3, seed=1), Weights(tilt=0.3)), _state(2, 0.3, seed=2)
    leant = axis_angle_to_matrix(torch.tensor([0.2, 0.0, 0.1], dtype=torch.float64))
    state = replace(state, rotations=torch.cat([leant @ state.rotations[:, :1], state.rotations[:, 1:]], 1))
    residuals, jacobian = problem.linearise(state)
    analytic = 2 * (jacobian.transpose(1, 2) @ residuals[..., None])[..., 0]
    at = torch.zeros(2, 85, dtype=torch.float64)
    numeric = torch.autograd.functional.jacobian(lambda delta: problem.energy(state.moved(delta)).sum(), at)
    torch.testing.assert_close(analytic, numeric, atol=1e-6, rtol=1e-6)


def test_a_body_of_which_nothing_is_seen_comes_out_upright() -> None:
    state = _state(3, 0.0)
    lean = axis_angle_to_matrix(torch.tensor([[0.5, 0.0, 0.0], [0.0, 0.0, 0.4], [-0.3, 0.0, 0.3]], dtype=torch.float64))
    leant = replace(state, rotations=torch.cat([lean[:, None] @ state.rotations[:, :1], state.rotations[:, 1:]], 1))
    problem = _tilted_problem(state, Weights(keypoints=0.0, world_landmarks=0.0, tilt=1.0))
    problem = replace(problem, vertical=_vertical(3, 10.0, 0.0))
    found = solve(problem, leant, 40, 1e-3)
    up = found.rotations[:, 0] @ torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    assert float(torch.rad2deg(torch.acos((up * problem.vertical.up).sum(1).clamp(-1, 1))).max()) < 0.5  # type: ignore[union-attr]


def test_tilts_that_no_camera_has_are_refused() -> None:
    with pytest.raises(UsageError, match="pitch is 200"):
        FitConfig(pitch=200.0)
    with pytest.raises(UsageError, match="roll is nan"):
        FitConfig(roll=math.nan)
    with pytest.raises(UsageError, match="pitch_spread is 0"):
        CameraTilt(pitch_spread=0.0)
