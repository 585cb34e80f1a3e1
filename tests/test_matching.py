"""What the detector's benchmark counts: pairs of people and detections, and annotations of other data sets."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from matching import COCO_SLOTS, Tally, Truth, matched, oks
from wild import COCO_17, read_wild

from dsr_fit.joints import empty_keypoints
from dsr_fit.observation import Detection
from dsr_fit.observe.oks import SIGMAS

PLACES = np.stack([np.linspace(0, 40, 17), np.linspace(0, 100, 17)], 1)
BOX = (0.0, 0.0, 40.0, 100.0)


def person(x: float, counts: bool = True) -> Truth:
    return Truth(PLACES + [x, 0], np.ones(17, bool), (x, *BOX[1:]), counts)


def detection(x: float, y: float = 0.0) -> Detection:
    keypoints = empty_keypoints()
    keypoints[COCO_SLOTS] = np.column_stack([PLACES + [x, y], np.full(17, 0.9)])
    return Detection(keypoints)


def test_similarity_is_cocos():
    seen = np.zeros(17, bool)
    seen[[5, 9]] = True
    truth = Truth(PLACES, seen, BOX)
    found = np.column_stack([PLACES + [3, 4], np.ones(17)])
    expected = np.exp(-25 / (2 * 2000 * SIGMAS[[5, 9]] ** 2)).mean()  # half the box's area
    assert oks(found, truth) == pytest.approx(expected)
    found[9, 2] = 0
    assert oks(found, truth) == pytest.approx(np.exp(-25 / (2 * 2000 * SIGMAS[5] ** 2)) / 2)


def test_each_detection_is_one_person_at_most():
    people = [person(0), person(300), person(600)]
    pairs = matched([detection(302), detection(1), detection(0), detection(900)], people)
    assert pairs.found == [2, 0, None]  # the better one of two
    assert pairs.false_alarms == 2  # the other, and one of nobody
    assert matched([], people).found == [None] * 3
    assert matched([detection(0)], []).false_alarms == 1


def test_people_who_need_not_be_found_are_no_false_alarms():
    people = [person(0), person(300, counts=False)]
    tally = Tally()
    tally.add([detection(0), detection(300), detection(301)], people)
    assert (tally.recall(), tally.precision()) == ({"people": 1, "recall": 1.0}, 1.0)
    tally.add([detection(150)], people)
    assert (tally.recall(), tally.precision()) == ({"people": 2, "recall": 0.5}, 0.5)


def test_keypoint_errors_are_shares_of_the_longer_side():
    tally = Tally()
    tally.add([detection(0, 4)], [person(0), person(300)])
    figures = tally.keypoints()
    assert figures["median_error"] == pytest.approx(0.04)
    assert (figures["pck_0.05"], figures["pck_0.05_of_all"]) == (1, 0.5)
    unseen = detection(0)
    unseen.keypoints[COCO_SLOTS[:8]] = 0
    tally = Tally()
    tally.add([unseen], [person(0)])
    assert tally.keypoints()["pck_0.2"] == pytest.approx(9 / 17, abs=1e-4)


def test_annotations_are_read_by_the_names_of_their_keypoints(tmp_path: Path):
    for name, file, words in (
        ("aic", "test_aic.json", ["Right Shoulder", "Head top"]),
        ("mhp", "test_mhp.json", ["Left-wrist", "Pelvis"]),
        ("jhmdb", "test_jhmdb_sub1.json", ["belly", "right_knee"]),
        ("posetrack18", "annotations/test_posetrack18_val.json", ["nose", "head_top"]),
        ("humanart", "test_humanart.json", ["left_ear", "left_toe"]),
    ):
        path = tmp_path / name / file
        path.parent.mkdir(parents=True)
        prefix = "HumanArt/images/" if name == "humanart" else ""
        path.write_text(
            json.dumps(
                {
                    "categories": [{"keypoints": words}],
                    "images": [{"id": 7, "file_name": f"{prefix}a/b.jpg"}, {"id": 8, "file_name": f"{prefix}c.jpg"}],
                    "annotations": [
                        {"image_id": 7, "bbox": [1, 2, 3, 4], "keypoints": [10, 20, 1, 30, 40, 2]},
                        {"image_id": 7, "bbox": [1, 2, 3, 4], "keypoints": [10, 20, 0, 30, 40, 0]},
                    ],
                }
            )
        )
    photos = {str(photo.path.relative_to(tmp_path)): photo for photo in read_wild(tmp_path)}
    assert len(photos) == 10
    expected = {
        "aic": ("right_shoulder", 10), "mhp": ("left_wrist", 10), "jhmdb": ("right_knee", 30),
        "posetrack18": ("nose", 10), "humanart": ("left_ear", 10),
    }  # fmt: skip
    for name, (keypoint, x) in expected.items():
        first, second = photos[f"{name}/a/b.jpg"].people
        assert np.flatnonzero(first.keypoints[:, 2]).tolist() == [COCO_17.index(keypoint)]
        assert first.keypoints[COCO_17.index(keypoint)].tolist() == [x, x + 10, 1]
        assert (first.count, second.count, first.box) == (1, 0, (1, 2, 3, 4))
        assert photos[f"{name}/c.jpg"].people == ()
