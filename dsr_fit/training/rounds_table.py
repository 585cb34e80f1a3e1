"""The table of the rounds: every regressor's figures, and differences between regressors person by person."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dsr_fit.errors import InputError
from dsr_fit.evaluate import tables
from dsr_fit.evaluate.benchmark import Values
from dsr_fit.evaluate.metrics import bootstrap, paired_difference
from dsr_fit.evaluate.regressor import read_values
from dsr_fit.fitting.saving import versions
from dsr_fit.io.files import replacing
from dsr_fit.training.arms import ARMS, ROUNDS
from dsr_fit.training.marks import read_marks

START = "start"


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


@dataclass(frozen=True)
class Member:
    """One regressor of the table."""

    name: str
    """`start`, `round 1`, `keypoints, round 1`."""
    folder: Path
    number: int
    """Of the round; 0 at the start."""
    arm: str = ""


def members(out: Path) -> list[Member]:
    """The regressors that have been judged, those of the rounds first."""
    found = [Member(START, out / START, 0)]
    for arm in ("", *ARMS):
        parent = out / "arms" / arm if arm else out
        numbers = sorted(int(match[1]) for path in parent.glob("round-*") if (match := _ROUND.fullmatch(path.name)))
        title = f"{arm}, round" if arm else "round"
        found += [Member(f"{title} {number}", parent / f"round-{number}", number, arm) for number in numbers]
    return [member for member in found if "evaluation" in read_marks(member.folder)]


_ROUND = re.compile(r"round-(\d+)")


def comparisons(listed: Sequence[Member]) -> Iterator[tuple[Member, Member]]:
    """Who is compared with whom: each with the start; each round with the one before, and with the arms of its own."""
    start = listed[0]
    for member in listed[1:]:
        yield member, start
    rounds = [member for member in listed[1:] if not member.arm]
    yield from zip(rounds[1:], rounds, strict=False)
    for member in rounds:
        yield from ((member, other) for other in listed if other.arm and other.number == member.number)


def make_table(out: Path) -> dict[str, Any]:
    """All figures, fit for JSON. Raises InputError for values that are damaged, or of other people."""
    listed = members(out)
    values = {member.name: _read(member.folder / "evaluation") for member in listed}
    return {
        "settings": _without_folders(json.loads((out / "rounds.json").read_text(encoding="utf-8"))),
        "versions": versions(),
        "arms": {"rounds": ROUNDS.what, **{name: arm.what for name, arm in ARMS.items()}},
        "regressors": {
            member.name: {
                "arm": member.arm or "rounds",
                "round": member.number,
                "stages": read_marks(member.folder),
                **{name: _summary(values[member.name], columns) for name, columns in COLUMNS.items()},
            }
            for member in listed
        },
        "differences": [
            {
                "of": one.name,
                "to": other.name,
                **{name: _differences(values[one.name], values[other.name], cols) for name, cols in COLUMNS.items()},
            }
            for one, other in comparisons(listed)
        ],
    }


def _without_folders(settings: Any) -> Any:
    """The same on any machine: of paths only the last name."""
    if isinstance(settings, dict):
        return {key: _without_folders(value) for key, value in settings.items()}
    if isinstance(settings, list):
        return [_without_folders(value) for value in settings]
    return Path(settings).name if isinstance(settings, str) and Path(settings).is_absolute() else settings


def write_table(out: Path) -> dict[str, Any]:
    """Write `table.json` and `table.md`, and return the content."""
    found = make_table(out)
    for name, text in (("table.json", json.dumps(found, indent=1) + "\n"), ("table.md", markdown(found))):
        with replacing(out / name, durable=True) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return found


def _read(folder: Path) -> dict[str, Values]:
    return {kind: read_values(folder / f"{kind}.npz") for kind in ("photos", "cases") if _there(folder, kind)}


def _there(folder: Path, kind: str) -> bool:
    return (folder / f"{kind}.npz").exists()


def _summary(values: Mapping[str, Values], columns: Sequence[Column]) -> dict[str, Any]:
    """Figure -> mean with its interval, and median, over the people who have it."""
    found = {}
    for column in columns:
        if column.kind in values:
            known = column.unit * values[column.kind][column.value]
            known = known[np.isfinite(known)]
            if len(known):
                found[column.title] = {**tables.as_dict(bootstrap(known)), "median": round(float(np.median(known)), 3)}
    return found


def _differences(
    values: Mapping[str, Values], others: Mapping[str, Values], columns: Sequence[Column]
) -> dict[str, Any]:
    """Figure -> mean difference with its interval, over the people who have it in both."""
    found = {}
    for column in columns:
        if column.kind in values and column.kind in others:
            one, other = values[column.kind], others[column.kind]
            if not np.array_equal(one["name"], other["name"]):
                raise InputError(f"{column.kind}: two regressors were judged on different people; use another --out")
            x, y = column.unit * one[column.value], column.unit * other[column.value]
            both = np.isfinite(x) & np.isfinite(y)
            if both.any():
                found[column.title] = tables.as_dict(paired_difference(x[both], y[both]))
    return found


def markdown(found: Mapping[str, Any]) -> str:
    """The tables for people."""
    parts = ["# Rounds", "Means and 95 % bootstrap intervals; differences person by person, in bold where not 0."]
    parts.append("\n".join(f"- {name}: {what}" for name, what in found["arms"].items()))
    for name, columns in COLUMNS.items():
        titles = [
            column.title for column in columns if any(column.title in one[name] for one in found["regressors"].values())
        ]
        if titles:
            rows = [
                [who, *(_cell(one[name].get(title)) for title in titles)] for who, one in found["regressors"].items()
            ]
            counts = ["people", *(_counts(found["regressors"].values(), name, title) for title in titles)]
            parts += [f"## {name.capitalize()}", tables.table(["regressor", *titles], [*rows, counts])]
            rows = [
                [f"{one['of']} - {one['to']}", *(_cell(one[name].get(title), bold=True) for title in titles)]
                for one in found["differences"]
            ]
            if rows:
                parts.append(tables.table(["difference", *titles], rows))
    parts += ["## What each round took", tables.table(["round", *_STAGES], _costs(found["regressors"]))]
    return "\n\n".join(parts) + "\n"


_STAGES = ("gate", "fits", "labels", "training", "evaluation")


def _costs(regressors: Mapping[str, Any]) -> list[list[str]]:
    """Seconds of each stage, and how many fits were accepted."""
    rows = []
    for name, one in regressors.items():
        marks = one["stages"]
        cells = [f"{marks[stage]['seconds']:.0f} s" if stage in marks else "" for stage in _STAGES]
        for index, stage in enumerate(_STAGES):
            if stage in marks and "accepted" in marks[stage]:
                fitted = sum(marks[stage].get(status, 0) for status in ("accepted", "unjudged", "refused"))
                cells[index] += f", {marks[stage]['accepted']} of {fitted} accepted"
        rows.append([name, *cells])
    return rows


def _counts(regressors: Iterable[Mapping[str, Any]], name: str, title: str) -> str:
    """How many people a column's figures are of; a range where regressors differ."""
    counts = sorted(one[name][title]["count"] for one in regressors if title in one[name])
    return f"{counts[0]}" if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"


def _cell(value: Mapping[str, Any] | None, bold: bool = False) -> str:
    """mean [low, high]."""
    if value is None:
        return ""
    if value["low"] is None:
        return f"{value['mean']:.2f}"
    text = f"{value['mean']:.2f} [{value['low']:.2f}, {value['high']:.2f}]"
    return f"**{text}**" if bold and (value["low"] > 0 or value["high"] < 0) else text
