"""Energy terms: closed forms, directions of pull, and gradients."""

from __future__ import annotations

import math

import pytest
import torch

from dsr_fit.terms import points as point_terms
from dsr_fit.terms import priors as prior_terms
from dsr_fit.terms.channels import read_channels, read_channels_reference
from dsr_fit.terms.dsr_c import dsr_c, dsr_c_released
from dsr_fit.terms.dsr_mc import dsr_mc, dsr_mc_distance, silhouette
from dsr_fit.terms.residual import Dual, geman_mcclure

SIZE = 16


def _box(low: int, high: int) -> torch.Tensor:
    mask = torch.zeros(1, SIZE, SIZE)
    mask[:, low:high, low:high] = 1
    return mask


KNOWN = torch.ones(1, SIZE, SIZE)


def test_geman_mcclure_is_quadratic_then_flat() -> None:
    squared = torch.tensor([1e-8, 1e8])
    values = geman_mcclure(squared, 0.1)
    assert float(values[0]) == pytest.approx(1e-8, rel=1e-5)
    assert float(values[1]) == pytest.approx(0.01, rel=1e-5)


def test_keypoints_count_confidence_squared_and_only_the_observed() -> None:
    observed = torch.tensor([[[0.0, 0.0], [100.0, 0.0], [7.0, 7.0]]])
    moved = observed + torch.tensor([[[2.0, 0.0], [0.0, 4.0], [50.0, 50.0]]])
    points = Dual(torch.cat([moved, torch.ones(1, 3, 1)], -1))  # a metre away under a focal length of a pixel
    intrinsics = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    confidence = torch.tensor([[1.0, 0.5, 0.0]])
    box = torch.tensor([100.0])
    residual = point_terms.keypoints(points, intrinsics, observed, confidence, box, torch.ones(1), 0.02, 1e6)
    assert float(residual.energy()) == pytest.approx((1.0 + 0.25 * 4.0) / 2)


def test_world_landmarks_ignore_translation() -> None:
    points = torch.randn(1, 6, 3)
    confidence = torch.tensor([[1.0, 0.5, 0.2, 1.0, 0.0, 1.0]])
    moved = point_terms.world_landmarks(Dual(points + 3.0), points, confidence, torch.ones(1), 0.1)
    assert float(moved.energy()) == pytest.approx(0, abs=1e-9)
    bent = points.clone()
    bent[:, 0, 1] += 0.1
    once, twice = (
        float(point_terms.world_landmarks(Dual(bent), points, confidence, torch.tensor([certainty]), 0.1).energy())
        for certainty in (1.0, 2.0)
    )
    assert once > 0.1
    assert twice == pytest.approx(2 * once)


def _seen_twice(noise: float) -> tuple[torch.Tensor, ...]:
    """A cloud of points half a metre wide, 4 m away, its 3D landmarks about another origin, with noise in metres."""
    points = torch.randn(1, 20, 3, generator=torch.Generator().manual_seed(0)) * 0.3
    away = points + torch.tensor([0.5, -0.2, 4.0])
    intrinsics, ones = torch.tensor([[800.0, 800.0, 300.0, 200.0]]), torch.ones(1, 20)
    off = noise * torch.randn(1, 20, 3, generator=torch.Generator().manual_seed(1))
    return 800 * away[..., :2] / away[..., 2:] + torch.tensor([300.0, 200.0]), ones, points + off, ones, intrinsics


def test_points_that_agree_are_surer_than_a_detectors() -> None:
    exact, near, far = (point_terms.disagreement(*_seen_twice(noise)) for noise in (0.0, 0.01, 0.1))
    spread = 0.3 * 3**0.5
    assert float(exact) < 1e-5
    assert float(near) == pytest.approx(0.01 * 2**0.5 / spread, rel=0.3)
    weights = [float(point_terms.certainty(each, 0.04)) for each in (exact, near, far)]
    assert weights[0] == pytest.approx((0.04 / point_terms.SUREST) ** 2, rel=1e-3)
    assert weights[1] == pytest.approx((0.04 / float(near)) ** 2, rel=1e-3)
    assert weights[2] == 1
    assert float(point_terms.certainty(exact, 0.0)) == 1


def test_too_few_points_say_nothing_of_each_other() -> None:
    pixels, ones, world, world_confidence, intrinsics = _seen_twice(0.0)
    few = ones * (torch.arange(20) < point_terms.COMPARED - 1)
    assert torch.isinf(point_terms.disagreement(pixels, few, world, world_confidence, intrinsics)).all()
    assert torch.isinf(point_terms.disagreement(pixels, ones, world, few, intrinsics)).all()
    assert float(point_terms.certainty(torch.tensor([torch.inf]), 0.04)) == 1


def test_dsr_mc_is_one_minus_iou() -> None:
    energy = dsr_mc(_box(2, 10), _box(4, 12), KNOWN)
    intersection, union = 36, 64 + 64 - 36
    assert float(energy) == pytest.approx(1 - intersection / union)
    assert float(dsr_mc(_box(2, 10), _box(2, 10), KNOWN)) == pytest.approx(0, abs=1e-6)


def test_dsr_mc_without_a_mask_is_silent() -> None:
    assert float(dsr_mc(_box(2, 10), torch.zeros(1, SIZE, SIZE), KNOWN)) == 0


@pytest.mark.parametrize("term", ["mc", "silhouette", "c"])
def test_unknown_pixels_carry_no_weight(term: str) -> None:
    known = KNOWN.clone()
    known[:, :, 8:] = 0
    coverage = torch.rand(1, SIZE, SIZE, requires_grad=True)
    seen = coverage * torch.where(torch.arange(SIZE) < 4, 0.2, 0.8)[:, None]
    energy = {
        "mc": lambda: dsr_mc(coverage, _box(4, 12), known),
        "silhouette": lambda: silhouette(coverage, _box(4, 12), known),
        "c": lambda: dsr_c(coverage, seen, coverage, known, known, excess=False, live=True),
    }[term]()
    (gradient,) = torch.autograd.grad(energy.sum(), coverage)
    assert float(gradient[:, :, 8:].abs().max()) == 0
    assert float(gradient[:, :, :8].abs().max()) > 0


def test_dsr_mc_distance_pulls_from_afar_where_iou_is_blind() -> None:
    mask = _box(0, 3)
    column = torch.arange(SIZE, dtype=torch.float32)
    distance = (column - 2).clamp(min=0).expand(1, SIZE, SIZE)
    near, far = _box(6, 9), _box(12, 15)
    seen = torch.ones(1)
    assert float(dsr_mc(near, mask, KNOWN)) == float(dsr_mc(far, mask, KNOWN)) == 1
    assert dsr_mc_distance(near, distance, KNOWN, seen) < dsr_mc_distance(far, distance, KNOWN, seen)


def _c_scene(low: int, high: int, **form: bool) -> torch.Tensor:
    """A body box that wears class 1 for sure over a person box of class 1 at 4..12."""
    coverage = _box(low, high)
    seen = coverage * torch.where(_box(4, 12) > 0, 0.9, 0.1)
    return dsr_c(coverage, seen, 0.9 * coverage, KNOWN, KNOWN, **form)


def test_dsr_c_punishes_leaving_the_clothes_and_not_leaving_room() -> None:
    inside, outside = (_c_scene(*box, excess=True, live=True) for box in ((6, 10), (2, 14)))
    assert float(inside) == pytest.approx(0, abs=1e-6)
    assert float(outside) > 0.5


def test_dsr_c_bears_a_coverage_a_little_below_zero() -> None:
    """The outline's blending may overshoot."""
    below = torch.full((1, 2, 2), -0.01, requires_grad=True)
    one = torch.ones(1, 2, 2)
    value = dsr_c(below, below, below, one, one, excess=True, live=True)
    (gradient,) = torch.autograd.grad(value.sum(), below)
    assert float(value.detach()) == 0
    assert bool(gradient.isfinite().all())


def test_dsr_c_plain_costs_even_a_perfect_match() -> None:
    assert float(_c_scene(4, 12, excess=False, live=True)) == pytest.approx(-math.log(0.9), abs=1e-3)


@pytest.mark.parametrize(("live", "shrinks"), [(True, False), (False, True)])
def test_a_detached_normaliser_shrinks_even_a_perfect_match(live: bool, shrinks: bool) -> None:
    coverage = (0.9 * _box(4, 12)).requires_grad_()
    energy = dsr_c(coverage, 0.9 * coverage, 0.9 * coverage, KNOWN, KNOWN, excess=False, live=live)
    (gradient,) = torch.autograd.grad(energy.sum(), coverage)
    assert bool((gradient[_box(4, 12) > 0] > 1e-5).all()) is shrinks


def test_released_cross_entropy_has_its_known_floor() -> None:
    classes = _box(4, 12).long()
    perfect = torch.nn.functional.one_hot(classes, 8).float()
    floor = math.log(math.e + 7) - 1
    assert float(dsr_c_released(perfect, classes, KNOWN)) == pytest.approx(floor, abs=1e-5)
    nothing = torch.zeros(1, SIZE, SIZE, 8)
    assert float(dsr_c_released(nothing, classes, KNOWN)) == pytest.approx(math.log(8), abs=1e-5)


def test_channels_agree_with_their_twin() -> None:
    generator = torch.Generator().manual_seed(0)
    attributes = torch.rand(2, SIZE, SIZE, 5, generator=generator, requires_grad=True)
    classes = torch.randint(0, 4, (2, SIZE, SIZE), generator=generator)
    pull = torch.randn(3, 2, SIZE, SIZE, generator=generator)
    gradients = []
    for function in (read_channels, read_channels_reference):
        maps = torch.stack(function(attributes, classes))
        gradients.append((maps, *torch.autograd.grad((maps * pull).sum(), attributes)))
    for ours, twin in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, twin, atol=0, rtol=0)


def test_bending_costs_backward_elbows_and_knees_only() -> None:
    pose = torch.zeros(6, 69)
    pose[0, 9] = 0.5  # left knee forwards
    pose[1, 9] = -0.5
    pose[2, 52] = -0.5  # left elbow forwards
    pose[3, 52] = 0.5
    pose[4, 55] = 0.5  # right elbow forwards
    pose[5, 55] = -0.5
    energy = prior_terms.bending(Dual(pose)).energy()
    torch.testing.assert_close(energy, torch.tensor([0.0, 25, 0, 25, 0, 25]))


def test_straight_limbs_cost_least_and_bends_by_one_sided_peaks() -> None:
    peaks = torch.tensor([[4.0, 0.15], [0.0, 0.3]], dtype=torch.float64)
    bends = torch.tensor([-0.2, 0.0, 0.1, 0.3, 1.5], dtype=torch.float64)
    (knee, sign), (elbow, _) = prior_terms.BENDS[1], prior_terms.BENDS[3]
    pose = torch.zeros(len(bends), 69, dtype=torch.float64)
    pose[:, knee], pose[:, elbow] = sign * bends, 1.0  # elbows have no peak here
    cost = prior_terms.straight_energy(pose, peaks)
    forwards = bends.clamp(min=0)
    density = 1 + 4 * torch.exp(-((forwards / 0.15) ** 2) / 2)
    torch.testing.assert_close(cost, -2 * torch.log(density / 5))
    assert (cost[:2] == 0).all()  # backwards is the `bending` term's
    assert float(cost[4]) == pytest.approx(2 * math.log(5), abs=1e-6)  # and no bend is pulled from afar


def test_straight_is_followed_by_its_gradient() -> None:
    peaks = torch.tensor([[4.0, 0.15], [2.0, 0.3]], dtype=torch.float64)
    pose = 0.2 * torch.randn(6, 69, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    pose.requires_grad_()
    (gradient,) = torch.autograd.grad(prior_terms.straight_energy(pose, peaks).sum(), pose)
    slope = torch.eye(69, dtype=torch.float64).expand(6, 69, 69)
    residuals, jacobian = prior_terms.straight(Dual(pose.detach(), slope), peaks).linearised(1.0)
    torch.testing.assert_close(2 * (jacobian.mT @ residuals[..., None])[..., 0], gradient)


def test_priors_are_averages_of_squares() -> None:
    assert float(prior_terms.betas(Dual(torch.full((1, 10), 2.0))).energy()) == pytest.approx(4)


def test_statures_of_adults_cost_nothing_and_others_by_the_square() -> None:
    heights = torch.tensor([1.45, 1.70, 2.05, 1.39, 2.11, 2.17])
    energy = prior_terms.stature(Dual(heights[:, None])).energy()
    torch.testing.assert_close(energy, torch.tensor([0.0, 0.0, 0.0, 4.0, 4.0, 16.0]), rtol=1e-4, atol=1e-6)


def test_a_known_stature_takes_the_ranges_place() -> None:
    height = torch.tensor([1.80, 1.83, 1.20, 2.17, 1.70, 2.17], dtype=torch.float64)[:, None]
    known = torch.tensor([1.80, 1.80, 1.26, 2.20, math.nan, math.nan], dtype=torch.float64)[:, None]
    slope = torch.randn(6, 1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    residual = prior_terms.stature(Dual(height, slope), known)
    expected = torch.tensor([0.0, 1.0, 4.0, 1.0, 0.0, 16.0], dtype=torch.float64)
    torch.testing.assert_close(residual.energy(), expected)

    def error(delta: torch.Tensor) -> torch.Tensor:
        return prior_terms.stature(Dual(height + slope @ delta), known).error.value

    steps = 1e-4 * torch.eye(3, dtype=torch.float64)
    numeric = torch.stack([(error(step) - error(-step)) / 2e-4 for step in steps], -1)  # linear: exact to rounding
    assert residual.error.slope is not None
    torch.testing.assert_close(residual.error.slope, numeric, atol=1e-9, rtol=0)
