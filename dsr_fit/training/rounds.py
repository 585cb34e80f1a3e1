"""Rounds: fit with the current regressor, let a gate choose, train on the chosen, judge what came out; and again.

    OUT/rounds.json                  what everything was made from
    OUT/findings/                    what perception found in each image
    OUT/start/evaluation/            the regressor at the beginning, judged
    OUT/round-K/                     gate.json, calibration/, fits/, labels/, training/, regressor.*, evaluation/
    OUT/arms/NAME/round-K/           the same of a control arm; what it shares with round 1 lies there
    OUT/table.json, OUT/table.md     all of them compared, person by person

Each stage is marked in `stages.json` when it is finished. Killed at any moment, the same call goes on: a finished stage
isn't repeated, one that was under way goes on where it can.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from dsr_fit.dataset.manifest import describe, differences
from dsr_fit.dataset.progress import Report
from dsr_fit.dataset.rank import accept_best
from dsr_fit.dataset.run import Resources, read_results
from dsr_fit.dataset.schema import STATUSES, Row
from dsr_fit.dataset.settings import Settings
from dsr_fit.dataset.shards import locked
from dsr_fit.errors import InputError, UsageError
from dsr_fit.evaluate.cached_source import CachedSource
from dsr_fit.evaluate.calibrate_gate import calibrate_gate
from dsr_fit.evaluate.regressor import EvaluationSets, evaluate
from dsr_fit.gate.gate import read_gate, write_gate
from dsr_fit.io.files import replacing
from dsr_fit.training.arms import ARMS, ROUNDS, Arm
from dsr_fit.training.marks import read_marks, write_json, write_marks
from dsr_fit.training.rounds_table import write_table
from dsr_fit.training.settings import TrainSettings

Train = Callable[[TrainSettings], Path]
"""Trains, and returns the path of the weights; called again with the same settings it goes on."""

IDENTITY = "rounds.json"
PER_ROUND = ("out", "labels", "regressor", "seed")
"""Settings of a training that each round fills in; the seed grows by 1 a round."""
ELSEWHERE = ("device", "devices", "threads")
"""Settings of a training that don't decide its results."""


@dataclass(frozen=True)
class Plan:
    """All that rounds are made from."""

    photos: CachedSource
    """What is fitted and trained on."""
    fit: Settings
    """Of the fits of the first round; its regressor is where the rounds start."""
    train: TrainSettings
    """Of the training of the first round; `out`, `labels` and `regressor` are filled in."""
    rounds: int = 1
    arms: tuple[str, ...] = ()
    """Names of `ARMS`."""
    arm_rounds: int = 1
    """So many rounds of each arm."""
    sets: EvaluationSets = EvaluationSets()
    calibration: CachedSource | None = None
    """Rendered people that each regressor's gate is calibrated on; None: no gate, all fits
    are learnt from alike."""
    accept: float | None = 0.5
    """Share of the fits that is accepted, the best by the gate; None: those that reach the gate's own threshold."""

    def identity(self) -> dict[str, Any]:
        """What must be the same to go on, fit for JSON: more rounds and arms may come, nothing else may change."""
        left_out = {*PER_ROUND, *ELSEWHERE} - {"seed"}
        training = {name: value for name, value in asdict(self.train).items() if name not in left_out}
        kept = {"photos": self.sets.photos, "cases": self.sets.cases, "calibration": self.calibration}
        found = {
            "source": describe(self.photos.source),
            "fit": self.fit.identity(),
            "train": training,
            "judged_on": {name: None if item is None else describe(item.source) for name, item in kept.items()},
            "accept": self.accept,
        }
        return json.loads(json.dumps(found, default=str))


@dataclass(frozen=True)
class Course:
    """A run of the rounds of one plan into one folder."""

    plan: Plan
    out: Path
    train: Train
    resources: Resources | None = None
    say: Callable[[str], None] = lambda line: None
    """Told a line when a stage begins."""
    report: Report | None = None
    """Told of the progress of fits."""

    def run(self) -> dict[str, Any]:
        """Do what is left, and return the table's content. Raises UsageError for a folder of another plan."""
        with locked(self.out):
            _agree(self.out, self.plan)
            self._judge("start", self.out / "start", self.plan.fit)
            regressors: dict[str, str | None] = dict.fromkeys(("", *self.plan.arms), self.plan.fit.regressor_name())
            for number in range(1, self.plan.rounds + 1):
                regressors[""] = self._round(number, "", ROUNDS, regressors[""])
                for name in self.plan.arms if number <= self.plan.arm_rounds else ():
                    regressors[name] = self._round(number, name, ARMS[name], regressors[name])
                found = write_table(self.out)
            return found

    def _round(self, number: int, name: str, arm: Arm, regressor: str | None) -> str:
        """One round of an arm (the rounds themselves: no name) from a regressor; returns the path of the next."""
        plan, folder = self.plan, round_folder(self.out, number, name)
        where = f"{name or 'rounds'}, round {number}"
        fits_in = round_folder(self.out, 1, "") if name and arm.borrows_fits(number) else folder
        settings = replace(plan.fit, regressor=regressor, config=arm.fit(plan.fit.config))
        if fits_in == folder:
            self._label(where, folder, settings)
        training = replace(
            arm.train(plan.train),
            out=folder / "training",
            labels=(fits_in / ("labels" if self._ranks else "fits"),),
            regressor=regressor,
            seed=plan.train.seed + number - 1,
        )
        if plan.calibration is None:
            training = replace(training, gate="all", by_quality=False)
        told = self._stage(where, folder, "training", lambda: self._trained(training, folder))
        trained = str(folder / told["weights"])
        self._judge(where, folder, replace(plan.fit, regressor=trained))
        return trained

    @property
    def _ranks(self) -> bool:
        """Whether fits are accepted by rank."""
        return self.plan.calibration is not None and self.plan.accept is not None

    def _label(self, where: str, folder: Path, settings: Settings) -> None:
        """Gate, fits, and which of them are accepted."""
        plan, gate = self.plan, folder / "gate.json"
        people = plan.calibration
        if people is not None:
            self._stage(where, folder, "gate", lambda: self._calibrated(settings, people, folder))
            settings = replace(settings, gate=gate)
        self._stage(where, folder, "fits", lambda: self._fitted(settings, folder))
        share = plan.accept
        if self._ranks and share is not None:
            self._stage(where, folder, "labels", lambda: _accepted(folder, share))

    def _judge(self, where: str, folder: Path, settings: Settings) -> None:
        def judged() -> dict[str, Any]:
            evaluate(settings, self.plan.sets, folder / "evaluation", self.resources, self.report)
            return {}

        self._stage(where, folder, "evaluation", judged)

    def _calibrated(self, settings: Settings, people: CachedSource, folder: Path) -> dict[str, Any]:
        found = calibrate_gate(settings, people, folder / "calibration", self.resources, self.report)
        write_gate(folder / "gate.json", found)
        return found["calibration"]

    def _fitted(self, settings: Settings, folder: Path) -> dict[str, Any]:
        rows = self.plan.photos.fit(settings, folder / "fits", self.resources, self.report)
        return _counts(rows)

    def _trained(self, settings: TrainSettings, folder: Path) -> dict[str, Any]:
        settings.out.mkdir(parents=True, exist_ok=True)
        weights = self.train(settings)
        name = f"regressor{weights.suffix}"
        with replacing(folder / name, durable=True) as temporary:
            temporary.write_bytes(weights.read_bytes())
        return {"weights": name}

    def _stage(self, where: str, folder: Path, name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Do a stage unless it is finished; what it tells is kept."""
        marks = read_marks(folder)
        if name not in marks:
            self.say(f"{where}: {name}")
            folder.mkdir(parents=True, exist_ok=True)
            started = time.perf_counter()
            told = work()
            marks[name] = {**told, "seconds": round(time.perf_counter() - started, 1)}
            write_marks(folder, marks)
        return marks[name]


def round_folder(out: Path, number: int, arm: str = "") -> Path:
    """Where a round lies."""
    return (out / "arms" / arm if arm else out) / f"round-{number}"


def _accepted(folder: Path, share: float) -> dict[str, Any]:
    """The best fits accepted, and the gate that would accept the same."""
    threshold = accept_best(folder / "fits", folder / "labels", share)
    gate = read_gate(folder / "gate.json")
    gate = {**gate, "threshold": threshold, "accepts": share}
    write_gate(folder / "labels" / "gate.json", gate)
    return {**_counts(read_results(folder / "labels")), "threshold": threshold}


def _counts(rows: Iterator[Row]) -> dict[str, int]:
    counted = Counter(row["status"] for row in rows)
    return {status: counted[status] for status in STATUSES}


def _agree(out: Path, plan: Plan) -> None:
    """The folder is new or was begun with the same plan."""
    path, identity = out / IDENTITY, plan.identity()
    if not path.exists():
        write_json(path, identity)
        return
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: can't be read ({' '.join(str(error).split())}); use another --out") from None
    if known != identity:
        changed = "; ".join(differences(known, identity))
        raise UsageError(f"--out {out}: was begun with other settings ({changed}); choose another --out")
