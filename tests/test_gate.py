"""The quality gate: costs in closed form, quality that never rises with worse evidence, and what it holds for."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import calibrate_quality
import numpy as np
import pytest
from scenes import observe, open_body, person

from dsr_fit.assets import shipped
from dsr_fit.config import Eft, FitConfig, LeastSquares, Stage, Weights
from dsr_fit.errors import UsageError
from dsr_fit.fitting.fitter import Fitter
from dsr_fit.fitting.result import FitResult
from dsr_fit.gate import calibration
from dsr_fit.gate.evidence import EVIDENCE, FitSummary, evidence
from dsr_fit.gate.gate import ASSET, Cost, Gate, binding, hinges
from dsr_fit.observe.parser import load_parser
from dsr_fit.priors.pose import load_pose_prior
from dsr_fit.priors.semantic import SemanticPrior, load_semantic_prior
from dsr_fit.regressor.kinematic import KinematicRegressor

QUICK = FitConfig(least_squares=LeastSquares(pose_steps=4, steps=8), stages=(Stage(56, 2),))


@pytest.fixture(scope="module")
def result() -> FitResult:
    told = observe(person(0))
    observation = replace(told, detection=replace(told.detection, source="seen"), labels_source="known")
    return Fitter(open_body(), QUICK).fit([observation])[0]


def _gate(**costs: Cost) -> Gate:
    return Gate(bias=2.0, threshold=0.7, costs=costs, keypoints_source="seen", labels_source="known")


def test_hinges_share_out_a_value_over_its_intervals() -> None:
    knots = np.array([0.0, 1.0, 3.0])
    values = np.array([-5.0, 0.0, 0.5, 2.0, 9.0, np.nan])
    expected = [[0, 0], [0, 0], [0.5, 0], [1, 0.5], [1, 1], [1, 0]]
    np.testing.assert_allclose(hinges(values, knots), expected)


def test_quality_is_the_logistic_of_bias_less_costs(result: FitResult) -> None:
    """A keypoint error in the middle of one interval costs half of its rise."""
    error = result.metrics["keypoint_error_rel"]["after"]
    cost = Cost(np.array([error - 0.01, error + 0.01, error + 1]), np.array([3.0, 100.0]), usual=0.5)
    verdict = _gate(keypoint_error=cost).judge(result)
    assert verdict.quality == pytest.approx(1 / (1 + math.exp(1.5 - 2)), abs=1e-6)
    assert verdict.accepted is False
    assert verdict.reasons == (f"the keypoints are missed by {100 * error:.1f} % of the person's size",)
    generous = replace(_gate(keypoint_error=cost), threshold=0.6)
    assert (generous.judge(result).accepted, generous.judge(result).reasons) == (True, ())


def test_worse_evidence_never_raises_the_quality(result: FitResult) -> None:
    gate = replace(Gate.of(Fitter(open_body())), keypoints_source="seen", labels_source="known")
    for scale in (1.5, 4.0, 20.0):
        for name, after in (("keypoint_error_rel", scale), ("containment", 1 / scale), ("mc_iou", 1 / scale)):
            metrics = {key: dict(values) for key, values in result.metrics.items()}
            metrics[name]["after"] *= after
            before, now = (gate.judge(one).quality for one in (result, replace(result, metrics=metrics)))
            assert before is not None
            assert now is not None
            assert now <= before
        moved = gate.judge(replace(result, change_m=result.change_m * scale)).quality
        assert moved is not None
        assert moved <= (gate.judge(result).quality or 0)


def test_missing_evidence_has_no_part_in_the_reasons(result: FitResult) -> None:
    metrics = {**result.metrics, "mc_iou": {"before": math.nan, "after": math.nan}}
    bare = replace(result, metrics=metrics)
    cost = Cost(np.array([0.0, 0.1, 0.2]), np.array([9.0, 9.0]), usual=0.0)
    verdict = _gate(mc_mismatch=cost).judge(bare)
    assert verdict.quality == pytest.approx(1 / (1 + math.exp(9 - 2)))
    assert verdict.reasons == ("nothing stands out, but people who look like this are often fitted wrongly",)


def test_a_diverged_fit_is_refused_whatever_its_evidence(result: FitResult) -> None:
    diverged = replace(result, stop_reason="diverged")
    assert replace(_gate(), threshold=0.0).judge(diverged).accepted is False
    assert replace(_gate(), mismatches=("body",)).judge(diverged).reasons == ("the fit diverged",)


def test_other_bodies_priors_and_parsers_are_not_judged(result: FitResult) -> None:
    prior = load_semantic_prior(open_body())
    other_body, kinematic = replace(open_body(), sha256="0" * 64), KinematicRegressor(open_body(), FitConfig())
    other_prior = SemanticPrior(prior.probabilities.flip(0), per_face=False)
    assert Gate.of(Fitter(open_body())).holds
    assert not Gate.of(Fitter(other_body, semantic_prior=prior)).holds
    assert not Gate.of(Fitter(open_body(), replace(FitConfig(), pose_prior="ranges"))).holds
    assert not Gate.of(Fitter(open_body(), replace(FitConfig(), weights=Weights(dsr_c=1.0)))).holds
    assert not Gate.of(Fitter(open_body(), crop_camera=True)).holds
    assert not Gate.of(Fitter(open_body(), pose_prior=load_pose_prior("ranges"))).holds
    assert Gate.of(Fitter(open_body(), replace(FitConfig(), seed=1, eft=Eft(iterations=1)))).holds  # decides nothing
    assert not Gate.of(Fitter(open_body(), semantic_prior=other_prior)).holds
    assert not Gate.of(Fitter(open_body(), regressor=kinematic)).holds
    others = {
        "body": {"mismatches": ("body",)},
        "keypoints": {"keypoints_source": "a"},
        "labels": {"labels_source": "a"},
    }
    assert _gate().unfit_for(result) == ()
    for name, other in others.items():
        gate = replace(_gate(), **other)
        assert gate.unfit_for(result) == (name,)
        verdict = gate.judge(result)
        assert (verdict.quality, verdict.accepted, verdict.reasons) == (None, None, ())


def test_a_gate_of_an_earlier_version_holds_where_new_settings_have_their_defaults(tmp_path: Path) -> None:
    found = json.loads(shipped(ASSET).read_text())
    del found["bound_to"]["config"]["stop_window"], found["bound_to"]["config"]["weights"]["stature"]
    path = tmp_path / "gate.json"
    path.write_text(json.dumps(found))
    assert Gate.of(Fitter(open_body()), path).holds
    for other, said in (({"stop_window": 4}, "stop_window"), ({"luck": 1}, "stop_window, luck|luck")):
        found["bound_to"]["config"] |= other
        path.write_text(json.dumps(found))
        with pytest.raises(UsageError, match=f"calibrated for another .*({said})"):
            Gate.of(Fitter(open_body()), path)


def test_the_gate_that_ships_was_calibrated_with_what_ships() -> None:
    """Fails after a new body, semantic prior, parser or regressor: then run tools/calibrate_quality.py."""
    found = json.loads(shipped(ASSET).read_text())
    assert found["bound_to"] == binding(Fitter(open_body()), "blazepose-heavy", load_parser().name)
    assert set(found["costs"]) == set(EVIDENCE)
    assert all(rise >= 0 for cost in found["costs"].values() for rise in cost["rises"])
    assert 0 < found["threshold"] < 1


def test_evidence_of_a_fit_that_lies_on_its_truth(result: FitResult) -> None:
    values = evidence(FitSummary.of_result(result))
    assert set(values) == set(EVIDENCE)
    assert values["hidden"] == pytest.approx(-25)
    assert 0 <= values["keypoint_error"] < 0.05
    assert 0 <= values["outside"] < 0.3


def test_every_evidence_is_documented() -> None:
    rows = shipped(ASSET).with_name("README.md").read_text(encoding="utf-8").splitlines()
    cells = [row.split("|")[1] for row in rows if row.startswith("| `")]
    assert re.findall(r"`(\w+)`", "".join(cells)) == list(EVIDENCE)


# --- Calibration ----------------------------------------------------------------------------------


def test_auc_is_the_share_of_pairs_in_order() -> None:
    quality = np.array([0.9, 0.8, 0.8, 0.1])
    right = np.array([True, False, True, False])
    assert calibration.auc(quality, right) == pytest.approx((2 + 1 + 0.5) / 4)
    false, true = calibrate_quality.roc(np.array([0.9, 0.7, 0.6, 0.1]), right)
    np.testing.assert_allclose(false, [0, 0.5, 0.5, 1])
    np.testing.assert_allclose(true, [0.5, 0.5, 1, 1])


def test_the_threshold_is_the_most_generous_with_the_precision() -> None:
    quality = np.linspace(1, 0, 101)[:-1]
    right = np.arange(100) < 40
    right[5] = False
    threshold, reached = calibration.threshold_for(quality, right, 0.9)
    assert reached
    taken = quality >= threshold
    assert right[taken].mean() >= 0.9
    assert right[quality >= threshold - 0.01].mean() < 0.9
    threshold, reached = calibration.threshold_for(quality, np.arange(100) % 2 == 0, 0.9)
    assert not reached


def test_what_is_learnt_is_monotone_and_finds_what_matters() -> None:
    """Right where the first evidence is small; the second helps the opposite way, which a cost can't express."""
    rng = np.random.default_rng(1)
    values = rng.random((600, 2))
    right = rng.random(600) < 1 / (1 + np.exp(12 * (values[:, 0] - 0.5)))
    right |= values[:, 1] > 0.95
    model = calibration.learn(values, right, ridge=1.0)
    assert (model.rises >= 0).all()
    assert model.rises[0].sum() > 5 * model.rises[1].sum()
    assert calibration.auc(model.quality(values), right) > 0.85
    table = calibration.Table(values, np.where(right, 50.0, 150.0), 0)
    honest = calibration.held_out(table, 1.0)
    assert calibration.auc(honest, right) > 0.8
    assert abs(honest.mean() - right.mean()) < 0.03  # calibrated: as many are right as it says


def test_a_gate_is_reported_on_other_fits() -> None:
    """Evidence that decides: every right fit is above every wrong one."""
    rng = np.random.default_rng(2)
    values = rng.random((400, len(EVIDENCE)))
    errors = np.where(values[:, 0] < 0.5, 50.0, 150.0)
    gate = calibration.calibrate(calibration.Table(values[:200], errors[:200], 0), {})
    found = calibrate_quality.report(gate, calibration.Table(values[200:], errors[200:], 3))
    assert (found["fits"], found["missed"]) == (200, 3)
    assert found["auc"] > 0.95
    low, high = found["auc_interval"]
    assert low <= found["auc"] <= high
    assert found["at_threshold"]["precision"] > 0.8
    assert found["median_pve"] == np.median(errors[200:])
