"""Configuration: presets, overrides, and one clear line for what is wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dsr_fit.assets import shipped
from dsr_fit.config import FitConfig, Stage, from_dict, load_config, to_dict
from dsr_fit.errors import UsageError


def test_dictionary_round_trip() -> None:
    stage = {"resolution": 56, "iterations": 1}
    config = from_dict(FitConfig, {"weights": {"dsr_mc": 3}, "stages": [stage]})
    assert config.stages == (Stage(56, 1),)
    assert config.weights.dsr_mc == 3.0
    assert from_dict(FitConfig, to_dict(config)) == config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"wieghts": {}}, "unknown configuration key `wieghts`; known here: .*weights"),
        ({"weights": {"mc": 1.0}}, "unknown configuration key `weights.mc`; known here: .*dsr_mc"),
        ({"weights": {"dsr_mc": "much"}}, "`weights.dsr_mc`: expected float, got 'much'"),
        ({"mode": "magic"}, "`mode`: 'magic' is not one of smplify"),
        ({"stages": [{"resolution": 1}]}, "`stages.0`: .*iterations"),
        ({"stages": 3}, "`stages`: expected a list"),
        ({"seed": 1.5}, "`seed`: expected int"),
        ({"seed": True}, "`seed`: expected int, got True"),
        ({"weights": {"pose": False}}, "`weights.pose`: expected float, got False"),
        ({"weights": 3}, "`weights`: expected `key: value` lines"),
    ],
)
def test_what_is_wrong_is_named(values: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        from_dict(FitConfig, values)


def test_every_preset_loads() -> None:
    presets = list(shipped("configs").glob("*.yaml"))
    assert presets
    for preset in presets:
        assert isinstance(load_config(preset.stem), FitConfig)


def test_a_file_overrides_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("weights: {silhouette: 2}\n")
    config = load_config(path)
    assert config.weights.silhouette == 2
    assert config.weights.dsr_mc == FitConfig().weights.dsr_mc


def test_missing_presets_and_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="presets: .*smplify"):
        load_config("smplfy")
    with pytest.raises(UsageError, match="can't be read"):
        load_config(tmp_path / "nothing.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(UsageError, match="not valid YAML"):
        load_config(tmp_path / "bad.yaml")


def test_the_eft_preset_changes_the_mode_alone() -> None:
    assert load_config("eft") == replace(FitConfig(), mode="eft")
    with pytest.raises(UsageError, match="presets: eft, "):
        load_config("nothing")
