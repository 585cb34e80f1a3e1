"""The whole fit on scenes with known truth: it recovers, never gets worse, and never fails in silence."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import torch
from scenes import observe, open_body, person

from dsr_fit.body.parameters import Parameters
from dsr_fit.camera import Crop, crop_camera, spin_translation
from dsr_fit.config import FitConfig, Scales, Stage, Weights
from dsr_fit.errors import InputError, UsageError
from dsr_fit.evaluate.metrics import implausible_joints
from dsr_fit.fitting.fitter import Fitter
from dsr_fit.fitting.result import FitResult
from dsr_fit.gate.gate import Gate
from dsr_fit.labels import OCCLUDER, UNKNOWN
from dsr_fit.observation import Observation
from dsr_fit.observe.batch import Batch, crop_labels
from dsr_fit.optimise.anchor import Anchor
from dsr_fit.optimise.descent import Adam
from dsr_fit.optimise.least_squares import Problem
from dsr_fit.optimise.objective import TERMS, Objective, Rendered, Term
from dsr_fit.optimise.quasi_newton import minimise
from dsr_fit.regressor.kinematic import KinematicRegressor
from dsr_fit.rotation import axis_angle_to_matrix

QUICK = FitConfig(stages=(Stage(56, 8),))


@pytest.fixture(scope="module")
def fitter() -> Fitter:
    return Fitter(open_body())


@pytest.fixture(scope="module")
def quick() -> Fitter:
    return Fitter(open_body(), QUICK)


@pytest.fixture(scope="module")
def scenes() -> list[tuple[Parameters, Observation]]:
    return [(truth, observe(truth, noise_px=0.5, seed=seed)) for seed in range(3) for truth in [person(seed)]]


@pytest.fixture(scope="module")
def results(fitter: Fitter, scenes: list[tuple[Parameters, Observation]]) -> list[FitResult]:
    return fitter.fit([observation for _, observation in scenes])


def test_known_bodies_are_recovered(scenes: list[tuple[Parameters, Observation]]) -> None:
    """Where observations are right, and neither the estimate nor gravity holds the fit."""
    free = Fitter(open_body(), FitConfig(weights=Weights(initial=0.0, initial_points=0.0, tilt=0.0)))
    results = free.fit([observation for _, observation in scenes])
    for (truth, _), result in zip(scenes, results, strict=True):
        vertices = truth.pose(open_body()).vertices()[0].numpy()
        aligned = result.vertices - result.vertices.mean(0) + vertices.mean(0)
        # Priors and half a pixel of noise remain, at about 8 mm a pixel.
        assert np.linalg.norm(aligned - vertices, axis=1).mean() < 0.04
        assert result.metrics["keypoint_error_rel"]["after"] < 0.01
        assert result.metrics["containment"]["after"] > 0.97
        assert result.metrics["silhouette_iou"]["after"] > 0.85


def test_a_fit_improves_on_its_initial_estimate(results: list[FitResult]) -> None:
    for result in results:
        weights = vars(FitConfig().weights)
        total = {
            when: sum(weights[name] * values[when] for name, values in result.energies.items())
            for when in ("initial", "final")
        }
        assert total["final"] < total["initial"]
        assert result.metrics["mc_iou"]["after"] > result.metrics["mc_iou"]["before"]


def test_the_same_seed_gives_the_same_fit(quick: Fitter) -> None:
    observation = observe(person(4), noise_px=1)
    first, second = quick.fit([observation])[0], quick.fit([observation])[0]
    np.testing.assert_array_equal(first.vertices, second.vertices)


def test_one_persons_fit_is_the_same_alone_and_among_sixteen(fitter: Fitter) -> None:
    """To the bit: a last digit of one image's sums would grow to millimetres, since pixels change by jumps."""
    observations = [observe(person(seed), noise_px=1, seed=seed) for seed in range(16)]
    observations[3] = observe(person(3), world=False)  # a neighbour of another kind
    observations[7] = replace(observations[7], height=1.8)
    gate = Gate.of(fitter)
    together = fitter.fit(observations)
    for row in (0, 7):
        alone = fitter.fit([observations[row]])[0]
        np.testing.assert_array_equal(alone.vertices, together[row].vertices)
        assert gate.judge(alone) == gate.judge(together[row])


@pytest.mark.parametrize("threads", [1, 2])
def test_weights_fitted_alone_are_those_of_a_batch(threads: int) -> None:
    observations = [observe(person(seed), noise_px=1, seed=seed) for seed in range(3)]
    fitter, before = Fitter(open_body(), replace(QUICK, mode="eft")), torch.get_num_threads()
    together = fitter.fit(observations)
    torch.set_num_threads(threads)
    try:
        alone = fitter.fit(observations[1:2])[0]
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(alone.vertices, together[1].vertices)


def test_who_gets_stuck_in_a_stage_goes_on_in_the_next() -> None:
    """Each stage begins anew; an early one's renders say little of the later one's energy."""
    begun: list[list[torch.Tensor]] = []

    def record(iteration: int, total: torch.Tensor) -> None:
        if iteration == 0:
            begun.append([])
        begun[-1].append(total)

    config = replace(QUICK, stages=(Stage(16, 20), Stage(112, 15)), stop_improvement=1e-4)
    Fitter(open_body(), config).fit([observe(person(seed), noise_px=1, seed=seed) for seed in range(4)], record)
    assert len(begun) == 2
    assert (begun[1][-1] < 0.99 * begun[1][0]).all()


def test_rendered_terms_alone_are_fitted() -> None:
    weights = Weights(**{name: 0.0 for name in vars(Weights())} | {"dsr_mc": 1.0, "dsr_c": 1.0})
    config = replace(QUICK, weights=weights, stages=(Stage(224, 5),))
    result = Fitter(open_body(), config).fit([observe(person(1))])[0]
    initial, final = (result.energies["dsr_mc"][when] + result.energies["dsr_c"][when] for when in ("initial", "final"))
    assert final < initial


def test_without_any_weight_nothing_is_fitted() -> None:
    nothing = Weights(**dict.fromkeys(vars(Weights()), 0.0))
    with pytest.raises(UsageError, match="all weights are 0"):
        Fitter(open_body(), replace(QUICK, weights=nothing))


def test_no_fit_is_held_to_the_kinematic_estimate() -> None:
    fitter = Fitter(open_body(), QUICK, regressor=KinematicRegressor(open_body(), QUICK))
    result = fitter.fit([observe(person(1))])[0]
    assert QUICK.weights.initial > fitter.config.weights.initial == 0
    assert result.metrics["keypoint_error_rel"]["after"] < 0.01


def test_a_fit_leaves_the_callers_random_numbers_alone(quick: Fitter) -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    quick.fit([observe(person(4))])
    assert torch.rand(1) == expected


def test_vertices_project_where_the_keypoints_were(results: list[FitResult]) -> None:
    for result in results:
        pixels = result.joints[:, :2] / result.joints[:, 2:] * result.focal_length + result.principal_point
        observed = result.observation.detection.keypoints
        error = np.linalg.norm(pixels - observed[:, :2], axis=1)[observed[:, 2] > 0]
        assert error.mean() == pytest.approx(result.metrics["keypoint_error_px"]["after"], abs=1e-3)


def test_without_3d_landmarks_the_fit_still_lies_on_the_person(fitter: Fitter) -> None:
    result = fitter.fit([observe(person(1), world=False)])[0]
    assert result.metrics["keypoint_error_rel"]["after"] < 0.015
    assert result.metrics["containment"]["after"] > 0.95


def test_the_crop_camera_is_spins(quick: Fitter) -> None:
    crop_fitter = Fitter(open_body(), QUICK, crop_camera=True)
    result = crop_fitter.fit([observe(person(2))])[0]
    assert result.focal_length == pytest.approx(5000 * result.crop.side / 224)
    assert result.principal_point == result.crop.center
    assert result.crop_residual_px < 0.02  # the crop camera is exact here
    full = quick.fit([observe(person(2))])[0]
    assert full.crop_residual_px > result.crop_residual_px


def test_the_crop_orientation_turns_about_the_root_joint() -> None:
    """Official SMPL's root lies 20 cm below its origin: turned about that, the crop camera would be off."""
    rng = np.random.default_rng(0)
    points, root, cam_t = (
        rng.normal(scale=0.4, size=(49, 3)),
        np.array([0.0, -0.22, 0.03]),
        np.array([1.5, 0.2, 4]),
    )
    orient = np.array([2.9, 0.3, 0.2])

    def posed(vector: np.ndarray, translation: np.ndarray) -> np.ndarray:
        turn = axis_angle_to_matrix(torch.from_numpy(vector)).numpy()
        return (points - root) @ turn.T + root + translation

    joints = posed(orient, cam_t)
    focal, center = 1000.0, (400.0, 300.0)
    pixels = joints[:, :2] / joints[:, 2:] * focal + center
    low, high = pixels.min(0), pixels.max(0)
    crop = Crop(tuple((low + high) / 2), 1.2 * float((high - low).max()))
    crop_cam, crop_orient, residual = crop_camera(joints, root + cam_t, cam_t, orient, crop, focal, center)
    seen = posed(crop_orient.astype(float), spin_translation(torch.from_numpy(crop_cam)).double().numpy())
    there = seen[:, :2] / seen[:, 2:] * 5000
    error = there - (pixels - crop.center) * 224 / crop.side
    assert np.sqrt((error**2).sum(1).mean()) == pytest.approx(residual, abs=0.01)


class _Poisoned:
    """Delegates to an energy; from one iteration on, one person's total is NaN."""

    def __init__(self, energy: Objective, row: int, after: int) -> None:
        self.energy, self.row, self.after, self.calls = energy, row, after, 0

    def __call__(self, parameters: Parameters) -> dict[str, torch.Tensor]:
        self.calls += 1
        return self.energy(parameters)

    def total(self, energies: dict[str, torch.Tensor]) -> torch.Tensor:
        total = self.energy.total(energies)
        if self.calls <= self.after:
            return total
        bad = torch.zeros_like(total)
        bad[self.row] = torch.nan
        return total + bad

    def rows(self, index: torch.Tensor) -> Objective:
        return self.energy.rows(index)


@pytest.mark.parametrize(
    ("after", "reasons", "steps"), [(3, ["iteration limit"] * 2, [6, 6]), (0, ["iteration limit", "diverged"], [6, 0])]
)
def test_energies_that_are_not_finite(quick: Fitter, after: int, reasons: list[str], steps: list[int]) -> None:
    """A step there is not taken; who begins there has diverged."""
    batch = Batch(
        [observe(person(seed)) for seed in (0, 1)], crop_camera=False,
        keypoint_valid=open_body().skeleton.keypoint_valid,
    )  # fmt: skip
    start = Parameters(*(torch.cat(pair) for pair in zip(person(0).tensors(), person(1).tensors(), strict=True)))
    start, stage = start.map(lambda tensor: tensor + 0.02), Stage(56, 6)
    given = (QUICK, Anchor.of(start, open_body().skeleton))
    problem = Problem.of(batch, quick.body.skeleton, quick.pose_prior, *given)
    objective = Objective.of(
        quick.body, batch, quick.renderer, quick.semantic_prior, quick.pose_prior, given[0], stage.resolution, given[1]
    )
    totals: list[torch.Tensor] = []
    progress = minimise(
        start,
        problem,
        _Poisoned(objective, 1, after),  # type: ignore[arg-type]
        stage,
        0.0,
        lambda _, total: totals.append(total),
    )
    assert progress.stop_reason == reasons
    assert progress.iterations.tolist() == steps
    for tensor in progress.best.tensors():
        assert bool(tensor.isfinite().all())
    best = torch.stack(totals).nan_to_num(nan=torch.inf, posinf=torch.inf).amin(0)
    torch.testing.assert_close(progress.lowest, best)
    reached = objective.total(objective(progress.best))[:1]
    torch.testing.assert_close(reached, best[:1], atol=1e-4, rtol=1e-4)
    assert torch.stack(totals)[:, 0].diff().le(0).all()
    assert best[0] < totals[0][0]


def test_who_has_stopped_is_rendered_no_more() -> None:
    """And the others go on as if all were."""
    drawn: list[int] = []

    def counted(seen: Rendered) -> torch.Tensor:
        drawn.append(len(seen.render.alpha))
        return torch.zeros(len(seen.render.alpha))

    config = replace(QUICK, stages=(Stage(56, 60),))
    fitter = Fitter(open_body(), config, terms=(*TERMS, Term("counted", rendered=counted, weight=1.0)))
    people = [observe(person(seed)) for seed in (0, 1, 2)]
    together = fitter.fit(people)
    steps = sorted(result.iterations - config.least_squares.steps for result in together)
    assert steps[0] < steps[-1]
    *descent, _, _ = drawn  # two renders are for the report
    assert descent == [sum(taken >= step for taken in steps) for step in range(steps[-1] + 1)]
    for result, alone in zip(together, people, strict=True):
        np.testing.assert_array_equal(result.vertices, fitter.fit([alone])[0].vertices)


def test_unknown_and_occluded_pixels_are_left_out() -> None:
    observation = observe(person(0))
    labels = observation.labels.copy()
    labels[:100] = OCCLUDER
    labels[100:140] = UNKNOWN
    batch = Batch(
        [replace(observation, labels=labels)],
        crop_camera=False,
        keypoint_valid=open_body().skeleton.keypoint_valid,
    )
    targets = batch.targets(112, "code8", class_weights=False)
    cropped = crop_labels(labels, batch.crops[0], 112)
    hidden = torch.from_numpy((cropped == OCCLUDER) | (cropped == UNKNOWN))
    assert bool(hidden.any())
    assert float(targets.known[0][hidden].sum()) == 0
    assert float(targets.person[0][hidden].sum()) == 0
    assert float(targets.class_weights[0][hidden].sum()) == 0


@pytest.mark.parametrize("label_set", ["paper4", "code8"])
def test_class_weights_balance_the_areas(label_set: str) -> None:
    batch = Batch([observe(person(0))], crop_camera=False, keypoint_valid=open_body().skeleton.keypoint_valid)
    targets = batch.targets(224, label_set, class_weights=True)
    areas = [
        float(targets.class_weights[0][targets.classes[0] == number].sum())
        for number in range(int(targets.classes.max()) + 1)
    ]
    present = [area for area in areas if area > 0]
    assert max(present) == pytest.approx(min(present), rel=1e-4)


@pytest.mark.parametrize("term", ["dsr_mc", "dsr_c", "silhouette"])
def test_each_rendered_term_pulls_a_displaced_body_back(quick: Fitter, term: str) -> None:
    weights = Weights(**{name: 0.0 for name in vars(Weights())} | {term: 1.0})
    config = replace(QUICK, weights=weights)
    truth = person(0)
    batch = Batch([observe(truth)], crop_camera=False, keypoint_valid=open_body().skeleton.keypoint_valid)
    moved = replace(truth, cam_t=truth.cam_t + torch.tensor([[0.06, 0.0, 0.0]]))
    start = moved.map(lambda tensor: tensor.clone().requires_grad_())
    priors, anchor = (quick.semantic_prior, quick.pose_prior), Anchor.of(moved, open_body().skeleton)
    objective = Objective.of(quick.body, batch, quick.renderer, *priors, config, 112, anchor)
    total = objective.total(objective(start))
    (gradient,) = torch.autograd.grad(total.sum(), start.cam_t)
    assert float(gradient[0, 0]) > 0  # descent moves it back to the left
    assert float(total.detach()) > float(objective.total(objective(truth)))


@pytest.mark.parametrize(("beta", "low", "high"), [(8.5, 2.0, 2.15), (-6.0, 1.35, 1.5)])
def test_nobody_comes_out_taller_or_shorter_than_people_are(beta: float, low: float, high: float) -> None:
    truth = replace(person(0), betas=torch.zeros(1, 10))
    truth.betas[0, 0] = beta  # 2.39 m and 1.20 m
    observation = observe(replace(truth, cam_t=truth.cam_t * 1.5))
    free = Weights(betas=0.0, stature=0.0, initial=0.0, initial_points=0.0)
    heights = []
    for weights in (free, replace(free, stature=1.0)):
        result = Fitter(open_body(), replace(QUICK, stages=(), weights=weights)).fit([observation])[0]
        heights.append(float(open_body().skeleton.height(torch.from_numpy(result.betas)[None])))
    assert not low < heights[0] < high
    assert low < heights[1] < high


@pytest.fixture(scope="module")
def short_and_tall() -> list[tuple[Parameters, float, Observation]]:
    """1.54 m and 1.99 m, where the betas' prior expects 1.70 m."""
    people = []
    for seed, beta in ((0, -1.9), (1, 3.6)):
        truth = person(seed)
        truth.betas[0, 0] = beta
        people.append((truth, float(open_body().skeleton.height(truth.betas)), observe(truth)))
    return people


def _height(result: FitResult) -> float:
    return float(open_body().skeleton.height(torch.from_numpy(result.betas)[None]))


@pytest.mark.parametrize(("mode", "off"), [("smplify", 0.01), ("eft", 1e-4)])  # a term; each iterate is resized
def test_a_known_height_gives_scale_and_distance(
    short_and_tall: list[tuple[Parameters, float, Observation]], mode: Literal["smplify", "eft"], off: float
) -> None:
    # Points as sure as these would tell the height by themselves: they are taken for a detector's. The estimate was
    # made for another height: held closer to it, EFT stops before the keypoints fit.
    scales, weights = Scales(agreement=0.0), Weights(initial_points=0.0)
    fitter = Fitter(open_body(), replace(QUICK, mode=mode, scales=scales, weights=weights))
    untold = fitter.fit([seen for _, _, seen in short_and_tall])
    told = fitter.fit([replace(seen, height=height) for _, height, seen in short_and_tall])
    for (truth, height, _), before, after in zip(short_and_tall, untold, told, strict=True):
        distance = float(truth.pose(open_body()).joints()[0, 0, 2])
        assert abs(_height(before) - height) > 0.01
        assert abs(_height(after) - height) < off
        assert abs(before.pelvis[2] - distance) > abs(after.pelvis[2] - distance)
        assert after.pelvis[2] == pytest.approx(distance, rel=0.015)  # the pose's own depth remains
        error = [result.metrics["keypoint_error_rel"]["after"] for result in (before, after)]
        assert error[1] < error[0] + 0.001


@pytest.mark.parametrize("mode", ["smplify", "eft"])
def test_a_neighbours_height_is_not_ones_own(
    short_and_tall: list[tuple[Parameters, float, Observation]], mode: Literal["smplify", "eft"]
) -> None:
    fitter = Fitter(open_body(), replace(QUICK, mode=mode))
    (_, height, first), (_, _, second) = short_and_tall
    told, untold = fitter.fit([replace(first, height=height), second]), fitter.fit([first, second])
    np.testing.assert_array_equal(told[1].vertices, untold[1].vertices)
    assert told[1].energies == untold[1].energies


def test_the_learned_pose_prior_recovers_a_person() -> None:
    config = replace(QUICK, stages=())
    result = Fitter(open_body(), config).fit([observe(person(0), noise_px=0.5)])[0]
    assert result.metrics["keypoint_error_rel"]["after"] < 0.01
    assert float(implausible_joints(result.parameters().body_pose)) < 0.1


def test_adam_is_torchs() -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(4, 3, generator=generator)
    theirs, ours = start.clone().requires_grad_(), start.clone()
    torchs, adam = torch.optim.Adam([theirs], lr=0.01), Adam([ours], 0.01)
    for _ in range(20):
        gradient = torch.randn(4, 3, generator=generator)
        theirs.grad = gradient.clone()
        torchs.step()
        adam.step([gradient])
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("mode", ["smplify", "eft"])
def test_a_fit_that_is_not_finite_is_one_line_and_costs_nobody_else(mode: Literal["smplify", "eft"]) -> None:
    good = observe(person(0))
    absurd = replace(good, focal_length=1e-30)
    fitter = Fitter(open_body(), replace(QUICK, mode=mode, eft=replace(QUICK.eft, iterations=2)))
    first, failed, last = fitter.fit_each([good, absurd, good])
    assert isinstance(failed, InputError)
    assert str(failed) == "the fit diverged: its values are not finite; check the keypoints and the focal length"
    (alone,) = fitter.fit([good])
    for result in (first, last):
        assert isinstance(result, FitResult)
        assert np.array_equal(result.vertices, alone.vertices)
