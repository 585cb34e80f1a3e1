"""The table of the rounds: the figures of every regressor's evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dsr_fit.evaluate import tables
from dsr_fit.evaluate.metrics import bootstrap
from dsr_fit.evaluate.regressor import Values, read_values

Figures = Mapping[str, Mapping[str, Any]]
"""Table -> figure -> mean, low, high, count, median."""


@dataclass(frozen=True)
class Column:
    """One figure of a table."""

    kind: str
    """`photos` or `cases`."""
    value: str
    """Of `dsr_fit.evaluate.regressor.evaluate`."""
    title: str
    unit: float = 1.0
    """What values are multiplied by."""


_ON_PHOTOS = {
    "keypoint_error_rel": ("keypoint error, % of the box", 100.0),
    "mc_iou": ("IoU with bare skin, %", 100.0),
    "containment": ("containment, %", 100.0),
    "implausible_joints": ("implausible joints, %", 100.0),
    "area_ratio": ("area over the clothed person's, %", 100.0),
}
_ON_CASES = {
    "mpjpe": ("MPJPE, mm", 1.0),
    "pa_mpjpe": ("PA-MPJPE, mm", 1.0),
    "pve": ("PVE, mm", 1.0),
    "t_pose_pve_sc": ("T-pose PVE, scale removed, mm", 1.0),
    "orientation": ("orientation, deg", 1.0),
}
_OF_FITS = {"energy": ("energy", 1.0), "iterations": ("iterations", 1.0)}


def _columns(who: str, kind: str, titles: Mapping[str, tuple[str, float]]) -> list[Column]:
    return [Column(kind, f"{who}_{name}", title, unit) for name, (title, unit) in titles.items()]


COLUMNS: dict[str, list[Column]] = {
    "estimates on photos": _columns("estimate", "photos", _ON_PHOTOS),
    "estimates of rendered people": _columns("estimate", "cases", _ON_CASES),
    "fits on photos": _columns("fit", "photos", {**_ON_PHOTOS, **_OF_FITS}),
    "fits of rendered people": _columns("fit", "cases", {**_ON_CASES, **_OF_FITS}),
}
"""Table -> its figures."""


def write_table(out: Path, folders: Mapping[str, Path]) -> dict[str, Figures]:
    """Write `table.json` and `table.md` of named regressors' folders, and return regressor -> table -> figures.

    Raises InputError for damaged values.
    """
    found: dict[str, Figures] = {name: summary(read_evaluation(folder)) for name, folder in folders.items()}
    tables.write_report(out / "table.json", found, markdown(found))
    return found


def read_evaluation(folder: Path) -> dict[str, Values]:
    """`photos` and `cases` of a round's evaluation, where it has them."""
    paths = {kind: folder / "evaluation" / f"{kind}.npz" for kind in ("photos", "cases")}
    return {kind: read_values(path) for kind, path in paths.items() if path.exists()}


def summary(values: Mapping[str, Values]) -> dict[str, dict[str, Any]]:
    """Table -> figure -> mean with its interval, and median, over the people who have it."""
    found: dict[str, dict[str, Any]] = {name: {} for name in COLUMNS}
    for name, columns in COLUMNS.items():
        for column in columns:
            if column.kind in values:
                known = column.unit * values[column.kind][column.value]
                known = known[np.isfinite(known)]
                if len(known):
                    mean = tables.as_dict(bootstrap(known))
                    found[name][column.title] = {**mean, "median": round(float(np.median(known)), 3)}
    return found


def markdown(found: Mapping[str, Figures]) -> str:
    """The tables for people."""
    parts = ["# Rounds", "Means and 95 % bootstrap intervals."]
    for name, columns in COLUMNS.items():
        titles = [column.title for column in columns if any(column.title in one[name] for one in found.values())]
        if titles:
            rows = [[who, *(tables.cell(one[name].get(title), 2) for title in titles)] for who, one in found.items()]
            counts = [_counts(found, name, title) for title in titles]
            parts += [f"## {name.capitalize()}", tables.table(["regressor", *titles], [*rows, ["people", *counts]])]
    return "\n\n".join(parts) + "\n"


def _counts(found: Mapping[str, Figures], name: str, title: str) -> str:
    """How many people a column's figures are of; a range if regressors differ."""
    counts = sorted(one[name][title]["count"] for one in found.values() if title in one[name])
    return f"{counts[0]}" if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"
