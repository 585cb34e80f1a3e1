"""The parser's network and what surrounds it: hints, windows, mirror images, weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dsr_fit.assets import shipped
from dsr_fit.errors import InputError, UsageError
from dsr_fit.joints import KEYPOINT_INDEX, MIRRORED_KEYPOINTS, empty_keypoints
from dsr_fit.labels import LABEL_INDEX, MIRRORED_LABELS, OCCLUDER, OTHER_PERSON, shows_person
from dsr_fit.observation import Detection
from dsr_fit.observe.blazepose import HEAVY, Encoder
from dsr_fit.observe.crop import window_around
from dsr_fit.observe.detector import PersonDetector
from dsr_fit.observe.network_parser import NetworkParser, classes_at, fused, read_decoder
from dsr_fit.observe.parser import load_parser
from dsr_fit.observe.parsing_network import (
    CLASSES,
    GUIDES,
    MASKS,
    POINTS,
    ParsingDecoder,
    heatmaps,
    mirrored_points,
)
from dsr_fit.observe.perception import Perception
from dsr_fit.synthetic import couple

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "person.png"


@pytest.fixture(scope="module")
def seen():
    """The example's person as the whole pipeline sees it."""
    return Perception().observe(EXAMPLE)


def _points(**places: tuple[float, float]) -> torch.Tensor:
    points = torch.zeros(1, len(POINTS), 3)
    for name, (x, y) in places.items():
        points[0, POINTS.index(name)] = torch.tensor([x, y, 1.0])
    return points


def test_heatmaps_peak_at_the_keypoint_with_its_confidence() -> None:
    points = _points(nose=(10.5 / 64, 20.5 / 64))
    points[..., 2] *= 0.7
    maps = heatmaps(points, 64)[0]
    peak = maps[POINTS.index("nose")]
    assert maps.shape == (GUIDES, 64, 64)
    assert peak.argmax() == 20 * 64 + 10
    assert torch.isclose(peak.max(), torch.tensor(0.7))
    others = torch.arange(GUIDES) != POINTS.index("nose")
    assert not maps[others].any()


def test_a_bone_glows_along_its_whole_length_when_both_ends_are_seen() -> None:
    ends = _points(left_elbow=(0.25 + 0.5 / 64, 0.5 + 0.5 / 64), left_wrist=(0.75 + 0.5 / 64, 0.5 + 0.5 / 64))
    bones = heatmaps(ends, 64)[0, len(POINTS) :]
    bright = bones[bones.amax((1, 2)) > 0]
    assert len(bright) == 1
    assert torch.allclose(bright[0, 32, 16:49], torch.ones(33), atol=1e-5)
    assert bright[0, 32, 56] < 0.01
    alone = _points(left_elbow=(0.25, 0.5))
    assert not heatmaps(alone, 64)[0, len(POINTS) :].any()


def test_mirrored_points_are_the_points_of_the_mirror_image() -> None:
    points = _points(left_wrist=(0.2, 0.3), nose=(0.6, 0.1))
    expected = _points(right_wrist=(0.8, 0.3), nose=(0.4, 0.1))
    mirrored = mirrored_points(points)
    seen = expected[..., 2] > 0
    assert torch.allclose(mirrored[seen], expected[seen])
    assert (mirrored[..., 2] == expected[..., 2]).all()


def _arguments(size: int) -> tuple:
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.rand(1, *shape, generator=generator)

    widths = Encoder.widths_of(HEAVY)
    features = [drawn(width, size >> level + 1, size >> level + 1) for level, width in enumerate(widths)]
    return drawn(3, size, size), features, drawn(len(POINTS), 3), drawn(MASKS, size, size)


@pytest.mark.parametrize("size", [128, 256])
def test_logits_are_at_half_the_crops_resolution(size: int) -> None:
    decoder = ParsingDecoder().eval()
    with torch.no_grad():
        logits = decoder(*_arguments(size))
    assert logits.shape == (1, CLASSES, size // 2, size // 2)


def test_folded_batch_norms_change_nothing() -> None:
    decoder = read_decoder()
    arguments = _arguments(128)
    with torch.no_grad():
        before = decoder(*arguments)
        after = fused(decoder)(*arguments)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in decoder.modules())
    assert torch.allclose(before, after, atol=1e-3)


def test_without_keypoints_the_window_is_the_masks_or_the_image() -> None:
    mask = np.zeros((200, 100), np.float32)
    mask[50:150, 20:60] = 1
    assert window_around(Detection(empty_keypoints(), person_mask=mask), (200, 100)).center == (40, 100)
    assert window_around(Detection(empty_keypoints()), (200, 100)).center == (50, 100)


def test_the_example_is_labelled_where_its_keypoints_are(seen) -> None:
    labels, points = seen.labels, seen.detection.keypoints
    assert seen.labels_source == "open"

    def at(name: str) -> int:
        x, y = points[KEYPOINT_INDEX[name], :2].astype(int)
        return int(labels[y, x])

    assert at("Nose") == LABEL_INDEX["face"]
    assert at("LBigToe") in (LABEL_INDEX["leftShoe"], LABEL_INDEX["leftLeg"])
    assert at("RBigToe") in (LABEL_INDEX["rightShoe"], LABEL_INDEX["rightLeg"])
    assert at("LKnee") > 0
    assert at("RKnee") > 0
    assert (labels[:20] == 0).all()


@pytest.mark.parametrize("lacking", ["look", "mask", "keypoints"])
def test_keypoints_from_elsewhere_or_a_mask_are_enough(seen, lacking: str) -> None:
    detection = replace(seen.detection, look=None)
    if lacking == "mask":
        detection = replace(detection, person_mask=None)
    elif lacking == "keypoints":
        detection = replace(detection, keypoints=empty_keypoints())
    labels = NetworkParser().parse(seen.image, detection)
    person, expected = labels > 0, seen.labels > 0
    assert (person & expected).sum() > 0.85 * (person | expected).sum()


def test_a_mask_of_somebody_else_is_not_believed(seen, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keypoints of which the landmark network sees nothing: its mask is another person's."""
    parser = NetworkParser()
    keypoints = seen.detection.keypoints.copy()
    keypoints[:, 0] += 0.5 * seen.image.shape[1]
    masks = []
    monkeypatch.setattr(
        parser, "logits", lambda image, keypoints, look: masks.append(look.mask) or torch.zeros(CLASSES, 128, 128)
    )
    parser.parse(seen.image, Detection(seen.detection.keypoints))
    parser.parse(seen.image, Detection(keypoints))
    assert masks[0].max() > 0.9
    assert not masks[1].any()


def test_the_papers_protocol_treats_left_and_right_alike(seen) -> None:
    parser = NetworkParser(protocol="paper")
    detection = replace(seen.detection, look=None)
    labels = parser.parse(seen.image, detection)
    points = mirrored_keypoints(seen.detection.keypoints, seen.image.shape[1])
    mask = np.ascontiguousarray(seen.detection.person_mask[:, ::-1])
    flipped = replace(detection, keypoints=points, person_mask=mask)
    turned = parser.parse(np.ascontiguousarray(seen.image[:, ::-1]), flipped)
    # Equal but for pixels where two labels are as good as tied.
    assert (MIRRORED_LABELS[turned[:, ::-1]] == labels).mean() > 0.99


def mirrored_keypoints(keypoints: np.ndarray, width: int) -> np.ndarray:
    points = keypoints[list(MIRRORED_KEYPOINTS)].copy()
    points[points[:, 2] > 0, 0] = width - points[points[:, 2] > 0, 0]
    return points


def test_the_map_grows_with_the_picture(seen) -> None:
    large = np.repeat(np.repeat(seen.image, 2, 0), 2, 1)
    look = replace(seen.detection.look, matrix=seen.detection.look.matrix * [[0.5, 0.5, 1]])
    detection = replace(seen.detection, keypoints=(seen.detection.keypoints * [2, 2, 1]).astype(np.float32), look=look)
    labels = NetworkParser().parse(large, detection)
    small = NetworkParser().parse(seen.image, seen.detection)
    assert labels.shape == large.shape[:2]
    assert (labels[::2, ::2] == small).mean() > 0.99  # outlines fall between other pixels


def test_weights_that_are_not_ours_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"layer": torch.zeros(3)}, path)
    with pytest.raises(InputError, match=r"not the weights of ParsingDecoder"):
        read_decoder(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"not readable weights"):
        read_decoder(path)
    with pytest.raises(InputError, match=r"no such file of a parser's weights"):
        read_decoder(tmp_path / "missing.safetensors")


def test_what_ships_is_small() -> None:
    assert shipped("priors/parser/parser.safetensors").stat().st_size < 12e6


def test_parsers_by_name(tmp_path: Path) -> None:
    assert load_parser().name == "open"
    with pytest.raises(UsageError, match="expected `open`, a .safetensors file"):
        load_parser("graphonomy")
    with pytest.raises(UsageError, match="knows `fast` alone"):
        load_parser(str(tmp_path), "paper")
    with pytest.raises(InputError, match=r"transformers|hf download"):
        load_parser(str(tmp_path))


@pytest.mark.parametrize("seed", [7, 8])
def test_other_people_are_labelled_so(seed: int) -> None:
    """Two rendered people whom the detector tells apart: nearly nothing of one has the other's clothes."""
    group = couple(seed).together
    people = {}
    for found in PersonDetector().detect(group.image):
        assert found.person_mask is not None
        shares = [one.visible_mask[found.person_mask > 0.5].mean() for one in group.people]
        people[int(np.argmax(shares))] = found
    assert len(people) == 2
    for number, found in people.items():
        labels = NetworkParser().parse(group.image, found)
        other = group.people[1 - number].visible_mask
        assert shows_person(labels[other]).mean() < 0.1
        assert (labels[other] == OTHER_PERSON).mean() > 0.6


def test_classes_are_those_of_interpolated_logits() -> None:
    logits = torch.randn(CLASSES, 16, 16, generator=torch.Generator().manual_seed(3))
    logits[5, :8] = 10.0  # where neighbours agree nothing is interpolated
    matrix = np.array([[256 / 48, 0, 0], [0, 256 / 48, 0]])
    found = classes_at(logits, matrix, (48, 60))
    fine = torch.nn.functional.interpolate(logits[None], (48, 48), mode="bilinear", align_corners=False)[0]
    np.testing.assert_array_equal(found[:, :48], fine.argmax(0).numpy())
    assert not found[:, 48:].any()  # beside the crop


def test_classes_become_labels_where_the_crop_was(seen, monkeypatch: pytest.MonkeyPatch) -> None:
    """Occluders are 254, other people 253, and the turned crop lies in the image as its matrix says."""
    parser = NetworkParser()
    logits = torch.zeros(CLASSES, 128, 128)
    logits[LABEL_INDEX["coat"]] = 1
    logits[CLASSES - 1, :, :32], logits[CLASSES - 2, :, 96:] = 2, 2
    monkeypatch.setattr(parser, "logits", lambda *_: logits)
    labels = parser.parse(seen.image, seen.detection)
    height, width = labels.shape
    centres = np.stack(np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5), -1)
    matrix = seen.detection.look.matrix
    x, y = np.moveaxis(centres @ matrix[:, :2].T + matrix[:, 2], -1, 0)
    inside = (x > 1) & (x < 255) & (y > 1) & (y < 255)
    assert (labels[inside & (x < 61)] == OCCLUDER).all()
    assert (labels[inside & (x > 67) & (x < 189)] == LABEL_INDEX["coat"]).all()
    assert (labels[inside & (x > 195)] == OTHER_PERSON).all()
