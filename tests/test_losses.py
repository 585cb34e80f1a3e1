"""The losses of a regressor's training, against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dsr_fit.rotation import axis_angle_to_matrix
from dsr_fit.training import losses
from dsr_fit.training.losses import combine, weighted_mean, weights_of
from dsr_fit.training.settings import LossWeights


def _observed(people: int = 2) -> Tensor:
    return torch.zeros(people, 49, 3)


def test_keypoints_in_the_image_average_over_every_slot() -> None:
    """One keypoint off by (.3, .4) with confidence .5: .5 (.09 + .16) over 98 numbers."""
    observed = _observed()
    observed[0, 7] = torch.tensor([0.1, -0.2, 0.5])
    projected = torch.full((2, 49, 2), 9.0)  # far off wherever nothing was observed
    projected[0, 7] = torch.tensor([0.4, 0.2])
    torch.testing.assert_close(losses.keypoints_2d(projected, observed), torch.tensor([0.5 * 0.25 / 98, 0.0]))


def test_keypoints_in_space_are_about_the_mid_hip() -> None:
    """Moved as a whole nothing is off; one of two points off by 3, 4, 12 cm costs .0169 / 3, halved by the other."""
    points = torch.randn(2, 49, 3, generator=torch.Generator().manual_seed(0))
    known = torch.zeros(2, 49, 4)
    known[..., :3] = points - points[:, 8:9]
    known[0, [3, 40], 3] = 1.0
    moved = points + torch.tensor([1.0, -2.0, 5.0])
    torch.testing.assert_close(losses.keypoints_3d(moved, known), torch.zeros(2), atol=1e-10, rtol=0)
    moved[:, 40] += torch.tensor([0.03, 0.04, 0.12])
    expected = torch.tensor([0.0169 / 3 / 2, 0.0])
    torch.testing.assert_close(losses.keypoints_3d(moved, known), expected, rtol=1e-4, atol=0)


def test_pose_by_a_turn_of_one_joint() -> None:
    """|R - 1|^2 is 4 (1 - cos), over 24 x 9 numbers."""
    vectors = torch.zeros(2, 24, 3)
    vectors[1, 5, 1] = 0.6
    rest = axis_angle_to_matrix(torch.zeros(2, 24, 3))
    expected = torch.tensor([0.0, 4 * (1 - math.cos(0.6)) / 216])
    torch.testing.assert_close(losses.pose(axis_angle_to_matrix(vectors), rest), expected)


def test_betas_and_camera() -> None:
    ones = torch.ones(1, 10)
    torch.testing.assert_close(losses.betas(3 * ones, ones), torch.tensor([4.0]))
    cameras = torch.tensor([[0.0, 5.0, 5.0], [0.9, 0.0, 0.0], [-0.1, 0.0, 0.0]])
    torch.testing.assert_close(losses.camera(cameras), torch.tensor([1.0, math.exp(-18), math.exp(2)]))


def test_a_mean_leaves_out_what_has_no_weight() -> None:
    values = torch.tensor([1.0, 3.0, math.nan], requires_grad=True)
    mean = weighted_mean(values, torch.tensor([1.0, 3.0, 0.0]))
    mean.backward()
    assert mean.item() == pytest.approx(2.5)
    assert values.grad is not None
    assert values.grad.tolist() == pytest.approx([0.25, 0.75, 0.0])
    assert float(weighted_mean(torch.tensor([5.0]), torch.tensor([0.0]))) == 0


def test_the_sum_is_that_of_the_released_code() -> None:
    """Values of 1, 2, 4 ... and the weights as they are known."""
    names = ("keypoints_2d", "keypoints_3d", "pose", "betas", "camera", "dsr_mc", "dsr_c")
    values = {name: torch.full((3,), 2.0**k) for k, name in enumerate(names)}
    total, means = combine(values, torch.ones(3), {}, weights_of(LossWeights()))
    assert float(total) == pytest.approx(60 * (5 * 1 + 5 * 2 + 4 + 0.001 * 8 + 16 + 0.1 * 32 + 0.1 * 64))
    assert {name: float(value) for name, value in means.items()} == {name: 2.0**k for k, name in enumerate(names)}


def test_people_count_by_their_quality_and_parameters_only_where_known() -> None:
    values = {"pose": torch.tensor([1.0, 5.0]), "keypoints_2d": torch.tensor([1.0, 5.0])}
    people, body = torch.tensor([0.25, 0.75]), torch.tensor([1.0, 0.0])
    total, means = combine(values, people, {"pose": body}, {"keypoints_2d": 1.0, "pose": 1.0})
    assert float(means["pose"]) == pytest.approx(1.0)
    assert float(means["keypoints_2d"]) == pytest.approx(4.0)
    assert float(total) == pytest.approx(60 * 5.0)


def test_given_weights_are_multiples_of_the_released_ones() -> None:
    found = weights_of(LossWeights(keypoints=2, parameters=3, dsr_mc=0, dsr_c=0.5, silhouette=4))
    assert found == pytest.approx({
        "keypoints_2d": 10, "keypoints_3d": 15, "pose": 3, "betas": 0.003, "camera": 1, "dsr_mc": 0, "dsr_c": 0.05,
        "silhouette": 0.4,
    })  # fmt: skip
