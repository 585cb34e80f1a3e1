"""Calibrate a quality gate for a fitter on rendered people with known bodies."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dsr_fit.dataset.progress import Report
from dsr_fit.dataset.run import Resources
from dsr_fit.dataset.schema import ENERGIES, METRICS, Row
from dsr_fit.dataset.settings import Settings
from dsr_fit.errors import InputError
from dsr_fit.evaluate.benchmark import TUNING_SEED, vertex_errors
from dsr_fit.evaluate.cached_source import CachedSource, row_parameters, seed_of
from dsr_fit.fitting.fitter import Fitter
from dsr_fit.fitting.saving import versions
from dsr_fit.gate.calibration import Table, calibrate
from dsr_fit.gate.evidence import FitSummary, evidence
from dsr_fit.gate.gate import binding

TUNING = 64
FRESH_SEED = 20_000
"""First of the seeds to learn from besides the tuning seeds."""


def calibration_seeds(count: int) -> list[int]:
    """`count` seeds that no report uses: the tuning seeds, then fresh ones."""
    return [*range(TUNING_SEED, TUNING_SEED + TUNING), *range(FRESH_SEED, FRESH_SEED + max(0, count - TUNING))][:count]


def calibrate_gate(
    settings: Settings,
    people: CachedSource,
    work: Path,
    resources: Resources | None = None,
    report: Report | None = None,
) -> dict[str, Any]:
    """The content of a gate's file for the fitter of these settings; fits are stored in `work`, and resumed.

    `people` are rendered (`dsr_fit.evaluate.cached_source.case_source`). Raises InputError where nobody is found, or
    all fits are right, or all wrong.
    """
    fitter = settings.fitter()
    rows = list(people.fit(settings, work / "learnt", resources, report))
    learnt = table_of(fitter, people, rows)
    fitted = next(row for row in rows if row["status"] != "failed")
    bound_to = binding(fitter, fitted["keypoints_source"], fitted["labels_source"])
    return {**calibrate(learnt, bound_to), "versions": versions()}


def table_of(fitter: Fitter, people: CachedSource, rows: Sequence[Row]) -> Table:
    """Evidence and true errors of the fits of rendered people. Raises InputError where there is no fit."""
    pairs = [(row, body) for row in rows if (body := row_parameters(row)) is not None]
    if not pairs:
        raise InputError(f"{people.source.images}: none of its {len(rows)} rendered people was fitted")
    seeds = [seed_of(row["imgname"]) for row, _ in pairs]
    errors = vertex_errors(fitter, people.source.images, seeds, [body for _, body in pairs])
    values = np.array([list(evidence(summary_of(row)).values()) for row, _ in pairs])
    return Table(values, errors, len(rows) - len(pairs))


def summary_of(row: Row) -> FitSummary:
    """What the gate's evidence reads, from a row of a fit."""

    def number(column: str) -> float:
        return float("nan") if row[column] is None else row[column]

    return FitSummary(
        {name: number(name) for name in METRICS},
        {name: number(f"energy_{name}") for name in ENERGIES},
        number("change_m"),
        row["spread"],
        number("expected_error_m"),
        row["keypoints"][:, 2].sum(),
        number("agreement"),
    )
