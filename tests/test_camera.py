"""Cameras: projections, the crop as an affine change, and SPIN's crop camera."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dsr_fit.camera import (
    Crop,
    crop_intrinsics,
    fit_crop_camera,
    project,
    ray_rotation,
    spin_translation,
    translation_from_keypoints,
)
from dsr_fit.joints import empty_keypoints

INTRINSICS = torch.tensor([[900.0, 950.0, 320.0, 240.0]], dtype=torch.float64)


def _points(count: int = 20) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, count, 3, dtype=torch.float64, generator=generator) * 0.5


def test_a_point_on_the_axis_projects_to_the_principal_point() -> None:
    pixel = project(torch.tensor([[[0.0, 0.0, 3.0], [1.0, 2.0, 4.0]]], dtype=torch.float64), INTRINSICS)
    torch.testing.assert_close(pixel[0], torch.tensor([[320.0, 240.0], [545.0, 715.0]], dtype=torch.float64))


def test_the_crop_is_an_affine_change_of_the_image() -> None:
    points = _points() + torch.tensor([0.0, 0.0, 4.0])
    crop = Crop((300.0, 200.0), 250.0)
    full = project(points, INTRINSICS)
    inside = project(points, crop_intrinsics(INTRINSICS, [crop], 224))
    torch.testing.assert_close(inside, (full - torch.tensor(crop.origin)) * 224 / 250)


def test_crop_side_follows_the_longer_side_of_the_box() -> None:
    keypoints = empty_keypoints()
    keypoints[:3] = [(10, 20, 1), (110, 320, 1), (50, 60, 0.9)]
    keypoints[3] = (5000, 5000, 0.1)  # not confident enough
    crop = Crop.around(keypoints)
    assert crop.center == (60, 170)
    assert crop.side == pytest.approx(360)
    with pytest.raises(ValueError, match="confident"):
        Crop.around(empty_keypoints())


def test_translation_is_recovered_from_projections() -> None:
    points, cam_t = _points(), torch.tensor([[0.3, -0.2, 3.5]], dtype=torch.float64)
    pixels = project(points + cam_t[:, None], INTRINSICS)
    found = translation_from_keypoints(points, pixels, torch.ones(1, 20, dtype=torch.float64), INTRINSICS)
    torch.testing.assert_close(found, cam_t)


def test_points_of_another_pose_still_get_a_depth_of_their_size() -> None:
    # Mirrored in depth and turned round, points fit the pixels best near or behind the camera.
    points = _points()
    cam_t = torch.tensor([[0.3, -0.2, 4.0]], dtype=torch.float64)
    pixels = project(points + cam_t[:, None], INTRINSICS)
    ones = torch.ones(1, 20, dtype=torch.float64)
    for turn in (torch.tensor([-1.0, 1.0, -1.0]), torch.tensor([1.0, -1.0, -1.0]), torch.tensor([-1.0, -1.0, 1.0])):
        found = translation_from_keypoints(points * turn.double(), pixels, ones, INTRINSICS)
        assert 1.8 < float(found[0, 2]) < 8.5
        placed = project(points * turn.double() + found[:, None], INTRINSICS)
        torch.testing.assert_close(placed.mean(1), pixels.mean(1), atol=60, rtol=0)


def test_crop_camera_is_recovered_and_its_depth_is_spins() -> None:
    crop_cam = torch.tensor([0.9, 0.05, -0.1], dtype=torch.float64)
    points = _points()[0]
    focal = 5000 / 112
    intrinsics = torch.tensor([[focal, focal, 0.0, 0.0]], dtype=torch.float64)
    pixels = project((points + spin_translation(crop_cam))[None], intrinsics)[0]
    found, residual = fit_crop_camera(points, pixels)
    torch.testing.assert_close(found, crop_cam, atol=1e-6, rtol=0)
    assert float(residual) < 1e-4
    assert float(spin_translation(crop_cam)[2]) == pytest.approx(2 * 5000 / (224 * 0.9))


def test_ray_rotation_brings_the_crop_centre_onto_the_axis() -> None:
    crop = Crop((500.0, 100.0), 200.0)
    ray = np.array([(500 - 320) / 900, (100 - 240) / 900, 1.0])
    turned = ray_rotation(crop, 900.0, (320.0, 240.0)).numpy() @ ray
    np.testing.assert_allclose(turned[:2], 0, atol=1e-12)
    assert turned[2] == pytest.approx(np.linalg.norm(ray))
