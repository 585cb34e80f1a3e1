"""The report of an evaluation on a data set in SPIN's format: means, intervals, failures."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from dsr_fit.body.body import Body
from dsr_fit.evaluate import tables
from dsr_fit.evaluate.metrics import bootstrap
from dsr_fit.evaluate.spin import EvaluatedRow, FailedRow, RowEvaluator

MIN_FOLDERS = 10
"""Images of this many folders or more are resampled by folder, since the frames of one video are alike."""

LISTED_FAILURES = 10
METRICS = {"mpjpe": "MPJPE", "pa_mpjpe": "PA-MPJPE", "pve": "PVE"}


def report(judge: RowEvaluator, body: Body, outcomes: Sequence[EvaluatedRow | FailedRow]) -> dict[str, Any]:
    """All that is known about an evaluation, fit for JSON."""
    rows = sorted((item for item in outcomes if isinstance(item, EvaluatedRow)), key=lambda item: item.row)
    failures = sorted((item for item in outcomes if isinstance(item, FailedRow)), key=lambda item: item.row)
    own = "J_regressor_h36m of the fit's vertices" if judge.smpl else "the body's own keypoints"
    folders = [str(PurePosixPath(row.imgname).parent) for row in rows]
    by_folder = len(set(folders)) >= MIN_FOLDERS
    groups = folders if by_folder else [str(row.row) for row in rows]
    return {
        "data": judge.file.path.name,
        "protocol": judge.protocol,
        "body": {"name": body.name, "sha256": body.sha256},
        "joints": own,
        "truth": "posed SMPL by J_regressor_h36m" if judge.from_bodies else "S",
        "alignment": "MPJPE and PVE: pelvis; PA-MPJPE: Procrustes",
        "rows": len(outcomes),
        "evaluated": len(rows),
        "failures": dict(Counter(failure.kind for failure in failures)),
        "keypoints": dict(Counter(row.keypoints for row in rows)),
        "stop_reasons": dict(Counter(row.stop_reason for row in rows)),
        "resampled": "folders" if by_folder else "rows",
        "metrics_mm": {name: _interval(rows, name, groups) for name in METRICS},
        "per_row": [asdict(row) for row in rows],
        "failed": [asdict(failure) for failure in failures],
    }


def markdown(found: dict[str, Any]) -> str:
    """The report as a table, with what a reader must know beside it."""
    rows = []
    for name, title in METRICS.items():
        value = found["metrics_mm"][name]
        if value is not None:
            span = "-" if value["low"] is None else f"{value['low']:.1f} .. {value['high']:.1f}"
            rows.append([title, f"{value['mean']:.1f}", span, str(value["people"])])
    lines = [
        f"# {found['data']}: {found['evaluated']} of {found['rows']} rows, {found['protocol']} joints",
        "",
        tables.table(["metric", "mean, mm", "95 % interval", "people"], rows),
        "",
        f"- Fitted body `{found['body']['name']}`, joints: {found['joints']}; true joints: {found['truth']}. "
        f"{found['alignment']}.",
    ]
    if found["joints"].startswith("the body's own"):
        lines.append(
            "- This body isn't SMPL. Its joints have the protocol's names, not the exact places that "
            "J_regressor_h36m gives them, so compare these errors with each other, not with published ones."
        )
    if found["keypoints"].get("part"):
        lines.append(
            f"- {found['keypoints']['part']} fits saw the dataset's own 2D keypoints (`part`); methods that see the "
            "image alone compare with `--keypoints detector`."
        )
    lines.append(f"- Intervals: bootstrap over {found['resampled']}.")
    if found["stop_reasons"].get("diverged"):
        lines.append(f"- {found['stop_reasons']['diverged']} fits diverged; their best iterate counts.")
    if found["failed"]:
        counts = ", ".join(f"{count} {kind}" for kind, count in found["failures"].items())
        lines += [f"- **Rows that are not in the means: {len(found['failed'])}** ({counts}).", ""]
        lines += [
            f"  - row {failure['row']}, {failure['imgname']}: {failure['reason']}"
            for failure in found["failed"][:LISTED_FAILURES]
        ]
        if len(found["failed"]) > LISTED_FAILURES:
            lines.append(f"  - and {len(found['failed']) - LISTED_FAILURES} more, all in the .json")
    return "\n".join(lines) + "\n"


def _interval(rows: list[EvaluatedRow], name: str, groups: list[str]) -> dict[str, Any] | None:
    """Mean and interval of a metric over the people that have it; groups are resampled as a whole."""
    members: dict[str, list[float]] = {}
    for row, group in zip(rows, groups, strict=True):
        value = getattr(row, name)
        if value is not None:
            members.setdefault(group, []).append(value)
    if not members:
        return None
    counts = [len(values) for values in members.values()]
    found = bootstrap([float(np.mean(values)) for values in members.values()], counts)
    low, high = (value if math.isfinite(value) else None for value in (found.low, found.high))
    return {"mean": found.mean, "low": low, "high": high, "people": sum(counts)}
