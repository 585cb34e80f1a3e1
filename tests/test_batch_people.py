"""Several people a picture in a run: who is a row, in which order, what is held in memory, and what takes them up."""

from __future__ import annotations

import json
import pickle
import tarfile
import time
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batch_pictures import PERSON, QUICK
from batch_stages import Fit
from PIL import Image
from scenes import observe
from scenes import person as posed

from dsr_fit.cli import main as cli
from dsr_fit.dataset import fitting
from dsr_fit.dataset.defaults import MIN_HEIGHT
from dsr_fit.dataset.fitting import BatchFitter
from dsr_fit.dataset.observing import Observer
from dsr_fit.dataset.records import FittedBatch, PackedObservation, PersonObservation, unpack_labels
from dsr_fit.dataset.run import Resources, read_results, run
from dsr_fit.dataset.settings import Settings
from dsr_fit.dataset.sources import Entry, Source
from dsr_fit.evaluate.cached_source import photo_source
from dsr_fit.fitting import together
from dsr_fit.fitting.together import fit_people
from dsr_fit.joints import empty_keypoints
from dsr_fit.labels import OCCLUDER, OTHER_PERSON
from dsr_fit.observation import Detection
from dsr_fit.observe.perception import Perception

WIDTH, HEIGHT = 120, 160


def _seen(left: float, points: int = 25) -> Detection:
    """A person 20 px wide whose left side is there."""
    keypoints = empty_keypoints()
    keypoints[:points, 0] = np.linspace(left, left + 20, points)
    keypoints[:points, 1] = 10 + (HEIGHT - 20) * np.linspace(0, 1, points) ** 2
    keypoints[:points, 2] = 0.9
    return Detection(keypoints, None, np.full((HEIGHT, WIDTH), 0.8, np.float32), "stand-in", agreement=0.5)


class _Crowd:
    """Finds the given people, each measured when it is taken; remembers its looks, and how many it holds at once."""

    def __init__(self, *people: Detection) -> None:
        self.people, self.looks, self.most_alive = people, [], 0
        self.masks: list[weakref.ref[np.ndarray]] = []

    def detect(
        self, image: np.ndarray, bbox: Any = None, count: int | None = None, min_height: float = 0.0
    ) -> Sequence[Detection]:
        self.looks.append((bbox, count, min_height))
        return _Taken(self)

    def complete(self, image: np.ndarray, given: Detection) -> Detection:
        return given


class _Mask(np.ndarray):
    """An array that can be watched."""


class _Taken(Sequence[Detection]):
    def __init__(self, crowd: _Crowd) -> None:
        self.crowd = crowd

    def __len__(self) -> int:
        return len(self.crowd.people)

    def __getitem__(self, number: Any) -> Any:
        person = self.crowd.people[number]
        mask = np.array(person.person_mask).view(_Mask)
        self.crowd.masks.append(weakref.ref(mask))
        self.crowd.most_alive = max(self.crowd.most_alive, sum(each() is not None for each in self.crowd.masks))
        return replace(person, person_mask=mask)


class _Parser:
    """Labels every pixel; fails at the person whose keypoints begin at `fails_at`."""

    name = "stand-in"

    def __init__(self, fails_at: float = -1.0) -> None:
        self.fails_at = fails_at

    def parse(self, image: np.ndarray, detection: Detection) -> np.ndarray:
        if detection.keypoints[0, 0] == self.fails_at:
            raise MemoryError("no room")
        return np.full(image.shape[:2], 5, np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (WIDTH, HEIGHT), (90, 120, 150)).save(tmp_path / "a.png")
    return tmp_path


def _observer(folder: Path, crowd: _Crowd, parser: _Parser | None = None, **settings: Any) -> Observer:
    return Observer(replace(Settings(), **settings), folder, Perception(crowd, parser or _Parser()))


def test_everybody_found_is_observed_in_one_look(folder: Path) -> None:
    crowd = _Crowd(_seen(50), _seen(80, points=3), _seen(10))
    people = _observer(folder, crowd)(Entry("a.png"))
    assert crowd.looks == [(None, None, MIN_HEIGHT)]
    assert [(one.imgname, one.person, one.source_id) for one in people] == [("a.png", n, -1) for n in range(3)]
    assert [None if one.found is None else one.found.keypoints[0, 0] for one in people] == [50, None, 10]
    assert people[1].reason == "person 1 of a.png has 3 usable keypoints, a fit needs 4"
    assert all(one.files is not None and one.files.size for one in people)
    assert {0.5} == {one.found.agreement for one in people if one.found is not None}


def test_of_a_crowd_one_mask_is_held_at_a_time(folder: Path) -> None:
    crowd = _Crowd(*map(_seen, range(5, 65, 2)))
    assert len(_observer(folder, crowd)(Entry("a.png"))) == 30
    assert crowd.most_alive == 1


def test_nobody_found_is_one_person_who_failed(folder: Path) -> None:
    (one,) = _observer(folder, _Crowd())(Entry("a.png"))
    assert (one.person, one.found) == (0, None)
    assert one.reason.startswith("a.png: nobody was found in the image who takes up 0.1 of its height (--min-height);")


def test_an_unexpected_error_costs_nobody_before_it(folder: Path) -> None:
    first, second = _observer(folder, _Crowd(_seen(50), _seen(80), _seen(10)), _Parser(fails_at=80))(Entry("a.png"))
    assert first.found is not None
    assert (second.person, second.reason) == (1, "unexpected MemoryError: no room")


def test_the_settings_limit_who_is_looked_for(folder: Path) -> None:
    crowd = _Crowd(_seen(50), _seen(80), _seen(10))
    assert len(_observer(folder, crowd, max_people=2, min_height=0.3)(Entry("a.png"))) == 2
    assert crowd.looks == [(None, 2, 0.3)]


def test_who_is_looked_for_decides_results() -> None:
    identities = [replace(Settings(), **each).identity() for each in ({}, {"max_people": 1}, {"min_height": 0.2})]
    assert len({json.dumps(each) for each in identities}) == 3


def test_evaluations_and_rounds_take_one_person_of_any_height(tmp_path: Path) -> None:
    """One look of the finder, and nobody else's parsing and fit."""
    (tmp_path / "photos").mkdir()
    Image.open(PERSON).save(tmp_path / "photos" / "0001.jpg")
    work = photo_source(tmp_path, tmp_path / "cache", ["0001"]).observer(Settings())().make()  # type: ignore[attr-defined]
    assert (work.settings.max_people, work.settings.min_height) == (1, 0)


class _Three:
    def __call__(self, entry: Entry) -> list[PersonObservation]:
        observation = PackedObservation(np.zeros((49, 3)), None, b"", "", "", None, 1.0, (1, 1))
        return [PersonObservation(entry.imgname, person, found=observation) for person in range(3)]


class _Slow(Fit):
    def __call__(self, batch: list[PersonObservation]) -> FittedBatch:
        time.sleep(1.2)
        return super().__call__(batch)


def test_a_fit_has_time_for_each_person_that_was_found(tmp_path: Path) -> None:
    """0.6 s each; three people were found where the source names none."""
    source = Source(tmp_path, [Entry("00001.jpg")], "list")
    rows = list(
        run(source, tmp_path / "out", Settings(), Resources("local", 1, 1, None, 0.6), observe=_Three, fit=_Slow)
    )
    assert [(row["person"], row["status"]) for row in rows] == [(number, "accepted") for number in range(3)]


def test_everybody_of_a_picture_is_fitted_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However few pixels of label maps there is room for; and that doesn't change the rows."""
    seen = [PackedObservation.of(observe(posed(number), noise_px=1.0, seed=number)) for number in range(3)]
    batch = [
        PersonObservation(name, number, found=found, reason="" if found else "too small")
        for name, people in (("a.png", seen[:2]), ("b.png", [seen[2], None]), ("c.png", seen[:1]))
        for number, found in enumerate(people)
    ]
    fitter = BatchFitter(Settings(config=QUICK), tmp_path)
    pictures_of: list[Any] = []

    def overheard(fitter: Any, observations: list[Any], pictures: list[int], batch_size: int) -> list[Any]:
        pictures_of.append(pictures)
        return fit_people(fitter, observations, pictures, batch_size)

    monkeypatch.setattr(fitting, "fit_people", overheard)
    rows = fitter(batch).rows
    assert [(row["imgname"], row["person"]) for row in rows] == [(one.imgname, one.person) for one in batch]
    assert [row["status"] for row in rows].index("failed") == 3
    assert rows[3]["reason"] == "too small"
    width, height = seen[0].image_size
    monkeypatch.setattr(fitting, "PIXELS", 1.5 * width * height)
    again = fitter(batch).rows
    assert pictures_of == [[0, 0, 1, 2], [0, 0], [0], [0]]
    for row, other in zip(rows, again, strict=True):
        for name in ("joints", "betas", "cam_t"):
            assert str(row.get(name)) == str(other.get(name))


def test_rows_hold_the_label_map_of_the_last_fit(tmp_path: Path) -> None:
    """Who stands before the other is labelled as an other person, and turns out to be an occluder."""
    far, near = (observe(posed(number)) for number in range(2))
    labels = np.where(near.labels > 0, OTHER_PERSON, far.labels).astype(np.uint8)
    batch = [
        PersonObservation("a.png", number, found=PackedObservation.of(one))
        for number, one in enumerate((replace(far, labels=labels), replace(near, focal_length=0.8 * near.focal_length)))
    ]
    first, second = BatchFitter(Settings(config=QUICK), tmp_path)(batch).rows
    hidden = unpack_labels(first["labels"]) == OCCLUDER
    assert (hidden & (labels == OTHER_PERSON)).sum() > 0.5 * (labels == OTHER_PERSON).sum()
    np.testing.assert_array_equal(unpack_labels(second["labels"]), near.labels)


def test_a_picture_that_cannot_be_fitted_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = PackedObservation.of(observe(posed()))
    batch = [PersonObservation(name, number, found=found) for name in ("a.png", "b.png") for number in range(2)]

    def fails(people: Sequence[Any], renderer: Any) -> Any:
        calls.append(len(people))
        if len(calls) % 3:  # the first picture, alone too
            raise ValueError("no depth")
        return [None] * len(people)

    calls: list[int] = []
    monkeypatch.setattr(together, "observed_anew", fails)
    rows = BatchFitter(Settings(config=QUICK), tmp_path)(batch).rows
    assert [(row["imgname"], row.get("reason")) for row in rows[:2]] == [("a.png", "no depth")] * 2
    assert [(row["imgname"], row["status"]) for row in rows[2:]] == [("b.png", "unjudged")] * 2


# --- The command ----------------------------------------------------------------------------------

FAST = (
    "--stages.0.iterations", "2", "--least-squares.steps", "3", "--least-squares.pose-steps", "2",
    "--perceivers", "1", "--fitters", "1",
)  # fmt: skip


def _pair() -> Image.Image:
    """Two copies of the example's person on a wall, the second one smaller."""
    with Image.open(PERSON) as picture:
        one = picture.convert("RGB")
    small = one.resize((one.width * 3 // 4, one.height * 3 // 4))
    pair = Image.new("RGB", (one.width + small.width, one.height), (190, 190, 190))
    pair.paste(one, (0, 0))
    pair.paste(small, (one.width, one.height - small.height))
    return pair


def test_a_picture_of_two_from_the_command_to_the_exports(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """And when it is replaced by one of a single person, nothing of the two is left."""
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    _pair().save(photos / "two.png")
    Image.new("RGB", (200, 300), (128, 128, 128)).save(photos / "nobody.png")
    command = ["batch", str(photos), "--out", str(out), "--overlays", *FAST]
    assert cli.main(command) == 3
    last = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert (last["images"], last["failed"], last["unjudged"] + last["refused"] + last["accepted"]) == (2, 1, 2)
    rows = list(read_results(out))
    assert [(row["imgname"], row["person"]) for row in rows] == [("nobody.png", 0), ("two.png", 0), ("two.png", 1)]
    first, second = rows[1:]
    assert first["bbox_scale"] > 1.2 * second["bbox_scale"]
    assert first["bbox_center"][0] < second["bbox_center"][0]
    assert {path.name for path in (out / "overlays").iterdir()} == {"two.png.0.jpg", "two.png.1.jpg"}
    _check_exports(tmp_path, rows[1:])

    with Image.open(PERSON) as picture:
        picture.convert("RGB").save(photos / "two.png")
    assert cli.main(command) == 3
    last = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert (last["replaced"], last["failed"], last["unjudged"] + last["refused"] + last["accepted"]) == (1, 1, 1)
    assert [(row["imgname"], row["person"]) for row in read_results(out)] == [("nobody.png", 0), ("two.png", 0)]
    assert {path.name for path in (out / "overlays").iterdir()} == {"two.png.0.jpg"}


def _check_exports(folder: Path, rows: list[dict[str, Any]]) -> None:
    """Both people are in each format, under one image, told apart."""
    everybody = ("--unjudged", "--refused")

    def export(kind: str, out: str) -> Path:
        assert cli.main(["export", str(folder / "out"), "--format", kind, "--out", str(folder / out), *everybody]) == 0
        return folder / out

    with np.load(export("spin", "spin.npz"), allow_pickle=False) as spin:
        assert spin["imgname"].tolist() == ["two.png", "two.png"]
        np.testing.assert_allclose(spin["center"], [row["bbox_center"] for row in rows])
    coco = json.loads(export("coco", "coco.json").read_text())
    assert [image["file_name"] for image in coco["images"]] == ["two.png"]
    assert len({one["id"] for one in coco["annotations"]}) == 2
    assert {one["image_id"] for one in coco["annotations"]} == {coco["images"][0]["id"]}
    left, right = (one["bbox"] for one in coco["annotations"])
    assert left[0] + left[2] < right[0]
    with tarfile.open(export("webdataset", "hmr.tar")) as archive:
        contents = {name: archive.extractfile(name) for name in archive.getnames()}
        assert list(contents) == ["two.data.pyd", "two.detection.npz", "two.png"]
        people = pickle.load(contents["two.data.pyd"])  # type: ignore[arg-type]
        assert [(one["personid"], one["extra_info"]["detection_npz_idx"]) for one in people] == [(0, 0), (1, 1)]
        with np.load(contents["two.detection.npz"]) as file:  # type: ignore[arg-type]
            masks = file["masks"]
    columns = [np.flatnonzero(mask.any(0)).mean() for mask in masks]
    assert columns[0] < 0.5 * masks.shape[2] < columns[1]
    assert not (masks[0] & masks[1]).any()
    colours = np.asarray(Image.open(export("graphonomy", "maps") / "two.png.png").convert("RGB"))
    shown = colours.any(-1)
    assert (shown & masks[0]).sum() > 0.9 * masks[0].sum()
    assert (shown & masks[1]).sum() > 0.9 * masks[1].sum()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--people", "one", "--max-people", "3"), "--people one and --max-people exclude each other"),
        (("--max-people", "0"), "--max-people 0: at least 1"),
        (("--min-height", "1.5"), "--min-height 1.5: a share of the picture's height, 0 to 1"),
        (("--min-height", "nan"), "--min-height nan: a share of the picture's height, 0 to 1"),
    ],
)
def test_impossible_choices_of_people_are_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], options: Sequence[str], words: str
) -> None:
    assert cli.main(["batch", str(tmp_path), "--out", str(tmp_path / "out"), *options]) == 2
    assert words in capfd.readouterr().err


def test_who_is_annotated_is_not_chosen_among(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    people = [{"id": 1, "image_id": 1, "keypoints": [5.0, 4.0, 2] * 17}]
    (tmp_path / "coco.json").write_text(
        json.dumps({"images": [{"id": 1, "file_name": "a.png"}], "annotations": people})
    )
    for option in (("--people", "one"), ("--max-people", "2"), ("--min-height", "0.2")):
        assert cli.main(["batch", str(tmp_path / "coco.json"), "--out", str(tmp_path / "out"), *option]) == 2
        said = capfd.readouterr().err
        assert f"{option[0]} chooses among people whom the detector finds" in said
        assert "leave the option out" in said
