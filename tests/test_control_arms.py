"""Control arms: the same comparison after any interruption, arms that differ in one thing, differences by pairs."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tables.rounds
from comparison import compared
from control_arms import ARMS, DSR_TERMS, ROUNDS, arm_folder, arms_of, compare, main, trained
from rounds_stand_ins import Works, stand_in_rounds

from dsr_fit.config import FitConfig, to_dict
from dsr_fit.dataset.manifest import differences
from dsr_fit.dataset.run import read_results
from dsr_fit.errors import InputError
from dsr_fit.training.rounds import round_folder
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
        run = stand_in_rounds(folder, works, patch)
        return run.out, works, compare(run, tuple(ARMS), 1)


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
        run = stand_in_rounds(tmp_path / str(number), works, monkeypatch)
        with pytest.raises(KeyboardInterrupt):
            compare(run, tuple(ARMS), 1)
        assert _without_times(compare(run, tuple(ARMS), 1)) == expected
        assert len(works.done) == PIECES + 1
        assert works.done[number] == works.done[number + 1]
    table = (run.out / "comparison.json").read_text()
    assert json.loads(table) == compare(run, tuple(ARMS), 1)
    assert (run.out / "comparison.json").read_text() == table
    assert len(works.done) == PIECES + 1


def test_stopped_again_and_again_it_ends_the_same(
    whole: tuple[Path, Works, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One piece of work a call, the next one stopped in its middle."""
    works = Works()
    run = stand_in_rounds(tmp_path, works, monkeypatch)
    for _ in range(PIECES - 1):
        works.stop_at = len(works.done) + 1
        with pytest.raises(KeyboardInterrupt):
            compare(run, tuple(ARMS), 1)
    works.stop_at = None
    assert _without_times(compare(run, tuple(ARMS), 1)) == _without_times(whole[2])


def test_more_rounds_and_arms_can_be_asked_for_later(
    whole: tuple[Path, Works, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    works = Works()
    for rounds, arms in ((1, ()), (2, ("ungated",)), (2, tuple(ARMS))):
        run = stand_in_rounds(tmp_path, works, monkeypatch, rounds=rounds)
        found = compare(run, arms, 1)
    assert _without_times(found) == _without_times(whole[2])
    assert len(works.done) == PIECES


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
        ours = by_folder[arm_folder(out, name, 1)]
        same = replace(
            ours, out=first.out, labels=first.labels, gate=first.gate, by_quality=True, weights=first.weights
        )
        assert same == first
        own = arm_folder(out, name, 1) if arm.fit_without else round_folder(out, 1)
        assert ours.labels == (own / "labels",)
    assert first.regressor is None
    assert by_folder[round_folder(out, 2)].regressor == str(out / "round-1" / "regressor.safetensors")
    assert by_folder[round_folder(out, 2)].seed == first.seed + 1
    names = [[row["imgname"] for row in read_results(settings.labels[0])] for settings in works.trainings]
    assert all(listed == names[0] for listed in names)


def test_later_rounds_of_an_arm_go_on_from_its_own_regressor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    works = Works()
    run = stand_in_rounds(tmp_path, works, monkeypatch)
    compare(run, tuple(ARMS), 2)
    by_folder = {settings.out.parent: settings for settings in works.trainings}
    for name, arm in ARMS.items():
        second = by_folder[arm_folder(run.out, name, 2)]
        assert second.regressor == str(arm_folder(run.out, name, 1) / "regressor.safetensors")
        own = arm_folder(run.out, name, 2) if arm.uses_fits else round_folder(run.out, 1)
        assert second.labels == (own / "labels",)
    fitted = {path.parent: settings for path, settings in works.fits}
    ungated = fitted[arm_folder(run.out, "ungated", 2)]
    assert ungated.regressor == str(arm_folder(run.out, "ungated", 1) / "regressor.safetensors")
    assert ungated.gate == arm_folder(run.out, "ungated", 2) / "gate.json"


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
    (one,) = compared(tmp_path, {}, trained(tmp_path))["differences"]
    assert (one["of"], one["to"]) == ("round 1", "start")
    found = one["estimates of rendered people"]["PA-MPJPE, mm"]
    error = 1.96 * change[20:].std(ddof=1) / np.sqrt(count)
    assert found["count"] == count
    assert found["mean"] == pytest.approx(change[20:].mean(), abs=1e-3)
    assert (found["low"], found["high"]) == pytest.approx((found["mean"] - error, found["mean"] + error), abs=error / 8)
    same = one["estimates of rendered people"]["MPJPE, mm"]
    assert (same["mean"], same["low"], same["high"], same["count"]) == (0, 0, 0, 500)


def test_values_of_other_people_are_not_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = stand_in_rounds(tmp_path, Works(), monkeypatch, rounds=1)
    run.run()
    path = run.out / "round-1" / "evaluation" / "photos.npz"
    with np.load(path) as values:
        others = {**values, "name": values["name"][::-1]}
    np.savez(path, **others)
    with pytest.raises(InputError, match="judged on different people"):
        compared(run.out, {}, trained(run.out))
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="not the values of an evaluation"):
        compared(run.out, {}, trained(run.out))


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


def test_arms_by_name() -> None:
    assert arms_of("all") == tuple(ARMS)
    assert arms_of("none") == ()
    assert arms_of("ungated, keypoints,ungated") == ("ungated", "keypoints")


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (["--arms", "silhouette"], 2, "no arm is called 'silhouette'; there are keypoints, keypoint-fits, ungated"),
        (["--arm-rounds", "2"], 2, "--arm-rounds 2: no more than --rounds, 1"),
        (["--arm-rounds", "0"], 2, "--arm-rounds 0: at least 1"),
        (["--rounds", "0"], 2, "--rounds 0: at least 1"),
        (["--synthetic", "/nowhere"], 1, "--synthetic /nowhere: no such folder"),
    ],
)
@pytest.mark.usefixtures("nothing_is_set")
def test_what_can_not_be_done_is_one_line_and_leaves_nothing(
    options: list[str], status: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path), "--out", str(tmp_path / "out"), "--cases", "1", *options]) == status
    told = capsys.readouterr()
    assert (told.out, told.err.count("\n")) == ("", 1)
    assert said in told.err
    assert not (tmp_path / "out").exists()
