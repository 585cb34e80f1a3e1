"""A whole data set fitted, into a folder that a kill can't harm; and what such a folder holds."""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

from dsr_fit.config import FitConfig
from dsr_fit.dataset.entries import Source
from dsr_fit.dataset.local import Stage, default_workers, run_local
from dsr_fit.dataset.manifest import Manifest, agree, read_manifest
from dsr_fit.dataset.records import Fitted
from dsr_fit.dataset.schema import Row
from dsr_fit.dataset.settings import BATCH_SIZE, SHARD_SIZE, Settings
from dsr_fit.dataset.shards import Store, locked
from dsr_fit.dataset.worker import Work
from dsr_fit.errors import UsageError

Engine = Literal["local", "ray"]


@dataclass(frozen=True)
class Resources:
    """What a run may use; nothing here changes its results."""

    engine: Engine = "local"
    perceivers: int | None = None
    """Processes that look at images; None: by the number of cores."""
    fitters: int | None = None
    """Processes that fit; None: by the number of cores."""
    address: str | None = None
    """Of a Ray cluster; None starts one on this machine."""

    def counts(self, device: str) -> tuple[int, int]:
        perceivers, fitters = default_workers(device)
        return self.perceivers or perceivers, self.fitters or fitters


@dataclass
class Progress:
    """How far a run has come."""

    images: int
    """Of the whole source."""
    before: int
    """Images that earlier runs had done."""
    done: int = 0
    """Images that this run has done."""
    statuses: Counter[str] = field(default_factory=Counter)
    """Rows of this run: `accepted`, `refused`, `failed`."""
    unjudged: int = 0
    """Fits of this run that no gate holds for: without a quality, accepted unless they diverged."""
    timings_s: Counter[str] = field(default_factory=Counter)
    """Seconds that each stage took, summed over this run's images; `write` among them."""
    started: float = field(default_factory=time.perf_counter)
    cpu_before_s: float = field(default_factory=lambda: _cpu_s())

    def cpu_s(self) -> float:
        """Processor seconds of this process, and of those of its workers that have ended."""
        return _cpu_s() - self.cpu_before_s

    def rate(self) -> float:
        """Images a second."""
        return self.done / max(time.perf_counter() - self.started, 1e-9)

    def left_s(self) -> float | None:
        """Seconds to go at this rate; None while nothing is known."""
        return (self.images - self.before - self.done) / self.rate() if self.done else None


def _cpu_s() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


class Report(Protocol):
    """Whoever wants to be told."""

    def __call__(self, progress: Progress) -> None: ...


def run(
    source: Source,
    out: Path,
    settings: Settings,
    resources: Resources | None = None,
    *,
    shard_size: int = SHARD_SIZE,
    mix: bool = False,
    report: Report | None = None,
    perceive: Stage | None = None,
    fit: Stage | None = None,
) -> Generator[Row, None, None]:
    """Fit what is left of a source; each row is yielded when it is safe on the disk.

    Args:
        shard_size: batches a shard.
        mix: go on in a folder that holds results of other settings.
        report: told after every batch, and once before the first.
        perceive, fit: other stages than `Perceiver` and `BatchFitter`.
    Raises: UsageError and InputError, see `Settings.fitter`, `dsr_fit.dataset.manifest.agree` and
        `dsr_fit.dataset.shards`.
    """
    resources = resources or Resources()
    if settings.batch_size < 1 or shard_size < 1:
        raise UsageError("--batch-size and --shard-size must be at least 1")
    if fit is None:
        fitter = settings.fitter()  # what can't be fitted with is refused before anything is written
        if settings.gate is not None:
            from dsr_fit.gate.gate import Gate

            Gate.of(fitter, settings.gate)
    with locked(out):
        manifest, number = agree(out, source, settings, shard_size, mix)
        store = Store(out, manifest.batches, shard_size)
        left = store.begin()
        images = partial(_images, len(source), settings.batch_size)
        progress = Progress(len(source), len(source) - sum(map(images, left)))
        if report is not None:
            report(progress)
        overlays = out / "overlays" if settings.overlays else None
        perceive = perceive or partial(perceiver, settings, source.images)
        fit = fit or partial(batch_fitter, settings, source.images, overlays)
        for batch, fitted in _engine(resources, source, left, settings, perceive, fit):
            started = time.perf_counter()
            rows = [{**row, "run": number} for row in fitted.rows]
            store.write(batch, rows)
            progress.done += images(batch)
            progress.statuses.update(row["status"] for row in rows)
            progress.unjudged += sum(row["status"] != "failed" and row.get("quality") is None for row in rows)
            progress.timings_s.update({**fitted.timings_s, "write": time.perf_counter() - started})
            if report is not None:
                report(progress)
            yield from rows


def _engine(
    resources: Resources, source: Source, left: list[int], settings: Settings, perceive: Stage, fit: Stage
) -> Iterator[tuple[int, Fitted]]:
    if not left:
        return iter(())
    perceivers, fitters = resources.counts(settings.device)
    shared = (source.entries, left, settings.batch_size, perceive, fit, perceivers, fitters)
    if resources.engine == "ray":
        from dsr_fit.dataset.ray_engine import run_ray

        return run_ray(*shared, address=resources.address, gpus=settings.device == "cuda")
    return run_local(*shared)


def perceiver(settings: Settings, images: Path) -> Work:
    """`Perceiver`, imported where it works."""
    from dsr_fit.dataset.observing import Perceiver

    return Perceiver(settings, images)


def batch_fitter(settings: Settings, images: Path, overlays: Path | None) -> Work:
    """`BatchFitter`, imported where it works."""
    from dsr_fit.dataset.fitting import BatchFitter

    return BatchFitter(settings, images, overlays)


def _images(total: int, batch_size: int, batch: int) -> int:
    """Images of a batch: the last may have fewer."""
    return min(batch_size, total - batch * batch_size)


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
    """Fit every person of a data set, and go on where an earlier call was stopped.

    Yields one row a person (`docs/shards.md`) as they come, each when it is safe on the disk; rows of earlier calls are
    read by `read_results`.

    Args:
        source: a folder of images, a COCO `.json`, a SPIN `.npz` or a `.txt` list; `images` and `keypoints` as in
            `dsr_fit.dataset.sources.open_source`.
        out: folder of the results, made if need be.
        config: of the fit; other settings (body, camera, device) come in `settings`.
    Raises: InputError and UsageError, see `run`.
    """
    from dsr_fit.dataset.sources import open_source

    listed = open_source(Path(source), _path(images), _path(keypoints))
    settings = replace(settings or Settings(), batch_size=batch_size)
    if config is not None:
        settings = replace(settings, config=config)
    return run(listed, Path(out), settings, resources, shard_size=shard_size, mix=mix, report=report)


def read_results(out: str | Path) -> Iterator[Row]:
    """Every row that a folder holds, in the order of the source. Raises InputError when it holds no results."""
    _, store = open_results(Path(out))
    return store.rows()


def open_results(out: Path) -> tuple[Manifest, Store]:
    """A folder's manifest and its rows. Raises InputError when it holds no results."""
    manifest = read_manifest(out)
    return manifest, Store(out, manifest.batches, manifest.shard_size)


def _path(given: str | Path | None) -> Path | None:
    return None if given is None else Path(given)
