"""Crops for HMR's training: whatever changes the picture changes all that is known of the person alike."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from label_people import by_the_crops_camera, known_people, observation_of
from scenes import open_body
from torch import Tensor
from training_parts import settings_of

pytest.importorskip("lightning")

from dsr_fit.body.body import Posed
from dsr_fit.camera import project
from dsr_fit.joints import KEYPOINT_INDEX
from dsr_fit.labels import COLOURS, LABEL_INDEX, UNKNOWN
from dsr_fit.observe.batch import Batch, crop_labels
from dsr_fit.regressor.hmr_regressor import IMAGENET_MEAN, IMAGENET_STD, Cameras, crop_images
from dsr_fit.render.renderer import Renderer
from dsr_fit.training.hmr_crops import (
    CropBatch,
    CropChange,
    draw,
    sample,
    stacked,
)
from dsr_fit.training.hmr_data import HmrData
from dsr_fit.training.pseudo_labels import PseudoLabels

CHANGES = {
    "unchanged": CropChange(),
    "turned": CropChange(angle=0.7),
    "turned back, wider": CropChange(angle=-1.0, scale=1.25),
    "mirrored": CropChange(mirrored=True),
    "all": CropChange((1.3, 0.7, 1.1), 0.5, 0.8, True),
}
MIRROR_MM = 3.0
"""The open body's two halves are the same to so much."""


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> PseudoLabels:
    return known_people(tmp_path_factory.mktemp("people"))


def _placed(people: PseudoLabels, row: int, change: CropChange, crop: CropBatch) -> tuple[Tensor, Tensor, Tensor]:
    """Where the changed body is in the changed image's camera: rotations, cam_t; and that camera's intrinsics.

    The pelvis, about which `global_orient` turns, moves with the picture.
    """
    rest = open_body().skeleton.joints_at_rest(crop.betas)[0, 0]
    root = rest + torch.from_numpy(people.cam_t[row])
    cos, sin = math.cos(change.angle), math.sin(change.angle)
    moved = torch.tensor([cos * root[0] - sin * root[1], sin * root[0] + cos * root[1], root[2]])
    if change.mirrored:
        moved[0] *= -1
    rotations = crop.rotations.clone()
    rotations[:, 0] = crop.turns.mT @ rotations[:, 0]
    return rotations, (moved - rest)[None], crop.cameras[:, [0, 0, 1, 2]]


def _keypoints(rotations: Tensor, betas: Tensor) -> Tensor:
    return open_body().skeleton.keypoints(rotations, betas)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("camera", ["full", "crop"])
def test_the_changed_body_lies_on_the_changed_keypoints(people: PseudoLabels, change: CropChange, camera: str) -> None:
    """Exactly; but for the two halves of the body, which a mirror exchanges."""
    seen = people if camera == "full" else by_the_crops_camera(people)
    for row in range(len(seen)):
        crop = sample(seen, row, change)
        rotations, cam_t, intrinsics = _placed(seen, row, change, crop)
        points = _keypoints(rotations, crop.betas) + cam_t[:, None]
        shown = project(points.double(), intrinsics.double())
        expected = (crop.keypoints[..., :2].double() + 1) * 112
        pixel_mm = 1000 * float(cam_t[0, 2]) / float(intrinsics[0, 0])
        allowed = 0.05 + (MIRROR_MM / pixel_mm if change.mirrored else 0)
        assert float((shown - expected).norm(dim=-1).max()) < allowed
        assert bool((crop.keypoints[..., 2] == 1).all())


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_landmarks_are_those_of_the_changed_body(people: PseudoLabels, change: CropChange) -> None:
    """In the view along the ray to the crop's centre, as HMR knows the body."""
    crops = stacked([sample(people, row, change) for row in range(len(people))])
    points = _keypoints(crops.rotations, crops.betas)
    off = (points - points[:, 8:9] - crops.world[..., :3]).norm(dim=-1)
    assert 1000 * float(off.max()) < (2 * MIRROR_MM if change.mirrored else 0.01)


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_the_changed_body_covers_the_changed_label_map(people: PseudoLabels, change: CropChange) -> None:
    """The map is the body's own, nearest pixels of a picture of 240 x 320."""
    renderer = Renderer(open_body().faces, open_body().num_vertices, device="cpu", outline="none")
    for row in range(len(people)):
        crop = sample(people, row, change)
        rotations, cam_t, intrinsics = _placed(people, row, change, crop)
        body, skeleton = open_body(), open_body().skeleton
        moved = skeleton.transforms(rotations, crop.betas)
        posed = Posed(body, rotations, crop.betas, moved, moved[:, :0, :, 3], cam_t)
        for size, labels in ((224, crop.labels), (112, crop.small_labels)):
            drawn = renderer(posed.vertices(), intrinsics * size / 224, size).mask
            known = labels != UNKNOWN
            shown = (labels > 0) & known
            drawn = drawn & known
            assert float((shown & drawn).sum() / (shown | drawn).sum()) > 0.95


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_the_label_map_lies_under_the_picture(people: PseudoLabels, change: CropChange) -> None:
    """The pictures are painted in the labels' colours: but for the sides that a mirror exchanges they agree."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    change = replace(change, gains=(1.0, 1.0, 1.0))
    sides = [LABEL_INDEX[f"{side}{part}"] for side in ("left", "right") for part in ("Arm", "Leg", "Shoe")]
    for row in range(len(people)):
        crop = sample(people, row, change)
        colours = (255 * (crop.images[0] * std + mean)).permute(1, 2, 0).numpy()
        labels = crop.labels[0].numpy()
        distance = np.abs(colours[..., None, :] - COLOURS).sum(-1)
        told, sure = distance.argmin(-1), distance.min(-1) < 3
        compared = sure & (labels != UNKNOWN)
        assert compared.mean() > 0.3
        exchanged = np.isin(labels, sides)
        assert (told == labels)[compared & ~exchanged].mean() > 0.99
        expected = (told != labels) if change.mirrored else (told == labels)
        assert expected[compared & exchanged].mean() > 0.99


def test_unchanged_crops_are_what_the_regressor_looks_at(people: PseudoLabels) -> None:
    """Bit for bit, and with the same frames: what is learnt is what is used."""
    rows = range(len(people))
    batch = Batch(
        [observation_of(people, row, with_image=True) for row in rows], crop_camera=False, keypoint_valid=torch.ones(49)
    )
    crops = stacked([sample(people, row, CropChange()) for row in rows])
    torch.testing.assert_close(crops.images, crop_images(batch), atol=0.02, rtol=0)  # one grey level of rounding
    assert float((crops.images != crop_images(batch)).float().mean()) < 0.01
    torch.testing.assert_close(crops.turns.double(), Cameras.of(batch, torch.device("cpu")).turns, atol=1e-6, rtol=0)
    for row in rows:
        np.testing.assert_array_equal(crops.small_labels[row], crop_labels(people.labels(row), people.crop(row), 112))


def test_a_mirror_exchanges_the_sides_of_what_is_known(people: PseudoLabels) -> None:
    plain, mirrored = (sample(people, 0, CropChange(mirrored=mirror)) for mirror in (False, True))
    for name, other in (("LWrist", "RWrist"), ("Right Knee", "Left Knee"), ("Nose", "Nose")):
        here, there = KEYPOINT_INDEX[name], KEYPOINT_INDEX[other]
        over = torch.tensor([-1.0, 1.0, 1.0])
        torch.testing.assert_close(mirrored.keypoints[0, here], plain.keypoints[0, there] * over, atol=1e-5, rtol=0)
    arm, other = (plain.labels.flip(2) == LABEL_INDEX[name] for name in ("leftArm", "rightArm"))
    assert torch.equal(mirrored.labels == LABEL_INDEX["rightArm"], arm)
    assert torch.equal(mirrored.labels == LABEL_INDEX["leftArm"], other)


def test_channels_are_brightened_apart(people: PseudoLabels) -> None:
    plain, noisy = (sample(people, 0, CropChange(gains)) for gains in ((1.0, 1.0, 1.0), (0.5, 1.4, 1.0)))
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    before, after = (one.images[0] * std + mean for one in (plain, noisy))
    expected = (before * torch.tensor([0.5, 1.4, 1.0])[:, None, None]).clamp(max=1)
    torch.testing.assert_close(after, expected, atol=1e-5, rtol=0)


def test_what_is_unobserved_stays_unobserved(people: PseudoLabels) -> None:
    keypoints, world = people.keypoints.copy(), people.world.copy()
    keypoints[:, 25:], world[:, 25:] = 0, 0
    hidden = replace(people, keypoints=keypoints, world=world)
    crop = sample(hidden, 1, CHANGES["all"])
    assert not crop.keypoints[:, 25:].any()
    assert not crop.world[:, 25:].any()
    assert bool((crop.keypoints[:, :25, 2] == 1).all())


def test_draws_have_the_spread_that_is_asked_for() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw(rng) for _ in range(4000)]
    angles = np.degrees([one.angle for one in drawn])
    turned = angles[angles != 0]
    assert len(turned) / 4000 == pytest.approx(0.4, abs=0.03)
    assert np.abs(angles).max() == pytest.approx(60)
    assert np.median(np.abs(turned)) == pytest.approx(0.6745 * 30, rel=0.1)  # of a Gaussian
    scales = np.array([one.scale for one in drawn])
    assert (scales.min(), scales.max()) == pytest.approx((0.75, 1.25))
    gains = np.array([one.gains for one in drawn])
    assert gains.min() > 0.6
    assert gains.max() < 1.4
    assert gains.std() == pytest.approx(0.8 / math.sqrt(12), rel=0.05)
    assert np.mean([one.mirrored for one in drawn]) == pytest.approx(0.5, abs=0.03)


def _data(labels: PseudoLabels | None, rendered: PseudoLabels | None = None, **changes: Any) -> HmrData:
    return HmrData(labels, rendered, settings_of(**{"batch": 4, "synthetic_share": 0.5, "seed": 1, **changes}))


def _rows(data: HmrData, number: int, *ranks: int) -> list[int]:
    return [row for _, row in data.people(number, *ranks)]


def test_everybody_has_a_turn_before_anybody_has_another(people: PseudoLabels) -> None:
    data = _data(people.rows([0, 1, 2, 0, 2]), batch=2)
    seen = [row for number in range(10) for row in _rows(data, number)]
    rounds = [seen[start : start + 5] for start in range(0, 20, 5)]
    assert all(sorted(one) == [0, 1, 2, 3, 4] for one in rounds)
    assert len({tuple(one) for one in rounds}) > 1


def test_rendered_people_have_their_share(people: PseudoLabels) -> None:
    rendered = people.rows([0, 1])
    for share, count in ((0.5, 2), (0.25, 1), (0.0, 0)):
        data = _data(people, rendered, synthetic_share=share)
        assert [source is rendered for source, _ in data.people(3)].count(True) == count
    assert all(source is rendered for source, _ in _data(None, rendered).people(0))
    assert all(source is people for source, _ in _data(people, None).people(0))


def test_a_batch_follows_from_its_number(people: PseudoLabels) -> None:
    first, again, other = (_data(people).batch(0, step) for step in (5, 5, 6))
    for value, same in zip(first, again, strict=True):
        assert torch.equal(value, same)
    assert not torch.equal(first.images, other.images)
    assert not torch.equal(_data(people, seed=2).batch(0, 5).images, first.images)
    assert torch.equal(_data(people, epoch=4).batch(1, 1).images, first.images)


def test_processes_share_the_people(people: PseudoLabels) -> None:
    data = _data(people.rows([0, 1, 2, 0, 1, 2, 0, 1]), batch=4)
    alone = _rows(data, 0) + _rows(data, 1)
    together = [row for rank in (0, 1) for row in _rows(data, 0, rank, 2)]
    assert together == alone


def test_people_count_by_their_quality(people: PseudoLabels) -> None:
    data = _data(people)
    expected = [people.quality[row] for row in _rows(data, 0)]
    np.testing.assert_allclose(data.batch(0, 0).weight, expected)
    assert bool((_data(people, by_quality=False).batch(0, 0).weight == 1).all())


def test_a_picture_far_outside_is_black(people: PseudoLabels, tmp_path: Path) -> None:
    """A person wholly beyond the image's border, as broken keypoints may say."""
    keypoints = people.keypoints.copy()
    keypoints[..., 0] += 5000
    crop = sample(replace(people, keypoints=keypoints), 0, CropChange())
    assert bool((crop.labels == UNKNOWN).all())
    assert len(crop.images.unique()) == 3
