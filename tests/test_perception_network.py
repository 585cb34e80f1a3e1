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
from dsr_fit.joints import KEYPOINT_INDEX, empty_keypoints
from dsr_fit.labels import LABEL_INDEX, LEFT_RIGHT_PAIRS, OCCLUDER
from dsr_fit.observation import Detection
from dsr_fit.observe.crop import window_around
from dsr_fit.observe.network_parser import (
    CLASSES,
    GUIDES,
    POINTS,
    SIZE,
    NetworkParser,
    ParserNetwork,
    heatmaps,
    load_network,
    mirrored,
    network_input,
    prepare,
)
from dsr_fit.observe.parser import load_parser
from dsr_fit.observe.perception import Perception

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


def test_mirrored_hints_are_the_hints_of_the_mirror_image() -> None:
    generator = torch.Generator().manual_seed(1)
    points = torch.rand(1, len(POINTS), 3, generator=generator)
    swapped = [POINTS.index(n.replace("left", "x").replace("right", "left").replace("x", "right")) for n in POINTS]
    flipped = points[:, swapped].clone()
    flipped[..., 0] = 1 - flipped[..., 0]
    pictures = torch.randint(0, 256, (1, 64, 64, 3), generator=generator).to(torch.uint8)
    masks = torch.randint(0, 256, (1, 64, 64), generator=generator).to(torch.uint8)
    one = torch.ones(1, dtype=torch.bool)
    ours = mirrored(*prepare(pictures, masks, one, points))
    theirs = prepare(pictures.flip(2), masks.flip(2), one, flipped)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=1e-4)  # float32 distances


def test_a_missing_mask_is_neither_nobody_nor_somebody() -> None:
    masks = torch.full((1, 64, 64), 255, dtype=torch.uint8)
    picture = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    there, missing = (
        prepare(picture, masks, torch.tensor([flag]), torch.zeros(1, len(POINTS), 3))[1] for flag in (True, False)
    )
    assert (there == 1).all()
    assert (missing == 0).all()


def test_logits_are_at_half_the_resolution() -> None:
    network = ParserNetwork().eval()
    with torch.no_grad():
        logits = network(torch.zeros(1, 3, 96, 96), torch.zeros(1, 1, 96, 96), torch.zeros(1, GUIDES, 24, 24))
    assert logits.shape == (1, CLASSES, 48, 48)


def test_the_window_maps_pixel_centres() -> None:
    keypoints = empty_keypoints()
    keypoints[[0, 10]] = [[100, 50, 1], [140, 250, 1]]
    window = window_around(Detection(keypoints), (400, 300))
    assert np.allclose(window.matrix(64) @ [120, 150, 1], [32, 32])
    picture, _, guides = network_input(np.zeros((400, 300, 3), np.uint8), Detection(keypoints), window, 64)
    assert picture.shape == (1, 3, 64, 64)
    assert guides.shape == (1, GUIDES, 16, 16)


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


@pytest.mark.parametrize("lacking", ["mask", "keypoints"])
def test_one_hint_is_enough(seen, lacking: str) -> None:
    detection = seen.detection
    if lacking == "mask":
        detection = replace(detection, person_mask=None)
    else:
        detection = replace(detection, keypoints=empty_keypoints())
    labels = NetworkParser().parse(seen.image, detection)
    person, expected = labels > 0, seen.labels > 0
    assert (person & expected).sum() > 0.85 * (person | expected).sum()


def test_the_papers_protocol_treats_left_and_right_alike(seen) -> None:
    parser = NetworkParser(protocol="paper")
    labels = parser.parse(seen.image, seen.detection)
    points = seen.detection.keypoints.copy()
    names = list(KEYPOINT_INDEX)
    order = list(range(len(points)))
    for name in names[:25]:
        other = {"L": "R", "R": "L"}.get(name[0], name[0]) + name[1:]
        if other in KEYPOINT_INDEX:
            order[KEYPOINT_INDEX[name]] = KEYPOINT_INDEX[other]
    points = points[order]
    points[points[:, 2] > 0, 0] = seen.image.shape[1] - points[points[:, 2] > 0, 0]
    mask = seen.detection.person_mask[:, ::-1]
    flipped = replace(seen.detection, keypoints=points, person_mask=mask)
    turned = parser.parse(np.ascontiguousarray(seen.image[:, ::-1]), flipped)
    table = np.arange(256, dtype=np.uint8)
    for left, right in LEFT_RIGHT_PAIRS:
        table[[left, right]] = right, left
    # Equal but for pixels where two labels are as good as tied.
    assert (table[turned[:, ::-1]] == labels).mean() > 0.998


def test_the_map_grows_with_the_picture(seen) -> None:
    large = np.repeat(np.repeat(seen.image, 2, 0), 2, 1)
    detection = replace(
        seen.detection,
        keypoints=(seen.detection.keypoints * [2, 2, 1]).astype(np.float32),
        person_mask=np.repeat(np.repeat(seen.detection.person_mask, 2, 0), 2, 1),
    )
    labels = NetworkParser().parse(large, detection)
    small = NetworkParser().parse(seen.image, seen.detection)
    assert labels.shape == large.shape[:2]
    assert (labels[::2, ::2] == small).mean() > 0.99  # outlines fall between other pixels


def test_weights_that_are_not_ours_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"layer": torch.zeros(3)}, path)
    with pytest.raises(InputError, match=r"not the weights of this parser"):
        load_network(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"not readable weights"):
        load_network(path)
    with pytest.raises(InputError, match=r"no such file of a parser's weights"):
        load_network(tmp_path / "missing.safetensors")


def test_what_ships_is_small() -> None:
    assert shipped("priors/parser/parser.safetensors").stat().st_size < 20e6


def test_parsers_by_name(tmp_path: Path) -> None:
    assert load_parser().name == "open"
    with pytest.raises(UsageError, match="expected `open`, a .safetensors file"):
        load_parser("graphonomy")
    with pytest.raises(UsageError, match="the rule-based parser is gone; `open`, the default, has replaced it"):
        load_parser("rules")
    with pytest.raises(UsageError, match="knows `fast` alone"):
        load_parser(str(tmp_path), "paper")
    with pytest.raises(InputError, match=r"transformers|hf download"):
        load_parser(str(tmp_path))


def test_occluders_are_index_254(monkeypatch: pytest.MonkeyPatch) -> None:
    parser = NetworkParser()
    share = torch.zeros(CLASSES, SIZE // 2, SIZE // 2)
    share[-1, :, : SIZE // 4] = 1
    share[LABEL_INDEX["coat"], :, SIZE // 4 :] = 1
    monkeypatch.setattr(parser, "probabilities", lambda *_: share)
    keypoints = empty_keypoints()
    keypoints[[0, 10]] = [[40, 20, 1], [60, 180, 1]]
    labels = parser.parse(np.zeros((200, 100, 3), np.uint8), Detection(keypoints))
    assert (labels[:, :48] == OCCLUDER).all()
    assert (labels[:, 52:] == LABEL_INDEX["coat"]).all()
