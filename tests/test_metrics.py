"""Every metric against an answer known in closed form."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from dsr_fit.body.body import Body
from dsr_fit.body.files import load_body
from dsr_fit.evaluate.metrics import (
    area_inflation,
    bootstrap,
    joint_angle_error,
    mask_iou,
    mpjpe,
    pa_mpjpe,
    pa_pve,
    paired_difference,
    pck,
    procrustes,
    pve,
    t_pose_pve,
)
from dsr_fit.rotation import axis_angle_to_matrix


def points(batch: int = 3, count: int = 20, seed: int = 0) -> Tensor:
    return torch.randn(batch, count, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


TURNS = axis_angle_to_matrix(
    torch.tensor([[0.3, -1.2, 2.0], [0.0, 0.0, math.pi], [1e-4, 0.0, 0.0]], dtype=torch.float64)
)


@pytest.fixture(scope="module")
def body() -> Body:
    return load_body()


def test_mpjpe_ignores_where_the_root_is_and_nothing_else() -> None:
    true = points()
    moved = true + torch.tensor([1.0, 2.0, 3.0])
    assert mpjpe(moved, true).max() < 1e-9
    torch.testing.assert_close(
        mpjpe(moved, true, root=None), torch.full((3,), 1000 * math.sqrt(14), dtype=torch.float64)
    )
    # One of 20 joints is 3-4-0 cm off: 50 mm / 20.
    wrong = true.clone()
    wrong[1, 7] += torch.tensor([0.03, 0.04, 0.0])
    torch.testing.assert_close(mpjpe(wrong, true), torch.tensor([0.0, 2.5, 0.0], dtype=torch.float64))
    # The root itself is off: all the other 19 are.
    wrong = true.clone()
    wrong[:, 0] += torch.tensor([0.03, 0.04, 0.0])
    torch.testing.assert_close(mpjpe(wrong, true), torch.full((3,), 47.5, dtype=torch.float64))
    # Of two roots, half of one's shift moves everything: 18 joints by 25 mm, the roots by 25 mm too.
    torch.testing.assert_close(mpjpe(wrong, true, root=(0, 1)), torch.full((3,), 25.0, dtype=torch.float64))


def test_procrustes_undoes_any_similarity() -> None:
    true = points()
    changed = torch.tensor([0.3, 1.0, 40.0])[:, None, None] * true @ TURNS.mT + torch.tensor([5.0, -6.0, 7.0])
    torch.testing.assert_close(procrustes(changed, true), true)
    assert pa_mpjpe(changed, true).max() < 1e-9
    assert pa_pve(changed, true).max() < 1e-9


def test_procrustes_never_reflects() -> None:
    """An octahedron of half axes a > b > c, and its mirror image.

    Of the singular values a^2, b^2, c^2 (twice), a rotation can match a^2 + b^2 - c^2: that over their sum is
    the scale, and the residual is what is left of the squares.
    """
    a, b, c = 3.0, 2.0, 1.0
    true = torch.diag(torch.tensor([a, b, c], dtype=torch.float64))
    true = torch.cat([true, -true])[None]
    mirrored = true * torch.tensor([-1.0, 1.0, 1.0])
    aligned = procrustes(mirrored, true)
    total, matched = a * a + b * b + c * c, a * a + b * b - c * c
    residual = (aligned - true).square().sum()
    assert float(residual) == pytest.approx(2 * (total - matched * matched / total))
    assert float(pa_mpjpe(mirrored, true)) > 100


def test_procrustes_is_no_worse_than_nearby_similarities() -> None:
    true, noisy = points(), points() + 0.3 * points(seed=1)
    aligned = procrustes(noisy, true)
    best = (aligned - true).square().sum((1, 2))
    mean = aligned.mean(1, keepdim=True)
    torch.testing.assert_close(mean, true.mean(1, keepdim=True))
    for vector in 0.01 * torch.eye(3, dtype=torch.float64):
        turned = (aligned - mean) @ axis_angle_to_matrix(vector).mT + mean
        assert ((turned - true).square().sum((1, 2)) > best).all()
    for scale in (0.99, 1.01):
        assert (((aligned - mean) * scale + mean - true).square().sum((1, 2)) > best).all()


def test_procrustes_of_a_single_place_is_the_mean() -> None:
    true = points()
    aligned = procrustes(torch.ones_like(true), true)
    torch.testing.assert_close(aligned, true.mean(1, keepdim=True).expand_as(true))


def test_an_item_with_nan_is_nan_and_leaves_the_others() -> None:
    true, wrong = points(), points(seed=1)
    broken = wrong.clone()
    broken[1, 3, 0] = torch.nan
    broken_inf = wrong.clone()
    broken_inf[1, 3, 0] = torch.inf
    pelvis = true[:, 0]
    for metric in (mpjpe, pa_mpjpe, pa_pve, lambda a, b: pve(a, b, pelvis, pelvis)):
        for each in (broken, broken_inf):
            found, whole = metric(each, true), metric(wrong, true)
            assert found.isnan().tolist() == [False, True, False]
            torch.testing.assert_close(found[[0, 2]], whole[[0, 2]])


def test_pve_puts_pelvises_on_each_other() -> None:
    true = points()
    pelvis = torch.tensor([[0.1, 0.2, 0.3]], dtype=torch.float64)
    shift = torch.tensor([[3.0, 0.0, 4.0]], dtype=torch.float64)
    assert pve(true + shift[:, None], true, pelvis + shift, pelvis).max() < 1e-9
    expected = torch.full((3,), 5000.0, dtype=torch.float64)
    torch.testing.assert_close(pve(true + shift[:, None], true, pelvis, pelvis), expected)


def test_t_pose_pve_is_linear_in_one_beta_and_zero_for_the_truth(body: Body) -> None:
    true = torch.zeros(2, 10)
    betas = true.clone()
    betas[0, 2], betas[1, 2] = 1.0, -2.0
    unit = 1000 * body.shapedirs[..., 2].norm(dim=1).mean()
    torch.testing.assert_close(t_pose_pve(betas, true, body), unit * torch.tensor([1.0, 2.0]), rtol=1e-4, atol=1e-3)
    assert t_pose_pve(betas, betas, body, scale_corrected=True).max() < 1e-3


def test_scale_correction_forgives_size_alone() -> None:
    """A body whose only shape direction is its own growth, and another that stretches a cube."""
    cube = torch.tensor([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])
    directions = torch.zeros(8, 3, 10)
    directions[..., 0] = cube
    directions[:, 0, 1] = cube[:, 0]
    directions[:, 1, 2] = 1.0
    body = load_body()
    body = Body("cube", "", cube, directions, None, body.weights, body.faces, body.skeleton)
    true = torch.zeros(3, 10)
    betas = torch.zeros(3, 10)
    betas[0, 0], betas[1, 1], betas[2, 2] = 0.5, 1.0, 0.25
    plain = t_pose_pve(betas, true, body)
    torch.testing.assert_close(plain, 1000 * torch.tensor([0.5 * math.sqrt(3), 1.0, 0.25]))
    # Half axes 2, 1, 1 shrink by sqrt(3 / 6): then each corner is off by (.41, -.29, -.29).
    shrink = math.sqrt(0.5)
    stretched = 1000 * math.sqrt((2 * shrink - 1) ** 2 + 2 * (shrink - 1) ** 2)
    corrected = t_pose_pve(betas, true, body, scale_corrected=True)
    torch.testing.assert_close(corrected, torch.tensor([0.0, stretched, 0.0]), atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("angle", [0.0, 1e-5, 0.7, 3.0, math.pi - 1e-5, math.pi])
def test_joint_angle_error_of_a_known_turn(angle: float) -> None:
    true = axis_angle_to_matrix(points(2, 24))
    axis = torch.nn.functional.normalize(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64), dim=0)
    turned = true.clone()
    turned[1, 5] = axis_angle_to_matrix(angle * axis) @ true[1, 5]
    expected = torch.tensor([0.0, math.degrees(angle) / 24], dtype=torch.float64)
    torch.testing.assert_close(joint_angle_error(turned, true), expected, atol=1e-6, rtol=1e-9)
    torch.testing.assert_close(joint_angle_error(turned[:, 5:6], true[:, 5:6]), 24 * expected, atol=1e-6, rtol=1e-9)


def test_area_inflation_of_discs_is_that_of_their_squared_radii() -> None:
    y, x = torch.meshgrid(torch.arange(400.0), torch.arange(400.0), indexing="ij")
    distance = ((x - 199.5) ** 2 + (y - 199.5) ** 2).sqrt()
    radii = torch.tensor([100.0, 110.0, 80.0])
    discs = (radii[:, None, None] + 0.5 - distance).clamp(0, 1)  # soft outlines
    inflation = area_inflation(discs, discs[:1].expand(3, -1, -1))
    expected = ((radii / 100) ** 2 - 1).double()
    torch.testing.assert_close(inflation, expected, atol=1e-3, rtol=0)
    assert area_inflation(discs[:1], torch.zeros(1, 400, 400)).isnan().all()
    assert area_inflation(discs > 0.5, discs > 0.5).abs().max() == 0


def test_mask_iou_of_shifted_squares() -> None:
    true = torch.zeros(4, 30, 30, dtype=torch.bool)
    true[:3, 5:15, 5:15] = True
    mask = torch.zeros_like(true)
    mask[0, 5:15, 5:15] = True
    mask[1, 5:15, 10:20] = True  # half of the square
    mask[2, 20:25, 20:25] = True
    found = mask_iou(mask, true)
    torch.testing.assert_close(found[:3], torch.tensor([1.0, 50 / 150, 0.0]))
    assert found[3].isnan()


def test_pck_counts_visible_points_within_the_threshold() -> None:
    true = torch.zeros(2, 5, 2)
    found = true.clone()
    found[:, 1] = torch.tensor([3.0, 4.0])
    found[:, 2] = torch.tensor([0.0, 5.1])
    found[:, 3] = torch.nan
    found[:, 4] = 1000.0
    visible = torch.tensor([[True, True, True, True, False], [False] * 5])
    share = pck(found, true, visible, 5.0)
    assert float(share[0]) == 0.5
    assert share[1].isnan()
    sizes = torch.tensor([102.0, 102.0])
    assert float(pck(found, true, visible, 0.05, sizes)[0]) == 0.75  # 5.1 px
    assert float(pck(found, true, visible, 0.04, sizes)[0]) == 0.25


def test_bootstrap_of_a_normal_sample_is_the_t_interval() -> None:
    values = np.random.default_rng(0).normal(10, 2, 400)
    found = bootstrap(values)
    assert found.mean == pytest.approx(values.mean())
    low, high = stats.t.interval(0.95, 399, values.mean(), values.std(ddof=1) / 20)
    # The resampled quantiles have a standard error of 1.5 % of the interval's width.
    assert found.low == pytest.approx(low, abs=0.06 * (high - low))
    assert found.high == pytest.approx(high, abs=0.06 * (high - low))
    assert found.count == 400
    wider = bootstrap(values, confidence=0.99)
    assert wider.low < found.low < found.high < wider.high
    assert bootstrap(values) == found
    assert bootstrap(values, seed=1) != found


def test_integer_weights_give_the_mean_of_repeated_values() -> None:
    found = bootstrap([1.0, 2.0, 4.0, 100.0], [1, 2, 1, 0])
    assert found.mean == pytest.approx(9 / 4)
    assert found.count == 3
    assert 1 <= found.low <= found.mean <= found.high <= 4


def test_bootstrap_of_equal_or_single_values() -> None:
    same = bootstrap([2.0, 2.0, 2.0])
    assert (same.mean, same.low, same.high) == (2.0, 2.0, 2.0)
    single = bootstrap([2.0])
    assert single.mean == 2.0
    assert math.isnan(single.low)


@pytest.mark.parametrize(
    ("values", "weights", "message"),
    [
        ([1.0, math.nan, 3.0], None, "1 of 3"),
        ([1.0, 2.0], [1.0, math.inf], "1 of 2"),
        ([1.0, 2.0], [-1.0, 2.0], "negative"),
        ([1.0, 2.0], [0.0, 0.0], "zero"),
        ([1.0, 2.0], [1.0], "same length"),
        ([], None, "empty"),
    ],
)
def test_bootstrap_refuses(values: list[float], weights: list[float] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        bootstrap(values, weights)


def test_paired_difference_sees_what_unpaired_means_hide() -> None:
    random = np.random.default_rng(0)
    hard = random.normal(50, 20, 60)
    better = hard - 1 + random.normal(0, 0.5, 60)
    found = paired_difference(better, hard)
    assert found.mean == pytest.approx((better - hard).mean())
    assert found.high < 0
    assert found == bootstrap(better - hard)
    assert bootstrap(better).low < bootstrap(hard).mean < bootstrap(better).high
    with pytest.raises(ValueError, match="different shapes"):
        paired_difference([1.0, 2.0], [1.0])
