"""A few damaged files of every kind, the same ones each time; `tools/damage.py` tries as many as one likes."""

from __future__ import annotations

import json
from pathlib import Path

import damage
import damage_runs
import numpy as np
import pytest

from dsr_fit.errors import InputError

EXAMPLES = 60


@pytest.mark.parametrize("name", damage.ways())
def test_a_damaged_file_is_read_or_refused_in_one_line(tmp_path: Path, name: str) -> None:
    outcomes = damage.run(damage.ways()[name], tmp_path, EXAMPLES, derandomize=True)
    mended = ("manifests", "plans", "shards")  # from what the shards repeat, or set aside and fitted again
    assert outcomes["read" if name in mended else "refused"] > 0


@pytest.mark.parametrize("name", damage.ways())
def test_the_files_are_read_before_they_are_damaged(tmp_path: Path, name: str) -> None:
    """Otherwise nothing but refusals would be tried."""
    way = damage.ways()[name]
    for suffix, content in way.whole:
        path = tmp_path / f"whole{suffix}"
        path.write_bytes(content)
        way.read(path)


@pytest.mark.usefixtures("nothing_is_set")
def test_whole_runs_over_damaged_data_sets_end_in_rows_or_one_line(tmp_path: Path) -> None:
    outcomes = damage_runs.whole_runs(8, tmp_path)
    assert sum(number for name, number in outcomes.items() if "status" in name) == 8
    assert any(name.endswith("status 1") for name in outcomes)
    assert any(name.endswith("people unjudged") for name in outcomes)


def test_a_run_with_nan_in_a_row_or_an_unexpected_error_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for change, found in (({"betas": np.array([np.nan])}, "betas of a"), ({"reason": "unexpected KeyError"}, "KeyE")):
        monkeypatch.setattr(damage_runs.cli, "main", lambda _: 0)
        row = {"imgname": "a.png", "status": "accepted", "reason": None, **change}
        monkeypatch.setattr(damage_runs, "read_results", lambda _, row=row: [row])
        with pytest.raises(AssertionError, match=found):
            damage_runs._run(tmp_path / "coco.json", tmp_path / "out", "run")


def test_what_must_not_happen_is_found(tmp_path: Path) -> None:
    def crash(_: Path) -> None:
        raise ZeroDivisionError

    def chatter(_: Path) -> None:
        raise InputError("two\nlines")

    for read, expected in ((crash, ZeroDivisionError), (chatter, AssertionError)):
        way = damage.Way(damage.ways()["label maps"].files, [], read)
        with pytest.raises(expected):
            damage.run(way, tmp_path, 5, derandomize=True)


def test_edits_do_what_they_say() -> None:
    content = bytes(range(10))
    assert damage.damaged(content, [("end", 0.5, 0)]) == content[:5]
    assert damage.damaged(content, [("cut", 0.5, 2)]) == content[:5] + content[7:]
    assert (
        damage.damaged(content, [("flip", 0.5, 7), ("set", 0.0, 9)]) == b"\x09" + content[1:5] + b"\x85" + content[6:]
    )
    assert damage.damaged(content, [("zero", 0.8, 64)]) == content[:8] + bytes(2)
    assert damage.damaged(b"", [("flip", 0.5, 1), ("cut", 0.0, 3), ("insert", 0.0, b"a")]) == b"a"
    original = {"people": [{"points": [1, 2]}, 5]}
    kept = json.dumps(original)
    assert damage.mutated(original, [([0, 0, 0, 1], "replace", "x")]) == {"people": [{"points": [1, "x"]}, 5]}
    assert damage.mutated(original, [([0, 1], "remove", None)]) == {"people": [{"points": [1, 2]}]}
    assert damage.mutated(original, [([0, 1], "double", None)]) == {"people": [{"points": [1, 2]}, 5, 5]}
    assert damage.mutated(original, [([], "remove", 7)]) == 7
    assert json.dumps(original) == kept
