"""What the quality gate's numbers are learnt by: evidence and true errors of fits in, `gate.json` out.

Logistic regression of "the mean vertex error is under 80 mm" on costs that never fall (`dsr_fit.gate.gate`). It is
validated on fits that it has not seen, by cross-validation, and on a separate table where there is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize

from dsr_fit.errors import InputError
from dsr_fit.gate.gate import EVIDENCE, hinges

LIMIT_MM = 80.0
PRECISION = 0.9
KNOTS = (0.02, 0.25, 0.5, 0.75, 0.98)
"""Quantiles of each evidence where its cost may bend."""

RIDGES = (0.3, 1.0, 3.0, 10.0)
FOLDS = 8
LEAST_ACCEPTED = 0.03
"""Share of the fits that the threshold must accept."""


@dataclass(frozen=True)
class Table:
    """Evidence and errors of N fits."""

    values: np.ndarray  # (N, evidence)
    pve: np.ndarray  # (N,) mm
    missed: int
    """People without a fit, who take no part."""

    @property
    def right(self) -> np.ndarray:
        return self.pve < LIMIT_MM


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
    there = np.where(np.isnan(values).all(0), 0, values)  # evidence that no fit has costs nothing
    knots = np.nanquantile(there, KNOTS, axis=0).T
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


def calibrate(learnt: Table, bound_to: Mapping[str, Any], reported: Table | None = None) -> dict[str, Any]:
    """The content of `gate.json`: learnt from one table of fits, `reported` on another that it hasn't seen.

    `bound_to` says what it holds for (`dsr_fit.gate.gate.binding`).
    Raises InputError where all fits are right, or none: there is nothing to tell apart then.
    """
    if learnt.right.all() or not learnt.right.any():
        raise InputError(
            f"{learnt.right.sum()} of {len(learnt.pve)} fits of rendered people are right; a gate needs some that "
            "are and some that are not to learn from: give it more people"
        )
    by_ridge = {ridge: held_out(learnt, ridge) for ridge in RIDGES}
    ridge = max(RIDGES, key=lambda one: auc(by_ridge[one], learnt.right))
    quality = by_ridge[ridge]
    model = learn(learnt.values, learnt.right, ridge)
    threshold, reached = threshold_for(quality, learnt.right, PRECISION)
    costs = np.einsum("nek,ek->ne", model.features(learnt.values), model.rises)
    usual = costs[learnt.right].mean(0)
    found = {
        "limit_mm": LIMIT_MM,
        "bias": model.bias,
        "threshold": threshold,
        "costs": {
            name: {"knots": knots.tolist(), "rises": rises.tolist(), "usual": float(mean)}
            for name, knots, rises, mean in zip(EVIDENCE, model.knots, model.rises, usual, strict=True)
        },
        "bound_to": dict(bound_to),
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
    }
    return found if reported is None else {**found, "report": report(model, threshold, reported)}


def report(model: Model, threshold: float, table: Table) -> dict[str, Any]:
    """What a model does on fits that nothing was chosen on."""
    seen, right = model.quality(table.values), table.right
    false, true = roc(seen, right)
    steps = np.linspace(0, len(false) - 1, 51).astype(int)
    return {
        "fits": len(table.pve),
        "missed": table.missed,
        "right": float(right.mean()),
        "auc": auc(seen, right),
        "auc_interval": interval(seen, right),
        "at_threshold": at(seen, right, threshold),
        "auc_at_other_limits": {
            f"{limit} mm": auc(seen, table.pve < limit)
            for limit in (60, 100, 120, 150, 200)
            if 0 < (table.pve < limit).sum() < len(table.pve)
        },
        "median_pve": float(np.median(table.pve)),
        "roc": {"false": false[steps].tolist(), "true": true[steps].tolist()},
    }
