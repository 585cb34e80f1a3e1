"""Rounds: what is accepted, what may change between calls, the table, and the command."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from label_folders import rewrite
from PIL import Image
from rounds_stand_ins import PEOPLE, Works, stand_in_rounds

from dsr_fit.cli import main as cli
from dsr_fit.cli.rounds import RoundsArguments, _check_apart, plan_of
from dsr_fit.dataset.lock import locked
from dsr_fit.dataset.rank import accept_best
from dsr_fit.dataset.run import read_results
from dsr_fit.dataset.schema import SINCE, to_rows
from dsr_fit.dataset.sources import Entry, Source
from dsr_fit.errors import InputError, UsageError
from dsr_fit.gate.gate import read_gate
from dsr_fit.training.rounds import read_stages, round_folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of two rounds."""
    with pytest.MonkeyPatch.context() as patch:
        run = stand_in_rounds(tmp_path_factory.mktemp("whole"), Works(), patch)
        run.run()
        return run.out


def test_the_table_has_each_rounds_means(finished: Path) -> None:
    table = json.loads((finished / "table.json").read_text())
    assert list(table) == ["start", "round 1", "round 2"]
    with np.load(finished / "round-2" / "evaluation" / "photos.npz") as values:
        iou = 100 * values["estimate_mc_iou"]
    found = table["round 2"]["estimates on photos"]["IoU with bare skin, %"]
    assert (found["mean"], found["count"]) == (pytest.approx(iou.mean(), abs=1e-3), PEOPLE)
    assert found["median"] == pytest.approx(np.median(iou), abs=1e-3)
    page = (finished / "table.md").read_text()
    assert page.count("\n| round 2 |") == page.count("\n## ") == 4
    assert f" {found['mean']:.2f} " in page


def test_other_settings_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = stand_in_rounds(tmp_path, Works(), monkeypatch, rounds=1)
    run.run()
    for changed, said in (
        (replace(run.plan, accept=0.3), "accept: 0.5, now 0.3"),
        (replace(run.plan, train=replace(run.plan.train, steps=4)), "train.steps: 3, now 4"),
        (replace(run.plan, fit=replace(run.plan.fit, focal=500.0)), "fit.focal: absent, now 500.0"),
        (replace(run.plan, calibration=None), "judged_on.calibration"),
    ):
        with pytest.raises(UsageError, match="was begun with other settings") as told:
            replace(run, plan=changed).run()
        assert said in str(told.value)
    # What doesn't decide the results may change.
    replace(run, plan=replace(run.plan, train=replace(run.plan.train, threads=3))).run()
    with locked(run.out), pytest.raises(InputError, match="another run is writing there"):
        run.run()


# --- Choosing -------------------------------------------------------------------------------------


def test_the_best_half_is_accepted_and_the_gate_says_so(finished: Path) -> None:
    folder = round_folder(finished, 1)
    rows = [row for row in read_results(folder / "labels") if row["status"] != "failed"]
    assert len(rows) == PEOPLE - 1
    accepted = [row["quality"] for row in rows if row["status"] == "accepted"]
    refused = [row["quality"] for row in rows if row["status"] == "refused"]
    assert len(accepted) == round(0.5 * (PEOPLE - 1))
    assert min(accepted) > max(refused)
    gate = read_gate(folder / "labels" / "gate.json")
    assert max(refused) < gate["threshold"] <= min(accepted)
    assert gate["accepts"] == 0.5
    assert read_gate(folder / "gate.json")["bias"] == gate["bias"]
    assert read_stages(folder)["labels"]["accepted"] == len(accepted)


def test_fits_that_diverged_take_no_place_among_the_accepted(finished: Path, tmp_path: Path) -> None:
    fits = tmp_path / "fits"
    shutil.copytree(round_folder(finished, 1) / "fits", fits)
    rows = sorted((row for row in read_results(fits) if row["status"] != "failed"), key=lambda row: -row["quality"])
    ruined = {row["imgname"] for row in rows[:2]}
    for shard in fits.glob("shard-*.parquet"):
        table = to_rows(pq.read_table(shard))
        for row in table:
            if row["imgname"] in ruined:
                row["stop_reason"], row["status"] = "diverged", "refused"
        rewrite(shard, table)
    accept_best(fits, tmp_path / "labels", 0.5)
    accepted = {row["imgname"] for row in read_results(tmp_path / "labels") if row["status"] == "accepted"}
    assert accepted == {row["imgname"] for row in rows[2:][: round(0.5 * (len(rows) - 2))]}


def test_fits_of_the_version_before_are_ranked(finished: Path, tmp_path: Path) -> None:
    fits, out = tmp_path / "fits", tmp_path / "labels"
    shutil.copytree(round_folder(finished, 1) / "fits", fits)
    expected = [row["imgname"] for row in read_results(fits)]
    for shard in fits.glob("shard-*.parquet"):
        pq.write_table(pq.read_table(shard).drop_columns([name for name, since in SINCE.items() if since > 4]), shard)
    manifest = json.loads((fits / "manifest.json").read_text())
    (fits / "manifest.json").write_text(json.dumps({**manifest, "format": 4}))
    accept_best(fits, out, 1.0)
    assert [row["imgname"] for row in read_results(out)] == expected


def test_fits_without_a_quality_have_no_rank(finished: Path, tmp_path: Path) -> None:
    fits = tmp_path / "fits"
    shutil.copytree(round_folder(finished, 1) / "fits", fits)
    (shard,) = fits.glob("shard-*.parquet")
    rows = to_rows(pq.read_table(shard))
    rows[0].update(status="unjudged", quality=None)
    rewrite(shard, rows)
    accept_best(fits, tmp_path / "labels", 1.0)
    labels = list(read_results(tmp_path / "labels"))
    assert (labels[0]["status"], labels[0]["reason"]) == ("unjudged", None)
    assert {row["status"] for row in labels[1:]} == {"accepted", "failed"}
    for row in rows:
        row.update(status="failed" if row["status"] == "failed" else "unjudged", quality=None)
    rewrite(shard, rows)
    with pytest.raises(InputError, match=f"its {PEOPLE - 1} fits have no quality"):
        accept_best(fits, tmp_path / "labels", 0.5)


def test_without_a_share_or_a_gate_the_fits_are_learnt_from_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, options in (("share", {"accept": None}), ("gate", {"calibration": None})):
        works = Works()
        run = stand_in_rounds(tmp_path / name, works, monkeypatch, rounds=1, **options)
        run.run()
        assert works.trainings[0].labels == (run.out / "round-1" / "fits",)
        assert not (run.out / "round-1" / "labels").exists()
        assert (run.out / "round-1" / "gate.json").exists() == (name == "share")


# --- The table ------------------------------------------------------------------------------------


# --- The command ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (["--rounds", "0"], 2, "--rounds 0: at least 1"),
        (["--accept", "1.5"], 2, "--accept 1.5: a share"),
        (["--cases", "-1"], 2, "--cases -1: 0 or more"),
        (["--cases", "0"], 2, "nothing to evaluate a regressor on"),
        (["--steps", "0"], 2, "--steps 0: at least 1"),
        (["--calibration", "8"], 2, "right and wrong fits, of at least 30 people; 0 leaves the gate out"),
        (["--gate", __file__], 2, "each round calibrates its own"),
        (["--first-seed", "30"], 2, "some of these people are among those of --calibration"),
        (["--first-seed", "1000000"], 2, "people from 1000000 on are trained on"),
        (["--camera", "crop"], 2, "--camera: rounds fit and evaluate in the image's own camera"),
        (["--regressor", "kinematic"], 2, "has no weights to train"),
        (["--synthetic", "/nowhere"], 1, "--synthetic /nowhere: no such file or folder"),
        (["--photos", "."], 1, "no labels/*.png in ."),
        (["--photos", "/nowhere"], 1, "--photos /nowhere: no such file or folder"),
    ],
)
@pytest.mark.usefixtures("nothing_is_set")
def test_what_can_not_be_done_is_one_line_and_leaves_nothing(
    options: list[str], status: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"")
    out = tmp_path / "out"
    argv = ["rounds", str(tmp_path / "photos"), "--out", str(out), "--cases-dir", str(tmp_path / "cases")]
    # Later options win, so that nothing is rendered for those that only a later check refuses.
    few = ["--cases", "1", "--calibration", "64" if "--first-seed" in options else "0"]
    assert cli.main([*argv, *few, *options]) == status
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert said in told.err
    assert not out.exists()


def test_photos_to_judge_by_are_not_learnt_from(tmp_path: Path) -> None:
    (tmp_path / "ccp" / "photos").mkdir(parents=True)
    (tmp_path / "same").symlink_to(tmp_path / "ccp")

    def source(folder: Path, *names: str) -> Source:
        return Source(folder / "photos", [Entry(name) for name in names], "folder")

    judged_on = source(tmp_path / "ccp", "0006.jpg", "0016.jpg")
    _check_apart(source(tmp_path / "same", "0001.jpg", "0002.jpg"), judged_on)
    with pytest.raises(UsageError, match=r"^1 photos of SOURCE are among those for evaluation, 0016.jpg for one;"):
        _check_apart(source(tmp_path / "same", "0001.jpg", "0016.jpg"), judged_on)


def test_a_missing_source_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["rounds", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 1
    assert "no such source" in capsys.readouterr().err


def test_keypoints_of_others_are_refused_where_a_gate_is_to_judge_them(tmp_path: Path) -> None:
    """A gate is calibrated on the detector's; the fits would have no quality to choose by."""
    keypoints = [float(value) for joint in range(17) for value in (10 + 5 * joint, 20 + 3 * joint, 2)]
    people = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 200, "height": 200}],
        "annotations": [{"id": 1, "image_id": 1, "keypoints": keypoints, "bbox": [0, 0, 100, 100], "iscrowd": 0}],
        "categories": [{"id": 1, "name": "person"}],
    }
    (tmp_path / "people.json").write_text(json.dumps(people))
    Image.new("RGB", (200, 200)).save(tmp_path / "a.jpg")
    arguments = RoundsArguments(source=tmp_path / "people.json", out=tmp_path / "out")
    with pytest.raises(UsageError, match="brings its own keypoints.*give --calibration 0"):
        plan_of(arguments)
    assert plan_of(replace(arguments, calibration=0, cases=0)).calibration is None
