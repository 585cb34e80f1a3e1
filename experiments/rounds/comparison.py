"""The comparison of rounds and control arms: figures, and differences between regressors person by person."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dsr_fit.errors import InputError
from dsr_fit.evaluate import tables
from dsr_fit.evaluate.metrics import paired_difference
from dsr_fit.evaluate.regressor import Values
from dsr_fit.fitting.saving import versions
from dsr_fit.training import rounds_table
from dsr_fit.training.rounds import IDENTITY, read_stages
from dsr_fit.training.rounds_table import COLUMNS, Column, read_evaluation, summary


@dataclass(frozen=True)
class Regressor:
    """One regressor of the comparison."""

    name: str
    """`start`, `round 1`, `keypoints, round 1`."""
    folder: Path
    number: int
    """Of the round; 0 at the start."""
    arm: str = ""


def write_comparison(out: Path, arms: Mapping[str, str], regressors: Sequence[Regressor]) -> dict[str, Any]:
    """Write `comparison.json` and `comparison.md`, and return the content."""
    found = compared(out, arms, regressors)
    tables.write_report(out / "comparison.json", found, markdown(found))
    return found


def compared(out: Path, arms: Mapping[str, str], regressors: Sequence[Regressor]) -> dict[str, Any]:
    """All figures of the evaluated regressors, fit for JSON. `arms`: arm -> description.

    Raises InputError for values that are damaged, or of other people.
    """
    listed = [each for each in regressors if "evaluation" in read_stages(each.folder)]
    values = {each.name: read_evaluation(each.folder) for each in listed}
    return {
        "settings": _without_folders(json.loads((out / IDENTITY).read_text(encoding="utf-8"))),
        "versions": versions(),
        "arms": dict(arms),
        "regressors": {
            each.name: {
                "arm": each.arm or "rounds",
                "round": each.number,
                "stages": read_stages(each.folder),
                **summary(values[each.name]),
            }
            for each in listed
        },
        "differences": [
            {
                "of": one.name,
                "to": other.name,
                **{name: _differences(values[one.name], values[other.name], cols) for name, cols in COLUMNS.items()},
            }
            for one, other in _pairs(listed)
        ],
    }


def _pairs(listed: Sequence[Regressor]) -> Iterator[tuple[Regressor, Regressor]]:
    """Each regressor and the start; each round and the one before; each round and the arms of its number."""
    start = listed[0]
    for each in listed[1:]:
        yield each, start
    rounds = [each for each in listed[1:] if not each.arm]
    yield from zip(rounds[1:], rounds, strict=False)
    for each in rounds:
        yield from ((each, other) for other in listed if other.arm and other.number == each.number)


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


def _without_folders(settings: Any) -> Any:
    """The same on any machine: of paths only the last name."""
    if isinstance(settings, dict):
        return {key: _without_folders(value) for key, value in settings.items()}
    if isinstance(settings, list):
        return [_without_folders(value) for value in settings]
    return Path(settings).name if isinstance(settings, str) and Path(settings).is_absolute() else settings


def markdown(found: Mapping[str, Any]) -> str:
    """The tables for people."""
    parts = [rounds_table.markdown(found["regressors"]).rstrip()]
    parts.append("\n".join(f"- {name}: {description}" for name, description in found["arms"].items()))
    for name, columns in COLUMNS.items():
        differences = found["differences"]
        titles = [column.title for column in columns if any(column.title in one[name] for one in differences)]
        if titles:
            rows = [
                [f"{one['of']} - {one['to']}", *(_difference(one[name].get(title)) for title in titles)]
                for one in differences
            ]
            parts += [
                f"## Differences: {name}",
                f"Person by person; bold where 0 lies outside the interval, of {tables.MIN_PEOPLE} people or more.",
            ]
            parts.append(tables.table(["difference", *titles], rows))
    parts += ["## Seconds of each round", tables.table(["round", *_STAGES], _costs(found["regressors"]))]
    return "\n\n".join(parts) + "\n"


_STAGES = ("gate", "fits", "labels", "training", "evaluation")


def _costs(regressors: Mapping[str, Any]) -> list[list[str]]:
    """Seconds of each stage, and how many fits were accepted."""
    rows = []
    for name, one in regressors.items():
        stages = one["stages"]
        cells = [f"{stages[stage]['seconds']:.0f} s" if stage in stages else "" for stage in _STAGES]
        for index, stage in enumerate(_STAGES):
            if stage in stages and "accepted" in stages[stage]:
                fitted = sum(stages[stage].get(status, 0) for status in ("accepted", "unjudged", "refused"))
                cells[index] += f", {stages[stage]['accepted']} of {fitted} accepted"
        rows.append([name, *cells])
    return rows


def _difference(value: Mapping[str, Any] | None) -> str:
    """In bold where it is significant."""
    text = tables.cell(value, 2)
    return f"**{text}**" if value is not None and tables.is_significant(value) else text
