"""Rounds: fit with the current regressor, accept the best fits, train on them, evaluate the result; and again.

    OUT/rounds.json                  the settings of the whole run
    OUT/cache/                       what perception found in each image
    OUT/start/evaluation/            evaluation of the initial regressor
    OUT/round-K/                     gate.json, calibration/, fits/, labels/, training/, regressor.*, evaluation/
    OUT/table.json, OUT/table.md     the evaluations of all regressors

Finished stages are recorded in `stages.json`. The same call resumes after an interruption at any moment: a finished
stage isn't repeated, an interrupted one resumes where it can.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dsr_fit.dataset.lock import locked
from dsr_fit.dataset.manifest import describe
from dsr_fit.dataset.progress import Report
from dsr_fit.dataset.rank import accept_best
from dsr_fit.dataset.run import Resources, read_results
from dsr_fit.dataset.schema import STATUSES, Row
from dsr_fit.dataset.settings import Settings
from dsr_fit.evaluate.cached_source import CachedSource
from dsr_fit.evaluate.calibrate_gate import calibrate_gate
from dsr_fit.evaluate.regressor import EvaluationSets, evaluate
from dsr_fit.gate.gate import read_gate, write_gate
from dsr_fit.io.files import replacing
from dsr_fit.training.records import check_record, read_record, write_record
from dsr_fit.training.rounds_table import write_table
from dsr_fit.training.settings import TrainSettings

Train = Callable[[TrainSettings], Path]
"""Trains, and returns the path of the weights; called again with the same settings it resumes."""

StageRecords = dict[str, dict[str, Any]]
"""Finished stage -> its results, `seconds` among them."""

IDENTITY, STAGES, START = "rounds.json", "stages.json", "start"
PER_ROUND = ("out", "features", "labels", "regressor", "seed")
"""Settings of a training that each round fills in; the seed grows by 1 per round."""
WITHOUT_EFFECT = ("device", "devices", "threads")
"""Settings of a training that don't decide its results."""


@dataclass(frozen=True)
class Plan:
    """The settings of a run."""

    photos: CachedSource
    """What is fitted and trained on."""
    fit: Settings
    """Of the fits; its regressor is the initial one."""
    train: TrainSettings
    """Of the first round's training; `out`, `labels` and `regressor` are filled in."""
    rounds: int = 1
    sets: EvaluationSets = EvaluationSets()
    calibration: CachedSource | None = None
    """Rendered people on which each regressor's gate is calibrated; None: no gate, all fits are trained on alike."""
    accept: float | None = 0.5
    """Share of the fits that is accepted, the best by the gate; None: those above the gate's own threshold."""

    @property
    def ranks(self) -> bool:
        """Whether fits are accepted by rank."""
        return self.calibration is not None and self.accept is not None

    def identity(self) -> dict[str, Any]:
        """What must be the same to resume, fit for JSON: anything but the number of rounds."""
        left_out = {*PER_ROUND, *WITHOUT_EFFECT} - {"seed"}
        training = {name: value for name, value in asdict(self.train).items() if name not in left_out}
        evaluated = {"photos": self.sets.photos, "cases": self.sets.cases, "calibration": self.calibration}
        found = {
            "source": describe(self.photos.source),
            "fit": self.fit.identity(),
            "train": training,
            "judged_on": {name: None if item is None else describe(item.source) for name, item in evaluated.items()},
            "accept": self.accept,
        }
        return json.loads(json.dumps(found, default=str))


@dataclass(frozen=True)
class Rounds:
    """A run of a plan in one folder."""

    plan: Plan
    out: Path
    train: Train
    resources: Resources | None = None
    say: Callable[[str], None] = lambda line: None
    """Takes a line when a stage begins."""
    report: Report | None = None
    """Takes the progress of fits."""

    def run(self) -> dict[str, Any]:
        """Do all unfinished stages, and return the table. Raises UsageError for a folder of another plan."""
        with self.opened():
            self._evaluate(START, self.out / START, self.plan.fit)
            folders, regressor = {START: self.out / START}, self.plan.fit.regressor_name()
            for number in range(1, self.plan.rounds + 1):
                name = f"round {number}"
                folders[name] = round_folder(self.out, number)
                regressor = self.round(name, folders[name], number, regressor, self.plan.fit, self.plan.train)
                table = write_table(self.out, folders)
            return table

    @contextmanager
    def opened(self) -> Iterator[None]:
        """The folder locked for this run. Raises UsageError for a folder of another plan."""
        with locked(self.out):
            identity = self.plan.identity()
            if not check_record(self.out / IDENTITY, identity):
                write_record(self.out / IDENTITY, identity)
            yield

    def round(
        self,
        name: str,
        folder: Path,
        number: int,
        regressor: str | None,
        fit: Settings,
        train: TrainSettings,
        fits_in: Path | None = None,
    ) -> str:
        """One round from a regressor; returns the path of the next regressor.

        Args:
            fits_in: folder of a round whose fits are used instead of new ones.
        """
        if fits_in is None:
            self._label(name, folder, replace(fit, regressor=regressor))
        labels = (fits_in or folder) / ("labels" if self.plan.ranks else "fits")
        seed = self.plan.train.seed + number - 1
        train = replace(
            train,
            out=folder / "training",
            features=self.plan.photos.cache.with_name("features"),
            labels=(labels,),
            regressor=regressor,
            seed=seed,
        )
        if self.plan.calibration is None:
            train = replace(train, gate="all", by_quality=False)
        weights = self._stage(name, folder, "training", lambda: self._trained(train, folder))["weights"]
        self._evaluate(name, folder, replace(self.plan.fit, regressor=str(folder / weights)))
        return str(folder / weights)

    def _label(self, name: str, folder: Path, settings: Settings) -> None:
        """Gate, fits, and which of them are accepted."""
        people, share = self.plan.calibration, self.plan.accept
        if people is not None:
            self._stage(name, folder, "gate", lambda: self._calibrated(settings, people, folder))
            settings = replace(settings, gate=folder / "gate.json")
        self._stage(name, folder, "fits", lambda: self._fitted(settings, folder))
        if people is not None and share is not None:
            self._stage(name, folder, "labels", lambda: _accepted(folder, share))

    def _evaluate(self, name: str, folder: Path, settings: Settings) -> None:
        def work() -> dict[str, Any]:
            evaluate(settings, self.plan.sets, folder / "evaluation", self.resources, self.report)
            return {}

        self._stage(name, folder, "evaluation", work)

    def _calibrated(self, settings: Settings, people: CachedSource, folder: Path) -> dict[str, Any]:
        found = calibrate_gate(settings, people, folder / "calibration", self.resources, self.report)
        write_gate(folder / "gate.json", found)
        return found["calibration"]

    def _fitted(self, settings: Settings, folder: Path) -> dict[str, Any]:
        return _counts(self.plan.photos.fit(settings, folder / "fits", self.resources, self.report))

    def _trained(self, settings: TrainSettings, folder: Path) -> dict[str, Any]:
        settings.out.mkdir(parents=True, exist_ok=True)
        weights = self.train(settings)
        name = f"regressor{weights.suffix}"
        with replacing(folder / name, durable=True) as temporary:
            temporary.write_bytes(weights.read_bytes())
        return {"weights": name}

    def _stage(self, name: str, folder: Path, stage: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Do a stage unless it is finished, and record its results."""
        records = read_stages(folder)
        if stage not in records:
            self.say(f"{name}: {stage}")
            folder.mkdir(parents=True, exist_ok=True)
            started = time.perf_counter()
            found = work()
            records[stage] = {**found, "seconds": round(time.perf_counter() - started, 1)}
            write_record(folder / STAGES, records)
        return records[stage]


def round_folder(out: Path, number: int) -> Path:
    """The folder of a round."""
    return out / f"round-{number}"


def read_stages(folder: Path) -> StageRecords:
    """The finished stages of a folder and their results. Raises InputError for a damaged file."""
    return read_record(folder / STAGES) or {}


def _accepted(folder: Path, share: float) -> dict[str, Any]:
    """Accept the best fits, and write the gate that would accept the same."""
    threshold = accept_best(folder / "fits", folder / "labels", share)
    gate = {**read_gate(folder / "gate.json"), "threshold": threshold, "accepts": share}
    write_gate(folder / "labels" / "gate.json", gate)
    return {**_counts(read_results(folder / "labels")), "threshold": threshold}


def _counts(rows: Iterator[Row]) -> dict[str, int]:
    counted = Counter(row["status"] for row in rows)
    return {status: counted[status] for status in STATUSES}
