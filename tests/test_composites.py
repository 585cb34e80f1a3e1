"""Composites: what they promise about everybody in them."""

from __future__ import annotations

from dataclasses import fields

import cv2
import numpy as np
import pytest

from dsr_fit.boxes import shared_area
from dsr_fit.labels import OTHER_PERSON, UNKNOWN, shows_person
from dsr_fit.synthetic import Composite, Couple, composite, couple
from dsr_fit.synthetic.composites import APART, COVERED, HEIGHTS, PEOPLE

SEEDS = tuple(range(10))


@pytest.fixture(scope="module")
def groups() -> list[Composite]:
    return [composite(seed) for seed in SEEDS]


@pytest.fixture(scope="module")
def couples() -> list[Couple]:
    return [couple(seed) for seed in range(8)]


def grown(mask: np.ndarray, pixels: float) -> np.ndarray:
    size = 2 * int(np.ceil(pixels)) + 1
    return cv2.dilate(mask.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))) > 0


def test_a_composite_is_the_same_on_every_call(groups: list[Composite]):
    again = composite(SEEDS[3])
    assert np.array_equal(again.image, groups[3].image)
    for one, other in zip(again.people, groups[3].people, strict=True):
        assert all(np.array_equal(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    assert not any(np.array_equal(again.image, other.image) for other in groups if other.seed != SEEDS[3])


def test_masks_nearest_first(groups: list[Composite]):
    for group in groups:
        assert PEOPLE[0] <= len(group.people) <= PEOPLE[1]
        depths = [float(person.vertices[:, 2].mean()) for person in group.people]
        assert depths == sorted(depths)
        taken = np.zeros(group.image.shape[:2], bool)
        for person in group.people:
            assert np.array_equal(person.visible_mask, person.full_mask & ~taken)
            assert person.covered == pytest.approx(1 - person.visible_mask.sum() / person.full_mask.sum())
            taken |= person.full_mask
            x, y, width, height = (round(number) for number in person.box)
            assert person.full_mask[y : y + height, x : x + width].sum() == person.full_mask.sum()
            assert person.full_mask[[y, y + height - 1]].any(1).all()
            assert person.full_mask[:, [x, x + width - 1]].any(0).all()


def test_labels_are_ones_own_and_others_are_other_people(groups: list[Composite]):
    for group in groups:
        for one in group.people:
            others = np.any([other.visible_mask for other in group.people if other is not one], 0)
            assert ((one.labels == OTHER_PERSON) == others).all()
            named = shows_person(one.labels) | (one.labels == UNKNOWN)  # bare bellies have no label
            assert (named == one.visible_mask).all()


def test_keypoints_lie_on_their_person(groups: list[Composite]):
    seen = 0
    for group in groups:
        size = group.image.shape[1::-1]
        for number, person in enumerate(group.people):
            points, visible = person.keypoints[:, :2], person.keypoints[:, 2] == 1
            projected = person.joints[:, :2] / person.joints[:, 2:] * group.focal_length + np.array(size) / 2
            assert np.allclose(points, projected, atol=1e-2)  # float32 pixels
            column, row = np.floor(points[visible]).astype(int).T
            # Picked points such as the toes' lie on the skin, so up to a pixel or a finger's breadth outside.
            near = grown(person.full_mask, 1 + 0.02 * group.focal_length / person.vertices[:, 2].min())
            assert near[row, column].all()
            for nearer in group.people[:number]:
                assert not nearer.full_mask[row, column].any()
            seen += visible.sum()
    assert seen > 20 * sum(len(group.people) for group in groups)


def test_hidden_counts_what_nearer_people_and_the_edge_hide(groups: list[Composite]):
    people = [person for group in groups for person in group.people]
    assert any(person.covered > 0.2 for person in people)
    assert any(person.outside > 0.1 for person in people)
    for person in people:
        assert person.hidden == pytest.approx(person.covered + (1 - person.covered) * person.outside)
        assert person.hidden < 1


def test_people_of_all_heights_stand_on_one_floor(groups: list[Composite]):
    heights = [person.box[3] / group.image.shape[0] for group in groups for person in group.people]
    assert min(heights) < 1.6 * HEIGHTS[0]
    assert max(heights) > 0.75 * HEIGHTS[1]
    for group in groups:
        lowest = np.stack([person.vertices[person.vertices[:, 1].argmax()] for person in group.people])
        gaps = np.linalg.norm(lowest[:, None] - lowest[None], axis=2) + np.eye(len(lowest))
        assert gaps.min() > 0.1 * APART
        if len(lowest) > 3:
            # The plane through the lowest points; a foot off its lowest vertex tilts it by centimetres.
            middle = lowest - lowest.mean(0)
            assert np.linalg.svd(middle)[1][-1] / np.sqrt(len(lowest)) < 0.1


def test_a_couple_differs_by_the_other_person(couples: list[Couple]):
    assert {one.in_front for one in couples} == {True, False}
    for one in couples:
        main, (alone,), other = one.together.people[one.main], one.alone.people, one.together.people[1 - one.main]
        assert len(one.together.people) == 2
        for name in ("global_orient", "body_pose", "betas", "cam_t", "joints", "full_mask"):
            assert np.array_equal(getattr(main, name), getattr(alone, name))
        assert alone.hidden == 0
        if one.in_front:
            # Placed by coarse masks of bodies without clothes.
            assert 0.5 * COVERED[0] < main.covered < COVERED[1] + 0.1
        else:
            assert main.covered == 0 < other.covered
        assert shared_area(main.box, other.box) > 0
        # Elsewhere the pictures are the same, but for the other's shadow and what JPEG makes of its edges.
        rows = slice(0, round(min(main.box[1], other.box[1])) - 24)
        if rows.stop > 0:
            assert np.abs(one.together.image[rows].astype(int) - one.alone.image[rows]).mean() < 1
