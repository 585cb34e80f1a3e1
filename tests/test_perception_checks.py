"""What is refused of keypoints, focal lengths and inputs of a wrong type, before anything is fitted to them."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image

import dsr_fit
from dsr_fit.camera import FOCAL_RANGE
from dsr_fit.dataset.listing import open_source
from dsr_fit.dataset.observing import Observer
from dsr_fit.dataset.settings import Settings
from dsr_fit.dataset.sources import Entry, Person
from dsr_fit.errors import InputError, UsageError
from dsr_fit.evaluate.spin import RowPerception
from dsr_fit.io.keypoint_files import Keypoints
from dsr_fit.io.spin_file import read_spin
from dsr_fit.joints import KEYPOINT_INDEX, empty_keypoints
from dsr_fit.observation import Detection
from dsr_fit.observe.checks import check_person
from dsr_fit.observe.perception import Inputs, Perception

SIZE = (120, 160)
DIAGONAL = 200.0


def _keypoints() -> np.ndarray:
    """(49, 3): 25 points on a parabola."""
    keypoints, along = empty_keypoints(), np.linspace(0, 1, 25)
    keypoints[:25] = np.column_stack([20 + 60 * along, 20 + 120 * along**2, np.full(25, 0.9)])
    return keypoints


class _StandIn:
    """Detects nobody, and parses everything as a dress."""

    name = "stand-in"

    def detect(self, image: np.ndarray, *about: Any, **more: Any) -> list[Detection]:
        return []

    def complete(self, image: np.ndarray, given: Detection) -> Detection:
        return given

    def parse(self, image: np.ndarray, detection: Detection) -> np.ndarray:
        return np.full(image.shape[:2], 6, np.uint8)


def _observed(inputs: Inputs, image: Any = None) -> Any:
    return Perception(_StandIn(), _StandIn()).observe(Image.new("RGB", SIZE) if image is None else image, inputs)


def _at_one_point(table: np.ndarray) -> None:
    table[:, :2] = 60


def _as_shares(table: np.ndarray) -> None:
    table[:, :2] /= SIZE


def _on_a_line(table: np.ndarray) -> None:
    table[:, 1] = 20 + 2 * table[:, 0]


def _moved(table: np.ndarray) -> None:
    table[:, 0] += SIZE[0]


def _far(table: np.ndarray) -> None:
    table[:, :2] = 1e9


def _one_far(table: np.ndarray) -> None:
    table[7, 1] = -161


def _beyond_single(table: np.ndarray) -> None:
    table[7, 0] = 1e300


def _few(table: np.ndarray) -> None:
    table[3:, 2] = 0


def _unsure(table: np.ndarray) -> None:
    table[:, 2] = 0.25


BAD = {
    _far: "has its Nose at 1e+09, 1e+09, too far outside the 120 x 160 image; keypoints in pixels of this image work",
    _one_far: r"has its LWrist at [\d.]+, -161, too far outside the 120 x 160 image",
    _beyond_single: r"has its LWrist at 1e\+09, ",
    _moved: "has no usable keypoint inside the 120 x 160 image; is it of another image?",
    _at_one_point: "has all keypoints within 0 x 0 pixels of the image; a fit needs 8",
    _as_shares: "has all keypoints within 0.5 x 0.75 pixels of the image; are they shares of its size",
    _on_a_line: "has all keypoints on one line",
    _few: "has 3 usable keypoints, a fit needs 4",
    _unsure: "has 0 usable keypoints, a fit needs 4",  # the fit's error would be a mean of nothing
}


@pytest.mark.parametrize("damage", BAD, ids=lambda damage: damage.__name__)
def test_keypoints_that_are_nobodys_are_refused_whatever_brings_them(damage: Any, tmp_path: Path) -> None:
    """An OpenPose file, an array, and a data set's entry: one check, which names the person."""
    table = _keypoints()[:25].astype(np.float64)
    damage(table)
    words = BAD[damage].replace("+", r"\+") if damage is _far else BAD[damage]
    people = [{"pose_keypoints_2d": rows.ravel().tolist()} for rows in (_keypoints()[:25].astype(float), table)]
    (tmp_path / "k.json").write_text(json.dumps({"people": people}))
    assert _observed(Inputs(tmp_path / "k.json", person=0)) is not None
    with pytest.raises(InputError, match=rf"^person 1 of .*k\.json {words}"):
        _observed(Inputs(tmp_path / "k.json", person=1))
    with pytest.raises(InputError, match=f"^the person given for the image {words}"):
        _observed(Inputs(Keypoints(table)))
    if damage is not _beyond_single:
        given = empty_keypoints()
        given[:25] = table
        with pytest.raises(InputError, match=f"^the person given for the image {words}"):
            _observed(Inputs(Detection(given)))


def test_people_of_a_data_set_pass_the_same_check(tmp_path: Path) -> None:
    """COCO's and SPIN's entries: a row with its reason, beside that of the other person."""
    Image.new("RGB", SIZE).save(tmp_path / "a.png")
    far = _keypoints()
    far[:25, :2] = 1e9
    people = (Person(0, _keypoints(), origin="coco"), Person(1, far, origin="coco"))
    good, bad = Observer(Settings(), tmp_path, Perception(_StandIn(), _StandIn()))(Entry("a.png", people))
    assert good.found is not None
    assert bad.found is None
    assert bad.reason.startswith("the person given for a.png has its Nose at 1e+09, 1e+09, too far outside")


def test_a_detectors_people_pass_the_same_check() -> None:
    keypoints = _keypoints()
    keypoints[:25, :2] = 60

    class Detector(_StandIn):
        def detect(self, image: np.ndarray, *about: Any, **more: Any) -> list[Detection]:
            return [Detection(keypoints)]

    with pytest.raises(InputError, match="^person 0 of the image has all keypoints within 0 x 0 pixels"):
        Perception(Detector(), _StandIn()).observe(Image.new("RGB", SIZE))


@given(
    st.floats(9, 4000), st.floats(0.05, 1), st.floats(-0.4, 1.2), st.floats(-0.4, 1.2), st.integers(1, 5000),
    st.integers(1, 5000),
)  # fmt: skip
def test_what_passes_can_be_fitted(
    side: float, breadth: float, left: float, top: float, width: int, height: int
) -> None:
    """People of any size and place: where they are let through, a part of them is in the image."""
    along, size = np.linspace(0, 1, 25), np.array([width, height])
    keypoints = empty_keypoints()
    keypoints[:25, 0] = left * width + side * breadth * along**2
    keypoints[:25, 1] = top * height + side * along
    keypoints[:25, 2] = 1
    places = keypoints[:25, :2]
    within = ((places >= -size) & (places <= 2 * size)).all()
    seen = ((places > 0) & (places < size)).all(1).any()
    if within and seen:
        check_person("somebody", Detection(keypoints), (width, height))
    else:
        with pytest.raises(InputError, match="^somebody has .* outside the|^somebody has no usable keypoint inside"):
            check_person("somebody", Detection(keypoints), (width, height))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"keypoints": np.zeros((25, 3), np.float32)}, r"`keypoints` of float32 of shape \(25, 3\)"),
        ({"keypoints": [[1, 2, 3]]}, "`keypoints` of list"),
        ({"keypoints": np.full((49, 3), np.nan, np.float32)}, "`keypoints` that are not finite"),
        (
            {"keypoints": np.full((49, 3), 3, np.float32)},
            "a confidence of 3 at its Nose; 0 to 1 work",
        ),
        ({"keypoints": np.full((49, 3), -1, np.float32)}, "a confidence of -1 at its Nose; 0 to 1 work"),
        ({"world_landmarks": np.zeros((33, 4), np.float32)}, r"`world_landmarks` of .* \(49, 4\) work"),
        ({"world_landmarks": np.full((49, 4), np.inf, np.float32)}, "`world_landmarks` that are not finite"),
        ({"world_landmarks": np.full((49, 4), 850, np.float32)}, "3D landmarks 850 m from the hips"),
        ({"person_mask": np.zeros((120, 160), np.float32)}, r"`person_mask` of .* \(160, 120\) work"),
    ],
)
def test_arrays_of_the_wrong_shape_or_unit_are_refused(change: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=f"^the person given for the image has {words}"):
        _observed(Inputs(replace(Detection(_keypoints()), **change)))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"keypoints": np.zeros((25, 3))},
            r"keypoints is of type ndarray; a file, or `Keypoints\(array, layout\)` works",
        ),
        ({"keypoints": 5}, "keypoints is 5; a file"),
        ({"labels": 7}, "labels is 7; a file, or an array of indices works"),
        ({"bbox": (1, 2, 3)}, r"bbox is \(1, 2, 3\); x, y, width, height in pixels works"),
        ({"bbox": "1,2,3,4"}, "bbox is '1,2,3,4'"),
        ({"bbox": ("1", 2, 3, 4)}, "bbox is "),
        ({"person": 1.5}, "person is 1.5; a whole number from 0 works"),
        ({"person": None}, "person is None"),
        ({"person": True}, "person is True"),
        ({"focal": "500"}, "focal is '500'; a number of pixels works"),
        ({"focal": True}, "focal is True"),
        ({"height": "1.80"}, "height is '1.80'; a number of metres works"),
        ({"height": 180}, r"--height 180: metres, so between 0.4 and 2.6; did you mean 1.80\?"),
        ({"height": 2.7}, "--height 2.7: metres, so between 0.4 and 2.6$"),
    ],
)
def test_inputs_of_another_type_are_wrong_usage(values: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        Inputs(**values)
    with pytest.raises(UsageError, match=words):
        dsr_fit.fit(np.zeros((9, 9, 3), np.uint8), **values)


def test_an_unknown_layout_lists_those_there_are() -> None:
    with pytest.raises(UsageError, match="no layout is called 'body25'; coco17, openpose18, openpose25, "):
        _observed(Inputs(Keypoints(np.zeros((25, 3)), "body25")))  # type: ignore[arg-type]


# --- Focal lengths --------------------------------------------------------------------------------


@pytest.mark.parametrize("focal", [0, -500, 1, 0.99 * FOCAL_RANGE[0] * DIAGONAL, 1.01 * FOCAL_RANGE[1] * DIAGONAL, 1e9])
def test_focal_lengths_that_no_camera_has_are_wrong_usage(focal: float) -> None:
    with pytest.raises(UsageError, match=r"for a 120 x 160 image 20 to 20000 pixels are possible"):
        _observed(Inputs(Keypoints(_keypoints()[:25]), focal=focal))


@pytest.mark.parametrize("focal", [math.nan, math.inf])
def test_focal_lengths_that_are_no_numbers(focal: float) -> None:
    with pytest.raises(UsageError, match=f"--focal {focal:g}"):
        _observed(Inputs(focal=focal))


@pytest.mark.parametrize("share", FOCAL_RANGE)
def test_the_ends_of_the_range_are_possible(share: float) -> None:
    assert _observed(Inputs(Keypoints(_keypoints()[:25]), focal=share * DIAGONAL)).focal_length == share * DIAGONAL


def test_an_absurd_focal_length_in_exif_is_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exif = Image.Exif()
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.FocalLengthIn35mmFilm] = 60000
    Image.new("RGB", SIZE).save(tmp_path / "a.jpg", exif=exif)
    given = Inputs(Keypoints(_keypoints()[:25]))
    with caplog.at_level(logging.WARNING):
        assert _observed(given, tmp_path / "a.jpg").focal_length == DIAGONAL
    (record,) = caplog.records
    assert record.getMessage().endswith(
        "a.jpg: its EXIF tells a focal length of 2.77e+05 pixels, which no camera has; the image's diagonal is taken"
    )
    assert _observed(replace(given, focal=300.0), tmp_path / "a.jpg").focal_length == 300  # and nothing is warned of
    assert len(caplog.records) == 1


# --- Keypoint files and their image ---------------------------------------------------------------


@pytest.mark.parametrize("side", [10**400, 1e300, math.nan, math.inf])
def test_absurd_sizes_of_the_image_are_another_size(tmp_path: Path, side: float) -> None:
    flat = _keypoints()[:17].astype(float).ravel().tolist()
    content = {"images": [{"id": 1, "width": side, "height": 160}], "annotations": [{"image_id": 1, "keypoints": flat}]}
    (tmp_path / "coco.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"coco\.json is of an image of (too many|nan) x 160 pixels"):
        _observed(Inputs(tmp_path / "coco.json"))


@pytest.mark.parametrize("size", [(160, 120), (240, 320)])
def test_keypoints_of_an_image_of_another_size_name_both(tmp_path: Path, size: tuple[int, int]) -> None:
    flat = _keypoints()[:17].astype(float).ravel().tolist()
    images = [{"id": 1, "file_name": "a.png", "width": size[0], "height": size[1]}]
    (tmp_path / "coco.json").write_text(
        json.dumps({"images": images, "annotations": [{"image_id": 1, "keypoints": flat}]})
    )
    np.savez(tmp_path / "mesh.npz", keypoints=_keypoints(), image_size=np.array(size, np.float32))
    for name in ("coco.json", "mesh.npz"):
        words = rf"{name} is of an image of {size[0]} x {size[1]} pixels, this one has 120 x 160"
        with pytest.raises(InputError, match=words):
            _observed(Inputs(tmp_path / name))


def test_keypoints_of_a_spin_file_beyond_single_precision_are_refused_when_they_are_observed(tmp_path: Path) -> None:
    part = np.tile(_keypoints()[:24].astype(float), (2, 1, 1))
    part[0, 3, 0], part[1, 3, 0] = 1e300, np.inf
    np.savez(tmp_path / "a.npz", imgname=np.array(["a.png"] * 2), center=np.ones((2, 2)), scale=np.ones(2), part=part)
    read = read_spin(tmp_path / "a.npz").part
    assert read is not None
    keypoints = empty_keypoints()
    keypoints[25:] = read[0]  # a warning of an overflow would be an error here
    with pytest.raises(InputError, match=r"at 1e\+09, [\d.]+, too far outside"):
        _observed(Inputs(Detection(keypoints)))
    assert np.isfinite(read[1]).all(1).tolist() == [row != 3 for row in range(24)]


def _files_with(confidence: float, folder: Path) -> list[Inputs]:
    """One confidence of a person, in every kind of source."""
    points = _keypoints()[:25].astype(float)
    points[2, 2] = confidence
    coco, part = points[:17], points[None, :24]
    (folder / "openpose.json").write_text(json.dumps({"people": [{"pose_keypoints_2d": points.ravel().tolist()}]}))
    images, people = [{"id": 1, "file_name": "a.png"}], [{"image_id": 1, "keypoints": coco.ravel().tolist()}]
    (folder / "coco.json").write_text(json.dumps({"images": images, "annotations": people}))
    np.savez(folder / "spin.npz", imgname=np.array(["a.png"]), center=np.ones((1, 2)), scale=np.ones(1), part=part)
    given: list[Any] = [folder / "openpose.json", folder / "coco.json", Keypoints(points)]
    for name in ("coco.json", "spin.npz"):
        people = open_source(folder / name).entries[0].people
        assert people is not None
        assert people[0].keypoints is not None
        given.append(Detection(people[0].keypoints))
    row = RowPerception(read_spin(folder / "spin.npz"), folder, Perception())._part(0)
    assert row is not None
    return [Inputs(each) for each in (*given, row)]


@pytest.mark.parametrize("confidence", [1.05, 1.4, 2.0])
def test_maxima_of_heat_maps_count_as_1(tmp_path: Path, confidence: float) -> None:
    for inputs in _files_with(confidence, tmp_path):
        keypoints = _observed(inputs).detection.keypoints
        assert keypoints[:, 2].max() == 1
        assert (keypoints[:, 2] == 1).sum() == 1


@pytest.mark.parametrize(("confidence", "shown"), [(2.1, "2.1"), (95, "95"), (1e9, r"1e\+09"), (np.inf, r"1e\+09")])
def test_confidences_of_another_unit_are_refused(tmp_path: Path, confidence: float, shown: str) -> None:
    for inputs in _files_with(confidence, tmp_path):
        with pytest.raises(InputError, match=rf"a confidence of {shown} at its .*; 0 to 1 work, and up to 2"):
            _observed(inputs)


def test_a_label_map_of_background_alone_is_refused() -> None:
    given = Inputs(Keypoints(_keypoints()[:25]), np.zeros(SIZE[::-1], np.uint8))
    with pytest.raises(InputError, match="the label map array shows background alone where the keypoints are"):
        _observed(given)
    unknown = replace(given, labels=np.full(SIZE[::-1], 255, np.uint8))
    assert (_observed(unknown).labels == 255).all()  # known to be unknown: a fit to keypoints alone


def test_slots_of_the_messages_are_the_names_of_the_layout() -> None:
    keypoints = empty_keypoints()
    keypoints[KEYPOINT_INDEX["Nose (COCO)"]] = (60, 1e6, 0.9)
    with pytest.raises(InputError, match=r"its Nose \(COCO\) at"):
        check_person("somebody", Detection(keypoints), SIZE)
