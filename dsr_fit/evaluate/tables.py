"""Tables of a benchmark: means with bootstrap intervals, paired differences, and splits by kind of case."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dsr_fit.evaluate.benchmark import METRICS
from dsr_fit.evaluate.metrics import Interval, bootstrap, paired_difference
from dsr_fit.io.files import replacing

SPLIT_METRICS = ("area_inflation", "t_pose_pve_sc", "pve", "mask_iou")
MIN_PEOPLE = 30
"""Fewer people have intervals, but no difference of theirs is marked: bootstrap intervals of few are too narrow."""

Columns = Mapping[str, Sequence[float]]


def columns(rows: Sequence[Mapping[str, float]]) -> dict[str, list[float]]:
    """Metric -> one rounded value per case."""
    return {name: [round(row[name], 4) for row in rows] for name in METRICS}


def summary(values: Columns) -> dict[str, Any]:
    """Metric -> mean with interval."""
    return {name: as_dict(bootstrap(values[name])) for name in METRICS}


def differences(values: Columns, baseline: Columns) -> dict[str, Any]:
    """Metric -> mean paired difference to a baseline, also in % of the baseline's mean."""
    found = {}
    for name in METRICS:
        found[name] = as_dict(paired_difference(values[name], baseline[name]))
        mean = float(np.mean(baseline[name]))
        found[name]["percent"] = round(100 * found[name]["mean"] / mean, 1) if mean else None
    return found


def splits(values: Columns, tags: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Group -> metric -> mean with interval; groups by looseness (thirds), occlusion, second person, cropping, view."""
    looseness = np.array([tag["looseness"] for tag in tags])
    low, high = np.quantile(looseness, [1 / 3, 2 / 3])
    groups: dict[str, Callable[[Mapping[str, Any]], bool]] = {
        f"tight, below {1000 * low:.0f} mm": lambda tag: tag["looseness"] < low,
        "medium": lambda tag: low <= tag["looseness"] < high,
        f"loose, above {1000 * high:.0f} mm": lambda tag: tag["looseness"] >= high,
        "something in front": lambda tag: tag["occluded"] is not None,
        "second person": lambda tag: tag["second_person"],
        "cropped": lambda tag: tag["cropped"],
        **{f"from the {view}": (lambda tag, view=view: tag["view"] == view) for view in ("front", "side", "back")},
    }
    found = {}
    for name, belongs in groups.items():
        chosen = [index for index, tag in enumerate(tags) if belongs(tag)]
        if chosen:
            found[name] = {
                metric: as_dict(bootstrap([values[metric][index] for index in chosen])) for metric in SPLIT_METRICS
            }
    return found


def as_dict(interval: Interval) -> dict[str, Any]:
    """Rounded for JSON; `low` and `high` are None where there is only one value."""
    low, high = (None if np.isnan(x) else round(x, 3) for x in (interval.low, interval.high))
    return {"mean": round(interval.mean, 3), "low": low, "high": high, "count": interval.count}


def cell(value: Mapping[str, Any] | None, digits: int = 1) -> str:
    """`mean [low, high]`; empty for None."""
    if value is None:
        return ""
    mean, low, high = (None if value[name] is None else f"{value[name]:.{digits}f}" for name in ("mean", "low", "high"))
    return str(mean) if low is None else f"{mean} [{low}, {high}]"


def is_significant(difference: Mapping[str, Any]) -> bool:
    """Whether 0 lies outside the interval of a paired difference, of people enough for a bootstrap interval."""
    if difference["low"] is None or difference["count"] < MIN_PEOPLE:
        return False
    return not difference["low"] <= 0 <= difference["high"]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write_report(out: Path, found: Mapping[str, Any], markdown: str) -> None:
    """Write `out` (.json), and the tables beside it (.md). Raises InputError if they can't be written."""
    for path, text in (
        (out, json.dumps(found, indent=1, allow_nan=False) + "\n"),
        (out.with_suffix(".md"), markdown),
    ):
        with replacing(path, durable=True) as temporary:
            temporary.write_text(text, encoding="utf-8")
