"""The same run on Ray: a local cluster of two workers, an actor of which dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from batch_stages import BATCH, SHARD, Fit, Look, source

from dsr_fit.dataset.ray_engine import gpu_shares
from dsr_fit.dataset.run import Resources, read_results, run
from dsr_fit.dataset.settings import Settings

pytest.importorskip("ray", reason="needs the extra `ray`")
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own


@pytest.fixture
def address() -> Iterator[str]:
    """A cluster of a head that does no work and two workers, all on this machine."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    yield str(cluster.address)
    cluster.shutdown()


class DiesOnce(Fit):
    """Ends its process in the middle of the third batch, the first time."""

    def __init__(self, mark: Path) -> None:
        super().__init__(0.02)
        self.mark = mark

    def __call__(self, batch: Any) -> Any:
        if batch[0].imgname == f"{2 * BATCH:05d}.jpg" and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(batch)


def test_an_actor_that_dies_is_retried_and_the_rows_are_the_local_ones(tmp_path: Path, address: str) -> None:
    """Half of the batches come from an earlier, local run: shards and resume are the same."""
    settings, images = Settings(batch_size=BATCH), source(48)
    one = Resources(observers=1, fitters=1)
    list(run(images, tmp_path / "local", settings, one, shard_size=SHARD, observe=Look, fit=Fit))
    begun = run(images, tmp_path / "ray", settings, one, shard_size=SHARD, observe=Look, fit=Fit)
    next(begun)
    begun.close()
    fit = partial(DiesOnce, tmp_path / "died")
    cluster = Resources(engine="ray", observers=1, fitters=2, address=address)
    list(run(images, tmp_path / "ray", settings, cluster, shard_size=SHARD, observe=Look, fit=fit))
    assert (tmp_path / "died").exists()
    expected, found = (list(read_results(tmp_path / name)) for name in ("local", "ray"))
    assert len(found) == len(expected)
    for row, other in zip(expected, found, strict=True):
        for name, value in row.items():
            np.testing.assert_array_equal(other[name], value)
    names = [sorted(path.name for path in (tmp_path / name).glob("shard-*")) for name in ("local", "ray")]
    assert names[0] == names[1]


def test_on_a_gpu_observers_and_fitter_share_it(tmp_path: Path) -> None:
    """One that Ray is told of; the stand-ins take no notice of it."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "num_gpus": 1, "include_dashboard": False})
    try:
        settings, images = Settings(batch_size=BATCH, device="cuda"), source(24)
        resources = Resources(engine="ray", observers=3, fitters=1, address=str(cluster.address))
        look = partial(Look, 0.02)
        list(run(images, tmp_path / "ray", settings, resources, shard_size=SHARD, observe=look, fit=Fit))
    finally:
        cluster.shutdown()
    one = Resources(observers=1, fitters=1)
    list(run(images, tmp_path / "local", settings, one, shard_size=SHARD, observe=Look, fit=Fit))
    expected, found = (list(read_results(tmp_path / name)) for name in ("local", "ray"))
    assert [(row["imgname"], row["person"]) for row in found] == [(row["imgname"], row["person"]) for row in expected]


@pytest.mark.parametrize(("observers", "fitters"), [(1, 1), (7, 1), (8, 3), (1, 4)])
def test_shares_of_a_gpu_fit_into_one(observers: int, fitters: int) -> None:
    looks, fits = gpu_shares(observers, fitters)
    assert looks > 0
    assert 2 * fits > 1  # no two on one GPU
    assert looks * -(-observers // fitters) + fits <= 1
