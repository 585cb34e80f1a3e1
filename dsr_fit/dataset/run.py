"""A whole dataset fitted into a folder of shards, resumable after any kill; and the reader of such a folder."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from dsr_fit.config import FitConfig
from dsr_fit.dataset.local import default_workers, run_local
from dsr_fit.dataset.manifest import Manifest, agree, read_manifest
from dsr_fit.dataset.progress import Report, RunProgress
from dsr_fit.dataset.records import FittedBatch
from dsr_fit.dataset.schema import Row
from dsr_fit.dataset.settings import BATCH_SIZE, SHARD_SIZE, Settings
from dsr_fit.dataset.shards import Store, locked
from dsr_fit.dataset.sources import Source, open_source
from dsr_fit.dataset.worker import Work, WorkFactory
from dsr_fit.errors import UsageError

Engine = Literal["local", "ray"]


@dataclass(frozen=True)
class Resources:
    """What a run may use; none of it changes the results."""

    engine: Engine = "local"
    observers: int | None = None
    """Processes that run detector and parser; None: by the number of cores."""
    fitters: int | None = None
    """Processes that fit; None: by the number of cores."""
    address: str | None = None
    """Of a Ray cluster; None starts one on this machine."""
    timeout_s: float = 300.0
    """Time limit for each person, once for observing and once for the fit, with the engine `local`."""

    def counts(self, device: str) -> tuple[int, int]:
        """Processes that observe, and that fit."""
        observers, fitters = default_workers(device)
        return self.observers or observers, self.fitters or fitters


def run(
    source: Source,
    out: Path,
    settings: Settings,
    resources: Resources | None = None,
    *,
    shard_size: int = SHARD_SIZE,
    mix: bool = False,
    report: Report | None = None,
    observe: WorkFactory | None = None,
    fit: WorkFactory | None = None,
) -> Generator[Row, None, None]:
    """Fit what is left of a source; each row is yielded when it is safe on the disk.

    Args:
        shard_size: batches in a shard.
        mix: resume a folder that holds results of other settings.
        report: called before the first batch and after each.
        observe, fit: build other workers than `Observer` and `BatchFitter`.
    Raises: UsageError and InputError, see `Settings.fitter`, `dsr_fit.dataset.manifest.agree` and
        `dsr_fit.dataset.shards`.
    """
    resources = resources or Resources()
    if settings.batch_size < 1 or shard_size < 1:
        raise UsageError("--batch-size and --shard-size must be at least 1")
    if fit is None:
        fitter = settings.fitter()  # files that don't fit are rejected before anything is written
        if settings.gate is not None:
            from dsr_fit.gate.gate import Gate

            Gate.of(fitter, settings.gate)
    with locked(out):
        manifest, number = agree(out, source, settings, shard_size, mix)
        store = Store(out, manifest.batches, shard_size)
        left = store.begin()
        size, total = settings.batch_size, len(source)
        images = {batch: min(size, total - batch * size) for batch in left}  # the last batch may have fewer
        progress = RunProgress(total, total - sum(images.values()))
        if report is not None:
            report(progress)
        overlays = out / "overlays" if settings.overlays else None
        observe = observe or partial(observer, settings, source.images)
        fit = fit or partial(batch_fitter, settings, source.images, overlays)
        for batch, fitted in _engine(resources, source, left, settings, observe, fit):
            started = time.perf_counter()
            rows = [{**row, "run": number} for row in fitted.rows]
            store.write(batch, rows)
            progress.done += images[batch]
            progress.statuses.update(row["status"] for row in rows)
            progress.timings_s.update({**fitted.timings_s, "write": time.perf_counter() - started})
            if report is not None:
                report(progress)
            yield from rows


def _engine(
    resources: Resources, source: Source, left: list[int], settings: Settings, observe: WorkFactory, fit: WorkFactory
) -> Iterator[tuple[int, FittedBatch]]:
    if not left:
        return iter(())
    shared = (source.entries, left, settings.batch_size, observe, fit, *resources.counts(settings.device))
    if resources.engine == "ray":
        from dsr_fit.dataset.ray_engine import run_ray

        return run_ray(*shared, address=resources.address, gpus=settings.device == "cuda")
    return run_local(*shared, timeout_s=resources.timeout_s)


def observer(settings: Settings, images: Path) -> Work:
    """`Observer`, imported by the process that uses it."""
    from dsr_fit.dataset.observing import Observer

    return Observer(settings, images)


def batch_fitter(settings: Settings, images: Path, overlays: Path | None) -> Work:
    """`BatchFitter`, imported by the process that uses it."""
    from dsr_fit.dataset.fitting import BatchFitter

    return BatchFitter(settings, images, overlays)


def fit_dataset(
    source: str | Path,
    out: str | Path,
    *,
    images: str | Path | None = None,
    keypoints: str | Path | None = None,
    config: FitConfig | None = None,
    settings: Settings | None = None,
    resources: Resources | None = None,
    batch_size: int = BATCH_SIZE,
    shard_size: int = SHARD_SIZE,
    mix: bool = False,
    report: Report | None = None,
) -> Generator[Row, None, None]:
    """Fit every person of a dataset; the same call resumes after any interruption.

    Yields one row for each person (`docs/shards.md`) once it is safe on the disk; `read_results` reads those of earlier
    calls too.

    Args:
        source: a folder of images, a COCO `.json`, a SPIN `.npz` or a `.txt` list; `images` and `keypoints` as in
            `dsr_fit.dataset.sources.open_source`.
        out: folder of the results; made if missing.
        config: of the fit; other settings (body, camera, device) come in `settings`.
    Raises: InputError and UsageError, see `run`.
    """
    listed = open_source(Path(source), Path(images) if images else None, Path(keypoints) if keypoints else None)
    settings = replace(settings or Settings(), batch_size=batch_size)
    if config is not None:
        settings = replace(settings, config=config)
    return run(listed, Path(out), settings, resources, shard_size=shard_size, mix=mix, report=report)


def read_results(out: str | Path) -> Iterator[Row]:
    """All rows of a folder, in the order of the source. Raises InputError when it holds no results."""
    _, store = open_results(Path(out))
    return store.rows()


def open_results(out: Path) -> tuple[Manifest, Store]:
    """A folder's manifest and the store of its rows. Raises InputError when it holds no results."""
    manifest = read_manifest(out)
    return manifest, Store(out, manifest.batches, manifest.shard_size)
