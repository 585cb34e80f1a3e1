"""A whole dataset fitted into a folder of shards, resumable after any kill; and the reader of such a folder."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from dsr_fit.config import FitConfig
from dsr_fit.dataset.changes import FOLLOW, Follow, changes_of
from dsr_fit.dataset.defaults import BATCH_SIZE, SHARD_SIZE, TIMEOUT_S
from dsr_fit.dataset.fingerprints import UNREADABLE
from dsr_fit.dataset.listing import open_source
from dsr_fit.dataset.local import GPU_THREADS, default_workers, run_local
from dsr_fit.dataset.lock import locked
from dsr_fit.dataset.manifest import agree, begin, write_manifest
from dsr_fit.dataset.mending import resume_store
from dsr_fit.dataset.overlays import check_overlays, draw_missing, remove_overlays
from dsr_fit.dataset.progress import Report, RunProgress
from dsr_fit.dataset.records import FittedBatch, PersonObservation, failed_rows
from dsr_fit.dataset.schema import Row
from dsr_fit.dataset.settings import Settings
from dsr_fit.dataset.shards import Store, open_store
from dsr_fit.dataset.sources import Entry, Source
from dsr_fit.dataset.worker import Work, WorkFactory
from dsr_fit.errors import UsageError

Engine = Literal["local", "ray"]


@dataclass(frozen=True)
class Resources:
    """What a run may use; none of it changes the results."""

    engine: Engine = "local"
    observers: int | None = None
    """Processes that run detector and parser, on a GPU each in several threads; None: by the number of cores."""
    fitters: int | None = None
    """Processes that fit; None: by the number of cores."""
    address: str | None = None
    """Of a Ray cluster; None starts one on this machine."""
    timeout_s: float = TIMEOUT_S
    """Time limit with the engine `local`: to observe an image, times the people whom the source names in it; to fit a
    batch, times its people."""

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
    follow: Follow = FOLLOW,
    report: Report | None = None,
    observe: WorkFactory | None = None,
    fit: WorkFactory | None = None,
) -> Generator[Row, None, None]:
    """Fit what a folder of results lacks of a source; each row is yielded when it is safe on the disk.

    Args:
        shard_size: batches in a shard.
        mix: resume a folder that holds results of other settings.
        follow: what to do about images that were added, replaced, or fitted badly.
        report: called before the first batch and after each.
        observe, fit: build other workers than `Observer` and `BatchFitter`.
    Raises: UsageError and InputError, see `Settings.fitter`, `dsr_fit.dataset.manifest.agree`,
        `dsr_fit.dataset.changes.changes_of` and `dsr_fit.dataset.shards`.
    """
    resources = resources or Resources()
    if settings.batch_size < 1 or shard_size < 1:
        raise UsageError("--batch-size and --shard-size must be at least 1")
    if observe is None and settings.parser != "open":
        from dsr_fit.observe.parser import load_parser

        load_parser(settings.parser, settings.parsing_protocol)
    if fit is None:
        fitter = settings.fitter()  # files that don't fit are rejected before anything is written
        if settings.gate is not None:
            from dsr_fit.gate.gate import Gate

            Gate.of(fitter, settings.gate)
    overlays = out / "overlays"
    with locked(out):
        if settings.overlays:
            check_overlays(overlays)
        store, number = _open(source, out, settings, shard_size, mix, follow)
        states = store.states()
        changes = changes_of(source, store, states, follow)
        if names := changes.names(source):
            store.plan(names, changes.note())
        entries = {entry.imgname: entry for entry in source.entries}
        latest = {name: batch for batch in sorted(store.names) for name in store.names[batch]}
        left = {batch: [name for name in store.names[batch] if latest[name] == batch] for batch in store.left()}
        progress = RunProgress.of(states, changes, left)
        if report is not None:
            report(progress)
        todo = {name for names in left.values() for name in names}
        remove_overlays(overlays, todo)
        observe = observe or partial(observer, settings, source.images)
        fit = fit or partial(batch_fitter, settings, source.images, overlays if settings.overlays else None)
        # Images that are no longer in the source, or that a later plan names again where rows were lost, are rows all
        # the same, but nobody looks at them.
        batches = [(batch, [entries[name] for name in names if name in entries]) for batch, names in left.items()]
        for batch, fitted in _engine(resources, batches, settings, observe, fit):
            started = time.perf_counter()
            gone = [PersonObservation(name, 0, files=UNREADABLE) for name in left[batch] if name not in entries]
            past = [PersonObservation(name, 0) for name in store.names[batch] if latest[name] != batch]
            rows = [
                {**row, "run": number, "asked": entries[row["imgname"]].digest() if row["imgname"] in entries else None}
                for row in (*fitted.rows, *failed_rows(gone, "no longer in the source"))
            ]
            store.write(batch, [*rows, *({**row, "run": number} for row in failed_rows(past, "fitted again later"))])
            progress.add(left[batch], rows, {**fitted.timings_s, "write": time.perf_counter() - started})
            if report is not None:
                report(progress)
            yield from rows
        if settings.overlays:
            draw_missing(store, overlays, source.images, settings, tried=todo)


def _open(
    source: Source, out: Path, settings: Settings, shard_size: int, mix: bool, follow: Follow
) -> tuple[Store, int]:
    """The folder's results, mended, and the number of these settings' run; a new folder has none yet."""
    store = resume_store(out)
    if store is None:
        return Store(out, begin(source, settings, shard_size)), 0
    manifest, number = agree(out, store.manifest, source, settings, shard_size, mix)
    if manifest != store.manifest:
        write_manifest(out, manifest)
    return Store(out, manifest), number


def _engine(
    resources: Resources,
    batches: list[tuple[int, list[Entry]]],
    settings: Settings,
    observe: WorkFactory,
    fit: WorkFactory,
) -> Iterator[tuple[int, FittedBatch]]:
    yield from ((batch, FittedBatch([])) for batch, entries in batches if not entries)
    batches = [(batch, entries) for batch, entries in batches if entries]
    if not batches:
        return
    gpu = settings.device == "cuda"
    shared = (batches, observe, fit, *resources.counts(settings.device))
    threads = GPU_THREADS if gpu else 1
    if resources.engine == "ray":
        from dsr_fit.dataset.ray_engine import run_ray

        yield from run_ray(*shared, threads=threads, address=resources.address, gpu=gpu)
    else:
        yield from run_local(*shared, timeout_s=resources.timeout_s, threads=threads)


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
    follow: Follow = FOLLOW,
    report: Report | None = None,
) -> Generator[Row, None, None]:
    """Fit every person of a dataset; the same call resumes after any interruption.

    Yields one row for each person (`docs/shards.md`) once it is safe on the disk; `read_results` reads those of earlier
    calls too.

    Args:
        source: a folder of images, a COCO `.json`, a SPIN `.npz` or a `.txt` list; `images` and `keypoints` as in
            `dsr_fit.dataset.listing.open_source`.
        out: folder of the results; made if missing.
        follow: what to do about images that were added, replaced, or fitted badly since the last call.
        config: of the fit; other settings (body, camera, device) come in `settings`.
    Raises: InputError and UsageError, see `run`.
    """
    folders = (Path(each) if each else None for each in (images, keypoints))
    listed = open_source(Path(source), *folders, out=Path(out))
    settings = replace(settings or Settings(), batch_size=batch_size)
    if config is not None:
        settings = replace(settings, config=config)
    return run(listed, Path(out), settings, resources, shard_size=shard_size, mix=mix, follow=follow, report=report)


def read_results(out: str | Path) -> Iterator[Row]:
    """The newest rows of a folder, in the order of the source; images that were added later follow.

    Raises InputError when it holds no results, or damaged ones.
    """
    return open_store(Path(out)).rows()
