"""What a run takes its images and people from: folders, lists, OpenPose, COCO and SPIN files, and what is refused."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from batch_pictures import ONE, QUICK, TRUTH, photo
from PIL import Image

from dsr_fit.body.files import load_body
from dsr_fit.body.parameters import Parameters
from dsr_fit.cli import main as cli
from dsr_fit.dataset.fingerprints import UNREADABLE, changed, fingerprint
from dsr_fit.dataset.listing import open_source
from dsr_fit.dataset.observing import Observer, fill
from dsr_fit.dataset.run import fit_dataset, read_results
from dsr_fit.dataset.settings import Settings
from dsr_fit.dataset.sources import Entry, Person
from dsr_fit.errors import InputError
from dsr_fit.joints import COCO_17_SLOTS
from dsr_fit.observe.perception import Perception


def test_nan_keypoints_and_crowds(tmp_path: Path) -> None:
    """COCO: NaN points count as not labelled; crowds and people with too few points are left out and counted."""
    photo().save(tmp_path / "person.png")
    projected = _true_keypoints()[list(COCO_17_SLOTS)]
    flat = np.column_stack([projected, np.full(17, 2)])
    damaged = flat.copy()
    damaged[5:9] = np.nan
    polygon = [10.0, 10.0, 200.0, 10.0, 200.0, 300.0]
    annotations = [
        {"id": 7, "image_id": 1, "keypoints": flat.ravel().tolist(), "num_keypoints": 17, "iscrowd": 0,
         "bbox": [1, 2, 3, 4], "segmentation": [polygon]},
        {"id": 8, "image_id": 1, "keypoints": damaged.ravel().tolist(), "iscrowd": 0},
        {"id": 9, "image_id": 1, "keypoints": np.full(51, np.nan).tolist(), "iscrowd": 0},
        {"id": 10, "image_id": 1, "keypoints": flat.ravel().tolist(), "iscrowd": 1},
        {"id": 11, "image_id": 2, "keypoints": [0] * 51},
    ]  # fmt: skip
    images = [{"id": 1, "file_name": "person.png"}, {"id": 2, "file_name": "other.png"}]
    (tmp_path / "coco.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    source = open_source(tmp_path / "coco.json")
    assert (source.kind, source.left_out, len(source)) == ("coco", 3, 1)
    people = source.entries[0].people
    assert people is not None
    assert [person.source_id for person in people] == [7, 8]
    np.testing.assert_array_equal(people[0].outline[0], np.reshape(polygon, (3, 2)).astype(np.float32))
    slots = list(COCO_17_SLOTS)
    assert people[0].keypoints is not None
    assert people[1].keypoints is not None
    np.testing.assert_allclose(people[0].keypoints[slots, :2], projected, rtol=1e-6)
    assert (people[1].keypoints[slots, 2] > 0).tolist() == [k not in (5, 6, 7, 8) for k in range(17)]
    assert not np.isnan(people[1].keypoints).any()
    out = tmp_path / "out"
    list(fit_dataset(tmp_path / "coco.json", out, config=QUICK, resources=ONE))
    found = list(read_results(out))
    assert [(row["person"], row["source_id"]) for row in found] == [(0, 7), (1, 8)]
    assert all(row["status"] != "failed" for row in found)
    assert all(row["keypoints_source"] == "coco" for row in found)


def test_an_annotation_of_another_image_fails_for_each_of_its_people(tmp_path: Path) -> None:
    """COCO's width and height contradict the file."""
    Image.new("RGB", (30, 20)).save(tmp_path / "a.png")
    image = {"id": 1, "file_name": "./a.png", "width": 640, "height": 480}
    people = [{"id": n, "image_id": 1, "keypoints": [5.0, n, 2] * 17} for n in (3, 4)]
    (tmp_path / "coco.json").write_text(json.dumps({"images": [image], "annotations": people}))
    (entry,) = open_source(tmp_path / "coco.json").entries
    found = Observer(Settings(), tmp_path, Perception(object(), object()))(entry)  # type: ignore[arg-type]
    assert [(one.person, one.source_id) for one in found] == [(0, 3), (1, 4)]
    assert {one.reason for one in found} == {
        "a.png is 30 x 20 pixels, its annotation says 640 x 480; is it another image?"
    }


@pytest.mark.parametrize(("name", "words"), [("a.png", "no such image: a.png"), ("n" * 300, "File name too long")])
def test_an_annotated_image_that_cannot_be_there_is_said(tmp_path: Path, name: str, words: str) -> None:
    entry = Entry(name, (Person(0), Person(1)), size=(640, 480))
    found = Observer(Settings(), tmp_path, Perception(object(), object()))(entry)  # type: ignore[arg-type]
    assert [one.person for one in found] == [0, 1]
    assert all(one.reason.startswith("no such image: ") and words in one.reason for one in found)


def test_spin_rows_by_keypoints_or_by_box(tmp_path: Path) -> None:
    photo().save(tmp_path / "person.png")
    points = _true_keypoints()
    part = np.zeros((3, 24, 3))
    part[:, :, :2], part[:, :, 2] = points[25:], 1
    part[1, :, 2] = 0
    part[2] = np.nan
    low, high = points[25:].min(0), points[25:].max(0)
    center = np.stack([(low + high) / 2, (low + high) / 2, [np.nan, np.nan]])
    np.savez(
        tmp_path / "set.npz", imgname=np.array(["person.png"] * 3), center=center,
        scale=np.full(3, (high - low).max() * 1.1 / 200), part=part,
    )  # fmt: skip
    list(fit_dataset(tmp_path / "set.npz", tmp_path / "out", config=QUICK, resources=ONE))
    rows = list(read_results(tmp_path / "out"))
    assert [(row["person"], row["source_id"], row["keypoints_source"]) for row in rows] == [
        (0, 0, "spin"), (1, 1, "blazepose-heavy"), (2, 2, None),
    ]  # fmt: skip
    np.testing.assert_allclose(rows[0]["keypoints"][25:], part[0], rtol=1e-5)
    assert rows[2]["status"] == "failed"
    assert re.match("the box nan,nan.* is empty", rows[2]["reason"])


def test_spin_rows_of_one_image_are_one_image_however_far_apart(tmp_path: Path) -> None:
    """What is written by image (a label map, a sample) takes neighbours to be its people."""
    names = ["b.png", "a.png", "b.png", "c.png", "a.png", "b.png"]
    np.savez(tmp_path / "set.npz", imgname=np.array(names), center=np.full((6, 2), 50.0), scale=np.arange(1, 7))
    entries = open_source(tmp_path / "set.npz").entries
    told = [(entry.imgname, [(one.number, one.source_id) for one in entry.people or ()]) for entry in entries]
    assert told == [("b.png", [(0, 0), (1, 2), (2, 5)]), ("a.png", [(0, 1), (1, 4)]), ("c.png", [(0, 3)])]


def test_who_is_annotated_again_in_the_same_way_is_fitted_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Repeated rows of SPIN's files, repeated images and annotations of COCO's; other people of the image stay."""
    scale = np.array([1.0, 1.0, 2.0, 1.0, 1.0])
    names = np.array(["a.png", "a.png", "a.png", "b.png", "a.png"])
    np.savez(tmp_path / "set.npz", imgname=names, center=np.full((5, 2), 50.0), scale=scale)
    images = [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}, {"id": 1, "file_name": "a.png"}]
    annotations = [
        {"id": number, "image_id": image, "keypoints": [5.0, y, 2] * 17}
        for number, image, y in ((1, 1, 5), (1, 1, 5), (2, 1, 6), (3, 2, 5), (4, 1, 5))
    ]
    (tmp_path / "coco.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    for name, ids, repeated in (("set.npz", [[0, 2], [3]], 0), ("coco.json", [[1, 2], [3]], 1)):
        source = open_source(tmp_path / name)
        assert [[one.source_id for one in entry.people or ()] for entry in source.entries] == ids
        assert [[one.number for one in entry.people or ()] for entry in source.entries] == [[0, 1], [0]]
        assert (source.repeated, source.repeated_people) == (repeated, 2)
        assert cli.main(["batch", str(tmp_path / name), "--out", str(tmp_path / name[:4])]) == 3  # no such images
        said = capfd.readouterr().err
        assert said.count("people are annotated more than once (2 repetitions); each is fitted once\n") == 1
        assert said.count("images are named more than once (1 repetition); each is fitted once\n") == repeated


def test_two_images_of_one_id_are_refused(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": name} for name in ("a.png", "b.png")]
    (tmp_path / "coco.json").write_text(json.dumps({"images": images, "annotations": []}))
    with pytest.raises(InputError, match=r"a\.png and b\.png have the same id"):
        open_source(tmp_path / "coco.json")


def test_openpose_files_beside_the_images(tmp_path: Path) -> None:
    person = photo()
    for name in ("a.png", "b.png", "c.png"):
        person.save(tmp_path / name)
    points = np.column_stack([_true_keypoints()[:25], np.ones(25)])
    few = points.copy()
    few[3:, 2] = 0
    people = [{"pose_keypoints_2d": table.ravel().tolist()} for table in (points, few)]
    (tmp_path / "a_keypoints.json").write_text(json.dumps({"people": people}))
    (tmp_path / "b_keypoints.json").write_text('{"people": []}')
    list(fit_dataset(tmp_path, tmp_path / "out", config=QUICK, resources=ONE))
    rows = list(read_results(tmp_path / "out"))
    told = [(row["imgname"], row["person"], row["keypoints_source"], row["reason"]) for row in rows]
    assert told[0][:3] == ("a.png", 0, "openpose")
    assert told[1][:3] == ("a.png", 1, None)
    assert "has 3 usable keypoints, a fit needs 4" in told[1][3]
    assert told[2] == ("b.png", 0, None, "b_keypoints.json holds nobody")
    assert told[3][:3] == ("c.png", 0, "blazepose-heavy")
    elsewhere = open_source(tmp_path, keypoints=tmp_path / "out")
    assert all(entry.keypoint_file is not None for entry in elsewhere.entries)
    missing = Observer(Settings(), tmp_path)(elsewhere.entries[0])
    assert "no such keypoint file" in missing[0].reason


@pytest.fixture
def no_waiting() -> Iterator[None]:
    """Fails a test that waits."""
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("waits"))
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("no_waiting")
def test_pipes_and_devices_are_refused_at_once(tmp_path: Path) -> None:
    """As images and as keypoint files; nothing waits for what they never give, then and when the run is repeated."""
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    photo().save(tmp_path / "person.png")
    os.mkfifo(tmp_path / "person_keypoints.json")
    source = open_source(tmp_path)
    observer = Observer(Settings(), tmp_path, Perception(object(), object()))  # type: ignore[arg-type]
    reasons = [observer(entry)[0].reason for entry in source.entries]
    assert reasons == [
        "device.png is a device or a pipe; save the image as a file",
        "person_keypoints.json is a device or a pipe; save the keypoint file as a file",
        "pipe.png is a device or a pipe; save the image as a file",
    ]
    for entry in source.entries:
        assert fingerprint(source.files(entry)) == UNREADABLE
        assert not changed(UNREADABLE, source.files(entry), strict=True)


def test_a_list_names_each_image_once(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("# mine\nb.png\n\na.png\nb.png\n")
    source = open_source(tmp_path / "list.txt")
    assert [entry.imgname for entry in source.entries] == ["b.png", "a.png"]


def test_what_is_left_out_of_a_folder_is_counted_by_kind(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Hidden images too; what programs keep beside images is not counted."""
    suffixes = [".heif1"] * 3 + [".mov"] * 2 + [".a", ".b", ".c", ".d", ".e"]
    names = [f"{number}{suffix}" for number, suffix in enumerate(suffixes)]
    for name in ("z.png", ".hidden.png", ".DS_Store", "notes.txt", ".git/a.png", *names):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_text("")
    source = open_source(tmp_path / "photos")
    assert [entry.imgname for entry in source.entries] == ["z.png"]
    assert sorted(source.left_files) == sorted([".hidden.png", *names])
    assert cli.main(["batch", str(tmp_path / "photos"), "--out", str(tmp_path / "out")]) == 3
    line = "left out of the folder: 3 .heif1, 2 .mov, 1 hidden, 1 .a, 1 .b and 3 more, such as .hidden.png\n"
    assert line in capfd.readouterr().err


def test_a_source_that_cannot_be_read_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.json").write_text("{")
    (tmp_path / "other.csv").write_text("")
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes").mkdir()
    for name in ("a.txt", "b.txt", ".a.png"):
        (tmp_path / "notes" / name).write_text("")
    for name, words in (
        ("none", "no such source"), ("bad.json", "not COCO keypoint annotations"), ("other.csv", "not a source"),
        ("empty", "empty: no images to fit; it is empty"),
        ("notes", "notes: no images to fit; it holds 2 .txt, 1 hidden, such as .a.png"),
    ):  # fmt: skip
        assert cli.main(["batch", str(tmp_path / name), "--out", str(tmp_path / "out")]) == 1
        text = capfd.readouterr().err
        assert words in text
        assert text.count("\n") == 1


def test_polygons_fill_the_pixels_whose_centres_they_hold() -> None:
    """A rectangle from x = 2 to 5 and y = 1 to 4 holds the centres of 3 x 3 pixels; edges may take one pixel more."""
    mask = fill((np.array([[2, 1], [5, 1], [5, 4], [2, 4]], np.float32),), (8, 6))
    assert mask.shape == (6, 8)
    assert mask[1:4, 2:5].all()
    assert mask.sum() <= 16


def _true_keypoints() -> np.ndarray:
    """(49, 2) where the example's person is, pixels."""
    import torch

    values = (TRUTH[name] for name in ("global_orient", "body_pose", "betas", "cam_t"))
    joints = Parameters(*(torch.tensor([value]).float() for value in values)).pose(load_body()).keypoints[0].numpy()
    return joints[:, :2] / joints[:, 2:] * TRUTH["focal_length"] + np.array(TRUTH["image_size"]) / 2
