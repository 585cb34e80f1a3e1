"""From an image and the user's files to an observation, with a stand-in detector and parser."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from dsr_fit.boxes import Box
from dsr_fit.errors import InputError, UsageError
from dsr_fit.joints import empty_keypoints
from dsr_fit.labels import LABEL_INDEX, OCCLUDER
from dsr_fit.observation import Detection, Observation
from dsr_fit.observe.perception import Inputs, Perception

WIDTH, HEIGHT = 120, 160


def _person(left: float, top: float, width: float, height: float, points: int = 25) -> np.ndarray:
    """(49, 3) keypoints that fill a box: two corners, the others inside."""
    keypoints = empty_keypoints()
    x = np.linspace(0, 1, points)
    keypoints[:points, 0] = left + width * x
    keypoints[:points, 1] = top + height * x**2
    keypoints[:points, 2] = 0.9
    return keypoints


class _Detector:
    """Finds the given people, whatever the image; remembers where it was told to look, and for how many.

    Keypoints from elsewhere are completed by the first of them.
    """

    def __init__(self, *people: Detection) -> None:
        self.people, self.looks = list(people), []

    def detect(
        self, image: np.ndarray, bbox: Box | None = None, count: int | None = None, min_height: float = 0.0
    ) -> list[Detection]:
        assert image.shape == (HEIGHT, WIDTH, 3)
        self.looks.append((bbox, count, min_height))
        return self.people

    def complete(self, image: np.ndarray, given: Detection) -> Detection:
        if not self.people:
            return given
        seen = self.people[0]
        landmarks = seen.world_landmarks if given.world_landmarks is None else given.world_landmarks
        return replace(given, person_mask=seen.person_mask, world_landmarks=landmarks)


class _Parser:
    """Labels every pixel; remembers whom it was asked about."""

    name = "stand-in"

    def __init__(self) -> None:
        self.asked: list[Detection] = []

    def parse(self, image: np.ndarray, detection: Detection) -> np.ndarray:
        self.asked.append(detection)
        return np.full(image.shape[:2], LABEL_INDEX["dress"], np.uint8)


def _seen(keypoints: np.ndarray) -> Detection:
    world = np.zeros((49, 4), np.float32)
    world[:, 3] = keypoints[:, 2]
    return Detection(keypoints, world, np.full((HEIGHT, WIDTH), 0.8, np.float32), "stand-in")


LARGE, SMALL = _seen(_person(20, 20, 60, 120)), _seen(_person(80, 60, 30, 50))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.new("RGB", (WIDTH, HEIGHT), (90, 120, 150)).save(path)
    return path


def _write_keypoints(path: Path, *people: np.ndarray) -> Path:
    """An OpenPose file of BODY_25 points."""
    entries = [{"pose_keypoints_2d": person[:25].astype(float).ravel().tolist()} for person in people]
    path.write_text(json.dumps({"people": entries}))
    return path


def test_people_are_numbered_as_the_detector_orders_them(photo: Path) -> None:
    for number, expected in enumerate((LARGE, SMALL)):
        perception = Perception(_Detector(LARGE, SMALL), _Parser())
        observation = perception.observe(photo, Inputs(person=number))
        np.testing.assert_array_equal(observation.detection.keypoints, expected.keypoints)
        assert observation.labels_source == "stand-in"
        assert observation.image.shape == (HEIGHT, WIDTH, 3)
        assert observation.image_size == (WIDTH, HEIGHT)
        assert set(observation.timings_s) == {"detect", "parse"}


@pytest.mark.parametrize("number", [2, -1])
def test_people_who_are_not_there_are_wrong_usage(photo: Path, number: int) -> None:
    perception = Perception(_Detector(LARGE, SMALL), _Parser())
    with pytest.raises(UsageError, match=rf"--person {number}: .*photo\.png shows 2 people, numbered from 0"):
        perception.observe(photo, Inputs(person=number))


def test_the_box_is_where_the_detector_looks(photo: Path) -> None:
    detector = _Detector(LARGE)
    Perception(detector, _Parser()).observe(photo, Inputs(bbox=(1, 2, 30, 40)))
    assert detector.looks == [((1, 2, 30, 40), 1, 0)]


def test_a_box_beside_keypoints_would_say_nothing_and_is_refused(photo: Path, tmp_path: Path) -> None:
    path = _write_keypoints(tmp_path / "k.json", LARGE.keypoints)
    with pytest.raises(UsageError, match="with --keypoints choose by --person"):
        Perception(_Detector(LARGE), _Parser()).observe(photo, Inputs(path, bbox=(1, 2, 30, 40)))


def test_given_keypoints_are_taken_in_the_files_order(photo: Path, tmp_path: Path) -> None:
    path = _write_keypoints(tmp_path / "k.json", SMALL.keypoints, LARGE.keypoints)
    for number, expected in enumerate((SMALL, LARGE)):
        perception = Perception(_Detector(), _Parser())
        observation = perception.observe(photo, Inputs(path, person=number))
        np.testing.assert_allclose(observation.detection.keypoints, expected.keypoints, atol=1e-4)
        assert observation.detection.source == "openpose"
    with pytest.raises(UsageError, match=r"k\.json shows 2 people"):
        Perception(_Detector(), _Parser()).observe(photo, Inputs(path, person=2))


def test_given_keypoints_get_the_detectors_mask_and_landmarks(photo: Path, tmp_path: Path) -> None:
    given = _person(24, 24, 60, 120)
    path = _write_keypoints(tmp_path / "k.json", given)
    detector, parser = _Detector(LARGE), _Parser()
    observation = Perception(detector, parser).observe(photo, Inputs(path))
    assert detector.looks == []
    np.testing.assert_allclose(observation.detection.keypoints, given, atol=1e-4)
    assert observation.detection.person_mask is LARGE.person_mask
    assert observation.detection.world_landmarks is LARGE.world_landmarks
    assert parser.asked[0].person_mask is LARGE.person_mask


def test_everybody_is_observed_and_who_cant_be_is_an_error_in_place(photo: Path) -> None:
    few = _seen(_person(20, 20, 60, 120, 3))
    detector = _Detector(LARGE, few, SMALL)
    parser = _Parser()
    first, error, last = Perception(detector, parser).observe_all(photo, most=7, min_height=0.2)
    assert detector.looks == [(None, 7, 0.2)]
    assert isinstance(first, Observation)
    assert isinstance(last, Observation)
    np.testing.assert_array_equal(first.detection.keypoints, LARGE.keypoints)
    np.testing.assert_array_equal(last.detection.keypoints, SMALL.keypoints)
    assert str(error) == f"person 1 of {photo} has 3 usable keypoints, a fit needs 4"
    for asked, given, seen in zip(parser.asked, (LARGE, SMALL), (first, last), strict=True):
        assert asked.person_mask is given.person_mask
        assert seen.detection.person_mask is None
    assert len(Perception(detector, _Parser()).observe_all(photo, most=2)) == 2


def test_options_of_one_person_do_not_go_with_everybody(photo: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "labels.npy", np.ones((HEIGHT, WIDTH), np.uint8))
    for inputs, words in (
        (Inputs(person=1), "--person"),
        (Inputs(labels=tmp_path / "labels.npy"), "--labels"),
        (Inputs(bbox=(0, 0, 9, 9)), "--bbox"),
    ):
        with pytest.raises(UsageError, match=words):
            Perception(_Detector(LARGE), _Parser()).observe_all(photo, inputs)


def test_landmarks_of_the_file_are_kept(photo: Path, tmp_path: Path) -> None:
    landmarks = [[0.2 + 0.5 * x, 0.1 + 0.8 * x * x, 0.0, 0.9] for x in np.linspace(0, 1, 33)]
    world = [[0.1 * number, 0.0, 0.0, 0.9] for number in range(33)]
    path = tmp_path / "k.json"
    path.write_text(json.dumps({"pose_landmarks": landmarks, "world_landmarks": world}))
    same = _seen(_person(0.2 * WIDTH, 0.1 * HEIGHT, 0.5 * WIDTH, 0.8 * HEIGHT))
    observation = Perception(_Detector(same), _Parser()).observe(photo, Inputs(path))
    assert observation.detection.person_mask is same.person_mask
    assert observation.detection.world_landmarks is not None
    assert observation.detection.world_landmarks[:, 0].max() == pytest.approx(3.2)


def test_label_files_replace_the_parser(photo: Path, tmp_path: Path) -> None:
    labels = np.full((HEIGHT, WIDTH), LABEL_INDEX["coat"], np.uint8)
    np.save(tmp_path / "labels.npy", labels)
    parser = _Parser()
    observation = Perception(_Detector(LARGE), parser).observe(photo, Inputs(labels=tmp_path / "labels.npy"))
    assert parser.asked == []
    assert observation.labels_source == "labels.npy"
    assert set(np.unique(observation.labels)) == {0, LABEL_INDEX["coat"]}


def test_labels_far_from_the_keypoints_are_other_peoples(photo: Path, tmp_path: Path) -> None:
    """30 px at the 224 px crop, whose side is 1.2 times the box's longer side."""
    labels = np.full((HEIGHT, WIDTH), LABEL_INDEX["coat"], np.uint8)
    labels[0] = OCCLUDER
    np.save(tmp_path / "labels.npy", labels)
    kept = Perception(_Detector(SMALL), _Parser()).observe(photo, Inputs(labels=tmp_path / "labels.npy")).labels
    margin = 30 / 224 * 1.2 * 50
    assert (kept[0] == OCCLUDER).all()
    rows, columns = np.nonzero(kept == LABEL_INDEX["coat"])
    assert rows.min() + 0.5 == pytest.approx(60 - margin, abs=1)
    assert columns.min() + 0.5 == pytest.approx(80 - margin, abs=1)
    assert rows.max() + 0.5 == pytest.approx(110 + margin, abs=1)
    assert columns.max() + 0.5 == pytest.approx(110 + margin, abs=1)


def test_focal_length_is_the_users_else_exifs_else_the_diagonal(photo: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLengthIn35mmFilm] = 35
    with_exif = tmp_path / "exif.jpg"
    Image.new("RGB", (WIDTH, HEIGHT)).save(with_exif, exif=exif)
    perception = Perception(_Detector(LARGE), _Parser())
    diagonal = math.hypot(WIDTH, HEIGHT)
    assert perception.observe(photo).focal_length == pytest.approx(diagonal)
    assert perception.observe(with_exif).focal_length == pytest.approx(diagonal * 35 / 43.27)
    for path in (photo, with_exif):
        assert perception.observe(path, Inputs(focal=777)).focal_length == 777


@pytest.mark.parametrize("points", [0, 3])
def test_too_few_keypoints_are_refused_with_their_number(photo: Path, tmp_path: Path, points: int) -> None:
    keypoints = _person(20, 20, 60, 120, points)
    line = f"has {points} usable keypoints, a fit needs 4"
    with pytest.raises(InputError, match=line):
        Perception(_Detector(_seen(keypoints)), _Parser()).observe(photo)
    path = _write_keypoints(tmp_path / "k.json", keypoints)
    with pytest.raises(InputError, match=rf"^person 0 of .*k\.json {line}"):
        Perception(_Detector(), _Parser()).observe(photo, Inputs(path))
    four = replace(LARGE, keypoints=_person(20, 20, 60, 120, 4))
    assert Perception(_Detector(four), _Parser()).observe(photo).detection.keypoints[:4, 2].min() > 0.2


def test_nobody_is_refused_with_what_would_work(photo: Path, tmp_path: Path) -> None:
    perception = Perception(_Detector(), _Parser())
    with pytest.raises(InputError, match=r"nobody was found in the image; try a --bbox, or give --keypoints"):
        perception.observe(photo)
    with pytest.raises(InputError, match="nobody was found in the given --bbox; try another --bbox"):
        perception.observe(photo, Inputs(bbox=(0, 0, 9, 9)))
    with pytest.raises(InputError, match=r"k\.json: holds nobody's keypoints; without --keypoints"):
        perception.observe(photo, Inputs(_write_keypoints(tmp_path / "k.json")))
