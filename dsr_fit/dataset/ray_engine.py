"""The run on a Ray cluster: the same work in stateful actors of Ray Data, one batch of images an element.

The source alone decides which images are fitted together, so the rows, and the shards that the driver writes, are those
of a run on one machine. Ray restarts an actor that dies and repeats its batch; there is no time limit for an image.
"""

from __future__ import annotations

import logging
import os
import pickle
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from dsr_fit.dataset.records import FittedBatch, failed_rows
from dsr_fit.dataset.sources import Entry
from dsr_fit.dataset.worker import ONE_THREAD, WorkFactory
from dsr_fit.errors import InputError, one_line

MAX_BLOCKS = 10_000
"""A dying driver loses a block; more blocks than these cost Ray more than they save."""

RETRIES = 3
"""Of a batch whose actor dies."""


def run_ray(
    batches: Sequence[tuple[int, Sequence[Entry]]],
    observe: WorkFactory,
    fit: WorkFactory,
    observers: int,
    fitters: int,
    *,
    threads: int = 1,
    address: str | None = None,
    gpu: bool = False,
) -> Iterator[tuple[int, FittedBatch]]:
    """As `dsr_fit.dataset.local.run_local`. Without `address` a cluster is started here and ends with the run.

    Raises InputError where Ray isn't installed, can't be reached, or gives up.
    """
    ray = _ray()
    started = not ray.is_initialized()
    try:
        if started:
            _start(ray, address, observers + fitters + 1)
        items = [{"batch": number, "entries": pickle.dumps(entries)} for number, entries in batches]
        data = ray.data.from_items(items, override_num_blocks=min(len(items), MAX_BLOCKS))
        shares = gpu_shares(observers, fitters) if gpu else (0.0, 0.0)
        data = data.map(_Observe, fn_constructor_args=(observe, threads), **_actors(ray, observers, shares[0]))
        data = data.map(_Fit, fn_constructor_args=(fit,), **_actors(ray, fitters, shares[1]))
        for row in data.iter_rows():
            yield int(row["batch"]), pickle.loads(row["fitted"])  # our own, from our own actor
    except (ray.exceptions.RayError, ConnectionError) as error:
        reason = next((line for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
        raise InputError(f"Ray gave up ({reason.strip()}); what was done is kept: run the same command again") from None
    finally:
        if started and ray.is_initialized():
            ray.shutdown()


def _ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError:
        raise InputError("--engine ray needs Ray: pip install 'dsr-fit[ray]', or use --engine local") from None
    return ray


def _start(ray: Any, address: str | None, slots: int) -> None:
    """Connect, or start a cluster of this machine with a slot for each actor, as the system shares out the cores."""
    variables = {**ONE_THREAD, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    options = {"address": address} if address else {"num_cpus": max(slots, os.cpu_count() or 1)}
    ray.init(
        **options,
        runtime_env={"env_vars": variables},
        include_dashboard=None if address else False,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = 0


def gpu_shares(observers: int, fitters: int) -> tuple[float, float]:
    """Of a GPU, for each observer and each fitter, where every fitter has one: more than half of it, so that no two
    share one, and the rest for the observers that go with it; in Ray's steps of 1/10000."""
    return 4000 // -(-observers // fitters) / 10000, 0.6


def _actors(ray: Any, count: int, gpu: float) -> dict[str, Any]:
    return {
        "compute": ray.data.ActorPoolStrategy(size=count),
        "num_cpus": 1,
        "max_restarts": -1,
        "max_task_retries": RETRIES,
        **({"num_gpus": gpu} if gpu else {}),
    }


class _Observe:
    """Observes a batch's images, so many at a time."""

    def __init__(self, make: WorkFactory, threads: int) -> None:
        self.observe = make()
        self.map = map if threads == 1 else ThreadPoolExecutor(threads).map

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        people = [one for seen in self.map(self.observe, pickle.loads(row["entries"])) for one in seen]
        return {"batch": row["batch"], "people": pickle.dumps(people)}


class _Fit:
    """Fits a batch."""

    def __init__(self, make: WorkFactory) -> None:
        self.fit = make()

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        people = pickle.loads(row["people"])
        try:
            fitted = self.fit(people)
        except Exception as error:
            reason = f"unexpected {type(error).__name__}: {one_line(error)}"
            fitted = FittedBatch(failed_rows(people, reason))
        return {"batch": row["batch"], "fitted": pickle.dumps(fitted)}
