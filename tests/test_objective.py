"""The list of terms: complete, one entry each, and open to a term from outside."""

from __future__ import annotations

import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import torch
from scenes import observe, person

from dsr_fit.config import FitConfig, Scales, Stage, Weights
from dsr_fit.fitting.fitter import Fitter
from dsr_fit.gate.gate import Gate
from dsr_fit.joints import KEYPOINT_INDEX
from dsr_fit.observe.batch import Batch
from dsr_fit.optimise.least_squares import Problem, State
from dsr_fit.optimise.objective import TERMS

ROOT = Path(__file__).resolve().parents[1]
WRISTS = [KEYPOINT_INDEX[name] for name in ("LWrist", "RWrist")]
QUICK = FitConfig(stages=(Stage(56, 8),))
SEEN = replace(QUICK, scales=Scales(agreement=0.0))  # exact points, taken for a detector's


def test_every_weight_has_a_term_and_every_term_a_weight() -> None:
    assert {term.name for term in TERMS} == {field.name for field in fields(Weights)}


def _example() -> Fitter:
    """The fitter of CONTRIBUTING's example."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (snippet,) = re.findall(r"<!-- example: a term -->\n```python\n(.*?)```", page, re.DOTALL)
    scope: dict[str, Fitter] = {}
    exec(compile(snippet, "CONTRIBUTING.md", "exec"), scope)
    return scope["fitter"]


def test_the_worked_example_of_a_term_takes_part_in_every_stage() -> None:
    example, seen = _example(), observe(person(2))
    with_it = Fitter(example.body, SEEN, terms=example.terms).fit([seen])[0]
    without = Fitter(example.body, SEEN).fit([seen])[0]
    apart = [
        float(np.linalg.norm(result.joints[WRISTS[0]] - result.joints[WRISTS[1]])) for result in (with_it, without)
    ]
    assert apart[0] < 0.8 * apart[1]
    assert with_it.energies["clasped"]["final"] < with_it.energies["clasped"]["initial"]
    assert "clasped" not in without.energies


def test_least_squares_follows_the_example_exactly() -> None:
    example = _example()
    batch = Batch([observe(person(2))], crop_camera=False, keypoint_valid=example.body.skeleton.keypoint_valid)
    only = replace(QUICK, weights=Weights(**dict.fromkeys((field.name for field in fields(Weights)), 0.0)))
    problem = Problem.of(batch, example.body.skeleton, example.pose_prior, only, terms=example.terms)
    state = State.of(person(3))
    residuals, jacobian = problem.linearise(state)
    analytic = 2 * (jacobian.transpose(1, 2) @ residuals[..., None])[..., 0]
    numeric = torch.autograd.functional.jacobian(
        lambda delta: problem.energy(state.moved(delta)).sum(), torch.zeros(1, 85, dtype=torch.float64)
    )
    torch.testing.assert_close(analytic, numeric, atol=1e-6, rtol=1e-6)


def test_the_gate_does_not_judge_fits_of_other_terms() -> None:
    example = _example()
    assert Gate.of(Fitter(example.body)).holds
    assert not Gate.of(example).holds
