"""A run whose observing process has many images under way, as on a GPU: what is lost with the process, and what not."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from batch_stages import BATCH, SHARD, Fit, Look, source

from dsr_fit.dataset.local import default_workers
from dsr_fit.dataset.run import Resources, read_results, run
from dsr_fit.dataset.schema import Row
from dsr_fit.dataset.settings import Settings
from dsr_fit.dataset.sources import Entry
from dsr_fit.errors import InputError

HERE = Path(__file__).resolve().parent
IMAGES = 24


def _run(out: Path, look: Any = Look, *, device: Any = "cuda", observers: int = 1, timeout_s: float = 300) -> list[Row]:
    """By stand-ins, which take no notice of the device."""
    resources = Resources(observers=observers, fitters=1, timeout_s=timeout_s)
    settings = Settings(batch_size=BATCH, device=device)
    list(run(source(IMAGES), out, settings, resources, shard_size=SHARD, observe=look, fit=Fit))
    return list(read_results(out))


def _said(rows: list[Row]) -> list[tuple[str, int, str | None]]:
    return [(row["imgname"], row["person"], row["reason"]) for row in rows]


class _Together(Look):
    """Answers when four threads are there."""

    def __init__(self) -> None:
        super().__init__(0.01)
        self.four = threading.Barrier(4)

    def __call__(self, entry: Entry) -> Any:
        self.four.wait(60)
        return super().__call__(entry)


@pytest.mark.parametrize("observers", [1, 2])
def test_images_under_way_together_are_the_same_rows(tmp_path: Path, observers: int) -> None:
    expected = _said(_run(tmp_path / "cpu", device="cpu"))
    look = _Together if observers == 1 else partial(Look, 0.01)
    assert _said(_run(tmp_path / "gpu", look, observers=observers)) == expected


@pytest.mark.parametrize("deadly", [("00005.jpg",), ("00000.jpg", "00001.jpg", "00013.jpg")])
def test_of_images_that_die_together_the_deadly_ones_alone_are_blamed(tmp_path: Path, deadly: tuple[str, ...]) -> None:
    rows = _run(tmp_path, partial(Look, 0.02, *deadly))
    blamed = {row["imgname"]: row["reason"] for row in rows if "process" in (row["reason"] or "")}
    assert blamed == dict.fromkeys(deadly, "observing it failed twice: its process ended by signal 9")
    assert {row["imgname"] for row in rows} == {entry.imgname for entry in source(IMAGES).entries}


class _Hangs(Look):
    def __call__(self, entry: Entry) -> Any:
        time.sleep(3600 if entry.imgname in ("00002.jpg", "00009.jpg") else 0)
        return super().__call__(entry)


def test_an_image_that_hangs_costs_the_others_a_repetition_alone(tmp_path: Path) -> None:
    rows = _run(tmp_path, _Hangs, timeout_s=1.0)
    late = {row["imgname"]: row["reason"] for row in rows if "timed out" in (row["reason"] or "")}
    assert late == dict.fromkeys(("00002.jpg", "00009.jpg"), "timed out after 1 s")
    assert {row["imgname"] for row in rows} == {entry.imgname for entry in source(IMAGES).entries}


class _Faulty(Look):
    def __call__(self, entry: Entry) -> Any:
        if entry.imgname == "00003.jpg":
            raise RuntimeError("a fault")
        return super().__call__(entry)


def test_an_image_that_raises_is_its_own_row_alone(tmp_path: Path) -> None:
    rows = _run(tmp_path, _Faulty)
    assert [row["imgname"] for row in rows if row["reason"] == "unexpected RuntimeError: a fault"] == ["00003.jpg"]


class _Fatal(Look):
    def __call__(self, entry: Entry) -> Any:
        os._exit(3)


class _ThreadEnds(Look):
    """In a thread that isn't the main one, and says nothing of it."""

    def __call__(self, entry: Entry) -> Any:
        raise SystemExit


@pytest.mark.parametrize("look", [_Fatal, _ThreadEnds])
def test_processes_that_always_die_end_the_run_and_no_image_is_blamed(tmp_path: Path, look: Any) -> None:
    with pytest.raises(InputError, match=r"6 worker processes died in a row .*with status"):
        _run(tmp_path, look)
    assert not list(read_results(tmp_path))


def test_threads_end_with_their_caller(tmp_path: Path) -> None:
    """Also those that are stuck."""
    code = (
        "import test_batch_threads as t, time; from dsr_fit.dataset.worker import Worker; from pathlib import Path\n"
        "from dsr_fit.dataset.sources import Entry\n"
        "w = Worker(t._Hangs, 3); w.give(Entry('00002.jpg'), 60); w.give(Entry('00001.jpg'), 60)\n"
        "w.take(); w.take(); print(w.process.pid, flush=True); time.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, sys.path)])}
    caller = subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
    assert caller.stdout is not None
    worker = int(caller.stdout.readline())
    caller.kill()
    caller.wait()
    caller.stdout.close()
    deadline = time.monotonic() + 30
    while _alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(worker)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("cores", "device", "workers"),
    [(1, "cpu", (1, 1)), (2, "cpu", (2, 1)), (8, "cpu", (6, 4)), (1, "cuda", (1, 1)), (16, "cuda", (2, 1))],
)
def test_the_cores_are_shared_out(
    monkeypatch: pytest.MonkeyPatch, cores: int, device: str, workers: tuple[int, int]
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)
    assert default_workers(device) == workers
