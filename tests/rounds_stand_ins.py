"""Stages of the rounds that take no time, and whose results follow from what they were given; any may be cut short."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import comparison
import numpy as np
import pytest
from label_folders import store_rows

from dsr_fit.assets import shipped
from dsr_fit.dataset.manifest import agree
from dsr_fit.dataset.mending import resume_store
from dsr_fit.dataset.run import read_results
from dsr_fit.dataset.schema import Row
from dsr_fit.dataset.settings import Settings
from dsr_fit.dataset.sources import Entry, Source
from dsr_fit.evaluate.cached_source import CachedSource
from dsr_fit.evaluate.metrics import Interval
from dsr_fit.gate.gate import ASSET
from dsr_fit.training import rounds, rounds_table
from dsr_fit.training.rounds import Plan, Rounds
from dsr_fit.training.rounds_table import COLUMNS
from dsr_fit.training.settings import TrainSettings

PEOPLE = 12


@dataclass
class Works:
    """What was done, and when to stop: at the beginning or the end of the piece of work of that number."""

    done: list[str] = field(default_factory=list)
    stop_at: int | None = None
    at_the_end: bool = False
    trainings: list[TrainSettings] = field(default_factory=list)
    fits: list[tuple[Path, Settings]] = field(default_factory=list)

    def begin(self, what: str) -> None:
        self.done.append(what)
        self._stop(self.at_the_end is False)

    def end(self) -> None:
        self._stop(self.at_the_end)

    def _stop(self, now: bool) -> None:
        if now and len(self.done) - 1 == self.stop_at:
            raise KeyboardInterrupt


def digest(*parts: Any) -> np.random.Generator:
    """Random numbers that follow from these."""
    text = json.dumps(parts, default=str).encode()
    return np.random.default_rng(list(hashlib.sha256(text).digest()))


class Photos(CachedSource):
    """Fits by the hash of the name, the regressor and the configuration; the last person isn't found."""

    works: Works = Works()

    def fit(self, settings: Settings, out: Path, resources: Any = None, report: Any = None) -> Iterator[Row]:
        self.works.begin(f"fits {out}")
        self.works.fits.append((out, settings))
        names = [entry.imgname for entry in self.source.entries]
        if (store := resume_store(out)) is None:
            store_rows(out, self.source.images, names, settings, [self._row(name, settings) for name in names])
        else:
            agree(out, store.manifest, self.source, settings, 64, False)
        self.works.end()
        return read_results(out)

    def _row(self, imgname: str, settings: Settings) -> Row:
        if imgname == f"{PEOPLE - 1}.jpg":
            return {"imgname": imgname, "person": 0, "status": "failed", "reason": "nobody was found"}
        gated = settings.gate is not None
        numbers = digest(imgname, weights_of(settings.regressor), vars(settings.config.weights))
        fitted = {"betas": numbers.normal(size=10).astype(np.float32), "stop_reason": "converged"}
        quality = float(numbers.uniform()) if gated else None
        status = "accepted" if gated else "unjudged"
        return {"imgname": imgname, "person": 0, "status": status, "quality": quality, **fitted}


def weights_of(regressor: str | None) -> str:
    return "start" if regressor is None else Path(regressor).read_text()


def stand_in_rounds(tmp_path: Path, works: Works, monkeypatch: pytest.MonkeyPatch, **plan: Any) -> Rounds:
    """Rounds in a folder with stand-ins in every place."""
    photos = Photos(Source(Path("/nowhere"), [Entry(f"{number}.jpg") for number in range(PEOPLE)], "list"), tmp_path)
    object.__setattr__(photos, "works", works)

    def calibrate(settings: Settings, people: CachedSource, work: Path, *_: Any) -> dict[str, Any]:
        works.begin(f"gate {work.parent}")
        gate = json.loads(shipped(ASSET).read_text())
        works.end()
        return {**gate, "bias": float(digest(weights_of(settings.regressor)).uniform())}

    def judge(settings: Settings, sets: Any, out: Path, *_: Any) -> None:
        works.begin(f"evaluation {out.parent}")
        out.mkdir(parents=True, exist_ok=True)
        numbers = digest(weights_of(settings.regressor))
        for kind in ("photos", "cases"):
            names = {column.value for columns in COLUMNS.values() for column in columns if column.kind == kind}
            values = {name: numbers.normal(size=PEOPLE) for name in sorted(names)}
            np.savez(out / f"{kind}.npz", name=np.arange(PEOPLE).astype(str), **values)  # type: ignore[arg-type]
        works.end()

    def train(settings: TrainSettings) -> Path:
        works.begin(f"training {settings.out.parent}")
        works.trainings.append(settings)
        rows = [
            (row["imgname"], row["status"], np.array(row["betas"]).tolist())
            for path in settings.labels
            for row in read_results(path)
        ]
        told = (rows, weights_of(settings.regressor), settings.gate, settings.weights, settings.seed)
        path = settings.out / "regressor.safetensors"
        path.write_text(str(digest(*told).integers(2**60)))
        works.end()
        return path

    # Intervals take a minute, and are not what these tests are about.
    monkeypatch.setattr(rounds_table, "bootstrap", lambda x: Interval(float(np.mean(x)), 0.0, 0.0, len(x)))
    monkeypatch.setattr(comparison, "paired_difference", lambda x, y: Interval(float(np.mean(x - y)), 0, 0, len(x)))
    monkeypatch.setattr(rounds, "calibrate_gate", calibrate)
    monkeypatch.setattr(rounds, "evaluate", judge)
    options = {"calibration": photos, "rounds": 2, **plan}
    return Rounds(
        Plan(photos, Settings(), TrainSettings(out=tmp_path, steps=3, synthetic=Path("/nowhere/people")), **options),
        tmp_path / "out",
        train,
    )
