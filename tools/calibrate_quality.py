"""Calibrate the quality gate on rendered people whose bodies are known; writes priors/quality/gate.json.

    PYTHONPATH=tools python tools/calibrate_quality.py --cases-dir FOLDER

Every person goes through the whole pipeline (detector, parser, fit), and the gate learns to tell from the evidence
(`dsr_fit/fit/gate.py`) whether the mean vertex error is under 80 mm. Learnt from seeds that are used for tuning; the
ROC is measured on the reporting seeds, from 10000, which nothing here is chosen on. People who are missed by the
detector have no fit and take no part. Missing cases are generated, about half a second each; fits take as long.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track
from scipy.optimize import minimize

from dsr_fit.assets import PACKAGE
from dsr_fit.body_files import load_body
from dsr_fit.evaluate.benchmark import REPORTING_SEED, TUNING_SEED, judge, observe_all, parameters_of
from dsr_fit.evaluate.clothed.dataset import read_case, write_cases
from dsr_fit.export import versions
from dsr_fit.files import replacing
from dsr_fit.fit.fitter import Fitter
from dsr_fit.fit.gate import ASSET, EVIDENCE, binding, evidence, hinges
from dsr_fit.perception.parsers import load_parser
from dsr_fit.pipeline import Perception

FRESH_SEED = 20_000
"""Further people to learn from, beside the tuning seeds."""

LIMIT_MM = 80.0
PRECISION = 0.9
KNOTS = (0.02, 0.25, 0.5, 0.75, 0.98)
"""Quantiles of each evidence where its cost may bend."""

RIDGES = (0.3, 1.0, 3.0, 10.0)
FOLDS = 8
LEAST_ACCEPTED = 0.03
"""Share of the fits that the threshold must accept."""

BATCH = 16


@dataclass(frozen=True)
class Table:
    """Evidence and errors of N fits."""

    values: np.ndarray  # (N, evidence)
    pve: np.ndarray  # (N,) mm
    missed: int
    labels_source: str

    @property
    def right(self) -> np.ndarray:
        return self.pve < LIMIT_MM


def collect(folder: Path, seeds: Sequence[int], cache: Path | None) -> Table:
    """Fit the people of these seeds; what is in the cache is not fitted again."""
    write_cases(folder, track(seeds, "generating", transient=True))
    fitter = Fitter(load_body())
    parser = load_parser().name
    bound_to = binding(fitter, parser)
    kept = json.loads(cache.read_text()) if cache and cache.exists() else {}
    known = kept["evidence"] if kept.get("bound_to") == bound_to else {}
    perception = Perception()
    todo = [seed for seed in seeds if str(seed) not in known]
    for start in track(range(0, len(todo), BATCH), "fitting", transient=True):
        seen = list(observe_all(folder, todo[start : start + BATCH], "whole", 0.0, perception))
        known |= {str(item.seed): None for item in seen if item.observation is None}
        found = [(item.seed, item.observation) for item in seen if item.observation is not None]
        for (seed, _), result in zip(found, fitter.fit([one for _, one in found]), strict=True):
            case = read_case(folder, seed)
            error = judge(fitter, case, parameters_of(result, case.focal_length))["pve"]
            known[str(seed)] = {"pve": error, **evidence(result)}
        if cache:
            cache.write_text(json.dumps({"bound_to": bound_to, "evidence": known}))
    rows = [known[str(seed)] for seed in seeds]
    fits = [row for row in rows if row is not None]
    values = np.array([[row[name] for name in EVIDENCE] for row in fits])
    return Table(values, np.array([row["pve"] for row in fits]), len(rows) - len(fits), parser)


@dataclass(frozen=True)
class Model:
    """The gate's numbers."""

    knots: np.ndarray  # (evidence, K)
    bias: float
    rises: np.ndarray  # (evidence, K - 1)

    def features(self, values: np.ndarray) -> np.ndarray:
        """(N, evidence) -> (N, evidence, K - 1)."""
        return np.stack([hinges(values[:, index], knots) for index, knots in enumerate(self.knots)], 1)

    def quality(self, values: np.ndarray) -> np.ndarray:
        costs = np.einsum("nek,ek->n", self.features(values), self.rises)
        return 1 / (1 + np.exp(costs - self.bias))


def learn(values: np.ndarray, right: np.ndarray, ridge: float) -> Model:
    """Logistic regression with costs that never fall, the rises held small by `ridge`."""
    knots = np.nanquantile(values, KNOTS, axis=0).T
    knots = knots + 1e-9 * np.arange(len(KNOTS)) * np.maximum(1, np.abs(knots))
    start = Model(knots, 0.0, np.zeros((len(knots), len(KNOTS) - 1)))
    features = start.features(values).reshape(len(values), -1)

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        logit = x[0] - features @ x[1:]
        value = np.logaddexp(0, np.where(right, -logit, logit)).sum() + 0.5 * ridge * (x[1:] ** 2).sum()
        slope = 1 / (1 + np.exp(-logit)) - right
        return value, np.concatenate([[slope.sum()], -features.T @ slope + ridge * x[1:]])

    bounds = [(None, None)] + [(0, None)] * features.shape[1]
    found = minimize(loss, np.zeros(1 + features.shape[1]), jac=True, bounds=bounds, method="L-BFGS-B")
    return Model(knots, float(found.x[0]), found.x[1:].reshape(len(knots), -1))


def held_out(table: Table, ridge: float) -> np.ndarray:
    """(N,) quality of each fit by a model that hasn't seen it."""
    quality = np.zeros(len(table.pve))
    fold = np.arange(len(quality)) % FOLDS
    for number in range(FOLDS):
        model = learn(table.values[fold != number], table.right[fold != number], ridge)
        quality[fold == number] = model.quality(table.values[fold == number])
    return quality


def roc(quality: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates of every threshold, the strictest first."""
    order = np.argsort(-quality, kind="stable")
    return np.cumsum(~right[order]) / (~right).sum(), np.cumsum(right[order]) / right.sum()


def auc(quality: np.ndarray, right: np.ndarray) -> float:
    """Area under the ROC: the chance that a right fit has the higher quality; ties count half."""
    good, bad = quality[right][:, None], quality[~right]
    return float((good > bad).mean() + 0.5 * (good == bad).mean())


def interval(quality: np.ndarray, right: np.ndarray, draws: int = 1000) -> list[float]:
    """95 % bootstrap interval of the AUC."""
    rng = np.random.default_rng(0)
    picks = (rng.integers(0, len(right), len(right)) for _ in range(draws))
    values = [auc(quality[pick], right[pick]) for pick in picks if 0 < right[pick].sum() < len(pick)]
    return [float(value) for value in np.quantile(values, (0.025, 0.975))]


def threshold_for(quality: np.ndarray, right: np.ndarray, precision: float) -> tuple[float, bool]:
    """The most generous threshold with that precision, and True; else the most precise one, and False.

    Either accepts at least `LEAST_ACCEPTED` of the fits.
    """
    order = np.argsort(-quality, kind="stable")
    reached = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    least = max(1, round(LEAST_ACCEPTED * len(order))) - 1
    enough = np.flatnonzero(reached[least:] >= precision)
    index = least + (enough[-1] if len(enough) else int(np.argmax(reached[least:])))
    return float(quality[order[index]]), bool(len(enough))


def at(quality: np.ndarray, right: np.ndarray, threshold: float) -> dict[str, float | None]:
    """What a threshold does."""
    taken = quality >= threshold
    return {
        "accepted": float(taken.mean()),
        "precision": float(right[taken].mean()) if taken.any() else None,
        "recall": float(taken[right].mean()),
    }


def calibrate(learnt: Table, reported: Table) -> dict[str, Any]:
    """The content of `gate.json`."""
    by_ridge = {ridge: held_out(learnt, ridge) for ridge in RIDGES}
    ridge = max(RIDGES, key=lambda one: auc(by_ridge[one], learnt.right))
    quality = by_ridge[ridge]
    model = learn(learnt.values, learnt.right, ridge)
    threshold, reached = threshold_for(quality, learnt.right, PRECISION)
    costs = np.einsum("nek,ek->ne", model.features(learnt.values), model.rises)
    usual = costs[learnt.right].mean(0)
    seen = model.quality(reported.values)
    false, true = roc(seen, reported.right)
    steps = np.linspace(0, len(false) - 1, 51).astype(int)
    return {
        "limit_mm": LIMIT_MM,
        "bias": model.bias,
        "threshold": threshold,
        "costs": {
            name: {"knots": knots.tolist(), "rises": rises.tolist(), "usual": float(mean)}
            for name, knots, rises, mean in zip(EVIDENCE, model.knots, model.rises, usual, strict=True)
        },
        "bound_to": binding(Fitter(load_body()), learnt.labels_source),
        "versions": versions(),
        "calibration": {
            "fits": len(learnt.pve),
            "missed": learnt.missed,
            "right": float(learnt.right.mean()),
            "ridge": ridge,
            "auc_held_out": auc(quality, learnt.right),
            "precision_asked": PRECISION,
            "precision_reached": reached,
            "at_threshold_held_out": at(quality, learnt.right, threshold),
        },
        "report": {
            "fits": len(reported.pve),
            "missed": reported.missed,
            "right": float(reported.right.mean()),
            "auc": auc(seen, reported.right),
            "auc_interval": interval(seen, reported.right),
            "at_threshold": at(seen, reported.right, threshold),
            "auc_at_other_limits": {
                f"{limit} mm": auc(seen, reported.pve < limit)
                for limit in (60, 100, 120, 150, 200)
                if 0 < (reported.pve < limit).sum() < len(reported.pve)
            },
            "median_pve": float(np.median(reported.pve)),
            "roc": {"false": false[steps].tolist(), "true": true[steps].tolist()},
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases-dir", type=Path, required=True, help="folder of the cases; missing ones are generated")
    parser.add_argument("--fresh", type=int, default=400, help=f"how many people from seed {FRESH_SEED} on")
    parser.add_argument("--reported", type=int, default=300, help=f"how many people from seed {REPORTING_SEED} on")
    parser.add_argument("--cache", type=Path, help="json of evidence already collected with the same fitter")
    parser.add_argument("--out", type=Path, default=PACKAGE.parent / ASSET)
    arguments = parser.parse_args()

    first = [*range(TUNING_SEED, TUNING_SEED + 64), *range(FRESH_SEED, FRESH_SEED + arguments.fresh)]
    learnt = collect(arguments.cases_dir, first, arguments.cache)
    seeds = range(REPORTING_SEED, REPORTING_SEED + arguments.reported)
    found = calibrate(learnt, collect(arguments.cases_dir, seeds, arguments.cache))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(arguments.out) as temporary:
        temporary.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")
    report, told = found["report"], found["calibration"]
    print(
        f"learnt from {told['fits']} fits, {100 * told['right']:.0f} % right; held-out AUC {told['auc_held_out']:.3f}"
    )
    print(f"reported on {report['fits']}: AUC {report['auc']:.3f} {report['auc_interval']}; {report['at_threshold']}")
    if not told["precision_reached"]:
        print(f"a precision of {PRECISION} was NOT reached at any threshold; the most precise one was taken")


if __name__ == "__main__":
    main()
