"""Calibration of the quality gate: evidence and true errors of fits in, the content of `gate.json` out.

Logistic regression of "the mean vertex error is under 80 mm" with non-decreasing costs (`dsr_fit.gate.gate`), validated
by cross-validation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize

from dsr_fit.errors import InputError
from dsr_fit.gate.evidence import EVIDENCE
from dsr_fit.gate.gate import hinges

LIMIT_MM = 80.0
PRECISION = 0.9
KNOTS = (0.02, 0.25, 0.5, 0.75, 0.98)
"""Quantiles of each evidence that its cost has knots at."""

RIDGES = (0.3, 1.0, 3.0, 10.0)
FOLDS = 8
LEAST_ACCEPTED = 0.03
"""Smallest share of fits that the threshold may accept."""


@dataclass(frozen=True)
class Table:
    """Evidence and errors of N fits."""

    values: np.ndarray  # (N, evidence)
    pve: np.ndarray  # (N,) mm
    missed: int  # people without a fit, left out

    @property
    def right(self) -> np.ndarray:
        return self.pve < LIMIT_MM


@dataclass(frozen=True)
class Model:
    """The gate's parameters."""

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
    """Logistic regression with non-decreasing costs and an L2 penalty `ridge` on their rises."""
    known = np.where(np.isnan(values).all(0), 0, values)  # evidence that no fit has costs nothing
    knots = np.nanquantile(known, KNOTS, axis=0).T
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
    """(N,) cross-validated quality: each fit's by a model trained without its fold."""
    quality = np.zeros(len(table.pve))
    fold = np.arange(len(quality)) % FOLDS
    for number in range(FOLDS):
        model = learn(table.values[fold != number], table.right[fold != number], ridge)
        quality[fold == number] = model.quality(table.values[fold == number])
    return quality


def auc(quality: np.ndarray, right: np.ndarray) -> float:
    """Area under the ROC curve; ties count half."""
    good, bad = quality[right][:, None], quality[~right]
    return float((good > bad).mean() + 0.5 * (good == bad).mean())


def likelihood(quality: np.ndarray, right: np.ndarray) -> float:
    """Mean log-likelihood of what was right. It chooses the penalty, since quality is to be a probability: the AUC
    hardly changes with it, but how many good fits come out as surely good does."""
    return float(np.log(np.where(right, quality, 1 - quality).clip(1e-9)).mean())


def threshold_for(quality: np.ndarray, right: np.ndarray, precision: float) -> tuple[float, bool]:
    """The lowest threshold with that precision, and True; if there is none, the most precise one, and False.

    Either accepts at least `LEAST_ACCEPTED` of the fits.
    """
    order = np.argsort(-quality, kind="stable")
    reached = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    least = max(1, round(LEAST_ACCEPTED * len(order))) - 1
    enough = np.flatnonzero(reached[least:] >= precision)
    index = least + (enough[-1] if len(enough) else int(np.argmax(reached[least:])))
    return float(quality[order[index]]), bool(len(enough))


def at(quality: np.ndarray, right: np.ndarray, threshold: float) -> dict[str, float | None]:
    """Share accepted, precision and recall of a threshold."""
    taken = quality >= threshold
    return {
        "accepted": float(taken.mean()),
        "precision": float(right[taken].mean()) if taken.any() else None,
        "recall": float(taken[right].mean()),
    }


def calibrate(learnt: Table, bound_to: Mapping[str, Any]) -> dict[str, Any]:
    """The content of `gate.json`, learnt from a table of fits.

    `bound_to` is what it holds for (`dsr_fit.gate.gate.binding`). Raises InputError where all fits or none are right.
    """
    if learnt.right.all() or not learnt.right.any():
        raise InputError(
            f"{learnt.right.sum()} of {len(learnt.pve)} fits of rendered people are right; calibrating a gate needs "
            "both right and wrong fits: give it more people"
        )
    by_ridge = {ridge: held_out(learnt, ridge) for ridge in RIDGES}
    ridge = max(RIDGES, key=lambda one: likelihood(by_ridge[one], learnt.right))
    quality = by_ridge[ridge]
    model = learn(learnt.values, learnt.right, ridge)
    threshold, reached = threshold_for(quality, learnt.right, PRECISION)
    costs = np.einsum("nek,ek->ne", model.features(learnt.values), model.rises)
    usual = costs[learnt.right].mean(0)
    return {
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
