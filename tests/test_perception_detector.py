"""The detector on pictures of one person and of several: frames, order, determinism, boxes, refusals."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsr_fit.boxes import keypoint_box, shared_area, widened
from dsr_fit.errors import InputError
from dsr_fit.io.images import read_image
from dsr_fit.joints import BODY_25_OF_COCO, COCO_17_SLOTS, KEYPOINT_INDEX, empty_keypoints
from dsr_fit.observation import Detection
from dsr_fit.observe import detector as detection
from dsr_fit.observe.detector import PersonDetector
from dsr_fit.observe.landmarks import Measured, Region
from dsr_fit.observe.ownership import covered

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "person.png"

GREY = np.full((64, 48, 3), 128, dtype=np.uint8)


@pytest.fixture(scope="module")
def detector() -> PersonDetector:
    return PersonDetector()


@pytest.fixture(scope="module")
def photo(request: pytest.FixtureRequest) -> np.ndarray:
    """A picture of one person: the example, else a photo of the shared folder."""
    if EXAMPLE.is_file():
        return read_image(EXAMPLE)[0]
    shared: Path = request.getfixturevalue("shared_dir")
    return read_image(shared / "data" / "ccp" / "photos" / "0001.jpg")[0]


def _padded(image: np.ndarray, left: int, top: int, right: int, bottom: int) -> np.ndarray:
    return np.pad(image, ((top, bottom), (left, right), (0, 0)), mode="constant", constant_values=190)


def _differences(first: np.ndarray, second: np.ndarray, size: float) -> np.ndarray:
    """Distances of the points that both see, as shares of the person's size."""
    both = (first[:, 2] > 0.5) & (second[:, 2] > 0.5)
    assert both.sum() >= 10
    return np.linalg.norm(first[both, :2] - second[both, :2], axis=1) / size


def test_shapes_and_ranges(detector: PersonDetector, photo: np.ndarray) -> None:
    (person,) = detector.detect(photo)
    assert person.keypoints.shape == (49, 3)
    assert person.source == "blazepose-heavy"
    assert person.world_landmarks is not None
    assert person.person_mask is not None
    assert person.person_mask.shape == photo.shape[:2]
    assert person.person_mask.dtype == person.keypoints.dtype == np.float32
    assert person.person_mask.min() >= 0
    assert person.person_mask.max() <= 1
    seen = person.keypoints[:, 2] > 0
    assert (person.keypoints[seen, :2] <= photo.shape[1::-1]).all()
    assert (person.keypoints[:, :2] >= 0).all()
    np.testing.assert_array_equal(person.keypoints[~seen], 0)
    np.testing.assert_array_equal(person.keypoints[:, 2], person.world_landmarks[:, 3])


def test_world_landmarks_are_camera_axes_about_the_hips(detector: PersonDetector, photo: np.ndarray) -> None:
    (person,) = detector.detect(photo)
    world = person.world_landmarks
    assert world is not None
    hips = world[[KEYPOINT_INDEX["LHip"], KEYPOINT_INDEX["RHip"]], :3].mean(axis=0)
    np.testing.assert_allclose(hips, 0, atol=0.02)
    assert world[KEYPOINT_INDEX["Nose"], 1] < -0.3  # y down: the head is above the hips of somebody who stands
    seen = person.keypoints[:, 2] > 0.5
    for axis in (0, 1):  # x and y run as the image's
        assert np.corrcoef(world[seen, axis], person.keypoints[seen, axis])[0, 1] > 0.8


def test_the_mask_covers_the_keypoints(detector: PersonDetector, photo: np.ndarray) -> None:
    (person,) = detector.detect(photo)
    assert person.person_mask is not None
    sure = person.keypoints[person.keypoints[:, 2] > 0.9, :2].astype(int)
    assert (person.person_mask[sure[:, 1], sure[:, 0]] > 0.5).mean() > 0.8


def test_an_answer_depends_on_its_image_alone(detector: PersonDetector, photo: np.ndarray) -> None:
    (first,) = detector.detect(photo)
    detector.detect(np.ascontiguousarray(photo[:, ::-1]))
    detector.detect(GREY)
    (again,) = detector.detect(photo)
    (fresh,) = PersonDetector().detect(photo)
    for name in ("keypoints", "person_mask", "world_landmarks"):
        for other in (again, fresh):
            np.testing.assert_array_equal(getattr(first, name), getattr(other, name))


def test_a_padded_image_shifts_the_keypoints(detector: PersonDetector, photo: np.ndarray) -> None:
    """Within 3 % of the person's size: the shifted image is sampled anew."""
    (person,) = detector.detect(photo)
    (shifted,) = detector.detect(_padded(photo, 120, 40, 60, 80))
    size = max(keypoint_box(person.keypoints)[2:])
    moved = person.keypoints + np.array([120, 40, 0], dtype=np.float32)
    assert np.median(_differences(shifted.keypoints, moved, size)) < 0.03


def test_a_flipped_image_swaps_left_and_right(detector: PersonDetector, photo: np.ndarray) -> None:
    (person,) = detector.detect(photo)
    (flipped,) = detector.detect(np.ascontiguousarray(photo[:, ::-1]))
    mirrored = flipped.keypoints.copy()
    for name, slot in KEYPOINT_INDEX.items():
        partner = {"L": "R" + name[1:], "R": "L" + name[1:]}.get(name[0], name)
        if slot < 25:
            mirrored[KEYPOINT_INDEX.get(partner, slot)] = flipped.keypoints[slot]
    mirrored[:, 0] = photo.shape[1] - mirrored[:, 0]
    size = max(keypoint_box(person.keypoints)[2:])
    assert np.median(_differences(mirrored, person.keypoints, size)) < 0.03


def test_a_box_chooses_the_person_in_it(detector: PersonDetector, photo: np.ndarray) -> None:
    """Two copies side by side: either box gives its own copy, in coordinates of the whole image."""
    width = photo.shape[1]
    pair = np.concatenate([photo, np.full_like(photo, 190), photo], axis=1)
    (alone,) = detector.detect(photo)
    x, y, box_width, box_height = widened(keypoint_box(alone.keypoints), 0.1)
    for shift in (0, 2 * width):
        (person,) = detector.detect(pair, bbox=(x + shift, y, box_width, box_height))
        moved = alone.keypoints + np.array([shift, 0, 0], dtype=np.float32)
        size = max(keypoint_box(alone.keypoints)[2:])
        assert np.median(_differences(person.keypoints, moved, size)) < 0.03
        assert person.person_mask is not None
        assert person.person_mask.shape == pair.shape[:2]
        columns = np.flatnonzero((person.person_mask > 0.5).any(axis=0))
        assert columns[0] >= shift - width
        assert columns[-1] <= shift + 2 * width


def test_small_people_are_found_and_ordered_by_size(detector: PersonDetector, photo: np.ndarray) -> None:
    """Both sizes are too small for one look at the whole image."""
    canvas = Image.new("RGB", (1920, 1440), (190, 190, 190))
    height = 310
    large = Image.fromarray(photo).resize((height * photo.shape[1] // photo.shape[0], height))
    small = large.resize((large.width * 3 // 4, large.height * 3 // 4))
    canvas.paste(small, (300, 240))
    canvas.paste(large, (1320, 900))
    people = detector.detect(np.asarray(canvas))
    boxes = [keypoint_box(person.keypoints) for person in people]
    areas = [box[2] * box[3] for box in boxes]
    assert areas == sorted(areas, reverse=True)
    for x, y, picture in ((1320, 900, large), (300, 240, small)):
        inside = [shared_area(box, (x, y, picture.width, picture.height)) > 0.9 * box[2] * box[3] for box in boxes]
        assert sum(inside) == 1


def test_nobody_is_an_empty_list(detector: PersonDetector) -> None:
    assert detector.detect(GREY) == []
    assert detector.detect(GREY, bbox=(5, 5, 20, 30)) == []
    assert detector.detect(np.zeros((1, 1, 3), dtype=np.uint8)) == []


def test_windows_beyond_the_picture_show_nobody(detector: PersonDetector, photo: np.ndarray) -> None:
    height, width = photo.shape[:2]
    inside = (0.0, 0.0, float(width), float(height))
    beyond = [(-50.0, 0.0, 40.0, 40.0), (0.0, height + 5.0, 40.0, 40.0), (width + 0.5, 10.0, 40.0, 40.0)]
    assert detector.finder.look(photo, beyond) == []
    seen = detector.finder.look(photo, [*beyond, inside])
    assert [one.box for one in seen] == [one.box for one in detector.finder.look(photo, [inside])]


@pytest.mark.parametrize(
    ("bbox", "words"),
    [
        ((0, 0, 0, 10), "empty"),
        ((float("nan"), 0, 5, 5), "empty"),
        ((48, 0, 9, 9), "outside"),
        ((-9, 0, 9, 9), "outside"),
    ],
)
def test_senseless_boxes_are_refused(detector: PersonDetector, bbox: tuple[float, ...], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        detector.detect(GREY, bbox=bbox)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_keypoints_from_elsewhere_get_mask_and_landmarks_of_the_same_person(
    detector: PersonDetector, photo: np.ndarray
) -> None:
    """Keypoints of COCO, 2 % of the person off; nobody's keypoints, beside the person, stay as they are."""
    (person,) = detector.detect(photo)
    size = max(keypoint_box(person.keypoints)[2:])
    given = empty_keypoints()
    coco, body_25 = list(COCO_17_SLOTS), list(BODY_25_OF_COCO)
    given[coco] = person.keypoints[body_25]
    given[coco, :2] += np.random.default_rng(0).normal(0, 0.02 * size, (17, 2))
    full = detector.complete(photo, Detection(given, source="coco"))
    assert full.source == "coco"
    np.testing.assert_array_equal(full.keypoints, given)
    assert full.person_mask is not None
    assert person.person_mask is not None
    assert np.abs(full.person_mask - person.person_mask).mean() < 0.02
    assert full.world_landmarks is not None
    assert person.world_landmarks is not None
    seen = person.keypoints[:, 2] > 0.5
    assert np.median(np.linalg.norm((full.world_landmarks - person.world_landmarks)[seen, :3], axis=1)) < 0.04
    given[coco, 0] -= 1.5 * size
    assert detector.complete(photo, Detection(given)).person_mask is None


def test_two_people_close_together_share_no_pixel(detector: PersonDetector, photo: np.ndarray) -> None:
    """A person, and a mirror image half a shoulder's width beside, partly in front."""
    (alone,) = detector.detect(photo)
    assert alone.person_mask is not None
    step = int(0.45 * keypoint_box(alone.keypoints)[2])
    pair = np.concatenate([photo, np.full_like(photo, 190)], axis=1)
    width, front = photo.shape[1], photo[:, ::-1]
    shown = alone.person_mask[:, ::-1, None] > 0.5
    place = slice(width // 2 + step, width // 2 + step + width)
    pair[:, place] = np.where(shown, front, pair[:, place])
    people = detector.detect(pair)
    assert len(people) == 2
    first, second = (one.person_mask for one in people)
    assert first is not None
    assert second is not None
    assert not ((first > 0.5) & (second > 0.5)).any()
    for one, other in ((people[0], second), (people[1], first)):
        assert one.others is not None
        inside = (other > 0.5) & one.others
        assert inside.any()
        assert one.person_mask is not None
        assert not ((one.person_mask > 0) & one.others).any()
    assert min(one.agreement or 0 for one in people) > 0.5
    for person in people:
        box = keypoint_box(person.keypoints)
        (boxed,) = detector.detect(pair, bbox=box)
        assert np.median(_differences(boxed.keypoints, person.keypoints, max(box[2:]))) < 0.03


def test_no_more_people_than_asked_for(detector: PersonDetector, photo: np.ndarray) -> None:
    """With a neighbour's pixels still known; a share of the picture's height leaves the small one out."""
    small = np.array(Image.fromarray(photo).resize((photo.shape[1] // 2, photo.shape[0] // 2)))
    pair = np.full((photo.shape[0], photo.shape[1] + small.shape[1], 3), 190, np.uint8)
    pair[:, : photo.shape[1]] = photo
    pair[-small.shape[0] :, photo.shape[1] :] = small
    everybody = detector.detect(pair)
    assert len(everybody) == 2
    (one,) = detector.detect(pair, count=1)
    np.testing.assert_array_equal(one.keypoints, everybody[0].keypoints)
    (tall,) = detector.detect(pair, min_height=0.6)
    np.testing.assert_array_equal(tall.keypoints, everybody[0].keypoints)


def _measured(points: np.ndarray, region: Region, mask: np.ndarray) -> Measured:
    return Measured(
        region, np.column_stack([points, np.ones(33)]), np.zeros((33, 3), np.float32), 1.0, mask, region, None, None
    )


def test_a_part_of_a_person_is_nobody_and_a_child_before_a_person_is_somebody() -> None:
    """A leg that was taken for a person, with its mask on the whole person's; somebody small whose mask is free."""
    rng = np.random.default_rng(0)
    region = Region((128.0, 128.0), 256.0, 0.0)
    whole = np.zeros((256, 256), np.float32)
    whole[20:240, 60:200] = 1
    leg = np.zeros_like(whole)
    leg[150:238, 70:110] = 1
    points = np.column_stack([rng.uniform(60, 200, 33), rng.uniform(20, 240, 33)])
    few = np.column_stack([rng.uniform(72, 108, 33), rng.uniform(150, 238, 33)])
    person = detection._Person(_measured(points, region, whole), np.column_stack([points[:17], np.ones(17)]), 0.9)
    part = detection._Person(_measured(few, region, leg), np.column_stack([few[:17], np.ones(17)]), 0.5)
    assert covered(part.measured, person.measured) == 1
    assert covered(person.measured, part.measured) == pytest.approx(leg.sum() / whole.sum())
    assert detection._distinct([person, part]) == [person]
    free = replace(person, measured=_measured(points, region, np.where(leg > 0, 0, whole)))
    assert detection._distinct([free, part]) == [free, part]
    assert detection._distinct([person, person]) == [person]


def test_who_lies_is_as_large_as_who_stands(detector: PersonDetector, photo: np.ndarray) -> None:
    """The person of the photo takes up most of its height; lying, a third of that of a picture as high."""
    lying = np.full((photo.shape[0], photo.shape[0], 3), 190, np.uint8)
    turned = np.rot90(photo)
    lying[-turned.shape[0] :] = turned
    (person,) = detector.detect(lying)
    box = keypoint_box(person.keypoints)
    assert box[3] < 0.5 * len(lying) < box[2]
    assert len(detector.detect(lying, min_height=0.5)) == 1


def test_masks_of_a_crowd_are_drawn_one_at_a_time(detector: PersonDetector, photo: np.ndarray) -> None:
    """In a large picture each takes 5 bytes a pixel."""
    row = np.concatenate([photo] * 3, axis=1)
    crowd = np.asarray(Image.fromarray(row).resize((3 * photo.shape[1] * 2, photo.shape[0] * 2)))
    people = detector.detect(crowd)
    assert len(people) == 3
    tracemalloc.start()
    for person in people:
        assert person.person_mask is not None
        del person
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    mask = 4 * crowd.shape[0] * crowd.shape[1]
    assert mask < peak < 2.9 * mask
