"""Rounds: the same table whatever was interrupted, arms that differ in one thing, and differences by pairs."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import tables.rounds
from PIL import Image
from rounds_stand_ins import PEOPLE, Works, course

from dsr_fit.cli import main as cli
from dsr_fit.cli.rounds import RoundsArguments, _check_apart, plan_of
from dsr_fit.config import FitConfig, to_dict
from dsr_fit.dataset.manifest import differences
from dsr_fit.dataset.rank import accept_best
from dsr_fit.dataset.run import read_results
from dsr_fit.dataset.schema import to_rows, to_table
from dsr_fit.dataset.shards import locked
from dsr_fit.dataset.sources import Entry, Source
from dsr_fit.errors import InputError, UsageError
from dsr_fit.gate.gate import read_gate
from dsr_fit.training.arms import ARMS, DSR_TERMS, ROUNDS, arms_of
from dsr_fit.training.marks import read_marks
from dsr_fit.training.rounds import round_folder
from dsr_fit.training.rounds_table import make_table
from dsr_fit.training.settings import TrainSettings

PIECES = 1 + 2 * 4 + 2 + 4 + 2
"""Pieces of work of two rounds and of one round of each arm: the start's evaluation; gate, fits, training, evaluation
of a round; two arms that borrow fits, and one that doesn't."""


def _without_times(found: Any) -> Any:
    """A table without what the clock put there."""
    if isinstance(found, dict):
        return {key: _without_times(value) for key, value in found.items() if key != "seconds"}
    return [_without_times(value) for value in found] if isinstance(found, list) else found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Works, dict[str, Any]]:
    """Rounds that nothing interrupts: folder, what was done, table."""
    folder, works = tmp_path_factory.mktemp("whole"), Works()
    with pytest.MonkeyPatch.context() as patch:
        run = course(folder, works, patch)
        return run.out, works, run.run()


def test_each_piece_of_work_is_done_once(whole: tuple[Path, Works, dict[str, Any]]) -> None:
    _, works, found = whole
    assert len(works.done) == len(set(works.done)) == PIECES
    arms = [f"{name}, round 1" for name in ARMS]
    assert list(found["regressors"]) == ["start", "round 1", "round 2", *arms]
    assert found["settings"]["train"]["synthetic"] == "people"  # and no word of where that is


def test_stopped_at_the_end_of_any_piece_of_work_it_goes_on_to_the_same_table(
    whole: tuple[Path, Works, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything but its mark is there; it is done again, and nothing else is."""
    expected = _without_times(whole[2])
    for number in range(PIECES):
        works = Works(stop_at=number, at_the_end=True)
        run = course(tmp_path / str(number), works, monkeypatch)
        with pytest.raises(KeyboardInterrupt):
            run.run()
        assert _without_times(run.run()) == expected
        assert len(works.done) == PIECES + 1
        assert works.done[number] == works.done[number + 1]
    table = (run.out / "table.json").read_text()
    assert json.loads(table) == run.run()
    assert (run.out / "table.json").read_text() == table
    assert len(works.done) == PIECES + 1


def test_stopped_again_and_again_it_ends_the_same(
    whole: tuple[Path, Works, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One piece of work a call, the next one stopped in its middle."""
    works = Works()
    run = course(tmp_path, works, monkeypatch)
    for _ in range(PIECES - 1):
        works.stop_at = len(works.done) + 1
        with pytest.raises(KeyboardInterrupt):
            run.run()
    works.stop_at = None
    assert _without_times(run.run()) == _without_times(whole[2])


def test_more_rounds_and_arms_can_be_asked_for_later(
    whole: tuple[Path, Works, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    works = Works()
    for options in ({"rounds": 1, "arms": ()}, {"arms": ("ungated",)}, {}):
        found = course(tmp_path, works, monkeypatch, **options).run()
    assert _without_times(found) == _without_times(whole[2])
    assert len(works.done) == PIECES


def test_other_settings_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = course(tmp_path, Works(), monkeypatch, arms=(), rounds=1)
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


# --- Arms -----------------------------------------------------------------------------------------


def test_arms_fit_and_train_as_the_rounds_do_but_for_one_thing() -> None:
    config, settings = FitConfig(), TrainSettings(out=Path("out"))

    def changed(name: str) -> tuple[set[str], set[str]]:
        arm = ARMS[name]
        fit = differences(to_dict(config), to_dict(arm.fit(config)))
        train = differences(asdict(settings), asdict(arm.train(settings)))
        return tuple({line.split(":")[0] for line in lines} for lines in (fit, train))  # type: ignore[return-value]

    assert ROUNDS.fit(config) == config
    assert ROUNDS.train(settings) == settings
    assert changed("keypoint-fits") == ({f"weights.{name}" for name in DSR_TERMS}, set())
    assert changed("ungated") == (set(), {"gate", "by_quality"})
    on = {f"weights.{name}" for name, value in vars(settings.weights).items() if value > 0}
    assert changed("keypoints") == (set(), {"gate", "by_quality"} | on - {"weights.keypoints"})
    off = ARMS["keypoints"].train(settings).weights
    assert {name for name, value in vars(off).items() if value > 0} == {"keypoints"}
    assert ARMS["keypoint-fits"].fit(config).weights == replace(config.weights, dsr_mc=0.0, dsr_c=0.0, silhouette=0.0)


def test_arms_train_from_one_start_on_the_same_photos(whole: tuple[Path, Works, dict[str, Any]]) -> None:
    """As many steps, with the same seeds; and those whose fits have the same settings share them."""
    out, works, _ = whole
    by_folder = {settings.out.parent: settings for settings in works.trainings}
    first = by_folder[round_folder(out, 1)]
    for name, arm in ARMS.items():
        ours = by_folder[round_folder(out, 1, name)]
        same = replace(
            ours, out=first.out, labels=first.labels, gate=first.gate, by_quality=True, weights=first.weights
        )
        assert same == first
        own = round_folder(out, 1, name) if arm.fit_without else round_folder(out, 1)
        assert ours.labels == (own / "labels",)
    assert first.regressor is None
    assert by_folder[round_folder(out, 2)].regressor == str(out / "round-1" / "regressor.safetensors")
    assert by_folder[round_folder(out, 2)].seed == first.seed + 1
    names = [[row["imgname"] for row in read_results(settings.labels[0])] for settings in works.trainings]
    assert all(listed == names[0] for listed in names)


def test_later_rounds_of_an_arm_go_on_from_its_own_regressor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    works = Works()
    run = course(tmp_path, works, monkeypatch, arm_rounds=2)
    run.run()
    by_folder = {settings.out.parent: settings for settings in works.trainings}
    for name, arm in ARMS.items():
        second = by_folder[round_folder(run.out, 2, name)]
        assert second.regressor == str(round_folder(run.out, 1, name) / "regressor.safetensors")
        own = round_folder(run.out, 2, name) if arm.learns_from_fits else round_folder(run.out, 1)
        assert second.labels == (own / "labels",)
    fitted = {path.parent: settings for path, settings in works.fits}
    ungated = fitted[round_folder(run.out, 2, "ungated")]
    assert ungated.regressor == str(round_folder(run.out, 1, "ungated") / "regressor.safetensors")
    assert ungated.gate == round_folder(run.out, 2, "ungated") / "gate.json"


def test_the_best_half_is_accepted_and_the_gate_says_so(whole: tuple[Path, Works, dict[str, Any]]) -> None:
    folder = round_folder(whole[0], 1)
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
    assert read_marks(folder)["labels"]["accepted"] == len(accepted)


def test_fits_that_diverged_take_no_place_among_the_accepted(
    whole: tuple[Path, Works, dict[str, Any]], tmp_path: Path
) -> None:
    fits = tmp_path / "fits"
    shutil.copytree(round_folder(whole[0], 1) / "fits", fits)
    rows = sorted((row for row in read_results(fits) if row["status"] != "failed"), key=lambda row: -row["quality"])
    ruined = {row["imgname"] for row in rows[:2]}
    for shard in fits.glob("shard-*.parquet"):
        table = to_rows(pq.read_table(shard))
        for row in table:
            if row["imgname"] in ruined:
                row["stop_reason"], row["status"] = "diverged", "refused"
        pq.write_table(to_table(table), shard)
    accept_best(fits, tmp_path / "labels", 0.5)
    accepted = {row["imgname"] for row in read_results(tmp_path / "labels") if row["status"] == "accepted"}
    assert accepted == {row["imgname"] for row in rows[2:][: round(0.5 * (len(rows) - 2))]}


def test_fits_without_a_quality_have_no_rank(whole: tuple[Path, Works, dict[str, Any]], tmp_path: Path) -> None:
    fits = tmp_path / "fits"
    shutil.copytree(round_folder(whole[0], 1) / "fits", fits)
    (shard,) = fits.glob("shard-*.parquet")
    rows = to_rows(pq.read_table(shard))
    rows[0].update(status="unjudged", quality=None)
    pq.write_table(to_table(rows), shard)
    accept_best(fits, tmp_path / "labels", 1.0)
    labels = list(read_results(tmp_path / "labels"))
    assert (labels[0]["status"], labels[0]["reason"]) == ("unjudged", None)
    assert {row["status"] for row in labels[1:]} == {"accepted", "failed"}
    for row in rows:
        row.update(status="failed" if row["status"] == "failed" else "unjudged", quality=None)
    pq.write_table(to_table(rows), shard)
    with pytest.raises(InputError, match=f"its {PEOPLE - 1} fits have no quality"):
        accept_best(fits, tmp_path / "labels", 0.5)


def test_without_a_share_or_a_gate_the_fits_are_learnt_from_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, options in (("share", {"accept": None}), ("gate", {"calibration": None})):
        works = Works()
        run = course(tmp_path / name, works, monkeypatch, arms=(), rounds=1, **options)
        run.run()
        assert works.trainings[0].labels == (run.out / "round-1" / "fits",)
        assert not (run.out / "round-1" / "labels").exists()
        assert (run.out / "round-1" / "gate.json").exists() == (name == "share")


# --- The table ------------------------------------------------------------------------------------


def test_differences_are_by_pairs(whole: tuple[Path, Works, dict[str, Any]], tmp_path: Path) -> None:
    """The mean's interval is that of the differences, 1.96 standard errors for so many (BCa differs by a few % of its
    width), however much people differ among each other; those who lack a value in one of the two have no part."""
    rng = np.random.default_rng(3)
    people, count = rng.normal(100, 50, 500), 480
    change = rng.normal(-3, 4, 500)
    name = np.arange(500).astype(str)
    for folder, values in (("start", people), ("round-1", people + change)):
        values = values.copy()
        values[:20] = np.nan
        told = {f"{who}_pa_mpjpe": values for who in ("estimate", "fit")}
        others = dict.fromkeys(
            [f"{w}_{m}" for w in ("estimate", "fit") for m in ("mpjpe", "pve", "t_pose_pve_sc", "orientation")], people
        )
        steps = {"fit_energy": people, "fit_iterations": people}
        (tmp_path / folder / "evaluation").mkdir(parents=True)
        np.savez(tmp_path / folder / "evaluation" / "cases.npz", name=name, **told, **others, **steps)  # type: ignore[arg-type]
        (tmp_path / folder / "stages.json").write_text(json.dumps({"evaluation": {"seconds": 1}}))
    (tmp_path / "rounds.json").write_text("{}")
    (one,) = make_table(tmp_path)["differences"]
    assert (one["of"], one["to"]) == ("round 1", "start")
    found = one["estimates of rendered people"]["PA-MPJPE, mm"]
    error = 1.96 * change[20:].std(ddof=1) / np.sqrt(count)
    assert found["count"] == count
    assert found["mean"] == pytest.approx(change[20:].mean(), abs=1e-3)
    assert (found["low"], found["high"]) == pytest.approx((found["mean"] - error, found["mean"] + error), abs=error / 8)
    same = one["estimates of rendered people"]["MPJPE, mm"]
    assert (same["mean"], same["low"], same["high"], same["count"]) == (0, 0, 0, 500)


def test_values_of_other_people_are_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = course(tmp_path, Works(), monkeypatch, arms=(), rounds=1)
    run.run()
    path = run.out / "round-1" / "evaluation" / "photos.npz"
    with np.load(path) as values:
        others = {**values, "name": values["name"][::-1]}
    np.savez(path, **others)
    with pytest.raises(InputError, match="judged on different people"):
        make_table(run.out)
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="not the values of an evaluation"):
        make_table(run.out)


def test_figures_of_the_pages_are_those_of_the_table(
    whole: tuple[Path, Works, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = whole[2]
    monkeypatch.setattr(tables.rounds, "result", lambda name: {"rounds": found}[name])
    page = tables.rounds.rounds().splitlines()
    assert len(page) == 2 + len(found["regressors"])
    mean = found["regressors"]["round 2"]["estimates of rendered people"]["PVE, mm"]
    assert f" {mean['mean']:.2f} ({mean['median']:.2f}) " in next(
        line for line in page if line.startswith("| round 2 ")
    )
    for text in (tables.rounds.rounds_differences(), tables.rounds.rounds_fits()):
        lines = text.splitlines()
        assert len(lines) == 2 + len(found["differences"])
        assert "| round 1 - all DSR fits, round 1 |" in text
        assert len({line.count("|") for line in lines}) == 1


# --- The command ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (["--arms", "silhouette"], 2, "no arm is called 'silhouette'; there are keypoints, keypoint-fits, ungated"),
        (["--rounds", "0"], 2, "--rounds 0: at least 1"),
        (["--accept", "1.5"], 2, "--accept 1.5: a share"),
        (["--cases", "-1"], 2, "--cases -1: 0 or more"),
        (["--cases", "0"], 2, "nothing to judge a regressor on"),
        (["--steps", "0"], 2, "--steps 0: at least 1"),
        (["--gate", "mine.json"], 2, "each round calibrates its own"),
        (["--first-seed", "30"], 2, "some of these people are among those of --calibration"),
        (["--first-seed", "1000000"], 2, "people from 1000000 on are those that regressors learn from"),
        (["--arm-rounds", "2"], 2, "--arm-rounds 2: no more than --rounds, 1"),
        (["--camera", "crop"], 2, "--camera: rounds are fitted and judged in the image's own camera"),
        (["--regressor", "kinematic"], 2, "has no weights to train"),
        (["--synthetic", "/nowhere"], 1, "--synthetic /nowhere: no such folder"),
        (["--photos", "."], 1, "no labels/*.png in ."),
        (["--photos", "/nowhere"], 1, "--photos /nowhere: no such folder"),
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
    few = ["--cases", "1", "--calibration", "64" if "--first-seed" in options else "1"]
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
    with pytest.raises(UsageError, match=r"^1 photos of SOURCE are among those that are judged on, 0016.jpg for one;"):
        _check_apart(source(tmp_path / "same", "0001.jpg", "0016.jpg"), judged_on)


def test_a_missing_source_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["rounds", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 1
    assert "no such source" in capsys.readouterr().err


def test_arms_by_name() -> None:
    assert arms_of("all") == tuple(ARMS)
    assert arms_of("none") == ()
    assert arms_of("ungated, keypoints,ungated") == ("ungated", "keypoints")


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
