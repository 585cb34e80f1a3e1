"""What is not handed out although it was asked for: absurd results, seeds and names."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from command_line import PERSON, QUICK, Capture, refused
from scenes import observe, open_body, person

from dsr_fit.config import FitConfig, Stage
from dsr_fit.errors import InputError, UsageError
from dsr_fit.fitting.fitter import Fitter


def test_a_result_with_absurd_numbers_is_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    fitter = Fitter(open_body(), FitConfig(stages=(Stage(56, 1),)))
    observation = observe(person())
    (good,) = fitter.fit([observation])
    assert good.flaw() is None
    absurd = {**good.metrics, "keypoint_error_px": {"before": 1.0, "after": 401.0}}
    for changed, words in (
        (replace(good, metrics=absurd), "off by 401 pixels, more than the image's diagonal"),
        (replace(good, betas=np.full(10, np.nan, np.float32)), "not finite"),
        (replace(good, metrics={**absurd, "keypoint_error_px": {"after": math.nan}}), "not finite"),
    ):
        monkeypatch.setattr(fitter, "fit", lambda _, changed=changed: [changed])
        (outcome,) = fitter.fit_each([observation])
        assert isinstance(outcome, InputError)
        assert words in str(outcome)


def test_the_command_hands_out_no_flawed_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture
) -> None:
    monkeypatch.setattr("dsr_fit.fitting.result.FitResult.flaw", lambda self: "the fit is off")
    assert refused(capfd, [str(PERSON), "--out", str(tmp_path / "m.obj"), *QUICK]) == (1, "dsr-fit: the fit is off")
    assert not (tmp_path / "m.obj").exists()


@pytest.mark.parametrize("seed", [-1, 2**32, 2**70])
def test_seeds_that_generators_do_not_take(seed: int) -> None:
    with pytest.raises(UsageError, match=f"seed is {seed}; a whole number from 0 to 4294967295 works"):
        FitConfig(seed=seed)


@pytest.mark.parametrize("option", ["--out", "--body", "--regressor", "--semantic-prior", "--gate"])
def test_names_longer_than_file_systems_take_are_one_line_wherever_they_stand(
    option: str, capfd: Capture, tmp_path: Path
) -> None:
    words = {"--out": str(tmp_path / "mesh.obj"), option: f"{'n' * 300}.obj"}
    status, line = refused(capfd, [str(PERSON), *(word for pair in words.items() for word in pair)])
    assert status in (1, 2)
    assert "nnnnnn" in line
