"""Scores of label maps, on maps whose scores are known."""

from __future__ import annotations

import numpy as np
import pytest

from dsr_fit.evaluate.parsing import Confusion
from dsr_fit.labels import LABEL_INDEX, LABEL_SETS, OCCLUDER, OTHER_PERSON, UNKNOWN

FACE, PANTS, SKIRT, ARM = (LABEL_INDEX[name] for name in ("face", "pants", "skirt", "leftArm"))


def _scored(found: list[int], true: list[int]) -> Confusion:
    confusion = Confusion()
    confusion.add(np.array([found], np.uint8), np.array([true], np.uint8))
    return confusion


def test_iou_by_hand() -> None:
    confusion = _scored([FACE, FACE, ARM, 0], [FACE, ARM, ARM, 0])
    iou = confusion.iou()
    assert iou[FACE] == 1 / 2
    assert iou[ARM] == 1 / 2
    assert iou[0] == 1
    assert np.isnan(iou[PANTS])
    assert confusion.scores()["mc_iou"] == 1 / 2


def test_unknown_pixels_do_not_count_and_a_found_unknown_is_background() -> None:
    confusion = _scored([FACE, FACE, UNKNOWN, UNKNOWN], [UNKNOWN, FACE, FACE, 0])
    assert confusion.counts.sum() == 3
    assert confusion.person_iou() == 1 / 2


def test_labels_of_one_class_may_be_mistaken_for_each_other() -> None:
    confusion = _scored([SKIRT, PANTS, 0, 0], [PANTS, SKIRT, 0, FACE])
    merged = dict(zip(LABEL_SETS["paper4"].classes, confusion.merged_iou(LABEL_SETS["paper4"]), strict=True))
    assert merged["lower_clothes"] == 1
    assert merged["background"] == 1 / 2
    assert merged["minimal_clothing"] == 0
    assert np.isnan(merged["upper_clothes"])


def test_occluders_are_judged_by_precision_and_recall_and_are_nobodys_person() -> None:
    confusion = _scored([OCCLUDER, OCCLUDER, OCCLUDER, FACE, FACE], [OCCLUDER, 0, FACE, OCCLUDER, FACE])
    scores = confusion.scores()
    assert scores["occluder_recall"] == 1 / 2
    assert scores["occluder_precision"] == 1 / 3
    # A face taken for an occluder is a missed pixel; an occluder taken for a face is unknown ground.
    assert scores["person_iou"] == 1 / 2


def test_a_perfect_map_scores_one() -> None:
    labels = [*range(20), OTHER_PERSON, OCCLUDER]
    scores = _scored(labels, labels).scores()
    assert scores.pop("others_leak") == 0
    assert scores == pytest.approx(dict.fromkeys(scores, 1.0))


def test_another_persons_pixels_leak_where_they_are_labelled() -> None:
    scores = _scored([FACE, OTHER_PERSON, 0, FACE], [OTHER_PERSON, OTHER_PERSON, OTHER_PERSON, FACE]).scores()
    assert scores["others_leak"] == 1 / 3
    assert scores["person_iou"] == 1
