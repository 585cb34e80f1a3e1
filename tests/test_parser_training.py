"""What the parser's training does to people, and a training from the command line."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from scenes import FOCAL, observe, open_body, person

from dsr_fit.camera import Crop, crop_intrinsics
from dsr_fit.cli.main import main
from dsr_fit.errors import UsageError
from dsr_fit.io.label_files import write_labels
from dsr_fit.labels import LABEL_INDEX, OCCLUDER, OTHER_PERSON, UNKNOWN
from dsr_fit.observe.batch import crop_labels
from dsr_fit.observe.landmarks import Region
from dsr_fit.observe.network_parser import NetworkParser, read_decoder
from dsr_fit.observe.parsing_network import CLASSES, LABEL_CLASSES, POINTS
from dsr_fit.observe.perception import Perception
from dsr_fit.priors.semantic import load_semantic_prior
from dsr_fit.training.parsing.augment import augmented, paste_person, paste_thing, plain
from dsr_fit.training.parsing.examples import KEPT_SIDE, Example, example_of, read_examples, write_examples
from dsr_fit.training.parsing.module import loss
from dsr_fit.training.parsing.rendered import rendered_people
from dsr_fit.training.parsing.self_labelled import Labeller
from dsr_fit.training.parsing.settings import ParserSettings
from dsr_fit.training.parsing.train import class_weights

ARM, OTHER_ARM, TOP = (LABEL_INDEX[name] for name in ("leftArm", "rightArm", "upperclothes"))
EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "person.png"


def _example(seed: int = 0) -> Example:
    """A box-shaped person, its left arm on the image's right as seen from the front, in a picture of 240 x 400 px."""
    image = np.random.default_rng(seed).integers(0, 256, (KEPT_SIDE, KEPT_SIDE, 3)).astype(np.uint8)
    labels = np.full((KEPT_SIDE, KEPT_SIDE), UNKNOWN, np.uint8)
    labels[:, 80:320] = 0
    labels[100:300, 140:180], labels[100:300, 180:220], labels[100:300, 220:260] = OTHER_ARM, TOP, ARM
    points = np.zeros((len(POINTS), 3), np.float32)
    points[POINTS.index("left_wrist")] = (240, 260, 1)
    points[POINTS.index("right_wrist")] = (160, 260, 1)
    inside = labels != UNKNOWN
    return Example(str(seed), image * inside[..., None], labels, inside, points, Region((200.0, 200.0), 280.0, 0.0))


def test_a_plain_sample_is_the_region_and_the_pictures_edge_goes_on() -> None:
    sample = plain(_example(), 280)
    assert (sample.labels[:, :15] == UNKNOWN).all()
    assert (sample.picture[100, :15] == sample.picture[100, 19]).all()
    wrist = sample.points[POINTS.index("left_wrist"), :2]
    assert np.allclose(wrist, (180, 200))
    assert sample.labels[int(wrist[1]), int(wrist[0])] == ARM


@pytest.mark.parametrize("seed", range(30))
def test_arms_stay_with_their_keypoints(seed: int) -> None:
    sample = augmented([_example()], 0, np.random.default_rng(seed))
    for name, label in (("left_wrist", ARM), ("right_wrist", OTHER_ARM)):
        x, y, confidence = sample.points[POINTS.index(name)]
        column, row = int(x), int(y)
        if confidence > 0 and 0 <= column < 256 and 0 <= row < 256:
            assert sample.labels[row, column] in (label, OCCLUDER, OTHER_PERSON, 0, UNKNOWN)


def test_the_same_generator_gives_the_same_sample() -> None:
    first, second = (augmented([_example(), _example(1)], 0, np.random.default_rng(7)) for _ in range(2))
    assert (first.picture == second.picture).all()
    assert (first.labels == second.labels).all()
    assert (first.points == second.points).all()


@pytest.mark.parametrize("seed", range(20))
def test_a_pasted_person_is_another_person_and_loses_nothing_of_the_first_from_behind(seed: int) -> None:
    sample = plain(_example())
    before = sample.person()
    figure = paste_person(sample, _example(1), np.random.default_rng(seed))
    assert (sample.labels[figure] == OTHER_PERSON).all()
    if not (figure & before).any():
        assert (sample.person() == before).all()


def test_a_pasted_thing_is_an_occluder_only_where_it_hides_somebody() -> None:
    seen = set()
    for seed in range(20):
        sample = plain(_example())
        before = sample.person()
        figure = paste_thing(sample, _example(1), np.random.default_rng(seed))
        hides = (figure & before).sum() >= 10
        if figure.any():
            assert (sample.labels[figure] == (OCCLUDER if hides else 0)).all()
        seen.add(bool(hides))
    assert True in seen


def test_examples_come_back_from_their_file(tmp_path: Path) -> None:
    example = _example()
    write_examples(tmp_path / "people.npz", [example, example])
    (back, _) = read_examples(tmp_path / "people.npz")
    assert (back.labels == example.labels).all()
    assert (back.inside == example.inside).all()
    assert np.allclose(back.points, example.points)
    assert back.region == example.region
    assert back.name == example.name


def test_an_example_keeps_labels_under_keypoints() -> None:
    labels = np.zeros((600, 500), np.uint8)
    labels[200:400, 200:300] = TOP
    keypoints = np.zeros((49, 3), np.float32)
    keypoints[2] = 250, 300, 1
    example = example_of("x", np.zeros((600, 500, 3), np.uint8), labels, keypoints, Region((250.0, 300.0), 400.0, 0.3))
    x, y, confidence = example.points[POINTS.index("right_shoulder")]
    assert confidence == 1
    assert example.labels[int(y), int(x)] == TOP
    assert not example.inside[:, 0].any()  # 560 px of the picture's 500 are kept


def test_rendered_groups_know_whose_pixels_are_whose(monkeypatch: pytest.MonkeyPatch) -> None:
    from dsr_fit.synthetic.staging import Casting

    monkeypatch.setattr("dsr_fit.training.parsing.rendered.GROUPS", 1.0)
    people = rendered_people(7, Casting())
    assert len(people) >= 2
    for one in people:
        assert ((one.labels > 0) & (one.labels < 20)).any()
    assert any((one.labels == OTHER_PERSON).any() for one in people)


def test_the_loss_is_least_where_the_labels_are() -> None:
    generator = torch.Generator().manual_seed(0)
    classes = torch.randint(0, CLASSES, (2, 16, 16), generator=generator)
    classes = classes.repeat_interleave(2, 1).repeat_interleave(2, 2)
    classes[:, :4] = UNKNOWN
    truth = torch.nn.functional.one_hot(classes[:, ::2, ::2].clamp(max=CLASSES - 1), CLASSES).permute(0, 3, 1, 2)
    weights = torch.ones(CLASSES)
    right = loss(20.0 * truth, classes, weights, 0.5)
    wrong = loss(20.0 * truth.roll(1, 1), classes, weights, 0.5)
    assert right < 0.01 < 1 < wrong
    changed = 20.0 * truth.float()
    changed[:, :, :2] = 0  # what is unknown counts for nothing
    assert torch.allclose(loss(changed, classes, weights, 0.5), right)


def test_rare_classes_weigh_more_and_pixels_one_on_average() -> None:
    counts = np.zeros(256)
    counts[[0, TOP, ARM, UNKNOWN]] = 900, 90, 10, 5000
    weights = class_weights(counts, 0.5)
    assert weights[0] < weights[TOP] < weights[ARM]
    assert np.isclose((weights[[0, TOP, ARM]] * [0.9, 0.09, 0.01]).sum(), 1)
    assert np.allclose(class_weights(counts, 0.0), 1)


def test_a_fit_contradicts_labels() -> None:
    """What a body shows but for one stripe each of background and of another arm."""
    truth = person(0)
    seen = observe(truth)
    crop = Crop.around(seen.detection.keypoints)
    window = crop_intrinsics(torch.tensor([[FOCAL, FOCAL, *seen.principal_point]]), [crop], KEPT_SIDE)
    labels = crop_labels(seen.labels, crop, KEPT_SIDE)
    labels = np.where(labels < 20, labels, 0).astype(np.uint8)
    person_there = labels > 0
    bare, swapped = np.zeros((2, *labels.shape), bool)
    bare[:, 196:206], swapped[:, 214:224] = True, True
    said = np.where(bare, 0, np.where(swapped & person_there, ARM, labels)).astype(np.uint8)
    labeller = Labeller(open_body(), load_semantic_prior(open_body()))
    contradicted = labeller.contradicted(said, truth, window)
    inside = labeller.expected(labels, truth, window)[0] & person_there
    torso = np.isin(labels, (LABEL_INDEX["upperclothes"], LABEL_INDEX["pants"]))
    assert min((inside & bare).sum(), (inside & swapped & torso).sum()) > 300
    assert contradicted[inside & bare].all()
    assert contradicted[inside & swapped & torso].mean() > 0.9
    assert contradicted[inside & ~(bare | swapped)].mean() < 0.03
    assert contradicted[~person_there & ~bare].mean() < 0.01


def test_only_what_the_parser_is_sure_of_is_learnt_from() -> None:
    seen = Perception().observe(EXAMPLE)
    labels = Labeller(open_body()).sure_labels(seen.image, seen.detection)
    known = labels != UNKNOWN
    assert 0.5 < known.mean() < 1
    assert (labels[known] == seen.labels[known]).mean() > 0.97


def test_a_training_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One photo with its own label map; weights come out that parse, and a second call has nothing to do."""
    photos, labels = tmp_path / "photos", tmp_path / "labels"
    photos.mkdir()
    labels.mkdir()
    seen = Perception().observe(EXAMPLE)
    for name in ("a", "b", "c"):
        (photos / f"{name}.png").write_bytes(EXAMPLE.read_bytes())
        write_labels(labels / f"{name}.png", seen.labels)
    words = ["train", "parser", "--photos", str(photos), "--labels", str(labels), "--out", str(tmp_path / "out")]
    words += ["--steps", "4", "--epoch", "2", "--batch", "2", "--workers", "0", "--parser", "open"]
    words += ["--learning-rate", "1e-5", "--held-out", "0.3"]
    assert main(words) == 0
    path = tmp_path / "out" / "parser.safetensors"
    assert f"{path}: trained" in capsys.readouterr().out
    found = NetworkParser(path).parse(seen.image, seen.detection)
    assert (found == seen.labels).mean() > 0.97  # so few steps change little
    before = read_decoder().state_dict()
    assert any(not torch.equal(value, before[name]) for name, value in read_decoder(path).state_dict().items())
    with (tmp_path / "out" / "log" / "version_0" / "metrics.csv").open() as file:
        assert any(row.get("loss") for row in csv.DictReader(file))
    assert main(words) == 0
    assert main([*words[:-1], "0.5"]) == 2
    assert "was begun with other settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "nothing to learn from"),
        ({"photos": Path()}, "go together"),
        ({"rendered": Path("r"), "steps": 0}, "--steps 0: at least 1"),
        ({"rendered": Path("r"), "held_out": 1.0}, "--held-out 1: a share"),
    ],
)
def test_settings_that_cannot_work(given: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ParserSettings(out=Path("out"), **given).check_sources()


def test_class_tables_are_each_others_inverse() -> None:
    assert sorted(LABEL_CLASSES[LABEL_CLASSES != UNKNOWN].tolist()) == list(range(CLASSES))
    assert LABEL_CLASSES[OTHER_PERSON] == CLASSES - 2
    assert LABEL_CLASSES[OCCLUDER] == CLASSES - 1
