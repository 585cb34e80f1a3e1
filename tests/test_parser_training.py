"""What the parser's training does to photos."""

from __future__ import annotations

import numpy as np
import pytest
import torch

pytest.importorskip("parser_training.augment")

from parser_training.augment import OCCLUDER_CLASS, augmented, paste_person, plain
from parser_training.fitted import Labeller
from parser_training.photos import KEPT_SIDE, Photo, classes_of
from scenes import FOCAL, observe, open_body, person

from dsr_fit.camera import Crop, crop_intrinsics
from dsr_fit.labels import LABEL_INDEX, LABELS, OCCLUDER, UNKNOWN
from dsr_fit.observe.batch import crop_labels
from dsr_fit.observe.network_parser import CLASSES, POINTS
from dsr_fit.priors.semantic import load_semantic_prior

ARM, OTHER_ARM, TOP = (LABEL_INDEX[name] for name in ("leftArm", "rightArm", "upperclothes"))


def _photo(seed: int = 0) -> Photo:
    """A box-shaped person: left arm on the image's right, as seen from the front."""
    image = np.random.default_rng(seed).integers(0, 256, (200, 160, 3)).astype(np.uint8)
    classes = np.zeros((200, 160), np.uint8)
    classes[40:160, 50:70], classes[40:160, 70:90], classes[40:160, 90:110] = OTHER_ARM, TOP, ARM
    points = np.zeros((len(POINTS), 3), np.float32)
    points[POINTS.index("left_wrist")] = (100, 140, 1)
    points[POINTS.index("right_wrist")] = (60, 140, 1)
    return Photo("0", image, classes, np.where(classes > 0, 255, 0).astype(np.uint8), points, (80.0, 100.0), 180.0)


def test_a_plain_sample_is_the_window() -> None:
    sample = plain(_photo(), 180)
    assert (sample.classes[:, :10] == UNKNOWN).all()  # beyond the photo
    assert sample.classes[90, 90] == TOP
    wrist = sample.points[POINTS.index("left_wrist"), :2] * 180
    assert np.allclose(wrist, (110, 130))
    assert sample.classes[int(wrist[1]), int(wrist[0])] == ARM


@pytest.mark.parametrize("seed", range(30))
def test_arms_stay_with_their_keypoints(seed: int) -> None:
    sample = augmented([_photo()], 0, 128, np.random.default_rng(seed))
    size = len(sample.classes)
    for name, label in (("left_wrist", ARM), ("right_wrist", OTHER_ARM)):
        x, y, confidence = sample.points[POINTS.index(name)]
        if confidence == 0:
            continue
        # The box may be turned and the point disturbed: its own arm is the nearer one.
        rows, columns = np.nonzero(np.isin(sample.classes, (ARM, OTHER_ARM)))
        if len(rows):
            distance = np.hypot(columns + 0.5 - x * size, rows + 0.5 - y * size)
            if distance.min() < 2:
                near = sample.classes[rows, columns][distance < distance.min() + 1]
                assert label in near or OCCLUDER_CLASS in sample.classes


def test_the_same_generator_gives_the_same_sample() -> None:
    first, second = (augmented([_photo(), _photo(1)], 0, 96, np.random.default_rng(7)) for _ in range(2))
    assert (first.picture == second.picture).all()
    assert (first.classes == second.classes).all()
    assert (first.points == second.points).all()


@pytest.mark.parametrize("seed", range(20))
def test_a_pasted_person_is_an_occluder_only_in_front(seed: int) -> None:
    sample = plain(_photo(), 128)
    before = sample.classes.copy()
    figure = paste_person(sample, _photo(1), np.random.default_rng(seed))
    person = (before > 0) & (before < OCCLUDER_CLASS)
    changed = sample.classes[figure]
    assert set(np.unique(changed)) <= {0, OCCLUDER_CLASS}
    if (changed == OCCLUDER_CLASS).any():
        assert (figure & person).sum() >= 10
        assert (changed == OCCLUDER_CLASS).all()
    else:
        assert (sample.classes[person] > 0).sum() > person.sum() - 10  # behind: nothing of the person is lost


def test_labels_become_classes() -> None:
    labels = np.array([0, 5, 19, OCCLUDER, UNKNOWN], np.uint8)
    assert classes_of(labels).tolist() == [0, 5, 19, OCCLUDER_CLASS, UNKNOWN]


def test_a_fit_bears_labels_out_or_makes_them_unknown() -> None:
    """The parser says what a body shows but for one stripe each of doubt, of background and of another arm."""
    truth = person(0)
    seen = observe(truth)
    crop = Crop.around(seen.detection.keypoints)
    window = crop_intrinsics(torch.tensor([[FOCAL, FOCAL, *seen.principal_point]]), [crop], KEPT_SIDE)
    shown = crop_labels(seen.labels, crop, KEPT_SIDE)
    labels = np.where(shown < len(LABELS), shown, 0)
    doubted, bare, swapped = (np.zeros(labels.shape, bool) for _ in range(3))
    doubted[:, 200:210], bare[:, 220:230], swapped[:, 240:250] = True, True, True
    person_there = labels > 0
    said = np.where(bare, 0, np.where(swapped & person_there, ARM, labels))
    chance = np.where(doubted, 0.5, 0.9)
    probabilities = np.zeros((CLASSES, *labels.shape), np.float32)
    np.put_along_axis(probabilities, said[None].astype(np.int64), chance[None].astype(np.float32), 0)
    labeller = Labeller(open_body(), load_semantic_prior(open_body()))
    found = labeller(torch.from_numpy(probabilities), truth, window)
    inside = labeller.expected(labels.astype(np.uint8), truth, window)[0] & person_there
    assert min((inside & part).sum() for part in (doubted, bare, swapped)) > 500
    assert (found[doubted] == UNKNOWN).all()
    assert (found[inside & bare] == UNKNOWN).all()
    torso = np.isin(labels, (LABEL_INDEX["upperclothes"], LABEL_INDEX["pants"]))
    assert (found[inside & swapped & torso] == UNKNOWN).mean() > 0.9
    rest = inside & ~(doubted | bare | swapped)
    assert (found[rest] == labels[rest]).mean() > 0.97
    assert (found[~inside & ~person_there & ~doubted] == 0).mean() > 0.97  # beside the body there is nothing to doubt
