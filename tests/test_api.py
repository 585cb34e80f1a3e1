"""The public API: its names, what `fit` takes and gives, and the page that shows it."""

from __future__ import annotations

import inspect
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import dsr_fit
from dsr_fit.config import FitConfig, Stage
from dsr_fit.errors import InputError, UsageError
from dsr_fit.fitting.result import FitResult

ROOT = Path(__file__).resolve().parents[1]
PERSON = ROOT / "examples" / "person.png"
QUICK = FitConfig(stages=(Stage(56, 4),))


@pytest.fixture(scope="module")
def result() -> FitResult:
    return dsr_fit.fit(PERSON, config=QUICK)


def test_the_public_names_are_those_committed() -> None:
    """A changed signature breaks somebody's script: change `public_names.json` knowingly, and the changelog with it."""
    found = {}
    for name in dsr_fit.__all__:
        value = getattr(dsr_fit, name)
        found[name] = str(inspect.signature(value)) if inspect.isfunction(value) else type(value).__name__
    committed = json.loads((ROOT / "tests" / "public_names.json").read_text())
    assert found == committed


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, dsr_fit; dir(dsr_fit); print(sorted({'torch', 'numpy', 'cv2', 'numba'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        dsr_fit.fitt  # noqa: B018


def test_a_path_an_array_and_a_pillow_image_are_the_same_image(result: FitResult) -> None:
    with Image.open(PERSON) as picture:
        of_pillow = dsr_fit.fit(picture, config=QUICK)
        of_array = dsr_fit.fit(np.asarray(picture.convert("RGB")), config=QUICK)
    np.testing.assert_array_equal(of_pillow.vertices, result.vertices)
    np.testing.assert_array_equal(of_array.vertices, result.vertices)


def test_given_keypoints_and_labels_are_fitted_to(result: FitResult) -> None:
    seen = result.observation
    keypoints = dsr_fit.Keypoints(seen.detection.keypoints[:25], "openpose25")
    again = dsr_fit.fit(PERSON, keypoints=keypoints, labels=seen.labels, config=QUICK)
    np.testing.assert_array_equal(again.observation.detection.keypoints, seen.detection.keypoints)
    np.testing.assert_array_equal(again.observation.labels, seen.labels)
    assert again.observation.labels_source == "array"


def test_one_bad_image_does_not_cost_the_others(result: FitResult, tmp_path: Path) -> None:
    blank = np.full((300, 200, 3), 255, np.uint8)
    first, missing, nobody = dsr_fit.fit([PERSON, tmp_path / "nothing.jpg", blank], config=QUICK)
    assert isinstance(first, FitResult)
    np.testing.assert_array_equal(first.vertices, result.vertices)
    assert isinstance(missing, dsr_fit.FitFailure)
    assert missing.reason == f"no such image: {tmp_path / 'nothing.jpg'}"
    assert isinstance(nobody, dsr_fit.FitFailure)
    assert "nobody was found" in nobody.reason
    with pytest.raises(InputError, match="no such image"):
        dsr_fit.fit([PERSON, tmp_path / "nothing.jpg"], config=QUICK, raise_on_error=True)
    with pytest.raises(InputError, match="no such image"):
        dsr_fit.fit(tmp_path / "nothing.jpg", config=QUICK)


def test_no_images_are_no_results() -> None:
    assert dsr_fit.fit([]) == []
    assert dsr_fit.fit([], people="all") == []


def test_people_of_an_image_are_a_list(result: FitResult, tmp_path: Path) -> None:
    for people in ("all", 1, np.int64(3)):
        (alone,) = dsr_fit.fit(PERSON, people=people, config=QUICK)  # type: ignore[call-overload]
        assert isinstance(alone, FitResult)
        np.testing.assert_array_equal(alone.vertices, result.vertices)
        assert alone.verdict == result.verdict
    one = dsr_fit.fit(PERSON, people="one", config=QUICK)
    np.testing.assert_array_equal(one.vertices, result.vertices)
    missing = tmp_path / "nothing.jpg"
    (first,), (nothing,) = dsr_fit.fit([PERSON, missing], people="all", config=QUICK)
    assert isinstance(first, FitResult)
    assert isinstance(nothing, dsr_fit.FitFailure)
    assert nothing.reason == f"no such image: {missing}"
    with pytest.raises(InputError, match="no such image"):
        dsr_fit.fit(missing, people="all", config=QUICK)


def test_who_can_not_be_fitted_stands_in_the_list_of_people(tmp_path: Path, result: FitResult) -> None:
    seen = result.observation.detection.keypoints[:25].astype(float)
    hardly = np.where(np.arange(25)[:, None] < 4, seen, 0)
    given = tmp_path / "two.json"
    given.write_text(json.dumps({"people": [{"pose_keypoints_2d": one.ravel().tolist()} for one in (hardly, seen)]}))
    first, second = dsr_fit.fit(PERSON, people="all", keypoints=given, config=QUICK)
    assert isinstance(first, dsr_fit.FitFailure)
    assert "usable keypoints" in first.reason
    assert isinstance(second, FitResult)
    with pytest.raises(InputError, match="usable keypoints"):
        dsr_fit.fit(PERSON, people="all", keypoints=given, config=QUICK, raise_on_error=True)


def test_the_fast_detector_measures_with_the_smaller_network(result: FitResult) -> None:
    fast = dsr_fit.fit(PERSON, detector="fast", config=QUICK)
    assert result.observation.detection.source == "blazepose-heavy"
    assert fast.observation.detection.source == "blazepose-full"


def test_a_list_may_have_an_option_for_each_image(result: FitResult) -> None:
    narrow = dsr_fit.fit([PERSON, PERSON], focal=[500.0, None], config=QUICK)
    assert [one.focal_length for one in narrow if isinstance(one, FitResult)] == [500.0, result.focal_length]
    with pytest.raises(UsageError, match=r"focal: a list of 1 for 2 image"):
        dsr_fit.fit([PERSON, PERSON], focal=[500.0], config=QUICK)


@pytest.mark.parametrize("height", [1.8, [None, 1.8]])
def test_a_height_that_nothing_holds_is_refused(height) -> None:
    images = [PERSON] * 2 if isinstance(height, list) else PERSON
    with pytest.raises(UsageError, match=r"height is held by weights\.stature, which is 0"):
        dsr_fit.fit(images, height=height, config={"weights": {"stature": 0}})


def test_a_known_height_scales_the_body_and_its_distance(result: FitResult, tmp_path: Path) -> None:
    """Betas change a body's proportions a little with its height: depth and keypoints follow to about a percent."""
    heights = [1.55, np.float32(1.75), 1.95]
    fits = dsr_fit.fit([PERSON] * 4, height=[*heights, None], config=QUICK)
    stature = dsr_fit.load_body().skeleton.height
    own = float(stature(result.parameters().betas))
    for height, one in zip(heights, fits, strict=False):
        assert isinstance(one, FitResult)
        assert float(stature(one.parameters().betas)) == pytest.approx(height, abs=0.015)
        assert one.pelvis[2] / result.pelvis[2] == pytest.approx(height / own, rel=0.02)
        assert one.metrics["keypoint_error_rel"]["after"] < result.metrics["keypoint_error_rel"]["after"] + 0.002
        one.save(tmp_path / "mesh.json")
        assert json.loads((tmp_path / "mesh.json").read_text())["height_m"] == height
    assert isinstance(fits[-1], FitResult)
    np.testing.assert_array_equal(fits[-1].vertices, result.vertices)
    assert result.observation.height is None


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((4, 4, 4), np.uint8), "4 x 4 x 4 of uint8"),
        (np.zeros((4, 4, 3)), "4 x 4 x 3 of float64"),
        (np.zeros((0, 4, 3), np.uint8), "0 x 4 x 3"),
    ],
)
def test_arrays_that_are_no_images_are_refused(image: np.ndarray, words: str) -> None:
    with pytest.raises(InputError, match=words):
        dsr_fit.fit(image, config=QUICK)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"body": None}, "body is None; `open`, the path of an SMPL file or a `Body` works"),
        ({"config": 5}, "config is 5; a FitConfig, a preset's name, a YAML file or a dictionary works"),
        ({"people": 0}, "people is 0; `one`, `all` or a number from 1 works"),
        ({"people": True}, "people is True; "),
        ({"people": "some"}, "people is 'some'; "),
        ({"people": "all", "person": 1}, "--person chooses one person"),
        ({"people": "all", "bbox": (1.0, 2.0, 30.0, 40.0)}, "--bbox is around one person"),
        ({"people": "all", "height": 1.8}, "--height is one person's; choose whose by --person"),
        ({"detector": "slow"}, "no detector is called 'slow'; accurate and fast are"),
        ({"device": "gpu"}, "no device is called 'gpu'; auto, cpu and cuda are"),
        ({"bbox": [(1, 2, 3, 4)]}, r"bbox: a list of 1 for 1 image\(s\); give one value"),
    ],
)
def test_options_of_another_kind_are_wrong_usage(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        dsr_fit.fit(PERSON, **{"config": QUICK, **options})


def test_a_box_may_be_of_any_kind_of_row(result: FitResult) -> None:
    width, height = result.observation.image_size
    fits = [
        dsr_fit.fit(PERSON, bbox=box, person=np.int64(0), focal=np.float32(900), config=QUICK)
        for box in ((0, 0, width, height), [0, 0, width, height], np.array([0, 0, width, height]))
    ]
    one_each = dsr_fit.fit([PERSON], bbox=((0, 0, width, height),), focal=900, config=QUICK)  # type: ignore[arg-type]
    for other in (*fits[1:], *one_each):
        assert isinstance(other, FitResult)
        np.testing.assert_array_equal(other.vertices, fits[0].vertices)


def test_keypoints_must_have_the_layout_that_they_name() -> None:
    with pytest.raises(InputError, match="layout coco17 must be 17 x 3"):
        dsr_fit.fit(PERSON, keypoints=dsr_fit.Keypoints(np.zeros((25, 3)), "coco17"), config=QUICK)


def test_a_configuration_is_an_object_a_preset_or_changes(result: FitResult) -> None:
    changed = dsr_fit.fit(PERSON, config={"stages": [{"resolution": 56, "iterations": 4}]})
    np.testing.assert_array_equal(changed.vertices, result.vertices)
    assert dsr_fit.fit(PERSON, config=QUICK, mode="eft+smplify").config.mode == "eft+smplify"
    with pytest.raises(UsageError, match="unknown configuration key `weight`"):
        dsr_fit.fit(PERSON, config={"weight": {}})
    with pytest.raises(UsageError, match="no preset is called 'fast'"):
        dsr_fit.fit(PERSON, config="fast")


def test_a_result_saves_what_the_suffix_says(result: FitResult, tmp_path: Path) -> None:
    result.save(tmp_path / "new" / "mesh.ply")
    assert {path.name for path in (tmp_path / "new").iterdir()} == {"mesh.ply", "mesh.npz", "mesh.json", "mesh.png"}
    result.save(tmp_path / "alone" / "mesh.npz")
    assert [path.name for path in (tmp_path / "alone").iterdir()] == ["mesh.npz"]
    np.testing.assert_array_equal(np.load(tmp_path / "alone" / "mesh.npz")["vertices"], result.vertices)
    report = json.loads((tmp_path / "new" / "mesh.json").read_text())
    assert report["quality"] == result.verdict.quality
    assert report["device"] == "cpu"
    assert report["renderer"] == "cpu"
    with pytest.raises(UsageError, match="suffix must be one of"):
        result.save(tmp_path / "mesh.xyz")


def test_the_page_runs_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every snippet of docs/api.md, one after the other, in a folder with the picture it names."""
    (tmp_path / "examples").mkdir()
    (tmp_path / "photos").mkdir()
    shutil.copy(PERSON, tmp_path / "examples")
    shutil.copy(PERSON, tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(snippets) >= 6
    scope: dict[str, object] = {}
    for snippet in snippets:
        exec(compile(snippet, "docs/api.md", "exec"), scope)
    assert (tmp_path / "fits" / "mesh.obj").is_file()
    assert scope["picture"].shape == (448, 2240, 3)  # type: ignore[attr-defined]
    assert len(scope["rows"]) == 1  # type: ignore[arg-type]
