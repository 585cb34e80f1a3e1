"""A regressor judged: its own estimates, and the fits that start from them, one value a person.

On annotated photos both are judged against the annotation; on rendered people, seen through the whole pipeline, against
their true bodies. The values of two regressors on the same people can be compared person by person.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dsr_fit.body.parameters import Parameters
from dsr_fit.config import Weights
from dsr_fit.dataset.progress import Report
from dsr_fit.dataset.run import Resources
from dsr_fit.dataset.schema import Row
from dsr_fit.dataset.settings import Settings
from dsr_fit.errors import InputError
from dsr_fit.evaluate import ccp
from dsr_fit.evaluate.estimates import Values, estimate, judge_on_cases, judge_on_photos
from dsr_fit.evaluate.sets import KeptSource, body_of, seed_of
from dsr_fit.fitting.fitter import Fitter
from dsr_fit.io.files import read_arrays, replacing
from dsr_fit.observation import Observation

Judge = Callable[[list[int], list[Parameters]], Values]
"""Values of the bodies of these people, by their place in the list of everybody found."""


@dataclass(frozen=True)
class EvaluationSets:
    """What a regressor is judged on; either may be missing."""

    photos: KeptSource | None = None
    """Of Clothing Co-Parsing, see `dsr_fit.evaluate.sets.photos_of`."""
    cases: KeptSource | None = None
    """Rendered people, see `dsr_fit.evaluate.sets.cases_of`."""


def evaluate(
    settings: Settings,
    sets: EvaluationSets,
    out: Path,
    resources: Resources | None = None,
    report: Report | None = None,
) -> None:
    """Judge the regressor of these settings; writes `photos.npz` and `cases.npz`, and leaves those that are there.

    `name` (P,) are the images of the people whom the detector found. `estimate_METRIC` and `fit_METRIC` (P,) are the
    metrics of `dsr_fit.evaluate.estimates`; of fits there are `fit_iterations` besides, and `fit_energy`, all terms as
    the configuration weighs them, with `estimate_energy`. NaN where there is nothing to judge by. Fits are kept in
    `out`, so that a run that was stopped goes on. Raises: see `dsr_fit.dataset.run.run`.
    """
    judges = {"photos": _on_photos, "cases": _on_cases}
    for kind, people in (("photos", sets.photos), ("cases", sets.cases)):
        path = out / f"{kind}.npz"
        if people is None or path.exists():
            continue
        rows = list(people.fit(settings, out / kind, resources, report))
        umpire = settings.fitter()
        seen = [people.observation(row["imgname"], umpire.regressor.looks_at_image) for row in rows]
        pairs = [(row, item) for row, item in zip(rows, seen, strict=True) if item is not None]
        if not pairs:
            raise InputError(f"{people.source.images}: the detector finds nobody in its {len(rows)} images")
        found, told = [row for row, _ in pairs], [item for _, item in pairs]
        values = _values(umpire, found, told, judges[kind](umpire, people, found, told))
        with replacing(path, durable=True) as temporary, temporary.open("wb") as file:
            np.savez(file, **values)  # type: ignore[arg-type]


def read_values(path: Path) -> Values:
    """What `evaluate` wrote. Raises InputError for a file that is damaged or something else."""
    try:
        values = read_arrays(path)
        if not isinstance(values, dict) or "name" not in values:
            raise ValueError("no `name`")
    except ValueError as error:
        raise InputError(f"{path}: not the values of an evaluation ({error}); remove it, and run again") from None
    return values


def _values(umpire: Fitter, rows: list[Row], told: list[Observation], judge: Judge) -> Values:
    fits = {index: body for index, row in enumerate(rows) if (body := body_of(row)) is not None}
    estimates = estimate(umpire.regressor, umpire.body.skeleton.keypoint_valid, told)
    judged = {
        "estimate": judge(list(range(len(rows))), estimates),
        "fit": _spread_out(judge(list(fits), list(fits.values())), list(fits), len(rows)),
    }
    judged["estimate"]["energy"] = np.array([_energy(row, umpire.config.weights, "_initial") for row in rows])
    judged["fit"]["energy"] = np.array([_energy(row, umpire.config.weights, "") for row in rows])
    judged["fit"]["iterations"] = np.array([row["iterations"] for row in rows], np.float64)
    named = {f"{who}_{name}": array for who, values in judged.items() for name, array in values.items()}
    return {"name": np.array([row["imgname"] for row in rows]), **named}


def _on_photos(umpire: Fitter, people: KeptSource, rows: list[Row], told: list[Observation]) -> Judge:
    folder = people.source.images.parent
    numbers = [Path(row["imgname"]).stem for row in rows]
    labels = [
        ccp.read_annotation(folder, number, item.detection.keypoints)
        for number, item in zip(numbers, told, strict=True)
    ]
    truth = [replace(item, labels=each, labels_source="annotation") for item, each in zip(told, labels, strict=True)]
    return lambda which, bodies: judge_on_photos(umpire, bodies, [truth[index] for index in which])


def _on_cases(umpire: Fitter, people: KeptSource, rows: list[Row], told: list[Observation]) -> Judge:
    def judge(which: list[int], bodies: list[Parameters]) -> Values:
        seeds = [seed_of(rows[index]["imgname"]) for index in which]
        focal_lengths = [told[index].focal_length for index in which]
        return judge_on_cases(umpire, people.source.images, seeds, bodies, focal_lengths)

    return judge


def _energy(row: Row, weights: Weights, when: str) -> float:
    """All terms of a row as the weights have them; NaN without a fit."""
    terms = [(weight, row[f"energy_{name}{when}"]) for name, weight in vars(weights).items() if weight > 0]
    return float(sum(weight * (np.nan if value is None else value) for weight, value in terms))


def _spread_out(values: Values, where: Sequence[int], count: int) -> Values:
    """(N,) -> (count,), NaN elsewhere."""
    spread = {}
    for name, array in values.items():
        spread[name] = np.full(count, np.nan)
        spread[name][list(where)] = array
    return spread
