"""The benchmark of clothed people: perfect fits score zero, tables are their columns' means."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scenes import open_body

from dsr_fit.cli.main import main as cli
from dsr_fit.config import FitConfig
from dsr_fit.evaluate import metrics, tables
from dsr_fit.evaluate.benchmark import METRICS, ObservedCase, at_focal, case_metrics, observe_cases, observe_truth, run
from dsr_fit.evaluate.clothed_report import REFERENCES, variants
from dsr_fit.fitting.fitter import Fitter
from dsr_fit.synthetic import write_cases
from dsr_fit.synthetic.dataset import read_case

ROOT = Path(__file__).resolve().parents[1]
SEEDS = (10_000, 10_001, 10_002)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("cases")
    write_cases(where, SEEDS)
    return where


@pytest.fixture(scope="module")
def fitter() -> Fitter:
    return Fitter(open_body(), FitConfig())


def test_the_truth_has_no_error(folder: Path, fitter: Fitter) -> None:
    case = read_case(folder, SEEDS[0])
    found = case_metrics(fitter, case, case.parameters())
    assert set(found) == set(METRICS)
    assert (found["mask_iou"], found["pck"]) == (100, 100)
    errors = [value for name, value in found.items() if name not in ("mask_iou", "pck")]
    assert max(errors) < 0.1, "float32 rounding of millimetres and degrees"


def test_known_errors_are_found(folder: Path, fitter: Fitter) -> None:
    case = read_case(folder, SEEDS[0])
    true = case.parameters()
    moved = case_metrics(fitter, case, replace(true, cam_t=true.cam_t + torch.tensor([0.3, 0.0, 0.0])))
    assert moved["mpjpe"] == pytest.approx(0, abs=0.1), "where the body stands is no error of its joints"
    assert moved["mask_iou"] < 60
    near = case_metrics(fitter, case, replace(true, cam_t=true.cam_t * 0.9))
    if not case.cropped:
        # Drawn at nine tenths of the distance: (1 / .9)^2 of the area, but for the body's own depth.
        assert near["area_inflation"] == pytest.approx(100 * (1 / 0.81 - 1), abs=4)
    pose = true.body_pose.clone()
    pose[0, 3 * 17 + 1] += 1.0  # one of 24 joints, turned about one axis of its rotation vector
    assert 0.5 * 57.3 / 24 < case_metrics(fitter, case, replace(true, body_pose=pose))["angle"] < 57.4 / 24


def test_perfect_perception_is_noisy_truth(folder: Path) -> None:
    case = read_case(folder, SEEDS[1])
    exact, noisy, again = (observe_truth(case, noise) for noise in (0.0, 0.01, 0.01))
    focal, _, cx, cy = case.intrinsics
    seen = exact.detection.keypoints[:, 2] > 0
    assert seen[:25].tolist() == case.keypoint_visibility[:25].tolist()
    assert not seen[25:].any()
    pixels = case.joints[:, :2] / case.joints[:, 2:] * focal + (cx, cy)
    np.testing.assert_allclose(exact.detection.keypoints[seen, :2], pixels[seen], atol=1e-3)
    np.testing.assert_array_equal(noisy.detection.keypoints, again.detection.keypoints)
    spread = (noisy.detection.keypoints - exact.detection.keypoints)[seen, :2].std()
    side = np.ptp(pixels[seen], axis=0).max()
    assert 0.5 * 0.01 * side < spread < 1.6 * 0.01 * side, "a few dozen draws of a hundredth of the box"


def test_another_focal_length_is_not_counted_twice(folder: Path, fitter: Fitter) -> None:
    (result,) = fitter.fit([observe_truth(read_case(folder, SEEDS[0]), 0.005)])
    moved = at_focal(result.parameters(), 2 * result.focal_length, result.focal_length)
    np.testing.assert_allclose(moved.cam_t[0].numpy(), result.cam_t * [1, 1, 0.5], rtol=1e-6)


def test_fits_come_in_order_and_missed_people_are_left_out(folder: Path, fitter: Fitter) -> None:
    seen = list(observe_cases(folder, SEEDS, "perfect", 0.005))
    whole = list(run(fitter, folder, seen))
    partly = list(run(fitter, folder, [seen[0], ObservedCase(SEEDS[1], None, "not found"), seen[2]]))
    assert len(partly) == 2
    for row, same in zip(partly, (whole[0], whole[2]), strict=True):
        # A batch's size rounds differently, and a descent of a hundred steps makes the most of it.
        assert row["pve"] == pytest.approx(same["pve"], rel=0.15)


def test_tables_are_means_of_their_columns() -> None:
    rows = [{name: float(k + row) for k, name in enumerate(METRICS)} for row in range(4)]
    values = tables.columns(rows)
    first = next(iter(METRICS))
    assert tables.summary(values)[first]["mean"] == pytest.approx(1.5)
    lower = {name: [value - 1 for value in column] for name, column in values.items()}
    assert tables.differences(lower, values)[first] == {
        "mean": -1, "low": -1, "high": -1, "count": 4, "percent": pytest.approx(-66.7)
    }  # fmt: skip
    looseness = (0.01, 0.02, 0.03, 0.04)
    tags = [
        {"looseness": x, "occluded": None, "second_person": x > 0.03, "cropped": False, "view": "back"}
        for x in looseness
    ]
    found = tables.splits(values, tags)
    assert found["second person"]["area_inflation"]["mean"] == 3
    assert found["from the back"]["area_inflation"]["count"] == 4
    assert "cropped" not in found
    thirds = [group for group in found if group.startswith(("tight", "medium", "loose"))]
    assert sum(found[group]["pve"]["count"] for group in thirds) == 4


def test_a_difference_of_few_people_is_not_marked() -> None:
    """It has its interval all the same."""
    for count, marked in ((5, False), (29, False), (30, True)):
        values = 1 + 0.01 * np.arange(count)
        found = tables.as_dict(metrics.paired_difference(values, np.zeros(count)))
        assert found["low"] > 0
        assert tables.is_significant(found) == marked
    assert not tables.is_significant({"mean": 1, "low": -1, "high": 3, "count": 100})
    assert not tables.is_significant({"mean": 1, "low": None, "high": None, "count": 1})


def test_variants_differ_in_their_terms_alone() -> None:
    found = variants(FitConfig())
    assert set(REFERENCES) < set(found)
    assert found["default"] == FitConfig()
    for name, config in found.items():
        assert replace(config, weights=FitConfig().weights, semantics=FitConfig().semantics) == FitConfig() or (
            name == "floor"
        )


def test_the_floor_has_the_mean_body(folder: Path) -> None:
    floor = Fitter(open_body(), variants(FitConfig())["floor"])
    (result,) = floor.fit([observe_truth(read_case(folder, SEEDS[2]), 0.005)])
    assert np.abs(result.betas).max() < 0.01


def test_command_writes_its_report(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--out", str(tmp_path / "r.json"), "--cases-dir", str(folder), "--cases", "2"]
    assert cli(["evaluate", "clothed", *words]) == 0
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["cases"] == len(found["tags"]) == len(found["values"]["default"]["pve"]) == 2
    printed = capsys.readouterr().out
    assert printed == (tmp_path / "r.md").read_text()
    assert f"{found['variants']['default']['summary']['pve']['mean']:.1f} [" in printed


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--out", "r.txt", "--cases-dir", "c"], 2, "the suffix must be .json"),
        (["--out", "gone/r.json", "--cases-dir", "c"], 1, "there is no folder"),
        (["--out", "r.json", "--cases-dir", "c", "--cases", "0"], 2, "at least 1"),
        (["--out", "r.json", "--cases-dir", "c", "--noise", "2"], 2, "share of the keypoints' box"),
    ],
)
def test_wrong_words(words: list[str], status: int, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli(["evaluate", "clothed", *words]) == status
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
