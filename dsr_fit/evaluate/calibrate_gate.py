"""A quality gate for a fitter of one's own, calibrated on rendered people whose bodies are known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dsr_fit.dataset.progress import Report
from dsr_fit.dataset.run import Resources
from dsr_fit.dataset.schema import Row
from dsr_fit.dataset.settings import Settings
from dsr_fit.errors import InputError
from dsr_fit.evaluate.benchmark import TUNING_SEED
from dsr_fit.evaluate.estimates import vertex_errors
from dsr_fit.evaluate.sets import KeptSource, body_of, seed_of
from dsr_fit.fitting.fitter import Fitter
from dsr_fit.fitting.saving import versions
from dsr_fit.gate.calibration import Table, calibrate
from dsr_fit.gate.gate import EVIDENCE, binding
from dsr_fit.io.files import replacing

TUNING = 64
FRESH_SEED = 20_000
"""Further people to learn from, beside the tuning seeds."""


def calibration_seeds(count: int) -> list[int]:
    """So many people who are in no report: the tuning seeds, then fresh ones."""
    return [*range(TUNING_SEED, TUNING_SEED + TUNING), *range(FRESH_SEED, FRESH_SEED + max(0, count - TUNING))][:count]


def calibrate_gate(
    settings: Settings,
    people: KeptSource,
    work: Path,
    resources: Resources | None = None,
    report: Report | None = None,
    reported: KeptSource | None = None,
) -> dict[str, Any]:
    """The gate's content for the fitter of these settings; its fits are kept in `work`, and go on after a stop.

    Args:
        people: rendered people to learn from (`dsr_fit.evaluate.sets.cases_of`).
        reported: others, whom the gate is measured on.
    Raises: InputError where the fits are all right or all wrong, or nobody is found.
    """
    fitter = settings.fitter()
    rows = list(people.fit(settings, work / "learnt", resources, report))
    learnt = _table(fitter, people, rows)
    fitted = next(row for row in rows if row["status"] != "failed")
    bound_to = binding(fitter, fitted["keypoints_source"], fitted["labels_source"])
    tested = None
    if reported is not None:
        tested = _table(fitter, reported, list(reported.fit(settings, work / "reported", resources, report)))
    return {
        **calibrate(learnt, bound_to, tested),
        "versions": versions(),
    }


def write_gate(path: Path, gate: dict[str, Any]) -> None:
    """Written so that a kill leaves the whole file or none."""
    with replacing(path, durable=True) as temporary:
        temporary.write_text(json.dumps(gate, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def _table(fitter: Fitter, people: KeptSource, rows: Sequence[Row]) -> Table:
    pairs = [(row, body) for row in rows if (body := body_of(row)) is not None]
    if not pairs:
        raise InputError(f"{people.source.images}: none of its {len(rows)} rendered people was fitted")
    seeds = [seed_of(row["imgname"]) for row, _ in pairs]
    errors = vertex_errors(fitter, people.source.images, seeds, [body for _, body in pairs])
    values = np.array([list(evidence_of(row).values()) for row, _ in pairs])
    return Table(values, errors, len(rows) - len(pairs))


def evidence_of(row: Row) -> dict[str, float]:
    """`dsr_fit.gate.gate.evidence` of a fit that was written as a row."""
    spread = np.full(24, np.nan) if row["spread"] is None else np.degrees(row["spread"])
    expected = row["expected_error_m"]
    values = {
        "keypoint_error": row["keypoint_error_rel"],
        "mc_mismatch": None if row["mc_iou"] is None else 1 - row["mc_iou"],
        "outside": None if row["containment"] is None else 1 - row["containment"],
        "pose": row["energy_pose"],
        "shape": row["energy_betas"],
        "change": row["change_m"],
        "landmarks": row["energy_world_landmarks"],
        "expected": None if expected is None else 1000 * expected,
        "unsure": spread[1:].mean(),
        "unsure_orientation": spread[0],
        "initial": row["energy_initial"],
        "hidden": -row["keypoints"][:, 2].sum(),
    }
    return {name: float("nan") if values[name] is None else float(values[name]) for name in EVIDENCE}
