"""Folders of results as a run leaves them: people of known observation, fitted in a moment."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from scenes import observe, person
from synthetic_smpl import synthetic_smpl

from dsr_fit.config import FitConfig, LeastSquares, Stage
from dsr_fit.dataset.fitting import BatchFitter
from dsr_fit.dataset.manifest import PlanNote, begin
from dsr_fit.dataset.records import PackedObservation, PersonObservation
from dsr_fit.dataset.schema import Row, to_table
from dsr_fit.dataset.settings import Settings
from dsr_fit.dataset.shards import Store
from dsr_fit.dataset.sources import Entry, Source
from dsr_fit.observation import Observation

QUICK = FitConfig(least_squares=LeastSquares(pose_steps=1, steps=2), stages=(Stage(56, 1),))
NAMES = ("a.png", "sub/b.png", "c.png")
OF_PERSON = (("a.png", 0), ("a.png", 1), ("sub/b.png", 0))


def observations() -> list[Observation]:
    """Of the people of `OF_PERSON`, who stand side by side; the last without 3D landmarks."""
    places = (-0.45, 0.55, 0.05)
    return [observe(person(seed, aside=x), noise_px=1.0, seed=seed, world=seed < 2) for seed, x in enumerate(places)]


def smpl_settings(folder: Path, config: FitConfig = QUICK) -> Settings:
    """A body of SMPL's shapes and a semantic prior for it."""
    np.savez(folder / "smpl.npz", **synthetic_smpl())  # type: ignore[arg-type]
    np.save(folder / "prior.npy", np.random.default_rng(0).uniform(0.1, 1, (13776, 20)))
    return Settings(
        config, body=str(folder / "smpl.npz"), regressor="kinematic", semantic_prior=folder / "prior.npy"
    )  # fmt: skip


def write_results(folder: Path, settings: Settings) -> list[Row]:
    """`folder/images` and `folder/out`: two accepted people, a refused one, an image without anybody."""
    images, out = folder / "images", folder / "out"
    (images / "sub").mkdir(parents=True)
    seen = observations()
    shade = np.random.default_rng(0)
    for name in NAMES:
        Image.fromarray(shade.integers(0, 256, seen[0].image.shape, np.uint8)).save(images / name)
    people = [
        PersonObservation(*of, 100 + i, PackedObservation.of(one))
        for i, (of, one) in enumerate(zip(OF_PERSON, seen, strict=True))
    ]
    people.append(PersonObservation("c.png", 0, reason="nobody was found"))
    rows = BatchFitter(settings, images)(people).rows
    for row in rows[:2]:
        row.update(status="accepted", quality=0.75, reason=None)
    rows[2].update(status="refused", quality=None, reason="the pose is unusual")
    store_rows(out, images, NAMES, settings, rows)
    return rows


def rewrite(shard: Path, rows: list[Row]) -> None:
    """Other rows in a shard of the same batches."""
    table = to_table(rows).replace_schema_metadata(pq.read_schema(shard).metadata)
    pq.write_table(table, shard)


def store_rows(out: Path, images: Path, names: Sequence[str], settings: Settings, rows: list[Row]) -> None:
    """Rows of these images as a run stores them."""
    source = Source(images, [Entry(name) for name in names], "list")
    store = Store(out, begin(source, settings, 64))
    store.plan(list(names), PlanNote(len(names), added=len(names)))
    store.write(0, [{**row, "run": 0} for row in rows])
