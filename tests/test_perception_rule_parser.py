"""The rule parser on a drawn person, whose every pixel's label is known."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from dsr_fit.boxes import keypoint_box
from dsr_fit.joints import KEYPOINT_INDEX, empty_keypoints
from dsr_fit.labels import LABEL_INDEX, LEFT_RIGHT_PAIRS, UNKNOWN
from dsr_fit.observation import Detection
from dsr_fit.observe.rules.regions import mask_from_keypoints
from dsr_fit.observe.rules.rule_parser import RuleParser

# Somebody who faces the camera: the left side is on the right of the image.
POINTS = {
    "Nose": (150, 62), "LEye": (158, 54), "REye": (142, 54), "LEar": (170, 58), "REar": (130, 58),
    "LShoulder": (190, 120), "RShoulder": (110, 120), "LElbow": (215, 190), "RElbow": (85, 190),
    "LWrist": (225, 255), "RWrist": (75, 255), "LHip": (172, 250), "RHip": (128, 250), "LKnee": (175, 350),
    "RKnee": (125, 350), "LAnkle": (176, 445), "RAnkle": (124, 445), "LHeel": (176, 458), "RHeel": (124, 458),
    "LBigToe": (186, 472), "RBigToe": (114, 472),
}  # fmt: skip
SIZE = (300, 500)
SKIN, HAIR, SHIRT, TROUSERS, SHOES = (214, 168, 144), (50, 35, 28), (60, 90, 180), (40, 110, 60), (35, 35, 40)


def _line(image: np.ndarray, start: str, end: str, width: int, colour: tuple[int, int, int]) -> None:
    cv2.line(image, POINTS[start], POINTS[end], colour, width)


def _draw(bare_arms: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """The picture, and the person's mask."""
    background = np.full((SIZE[1], SIZE[0], 3), (150, 160, 150), dtype=np.uint8)
    image = background.copy()
    cv2.ellipse(image, (150, 55), (28, 36), 0, 0, 360, HAIR, -1)
    for side in ("L", "R"):
        _line(image, f"{side}Hip", f"{side}Knee", 38, TROUSERS)
        _line(image, f"{side}Knee", f"{side}Ankle", 30, TROUSERS)
        _line(image, f"{side}Heel", f"{side}BigToe", 22, SHOES)
        arm = SKIN if bare_arms else SHIRT
        _line(image, f"{side}Shoulder", f"{side}Elbow", 24, arm)
        _line(image, f"{side}Elbow", f"{side}Wrist", 20, arm)
        x, y = POINTS[f"{side}Wrist"]
        cv2.ellipse(image, (x, y + 14), (10, 16), 0, 0, 360, SKIN, -1)
    cv2.rectangle(image, (139, 85), (161, 112), SKIN, -1)
    corners = [POINTS[name] for name in ("LShoulder", "RShoulder", "RHip", "LHip")]
    cv2.fillPoly(image, [np.array(corners)], SHIRT)
    cv2.polylines(image, [np.array(corners)], True, SHIRT, 20)
    cv2.ellipse(image, (150, 64), (20, 27), 0, 0, 360, SKIN, -1)
    mask = (image != background).any(axis=2).astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 3, image.shape)
    return (image + noise).round().clip(0, 255).astype(np.uint8), mask


def _detection(mask: np.ndarray | None) -> Detection:
    keypoints = empty_keypoints()
    for name, place in POINTS.items():
        keypoints[KEYPOINT_INDEX[name]] = (*place, 0.95)
    return Detection(keypoints, None, mask, "drawn")


def _label_at(labels: np.ndarray, place: tuple[float, float]) -> int:
    return int(labels[int(place[1]), int(place[0])])


def _between(start: str, end: str) -> tuple[float, float]:
    return (POINTS[start][0] + POINTS[end][0]) / 2, (POINTS[start][1] + POINTS[end][1]) / 2


def _flip_sides(labels: np.ndarray) -> np.ndarray:
    table = np.arange(256, dtype=np.uint8)
    for left, right in LEFT_RIGHT_PAIRS:
        table[left], table[right] = right, left
    return table[labels]


def test_every_part_of_a_drawn_person() -> None:
    image, mask = _draw()
    labels = RuleParser().parse(image, _detection(mask))
    assert labels.shape == mask.shape
    assert labels.dtype == np.uint8
    expected = {
        POINTS["Nose"]: "face",
        (150, 25): "hair",
        (150, 180): "upperclothes",
        _between("LHip", "LKnee"): "pants",
        _between("RKnee", "RAnkle"): "pants",
        _between("LElbow", "LWrist"): "leftArm",
        _between("RElbow", "RWrist"): "rightArm",
        _between("LShoulder", "LElbow"): "leftArm",
        (225, 268): "leftArm",
        (75, 268): "rightArm",
        _between("LHeel", "LBigToe"): "leftShoe",
        _between("RHeel", "RBigToe"): "rightShoe",
    }
    for place, name in expected.items():
        assert _label_at(labels, place) == LABEL_INDEX[name], (place, name)


def test_the_outline_is_the_masks() -> None:
    """Every pixel of the mask has a label, none outside has."""
    image, mask = _draw()
    labels = RuleParser().parse(image, _detection(mask))
    np.testing.assert_array_equal(labels > 0, mask > 0)


def test_sleeves_are_no_arms_but_hands_stay() -> None:
    image, mask = _draw(bare_arms=False)
    labels = RuleParser().parse(image, _detection(mask))
    assert _label_at(labels, _between("LElbow", "LWrist")) == LABEL_INDEX["upperclothes"]
    assert _label_at(labels, _between("RShoulder", "RElbow")) == LABEL_INDEX["upperclothes"]
    assert _label_at(labels, (225, 268)) == LABEL_INDEX["leftArm"]
    assert _label_at(labels, (75, 268)) == LABEL_INDEX["rightArm"]


def test_a_flipped_picture_gives_flipped_labels_with_sides_swapped() -> None:
    """All but the pixels where resampling at the working size rounds the other way."""
    image, mask = _draw()
    detection = _detection(mask)
    labels = RuleParser().parse(image, detection)
    mirrored = detection.keypoints.copy()
    for name in POINTS:
        if name != "Nose":
            other = ("R" if name[0] == "L" else "L") + name[1:]
            mirrored[KEYPOINT_INDEX[other]] = detection.keypoints[KEYPOINT_INDEX[name]]
    mirrored[mirrored[:, 2] > 0, 0] = SIZE[0] - mirrored[mirrored[:, 2] > 0, 0]
    flipped = Detection(mirrored, None, np.ascontiguousarray(mask[:, ::-1]))
    again = _flip_sides(RuleParser().parse(np.ascontiguousarray(image[:, ::-1]), flipped))[:, ::-1]
    assert (again == labels)[mask > 0].mean() > 0.97


def test_padding_shifts_the_labels_exactly() -> None:
    image, mask = _draw()
    labels = RuleParser().parse(image, _detection(mask))
    pad = ((31, 17), (45, 3))
    moved = _detection(np.pad(mask, pad))
    seen = moved.keypoints[:, 2] > 0
    moved.keypoints[seen, :2] += (45, 31)
    padded = RuleParser().parse(np.pad(image, (*pad, (0, 0))), moved)
    np.testing.assert_array_equal(padded, np.pad(labels, pad))


def test_a_larger_picture_has_the_same_labels() -> None:
    image, mask = _draw()
    labels = RuleParser().parse(image, _detection(mask))
    large = _detection(cv2.resize(mask, None, fx=3, fy=3, interpolation=cv2.INTER_NEAREST))
    large.keypoints[:, :2] *= 3
    enlarged = RuleParser().parse(cv2.resize(image, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC), large)
    assert (enlarged[1::3, 1::3] == labels)[mask > 0].mean() > 0.95


def test_greyscale_pictures_keep_face_clothes_and_shoes() -> None:
    image, mask = _draw()
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    labels = RuleParser().parse(grey, _detection(mask))
    assert _label_at(labels, POINTS["Nose"]) == LABEL_INDEX["face"]
    assert _label_at(labels, (150, 180)) == LABEL_INDEX["upperclothes"]
    assert _label_at(labels, _between("LHeel", "LBigToe")) == LABEL_INDEX["leftShoe"]


def test_someone_elses_piece_of_the_mask_is_background() -> None:
    image, mask = _draw()
    mask[5:60, 5:40] = 1
    labels = RuleParser().parse(image, _detection(mask))
    assert not labels[5:60, 5:40].any()
    assert _label_at(labels, POINTS["Nose"]) == LABEL_INDEX["face"]


def test_a_mask_grown_from_keypoints_finds_the_person() -> None:
    image, mask = _draw()
    found = mask_from_keypoints(image, _detection(None).keypoints)
    assert found.shape == mask.shape
    both = ((found > 0.5) & (mask > 0)).sum() / ((found > 0.5) | (mask > 0)).sum()
    assert both > 0.85
    np.testing.assert_array_equal(found, mask_from_keypoints(image, _detection(None).keypoints))
    labels = RuleParser().parse(image, _detection(None))
    assert _label_at(labels, POINTS["Nose"]) == LABEL_INDEX["face"]
    assert _label_at(labels, (150, 180)) == LABEL_INDEX["upperclothes"]


def test_what_cant_be_judged_is_unknown() -> None:
    image, mask = _draw()
    unseen = replace(_detection(mask), keypoints=empty_keypoints())
    labels = RuleParser().parse(image, unseen)
    np.testing.assert_array_equal(labels, np.where(mask > 0, UNKNOWN, 0))
    nothing = RuleParser().parse(image, replace(unseen, person_mask=None))
    assert not nothing.any()


@pytest.mark.parametrize("names", [("Nose",), ("LAnkle",), ("LShoulder", "RShoulder"), ("LHip", "LKnee", "LAnkle")])
@pytest.mark.parametrize("masked", [True, False])
def test_few_points_are_enough_for_an_answer(names: tuple[str, ...], masked: bool) -> None:
    image, mask = _draw()
    detection = _detection(mask if masked else None)
    dropped = [slot for name, slot in KEYPOINT_INDEX.items() if name not in names]
    detection.keypoints[dropped] = 0
    labels = RuleParser().parse(image, detection)
    assert labels.shape == mask.shape
    if masked:
        np.testing.assert_array_equal(labels > 0, mask > 0)


def test_a_box_of_keypoints() -> None:
    keypoints = empty_keypoints()
    assert keypoint_box(keypoints) == (0, 0, 0, 0)
    keypoints[3] = (5, 6, 0.1)
    assert keypoint_box(keypoints) == (5, 6, 0, 0)  # the unsure count where there are no others
    keypoints[4], keypoints[5] = (10, 40, 0.9), (30, 20, 0.9)
    assert keypoint_box(keypoints) == (10, 20, 20, 20)
