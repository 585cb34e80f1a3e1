"""Keypoint files of the field, each written by hand here, come back in the 49 slots."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsr_fit.errors import InputError
from dsr_fit.io.keypoint_files import read_keypoints
from dsr_fit.joints import BODY_25, KEYPOINT_INDEX, KEYPOINTS_49
from dsr_fit.observation import Detection

SIZE = (640, 480)

OPENPOSE_18 = [
    "Nose", "Neck", "RShoulder", "RElbow", "RWrist", "LShoulder", "LElbow", "LWrist", "RHip", "RKnee",
    "RAnkle", "LHip", "LKnee", "LAnkle", "REye", "LEye", "REar", "LEar",
]  # fmt: skip

COCO_17 = [
    "Nose (COCO)", "Left Eye", "Right Eye", "Left Ear", "Right Ear", "Left Shoulder", "Right Shoulder",
    "Left Elbow", "Right Elbow", "Left Wrist", "Right Wrist", "Left Hip", "Right Hip", "Left Knee",
    "Right Knee", "Left Ankle", "Right Ankle",
]  # fmt: skip

# MediaPipe's documentation: the landmarks that have a slot here.
MEDIAPIPE = {
    0: "Nose", 2: "LEye", 5: "REye", 7: "LEar", 8: "REar", 11: "LShoulder", 12: "RShoulder", 13: "LElbow",
    14: "RElbow", 15: "LWrist", 16: "RWrist", 23: "LHip", 24: "RHip", 25: "LKnee", 26: "RKnee", 27: "LAnkle",
    28: "RAnkle", 29: "LHeel", 30: "RHeel", 31: "LBigToe", 32: "RBigToe",
}  # fmt: skip


def _points(count: int) -> np.ndarray:
    """(count, 3) distinct points inside the image; confidences that are no COCO flags."""
    rows = np.arange(count, dtype=np.float64)
    return np.column_stack([10 + 7 * rows, 400 - 5 * rows, 0.3 + rows / 100])


def _read(tmp_path: Path, content: Any, **options: Any) -> list[Detection]:
    path = tmp_path / "keypoints.json"
    path.write_text(json.dumps(content))
    return read_keypoints(path, SIZE, **options)


def _assert_slots(detection: Detection, expected: dict[str, np.ndarray]) -> None:
    """Exactly these names are filled, with these rows."""
    for slot, name in enumerate(KEYPOINTS_49):
        row = expected.get(name, np.zeros(3))
        np.testing.assert_allclose(detection.keypoints[slot], row, rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("names", [OPENPOSE_18, list(BODY_25)], ids=["18", "25"])
def test_openpose(tmp_path: Path, names: list[str]) -> None:
    points = _points(len(names))
    second = points + [5, 5, 0]
    people = [{"pose_keypoints_2d": p.ravel().tolist()} for p in (points, second)]
    found = _read(tmp_path, {"version": 1.3, "people": people})
    assert [person.source for person in found] == ["openpose", "openpose"]
    for person, rows in zip(found, (points, second), strict=True):
        _assert_slots(person, dict(zip(names, rows, strict=True)))
        assert person.world_landmarks is None
        assert person.person_mask is None


@pytest.mark.parametrize("wrap", [lambda p: p, lambda p: [p], lambda p: {"annotations": [p]}])
def test_coco_in_every_wrapping(tmp_path: Path, wrap) -> None:
    points = _points(17)
    (person,) = _read(tmp_path, wrap({"image_id": 7, "keypoints": points.ravel().tolist(), "score": 0.9}))
    assert person.source == "coco"
    _assert_slots(person, dict(zip(COCO_17, points, strict=True)))


def test_coco_visibility_flags_become_confidence(tmp_path: Path) -> None:
    points = _points(17)
    points[:, 2] = np.arange(17) % 3
    (person,) = _read(tmp_path, [{"keypoints": points.ravel().tolist(), "num_keypoints": 11}])
    for row, name in enumerate(COCO_17):
        assert person.keypoints[KEYPOINT_INDEX[name], 2] == (0, 0.5, 1)[row % 3]


def test_coco_annotations_are_chosen_by_file_name(tmp_path: Path) -> None:
    points = _points(17)
    content = {
        "images": [{"id": 1, "file_name": "one.jpg"}, {"id": 2, "file_name": "two.jpg"}],
        "annotations": [
            {"image_id": 2, "keypoints": (points + [1, 0, 0]).ravel().tolist()},
            {"image_id": 1, "keypoints": points.ravel().tolist()},
            {"image_id": 2, "keypoints": (points + [2, 0, 0]).ravel().tolist()},
        ],
    }
    two = _read(tmp_path, content, image_name="photos/two.jpg")
    nose = KEYPOINT_INDEX["Nose (COCO)"]
    assert [float(person.keypoints[nose, 0]) for person in two] == [11.0, 12.0]
    (one,) = _read(tmp_path, content, image_name="one.jpg")
    assert one.keypoints[nose, 0] == 10.0
    with pytest.raises(InputError, match=r"none named three\.jpg"):
        _read(tmp_path, content, image_name="three.jpg")
    with pytest.raises(InputError, match="several images"):
        _read(tmp_path, content)


@pytest.mark.parametrize("ids", [(139, 285), ("000000000139.jpg", "000000000285.jpg")])
def test_coco_results_are_chosen_by_image_id(tmp_path: Path, ids: tuple[Any, Any]) -> None:
    points = _points(17)
    results = [{"image_id": i, "keypoints": (points + [n, 0, 0]).ravel().tolist()} for n, i in enumerate(ids)]
    (person,) = _read(tmp_path, results, image_name="000000000285.jpg")
    assert person.keypoints[KEYPOINT_INDEX["Nose (COCO)"], 0] == 11.0


@pytest.mark.parametrize("form", ["rows of 4", "rows of 3", "dicts", "flat", "person dict", "people"])
def test_mediapipe_in_every_form(tmp_path: Path, form: str) -> None:
    points = _points(33)
    rows = np.insert(points, 2, -0.1, axis=1)
    dicts = [dict(zip(("x", "y", "z", "visibility"), row, strict=True)) for row in rows.tolist()]
    content: Any = {
        "rows of 4": rows.tolist(),
        "rows of 3": points.tolist(),
        "dicts": dicts,
        "flat": rows.ravel().tolist(),
        "person dict": {"landmarks": dicts},
        "people": [rows.tolist()],
    }[form]
    (person,) = _read(tmp_path, content)
    assert person.source == "mediapipe"
    _assert_slots(person, {name: points[index] for index, name in MEDIAPIPE.items()})


def test_normalised_mediapipe_is_scaled_and_cut_at_the_border(tmp_path: Path) -> None:
    points = _points(33)
    points[25] = (300, 1.1 * SIZE[1], 0.6)  # the left knee, guessed below the image
    shares = points / [*SIZE, 1]
    (person,) = _read(tmp_path, shares.tolist())
    expected = {name: points[index] for index, name in MEDIAPIPE.items() if name != "LKnee"}
    _assert_slots(person, expected)


def test_world_landmarks_take_the_same_slots(tmp_path: Path) -> None:
    points = _points(33)
    world = np.column_stack([points / 1000, points[:, 0]])  # the visibility here is not used
    (person,) = _read(tmp_path, {"landmarks": points.tolist(), "world_landmarks": world.tolist()})
    assert person.world_landmarks is not None
    for index, name in MEDIAPIPE.items():
        row = person.world_landmarks[KEYPOINT_INDEX[name]]
        np.testing.assert_allclose(row, [*world[index, :3], points[index, 2]], rtol=1e-5)


def test_own_result_file(tmp_path: Path) -> None:
    keypoints = _points(49).astype(np.float32)
    np.savez(tmp_path / "mesh.npz", keypoints=keypoints, vertices=np.zeros((3, 3)))
    (person,) = read_keypoints(tmp_path / "mesh.npz", SIZE)
    np.testing.assert_array_equal(person.keypoints, keypoints)


def test_bad_values_are_unobserved_and_empty_people_keep_their_number(tmp_path: Path) -> None:
    points = _points(25)
    points[0, 2] = math.nan
    points[1, 2] = -1
    points[2, 0] = math.inf
    points[3:5, 2] = 1.7, math.inf  # whether a confidence may be so large is asked when it is observed
    people = [{"pose_keypoints_2d": [0] * 75}, {"pose_keypoints_2d": points.ravel().tolist()}]
    empty, person = _read(tmp_path, {"people": people})
    assert not empty.keypoints.any()
    np.testing.assert_array_equal(person.keypoints[:3], 0)
    np.testing.assert_allclose(person.keypoints[3:5, 2], (1.7, 1e9))
    assert np.isfinite(person.keypoints).all()


def test_no_people_is_an_empty_list(tmp_path: Path) -> None:
    assert _read(tmp_path, {"people": []}) == []
    assert _read(tmp_path, []) == []


@pytest.mark.parametrize("count", [0, 16, 21, 133])
def test_another_length_names_those_that_work(tmp_path: Path, count: int) -> None:
    with pytest.raises(InputError, match="17 .* 18 .* 25 .* 33 .* 49 .*") as caught:
        _read(tmp_path, {"people": [{"pose_keypoints_2d": [1.0] * (3 * count)}]})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [{"shapes": []}, 5, "text", {"people": [5]}, {"people": [{"pose_keypoints_2d": "abc"}]}, [{"score": 1}]],
)
def test_other_content_is_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(InputError):
        _read(tmp_path, content)


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such keypoint file"):
        read_keypoints(tmp_path / "none.json", SIZE)
    (tmp_path / "a.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(InputError, match="not a JSON"):
        read_keypoints(tmp_path / "a.json", SIZE)
    (tmp_path / "a.npz").write_bytes(b"PK nothing")
    with pytest.raises(InputError, match=r"mesh\.npz"):
        read_keypoints(tmp_path / "a.npz", SIZE)
    np.savez(tmp_path / "b.npz", vertices=np.zeros(3))
    with pytest.raises(InputError, match="no array `keypoints`"):
        read_keypoints(tmp_path / "b.npz", SIZE)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_byte_order_marks_and_wide_encodings_are_read(tmp_path: Path, encoding: str) -> None:
    """What editors and shells of Windows write."""
    points = _points(25)
    (tmp_path / "k.JSON").write_bytes(json.dumps([points.tolist()]).encode(encoding))
    (person,) = read_keypoints(tmp_path / "k.JSON", SIZE)
    _assert_slots(person, dict(zip(BODY_25, points, strict=True)))


def test_openpose_before_1_2_names_its_points_otherwise(tmp_path: Path) -> None:
    points = _points(18)
    (person,) = _read(tmp_path, {"version": 1.0, "people": [{"pose_keypoints": points.ravel().tolist()}]})
    _assert_slots(person, dict(zip(OPENPOSE_18, points, strict=True)))


def test_null_is_unobserved(tmp_path: Path) -> None:
    rows: Any = _points(25).tolist()
    rows[0] = [None, None, None]
    rows[1][2] = None
    for content in ([rows], [[value for row in rows for value in row]], rows):
        (person,) = _read(tmp_path, content)
        assert (person.keypoints[:3, 2] > 0).tolist() == [False, False, True]


def _changed(value: Any, place: int = 5) -> list[Any]:
    flat: list[Any] = _points(25).ravel().tolist()
    flat[place] = value
    return flat


@pytest.mark.parametrize(
    ("points", "words"),
    [
        (_changed("12"), "person 1 of .* has keypoints that aren't numbers x, y, confidence, but '12'$"),
        (_changed(True), "person 1 of .* has keypoints that aren't numbers"),
        (_changed({"x": 1}), "person 1 of .* has keypoints that aren't numbers"),
        (_changed(10**400), "person 1 of .* has a keypoint with a number too large"),
        (_changed([1, 2, 3]), "person 1 of .* has keypoints of different lengths; each is x, y, confidence"),
        ([[1, 2, 3], [1, 2]], "person 1 of .* has keypoints of different lengths"),
        ("text", "person 1 of .* has keypoints that aren't numbers"),
        (None, "person 1 of .* has keypoints that aren't numbers"),
        ([1.0] * 42, r"person 1 of .* has 14 keypoints; 17 \(COCO\), 18 or 25 \(OpenPose\), 33 .* or 49"),
        ([1.0] * 43, "person 1 of .* has keypoints of size 43; 17 "),
        ([[[1.0] * 3] * 25], r"person 1 of .* aren't numbers"),
    ],
)
def test_points_that_are_none_name_the_person(tmp_path: Path, points: Any, words: str) -> None:
    good = _points(25).ravel().tolist()
    with pytest.raises(InputError, match=words) as caught:
        _read(tmp_path, {"people": [{"pose_keypoints_2d": good}, {"pose_keypoints_2d": points}]})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["[" * 100_000, '{"people": [' + "9" * 5000 + "]}", '{"people": [', "\0", "{} {}"])
def test_json_that_cannot_be_read_is_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(InputError, match=r"a\.json is not a JSON keypoint file \(") as caught:
        read_keypoints(tmp_path / "a.json", SIZE)
    assert "\n" not in str(caught.value)
    assert "sys." not in str(caught.value)


def test_one_landmark_far_outside_leaves_shares_what_they_are(tmp_path: Path) -> None:
    """A face close to the camera: MediaPipe guesses the feet several heights below the image."""
    points = _points(33)
    points[27:, 1] = 4 * SIZE[1]
    (person,) = _read(tmp_path, (points / [*SIZE, 1]).tolist())
    _assert_slots(person, {name: points[index] for index, name in MEDIAPIPE.items() if index < 27})


def test_a_folder_and_an_empty_file_say_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder, not a keypoint file; name one of the files in it"):
        read_keypoints(tmp_path, SIZE)
    (tmp_path / "a.json").touch()
    with pytest.raises(InputError, match=r"a\.json is empty \(0 bytes\)"):
        read_keypoints(tmp_path / "a.json", SIZE)
    with pytest.raises(InputError, match="no such keypoint file: 'nnn.*File name too long"):
        read_keypoints("n" * 300, SIZE)


@pytest.mark.parametrize("array", [np.array(["a"] * 147).reshape(49, 3), np.zeros((49, 3), complex), np.array(3.0)])
def test_an_archive_of_no_numbers_is_refused(tmp_path: Path, array: np.ndarray) -> None:
    np.savez(tmp_path / "mesh.npz", keypoints=array)
    with pytest.raises(InputError, match=r"mesh\.npz has keypoints that aren't numbers"):
        read_keypoints(tmp_path / "mesh.npz", SIZE)
