"""Rotations against scipy, and derivatives against automatic differentiation."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from dsr_fit import rotation
from dsr_fit.terms.turns import rotation_vectors

COMPONENT = st.floats(-3, 3, allow_nan=False, width=32)


@given(st.lists(COMPONENT, min_size=3, max_size=3))
@settings(deadline=None, max_examples=50)
def test_axis_angle_agrees_with_scipy(vector: list[float]) -> None:
    ours = rotation.axis_angle_to_matrix(torch.tensor(vector, dtype=torch.float64))
    theirs = Rotation.from_rotvec(vector).as_matrix()
    torch.testing.assert_close(ours, torch.from_numpy(theirs), atol=1e-9, rtol=0)


@pytest.mark.parametrize("angle", [0.0, 1e-8, 1e-3, 1.0, 3.1, torch.pi - 1e-6, torch.pi])
def test_axis_angle_round_trip_up_to_pi(angle: float) -> None:
    axes = torch.nn.functional.normalize(torch.randn(20, 3, dtype=torch.float64, generator=_seeded()), dim=1)
    matrices = rotation.axis_angle_to_matrix(axes * angle)
    vectors = rotation.matrix_to_axis_angle(matrices)
    torch.testing.assert_close(rotation.axis_angle_to_matrix(vectors), matrices, atol=1e-9, rtol=0)
    assert float(vectors.norm(dim=1).max()) <= torch.pi + 1e-9


@pytest.mark.parametrize("angle", [0.0, 1e-10, 1e-8, 1e-3, 1.0, 3.1, torch.pi - 1e-6, torch.pi])
def test_the_kernel_of_rotation_vectors_goes_there_and_back(angle: float) -> None:
    axes = torch.nn.functional.normalize(torch.randn(200, 3, dtype=torch.float64, generator=_seeded()), dim=1)
    matrices = rotation.axis_angle_to_matrix(axes * angle)
    vectors = rotation_vectors(matrices)
    torch.testing.assert_close(rotation.axis_angle_to_matrix(vectors), matrices, atol=1e-9, rtol=0)
    if angle < torch.pi:  # half a turn has two
        torch.testing.assert_close(vectors, axes * angle, atol=1e-7, rtol=0)


def test_the_kernels_gradient_along_turns_is_that_of_torch() -> None:
    vectors = 1.5 * torch.randn(20, 3, dtype=torch.float64, generator=_seeded())
    weight = torch.randn(20, 3, dtype=torch.float64, generator=_seeded())
    gradients = []
    for function in (rotation_vectors, rotation.matrix_to_axis_angle):
        delta = torch.zeros_like(vectors, requires_grad=True)
        turned = rotation.axis_angle_to_matrix(vectors) @ rotation.axis_angle_to_matrix(delta)
        (gradient,) = torch.autograd.grad((weight * function(turned)).sum(), delta)
        gradients.append(gradient)
    torch.testing.assert_close(*gradients)


def test_axis_angle_has_gradients_at_zero() -> None:
    vector = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(rotation.axis_angle_to_matrix, vector)


def test_log_jacobian_is_the_derivative_of_the_logarithm() -> None:
    vectors = torch.randn(8, 3, dtype=torch.float64, generator=_seeded())
    for vector in vectors:
        turned = rotation.axis_angle_to_matrix(vector)

        def moved(delta: torch.Tensor, turned: torch.Tensor = turned) -> torch.Tensor:
            return rotation.matrix_to_axis_angle(turned @ rotation.axis_angle_to_matrix(delta))

        numeric = torch.autograd.functional.jacobian(moved, torch.zeros(3, dtype=torch.float64))
        torch.testing.assert_close(rotation.log_jacobian(vector), numeric, atol=1e-8, rtol=0)


def test_sixd_round_trip() -> None:
    matrices = rotation.axis_angle_to_matrix(torch.randn(10, 3, generator=_seeded()))
    torch.testing.assert_close(rotation.sixd_to_matrix(rotation.matrix_to_sixd(matrices)), matrices)


def test_rotation_between_carries_one_direction_to_the_other() -> None:
    source, target = torch.randn(2, 10, 3, dtype=torch.float64, generator=_seeded())
    turned = (rotation.rotation_between(source, target) @ source[..., None])[..., 0]
    cosine = torch.nn.functional.cosine_similarity(turned, target, dim=-1)
    torch.testing.assert_close(cosine, torch.ones_like(cosine))


@pytest.mark.parametrize("angle", [0.0, 1e-4, 1.0, torch.pi - 1e-4, torch.pi])
def test_angles_are_exact_up_to_half_a_turn(angle: float) -> None:
    """In single precision, where arcsin and arccos of a matrix's norm or trace lose 1e-3 rad at one of the ends."""
    axes = torch.nn.functional.normalize(torch.randn(50, 3, dtype=torch.float64, generator=_seeded()), dim=1)
    turned = rotation.axis_angle_to_matrix(axes * angle).float()
    found = rotation.angle_between(turned, torch.eye(3).expand_as(turned))
    torch.testing.assert_close(found, torch.full_like(found, angle), atol=1e-6, rtol=0)


def _seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)
