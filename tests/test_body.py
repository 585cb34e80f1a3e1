"""Kinematics, keypoints and skinning: fast kernels against their readable twins, values and gradients."""

from __future__ import annotations

import math

import pytest
import torch
from bodies import stick_body

from dsr_fit.body.body import Body
from dsr_fit.body.files import load_body
from dsr_fit.body.kinematics import transforms, transforms_reference
from dsr_fit.body.parameters import Parameters
from dsr_fit.body.skinning import skin, skin_reference


@pytest.fixture(scope="module")
def open_body() -> Body:
    return load_body("open")


def _pose(batch: int, scale: float, seed: int = 0) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(scale * torch.randn(batch, size, generator=generator) for size in (3, 69, 10, 3))


@pytest.mark.parametrize("scale", [0.0, 1e-4, 0.02, 0.6, 2.0])
def test_transforms_agree_with_their_twin(scale: float) -> None:
    skeleton = stick_body().skeleton
    generator = torch.Generator().manual_seed(1)
    pose = scale * torch.randn(3, 24, 3, generator=generator)
    rest = skeleton.joints_at_rest(torch.randn(3, 10, generator=generator))
    pull = [torch.randn(3, 24, 3, columns, generator=generator) for columns in (3, 4)]
    gradients = []
    for function, dtype in ((transforms, torch.float32), (transforms_reference, torch.float64)):
        inputs = [pose.to(dtype).requires_grad_(), rest.to(dtype).requires_grad_()]
        outputs = function(inputs[0], inputs[1], skeleton.to(dtype=dtype))
        loss = sum((output * weight.to(dtype)).sum() for output, weight in zip(outputs, pull, strict=True))
        assert isinstance(loss, torch.Tensor)
        gradients.append([*outputs, *torch.autograd.grad(loss, inputs)])
    for ours, twin in zip(*gradients, strict=True):
        # Single precision along a chain of nine joints; gradients sum over the whole subtree.
        torch.testing.assert_close(ours.double(), twin, atol=2e-5, rtol=2e-5)


def test_skinning_agrees_with_its_twin(open_body: Body) -> None:
    generator = torch.Generator().manual_seed(0)
    shaped = torch.randn(2, open_body.num_vertices, 3, generator=generator)
    moves = torch.randn(2, 24, 3, 4, generator=generator)
    pull = torch.randn(shaped.shape, generator=generator)
    results = []
    for function, dtype in ((skin, torch.float32), (skin_reference, torch.float64)):
        inputs = [shaped.to(dtype).requires_grad_(), moves.to(dtype).requires_grad_()]
        vertices = _as(function, open_body, dtype)(*inputs)
        results.append([vertices, *torch.autograd.grad((vertices * pull.to(dtype)).sum(), inputs)])
    for (ours, twin), scale in zip(zip(*results, strict=True), (1, 1, 100), strict=True):
        # A joint's gradient sums a thousand vertices in single precision.
        torch.testing.assert_close(ours.double(), twin, atol=2e-5 * scale, rtol=1e-5)


def _as(function, body: Body, dtype: torch.dtype):
    from dataclasses import replace

    weights = replace(body.weights, value=body.weights.value.to(dtype))
    return lambda shaped, moves: function(shaped, moves, weights)


def test_keypoints_without_vertices_are_those_of_the_vertices(open_body: Body) -> None:
    import numpy as np

    from dsr_fit.assets import shipped

    posed = open_body(*_pose(2, 0.5))
    with np.load(shipped("priors/open_body/body.npz")) as file:
        index = torch.from_numpy(np.stack([file["keypoint_regressor_row"], file["keypoint_regressor_col"]]))
        value = torch.from_numpy(file["keypoint_regressor_val"]).float()
    regressor = torch.sparse_coo_tensor(index, value, (49, open_body.num_vertices), check_invariants=True).to_dense()
    torch.testing.assert_close(posed.keypoints, regressor @ posed.vertices(), atol=1e-5, rtol=0)


def test_gradients_reach_every_parameter(open_body: Body) -> None:
    parameters = [tensor.requires_grad_() for tensor in _pose(1, 0.3)]
    posed = open_body(*parameters)
    loss = posed.vertices().square().sum() + posed.keypoints.square().sum() + posed.joints().square().sum()
    for gradient in torch.autograd.grad(loss, parameters):
        assert bool(gradient.isfinite().all())
        assert float(gradient.abs().sum()) > 0


def test_batches_are_independent(open_body: Body) -> None:
    parameters = _pose(3, 0.4)
    together = open_body(*parameters).vertices()
    for row in range(3):
        alone = open_body(*(tensor[row : row + 1] for tensor in parameters)).vertices()
        torch.testing.assert_close(alone[0], together[row], atol=1e-6, rtol=0)


def test_stature_is_the_t_poses_height(open_body: Body) -> None:
    betas = 1.5 * torch.randn(50, 10, generator=torch.Generator().manual_seed(0))
    zero = torch.zeros(50, 72)
    height = open_body(zero[:, :3], zero[:, 3:], betas, zero[:, :3]).vertices()[..., 1]
    measured = height.amax(1) - height.amin(1)
    torch.testing.assert_close(open_body.skeleton.height(betas), measured, atol=0.01, rtol=0)  # another vertex on top
    assert float((open_body.skeleton.height(betas) - measured).abs().mean()) < 0.002


def test_a_height_is_each_persons_own(open_body: Body) -> None:
    betas = torch.randn(1000, 10, generator=torch.Generator().manual_seed(0))
    together = open_body.skeleton.height(betas)
    for row, one in enumerate(betas):
        assert torch.equal(open_body.skeleton.height(one[None].clone())[0], together[row])


def test_a_body_of_a_known_height_has_the_nearest_betas_and_keeps_its_size_in_the_image(open_body: Body) -> None:
    skeleton = open_body.skeleton
    orient, pose, betas, place = _pose(3, 0.4)
    before = Parameters(orient, pose, betas, place + torch.tensor([0.3, 0.1, 4.0]))
    after = before.resized(open_body, torch.tensor([1.10, math.nan, 1.95]))
    torch.testing.assert_close(skeleton.height(after.betas)[::2], torch.tensor([1.10, 1.95]))
    for mine, own in zip(
        after.rows(torch.tensor([1])).tensors(), before.rows(torch.tensor([1])).tensors(), strict=True
    ):
        assert torch.equal(mine, own)
    moved = after.betas - before.betas  # a step across the slope of height would be of no use
    along = torch.nn.functional.cosine_similarity(moved[::2], skeleton.stature[None, 1:]).abs()
    torch.testing.assert_close(along, torch.ones(2))
    ratio = (skeleton.height(after.betas) / skeleton.height(before.betas))[:, None]
    pelvis = [each.pose(open_body).joints()[:, 0] for each in (before, after)]
    torch.testing.assert_close(pelvis[1][::2], (pelvis[0] * ratio)[::2])


def test_an_unknown_height_leaves_the_gradient_finite(open_body: Body) -> None:
    variables = Parameters(*_pose(2, 0.4)).map(lambda tensor: tensor.requires_grad_())
    resized = variables.resized(open_body, torch.tensor([1.8, math.nan]))
    gradient = torch.autograd.grad(resized.betas.sum() + resized.cam_t.sum(), [variables.betas, variables.cam_t])
    assert all(bool(part.isfinite().all()) for part in gradient)
    assert torch.equal(gradient[0][1], torch.ones(10))
