"""Levenberg-Marquardt: its Jacobian against automatic differentiation, and known bodies found again."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from bodies import stick_body
from scenes import open_body

from dsr_fit.camera import project
from dsr_fit.config import LeastSquares, Scales, Weights
from dsr_fit.joints import KEYPOINT_INDEX
from dsr_fit.observe.batch import Points
from dsr_fit.optimise.anchor import Anchor
from dsr_fit.optimise.least_squares import Problem, State, keypoint_jacobian, solve
from dsr_fit.priors.pose import PosePrior, load_pose_prior
from dsr_fit.regressor import kinematic
from dsr_fit.rotation import axis_angle_to_matrix
from dsr_fit.terms import priors
from dsr_fit.terms.residual import Dual

INTRINSICS = torch.tensor([[1000.0, 1000.0, 300.0, 400.0]], dtype=torch.float64)


def _state(batch: int, spread: float, seed: int = 0) -> State:
    generator = torch.Generator().manual_seed(seed)
    prior = load_pose_prior().to(dtype=torch.float64)
    noise = torch.randn(batch, 23, 3, dtype=torch.float64, generator=generator)
    body = axis_angle_to_matrix(prior.center.view(23, 3) + spread * prior.std.view(23, 3) * noise)
    heading = 2 * math.pi * torch.arange(batch, dtype=torch.float64) / max(batch, 1) * 0.2
    zero = torch.zeros_like(heading)
    orient = axis_angle_to_matrix(torch.stack([zero + math.pi, zero, zero], 1)) @ axis_angle_to_matrix(
        torch.stack([zero, heading, zero], 1)
    )
    betas = spread * torch.randn(batch, 10, dtype=torch.float64, generator=generator)
    cam_t = torch.tensor([[0.1, 0.0, 4.0]], dtype=torch.float64).expand(batch, -1)
    return State(torch.cat([orient[:, None], body], 1), betas, cam_t)


def _problem(truth: State, world: bool, weights: Weights | None = None) -> Problem:
    skeleton = stick_body().skeleton.to(dtype=torch.float64)
    keypoints = skeleton.keypoints(truth.rotations, truth.betas)
    intrinsics = INTRINSICS.expand(len(keypoints), -1)
    pixels = project(keypoints + truth.cam_t[:, None], intrinsics)
    ones = skeleton.keypoint_valid.double().expand(len(pixels), -1)
    box = (pixels.amax(1) - pixels.amin(1)).amax(1)
    points = Points(pixels, ones, box, keypoints, ones * world, intrinsics)
    prior = load_pose_prior().to(dtype=torch.float64)
    return Problem(skeleton, points, prior, weights or Weights(), Scales())


def _anchor(state: State, spread: torch.Tensor) -> Anchor:
    skeleton = stick_body().skeleton.to(dtype=torch.float64)
    valid = skeleton.keypoint_valid.double().expand(len(spread), -1)
    keypoints = skeleton.keypoints(state.rotations, state.betas)
    return Anchor(state.rotations, state.betas, spread, keypoints, valid / valid.sum(1, keepdim=True))


def _closeness(state: State, anchor: Anchor) -> torch.Tensor:
    turn = priors.turned(state.rotations, anchor.rotations)
    return priors.initial(Dual(turn), anchor.spread, Dual(state.betas - anchor.betas)).energy()


def test_keypoint_jacobian_is_the_derivative() -> None:
    state = _state(1, 1.0)
    skeleton = stick_body().skeleton.to(dtype=torch.float64)

    def keypoints(delta: torch.Tensor) -> torch.Tensor:
        moved = state.moved(delta[None])
        return (skeleton.keypoints(moved.rotations, moved.betas) + moved.cam_t[:, None])[0]

    numeric = torch.autograd.functional.jacobian(keypoints, torch.zeros(85, dtype=torch.float64), vectorize=True)
    torch.testing.assert_close(keypoint_jacobian(skeleton, state)[1][0], numeric, atol=1e-9, rtol=0)


@pytest.mark.parametrize("spread", [0.3, 1.5])
def test_residuals_are_the_energy_and_their_jacobian_its_gradient(spread: float) -> None:
    # Robust weights make the residuals' square differ from the energy, never the gradient.
    problem, state = _problem(_state(2, spread, seed=1), world=True), _state(2, spread, seed=2)
    residuals, jacobian = problem.linearise(state)
    analytic = 2 * (jacobian.transpose(1, 2) @ residuals[..., None])[..., 0]

    def energy(delta: torch.Tensor) -> torch.Tensor:
        return problem.energy(state.moved(delta)).sum()

    numeric = torch.autograd.functional.jacobian(energy, torch.zeros(2, 85, dtype=torch.float64))
    torch.testing.assert_close(analytic, numeric, atol=1e-6, rtol=1e-6)  # series near zero angle


def test_closeness_to_an_estimate_is_followed_exactly() -> None:
    problem, state, estimate = (_problem(_state(2, 0.3, seed=1), True), _state(2, 0.3, seed=2), _state(2, 0.4, seed=3))
    spread = 0.05 + torch.rand(2, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    anchor = _anchor(estimate, spread)
    problem = replace(problem, weights=Weights(initial=0.7, initial_points=0.4), anchor=anchor)
    residuals, jacobian = problem.linearise(state)
    analytic = 2 * (jacobian.transpose(1, 2) @ residuals[..., None])[..., 0]
    at = torch.zeros(2, 85, dtype=torch.float64)
    numeric = torch.autograd.functional.jacobian(lambda delta: problem.energy(state.moved(delta)).sum(), at)
    torch.testing.assert_close(analytic, numeric, atol=1e-6, rtol=1e-6)
    without = replace(problem, weights=Weights(initial=0.0, initial_points=0.0)).energy(state)
    moved = problem.skeleton.keypoints(state.rotations, state.betas) - anchor.keypoints
    moved = moved - (anchor.shares[..., None] * moved).sum(1, keepdim=True)
    apart = (anchor.shares[..., None] * (moved / Scales().world_unit).square()).sum((1, 2))
    torch.testing.assert_close(problem.energy(state) - without, 0.7 * _closeness(state, anchor) + 0.4 * apart)


def test_a_turned_joint_costs_its_angle_in_units_of_its_spread() -> None:
    state = _state(2, 0.3)
    spread = torch.full((2, 24), 0.3, dtype=torch.float64)
    spread[0, 4] = 0.1
    delta = torch.zeros(2, 85, dtype=torch.float64)
    delta[:, 12:15] = torch.tensor([0.0, 0.2, 0.0], dtype=torch.float64)  # the left knee
    delta[1, 75] = 0.5
    moved = state.moved(delta)
    cost = _closeness(moved, _anchor(state, spread))
    expected = torch.tensor([(0.2 / 0.1) ** 2 / 24, (0.2 / 0.3) ** 2 / 24 + 0.5**2 / 10], dtype=torch.float64)
    torch.testing.assert_close(cost, expected)


def test_one_gaussian_over_all_joints_is_followed_exactly() -> None:
    learned = load_pose_prior("learned").to(dtype=torch.float64)
    one = PosePrior(learned.mean[:1], learned.whitening[:1], torch.zeros(1, dtype=torch.float64))
    problem, state = _problem(_state(2, 0.3, seed=1), world=True), _state(2, 0.3, seed=2)
    problem = replace(problem, pose_prior=one)
    residuals, jacobian = problem.linearise(state)
    analytic = 2 * (jacobian.transpose(1, 2) @ residuals[..., None])[..., 0]

    def energy(delta: torch.Tensor) -> torch.Tensor:
        return problem.energy(state.moved(delta)).sum()

    numeric = torch.autograd.functional.jacobian(energy, torch.zeros(2, 85, dtype=torch.float64))
    torch.testing.assert_close(analytic, numeric, atol=1e-6, rtol=1e-6)


def test_statures_beyond_adults_are_pulled_back_exactly() -> None:
    problem, state = _problem(_state(2, 0.3, seed=1), world=True), _state(2, 0.3, seed=2)
    per_beta = problem.skeleton.stature[1:]
    for height in (1.2, 2.4):  # betas that give it
        short = (height - problem.skeleton.stature[0]) / per_beta.square().sum() * per_beta
        placed = replace(state, betas=short.expand(2, -1))
        torch.testing.assert_close(problem.skeleton.height(placed.betas), torch.full((2,), height).double())
        residuals, jacobian = problem.linearise(placed)
        analytic = 2 * (jacobian.transpose(1, 2) @ residuals[..., None])[..., 0]
        at = torch.zeros(2, 85, dtype=torch.float64)
        numeric = torch.autograd.functional.jacobian(lambda d, s=placed: problem.energy(s.moved(d)).sum(), at)
        torch.testing.assert_close(analytic, numeric, atol=1e-5, rtol=1e-6)


def test_a_known_height_is_followed_exactly_and_leaves_the_others_alone() -> None:
    problem, state = _problem(_state(2, 0.3, seed=1), world=True), _state(2, 0.3, seed=2)
    height = problem.skeleton.height(state.betas)
    assert bool(((height > priors.ADULTS[0]) & (height < priors.ADULTS[1])).all())
    known = torch.stack([height[0] + 0.06, torch.tensor(math.nan)])
    told = replace(problem, points=replace(problem.points, height=known))
    residuals, jacobian = told.linearise(state)
    analytic = 2 * (jacobian.transpose(1, 2) @ residuals[..., None])[..., 0]
    at = torch.zeros(2, 85, dtype=torch.float64)
    numeric = torch.autograd.functional.jacobian(lambda delta: told.energy(state.moved(delta)).sum(), at)
    torch.testing.assert_close(analytic, numeric, atol=1e-6, rtol=1e-6)
    assert float(told.energy(state)[0] - problem.energy(state)[0]) == pytest.approx(4)  # two units of 3 cm, squared
    assert torch.equal(told.energy(state)[1], problem.energy(state)[1])
    for with_it, without in zip(told.linearise(state), problem.linearise(state), strict=True):
        assert torch.equal(with_it[1], without[1])


def test_a_body_is_found_from_its_keypoints_and_landmarks() -> None:
    truth = _state(4, 0.7)
    weak = Weights(pose=1e-4, betas=1e-4, stature=0.0, bending=0.0, straight=0.0)
    problem = _problem(truth, world=True, weights=weak)
    settings = LeastSquares(steps=60)
    state = kinematic.estimate(problem, settings)
    state = solve(problem, state, settings.steps, settings.damping)
    found = problem.skeleton.keypoints(state.rotations, state.betas) + state.cam_t[:, None]
    wanted = problem.points.world + truth.cam_t[:, None]
    valid = problem.points.confidence > 0
    # A weak prior remains: a millimetre across the image, a few along the depth.
    pixels = (project(found, problem.points.intrinsics) - problem.points.pixels).norm(dim=-1)[valid]
    assert float(pixels.max()) < 0.5
    assert float((found - wanted).norm(dim=-1)[valid].mean()) < 0.01


@pytest.mark.parametrize("heading", [0, 90, 180, 270])
def test_the_heading_is_found_without_3d(heading: int) -> None:
    truth = _state(1, 0.0)
    turn = axis_angle_to_matrix(torch.tensor([0.0, math.radians(heading + 15), 0.0], dtype=torch.float64))
    truth.rotations[:, 0] = truth.rotations[:, 0] @ turn
    problem = _problem(truth, world=False)
    state = kinematic.estimate(problem, LeastSquares())
    cosine = ((state.rotations[0, 0].T @ truth.rotations[0, 0]).trace() - 1) / 2
    assert float(cosine) > math.cos(math.radians(35))


def test_energy_never_rises_and_each_person_is_alone() -> None:
    truth, start = _state(3, 1.0, seed=3), _state(3, 1.0, seed=4)
    problem = _problem(truth, world=True)
    before = problem.energy(start)
    together = solve(problem, start, 6, 1e-3)
    assert bool((problem.energy(together) <= before).all())
    row = torch.tensor([1])
    single = Problem(
        problem.skeleton, _problem(truth.rows(row), world=True).points, problem.pose_prior, problem.weights,
        problem.scales,
    )  # fmt: skip
    alone = solve(single, start.rows(row), 6, 1e-3)
    torch.testing.assert_close(alone.rotations, together.rotations[row], atol=1e-8, rtol=0)


def test_a_side_view_with_half_a_torso_is_turned_right() -> None:
    """One shoulder and one hip leave the heading open: the rest of the body decides it."""
    skeleton = open_body().skeleton.to(dtype=torch.float64)
    truth = _state(8, 0.3, seed=3)
    heading = 2 * math.pi * torch.arange(8, dtype=torch.float64) / 8
    zero = torch.zeros_like(heading)
    upright = axis_angle_to_matrix(torch.stack([zero + math.pi, zero, zero], 1))
    turned = upright @ axis_angle_to_matrix(torch.stack([zero, heading, zero], 1))
    truth = replace(truth, rotations=torch.cat([turned[:, None], truth.rotations[:, 1:]], 1))
    problem = replace(_problem(truth, world=True), skeleton=skeleton)
    keypoints = skeleton.keypoints(truth.rotations, truth.betas)
    pixels = project(keypoints + truth.cam_t[:, None], problem.points.intrinsics)
    seen = torch.zeros_like(problem.points.confidence)
    seen[:, :25] = 1
    seen[:, [KEYPOINT_INDEX[name] for name in ("RShoulder", "RElbow", "RWrist", "RHip", "REye", "REar", "Neck")]] = 0
    box = (pixels.amax(1) - pixels.amin(1)).amax(1)
    problem = replace(problem, points=Points(pixels, seen, box, keypoints, seen, problem.points.intrinsics))
    estimate = kinematic.estimate(problem, LeastSquares())
    turn = estimate.rotations[:, 0].mT @ truth.rotations[:, 0]
    cosine = (turn.diagonal(dim1=1, dim2=2).sum(1) - 1) / 2
    assert float(torch.rad2deg(torch.acos(cosine.clamp(-1, 1))).max()) < 45
    depth = estimate.cam_t[:, 2] / truth.cam_t[:, 2]
    assert float((depth - 1).abs().max()) < 0.3
