"""The run over a data set: nothing lost and nothing twice, whatever is killed; and what it refuses."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from batch_stages import BATCH, SHARD, Fit, Look, Loud, source

from dsr_fit.config import FitConfig, Weights
from dsr_fit.dataset import tables
from dsr_fit.dataset.lock import locked
from dsr_fit.dataset.progress import RunProgress, state, summary
from dsr_fit.dataset.run import Resources, read_results, run
from dsr_fit.dataset.schema import PLANNED, SINCE, Row
from dsr_fit.dataset.settings import Settings
from dsr_fit.dataset.shards import open_store
from dsr_fit.dataset.sources import Entry, Source
from dsr_fit.errors import InputError, UsageError

HERE = Path(__file__).resolve().parent
SETTINGS = Settings(batch_size=BATCH)
ONE = Resources(observers=1, fitters=1)
KILLS = int(os.environ.get("DSR_FIT_KILLS", "12"))


def _run(out: Path, images: int, look: Any = Look, fit: Any = Fit, **options: Any) -> list[Row]:
    options = {"resources": ONE, "shard_size": SHARD, "settings": SETTINGS, **options}
    settings, resources = options.pop("settings"), options.pop("resources")
    return list(run(source(images), out, settings, resources, observe=look, fit=fit, **options))


def _same(first: list[Row], second: list[Row]) -> bool:
    if [list(row) for row in first] != [list(row) for row in second]:
        return False
    return all(
        np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b
        for one, other in zip(first, second, strict=True)
        for a, b in zip(one.values(), other.values(), strict=True)
    )


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """What an uninterrupted run of 180 images leaves."""
    out = tmp_path_factory.mktemp("whole") / "out"
    _run(out, 180)
    return list(read_results(out))


def test_every_person_of_every_image_has_one_row_in_the_sources_order(whole: list[Row]) -> None:
    expected = [(f"{number:05d}.jpg", person) for number in range(180) for person in range(1 + number % 3)]
    assert [(row["imgname"], row["person"]) for row in whole] == expected
    failed = [row for row in whole if row["status"] == "failed"]
    assert {int(row["imgname"][:5]) % 7 for row in failed} == {0}
    assert {row["reason"] for row in failed} == {"nobody was found"}
    assert all(row["betas"] is None for row in failed)


def test_killed_at_random_moments_the_table_is_the_same(tmp_path: Path, whole: list[Row]) -> None:
    """SIGKILL to the whole process group or to the run alone; a batch that was safe is never fitted again.

    DSR_FIT_KILLS says how often.
    """
    out, record = tmp_path / "out", tmp_path / "record.txt"
    record.touch()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, sys.path)])}
    command = [sys.executable, str(HERE / "batch_stages.py"), str(out), "180", str(record), "0.06"]
    moments = random.Random(0)
    kills = landed = 0
    while kills < KILLS:
        safe = open_store(out).done() if (out / "manifest.json").exists() else set()
        begun = len(record.read_text().splitlines())
        process = subprocess.Popen(command, env=environment, start_new_session=True)
        # Half of the moments lie in the work itself, whenever that begins on this machine.
        deadline = time.monotonic() + 60
        if kills % 2:
            while len(record.read_text().splitlines()) <= begun and time.monotonic() < deadline:
                time.sleep(0.005)
            time.sleep(moments.uniform(0, 0.12))
        else:
            time.sleep(moments.uniform(0, 1.0))
        if process.poll() is None:
            (os.killpg if kills % 3 else os.kill)(process.pid, signal.SIGKILL)
            landed += 1
        process.wait()
        kills += 1
        for file in [*out.glob("shard-*"), *out.glob("parts/part-*")]:
            assert pq.read_table(file).num_rows > 0
        again = {int(line) for line in record.read_text().splitlines()[begun:]}
        assert not again & safe
    assert landed >= 0.75 * KILLS
    subprocess.run(command, env=environment, check=True, timeout=120)
    assert _same(list(read_results(out)), whole)
    assert not list(out.glob("parts/*"))
    assert not list(out.glob(".*.tmp*"))
    assert len(list(out.glob("shard-*.parquet"))) == -(-45 // SHARD)


def test_a_finished_run_does_nothing_again(tmp_path: Path) -> None:
    record = tmp_path / "record.txt"
    fit = partial(Fit, 0.0, record)
    assert len(_run(tmp_path / "out", 10, fit=fit)) == 19
    assert _run(tmp_path / "out", 10, fit=fit) == []
    assert Counter(record.read_text().split()) == {"0": 1, "1": 1, "2": 1}


@pytest.mark.parametrize(("perceivers", "fitters"), [(1, 1), (3, 2)])
def test_the_number_of_workers_changes_nothing(tmp_path: Path, whole: list[Row], perceivers: int, fitters: int) -> None:
    resources = Resources(observers=perceivers, fitters=fitters)
    _run(tmp_path / "out", 180, partial(Look, 0.001), partial(Fit, 0.004), resources=resources)
    assert _same(list(read_results(tmp_path / "out")), whole)


def test_an_image_that_kills_its_process_is_a_row(tmp_path: Path) -> None:
    rows = _run(tmp_path / "out", 12, partial(Look, 0.0, "00005.jpg"))
    deadly = [row for row in rows if row["imgname"] == "00005.jpg"]
    assert [(row["status"], row["reason"]) for row in deadly] == [
        ("failed", "observing it failed twice: its process ended by signal 9")
    ]
    assert {row["imgname"] for row in rows} == {f"{number:05d}.jpg" for number in range(12)}


@pytest.mark.parametrize(("deadly", "perceivers"), [(range(3), 1), (range(4, 12), 1), (range(4, 12), 3)])
def test_several_deadly_images_in_a_row_do_not_end_the_run(tmp_path: Path, deadly: range, perceivers: int) -> None:
    """The first of all, and two whole batches after one that went well."""
    names = [f"{number:05d}.jpg" for number in deadly]
    resources = Resources(observers=perceivers, fitters=1)
    rows = _run(tmp_path / "out", 16, partial(Look, 0.0, *names), resources=resources)
    blamed = [row["imgname"] for row in rows if row.get("reason", "").startswith("observing it failed twice")]
    assert blamed == names
    assert {row["imgname"] for row in rows} == {f"{number:05d}.jpg" for number in range(16)}


class _Fatal(Look):
    def __call__(self, entry: Any) -> Any:
        return os.kill(os.getpid(), signal.SIGKILL)


def test_processes_that_always_die_end_the_run_and_no_image_is_blamed(tmp_path: Path) -> None:
    """As when memory is short: nothing is recorded as failed that a later run could fit."""
    with pytest.raises(InputError, match="6 worker processes died in a row .*signal 9.* is memory short"):
        _run(tmp_path / "out", 12, look=_Fatal)
    assert len(_run(tmp_path / "out", 12)) == 24


class _Faulty(Fit):
    def __call__(self, batch: Any) -> Any:
        if batch[0].imgname == "00004.jpg":
            raise RuntimeError("a fault\nof two lines")
        return super().__call__(batch)


def test_a_batch_whose_fit_raises_is_rows(tmp_path: Path) -> None:
    rows = _run(tmp_path / "out", 12, fit=_Faulty)
    reasons = {row["imgname"]: row["reason"] for row in rows if row["status"] == "failed"}
    assert reasons["00004.jpg"] == reasons["00006.jpg"] == "unexpected RuntimeError: a fault of two lines"
    assert reasons["00007.jpg"] == "nobody was found"
    assert "00008.jpg" not in reasons


class _Hangs(Look):
    def __call__(self, entry: Any) -> Any:
        time.sleep(3600 if entry.imgname in ("00000.jpg", "00005.jpg") else 0)
        return super().__call__(entry)


class _HangsFitting(Fit):
    def __call__(self, batch: Any) -> Any:
        time.sleep(3600 if batch[0].imgname == "00004.jpg" else 0)
        return super().__call__(batch)


def test_work_that_hangs_is_rows_and_its_process_is_replaced(tmp_path: Path) -> None:
    """Two images, one of them the first of all; and a batch, whose people share the reason."""
    resources = Resources(observers=1, fitters=1, timeout_s=0.5)
    rows = _run(tmp_path / "out", 12, _Hangs, resources=resources)
    late = {row["imgname"]: row["reason"] for row in rows if row.get("reason", "").startswith("timed out")}
    assert late == dict.fromkeys(("00000.jpg", "00005.jpg"), "timed out after 0.5 s")
    assert {row["imgname"] for row in rows} == {f"{number:05d}.jpg" for number in range(12)}
    rows = _run(tmp_path / "other", 12, fit=_HangsFitting, resources=resources)
    late = {row["imgname"] for row in rows if row.get("reason", "").startswith("timed out after")}
    assert late == {"00004.jpg", "00005.jpg", "00006.jpg"}
    assert {row["imgname"] for row in rows} == {f"{number:05d}.jpg" for number in range(12)}


class _Stuck(Look):
    def __call__(self, entry: Any) -> Any:
        time.sleep(3600)


def test_processes_that_always_hang_end_the_run_and_the_next_one_goes_on(tmp_path: Path) -> None:
    """As when the images' disk can't be reached: the images of the batch under way are rows, no others are."""
    stuck = {"look": _Stuck, "resources": Resources(observers=1, fitters=1, timeout_s=0.2)}
    for run_number in (1, 2):
        with pytest.raises(InputError, match=r"6 or more images in a row hung \(timed out after 0.2 s\); .*--retry f"):
            _run(tmp_path, 24, **stuck, settings=replace(SETTINGS, batch_size=8))
        rows = list(read_results(tmp_path))
        assert [row["imgname"] for row in rows] == [f"{number:05d}.jpg" for number in range(8 * run_number)]
        assert {row["reason"] for row in rows} == {"timed out after 0.2 s"}
    rows = _run(tmp_path, 24, settings=replace(SETTINGS, batch_size=8))
    assert {row["imgname"] for row in rows} == {f"{number:05d}.jpg" for number in range(16, 24)}


class _HangsAtFirst(Look):
    def __call__(self, entry: Entry) -> Any:
        time.sleep(3600 if entry.imgname < "00008.jpg" else 0)
        return super().__call__(entry)


def test_many_images_that_hang_do_not_end_a_run_that_works(tmp_path: Path) -> None:
    """A good one behind them, in their batch, shows that it does."""
    resources = Resources(observers=1, fitters=1, timeout_s=0.2)
    rows = _run(tmp_path, 12, _HangsAtFirst, resources=resources, settings=replace(SETTINGS, batch_size=9))
    late = {row["imgname"] for row in rows if row.get("reason") == "timed out after 0.2 s"}
    assert late == {f"{number:05d}.jpg" for number in range(8)}
    assert {row["imgname"] for row in rows} == {f"{number:05d}.jpg" for number in range(12)}


def test_the_start_of_a_process_does_not_count(tmp_path: Path) -> None:
    resources = Resources(observers=1, fitters=1, timeout_s=1.0)
    assert all(row["status"] == "accepted" for row in _run(tmp_path, 1, partial(_SlowStart), resources=resources)[1:])
    assert "timed out" not in str(list(read_results(tmp_path)))


class _SlowStart(Look):
    def __init__(self) -> None:
        time.sleep(2)
        super().__init__()


class _Unable:
    def __init__(self) -> None:
        raise InputError("libGL.so.1 is missing")


def test_a_worker_that_cannot_work_ends_the_run_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="libGL"):
        _run(tmp_path / "out", 4, look=_Unable)


def test_files_of_the_current_folder_are_no_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of photos with a script called json.py in it."""
    (tmp_path / "json.py").write_text("raise SystemExit('run from the folder')")
    monkeypatch.chdir(tmp_path)
    assert len(_run(tmp_path / "out", 3)) == 6


def test_workers_warn_of_images_and_not_again_of_files(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The caller has loaded the same files before them, and warned."""
    _run(tmp_path / "out", 2, look=Loud)
    assert sorted(capfd.readouterr().err.splitlines()) == ["dsr-fit: 00000.jpg is odd", "dsr-fit: 00001.jpg is odd"]


def test_workers_end_with_their_caller(tmp_path: Path) -> None:
    """The process that started it is killed: the worker reads the end of its pipe."""
    code = (
        "import batch_stages, sys, time; from dsr_fit.dataset.worker import Worker;"
        "w = Worker(batch_stages.Fit); w.give([], 60); print(w.process.pid, flush=True); time.sleep(60)"
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


def test_progress_counts_images_and_statuses(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    kept: list[RunProgress] = []

    def report(progress: RunProgress) -> None:
        told.append((progress.before, progress.done))
        kept[:] = [progress]

    _run(tmp_path / "out", 10, report=report)
    assert told[0] == (0, 0)
    assert told[-1] == (0, 10)
    assert kept[0].statuses == {"accepted": 16, "failed": 3}  # image 0 shows one person, image 7 two
    assert kept[0].left_s() == 0
    _run(tmp_path / "out", 10, report=report)
    assert told[-1] == (10, 0)


def test_fits_without_a_verdict_are_counted_apart(tmp_path: Path) -> None:
    kept: list[RunProgress] = []
    _run(tmp_path, 8, fit=_Unjudged, report=kept.append)
    assert kept[-1].statuses == {"unjudged": 12, "failed": 3}
    assert state(kept[-1])["unjudged"] == summary(kept[-1])["unjudged"] == 12


class _Unjudged(Fit):
    def __call__(self, batch: Any) -> Any:
        fitted = super().__call__(batch)
        for row in fitted.rows:
            if row["status"] != "failed":
                row.update(status="unjudged", quality=None)
        return fitted


@pytest.mark.parametrize("version", [2, 3, 4])
def test_an_older_folder_is_read_and_not_resumed(tmp_path: Path, version: int) -> None:
    """Format 2 had no `unjudged`: fits without a quality were stored as accepted. Neither it nor 3 had a plan."""
    _run(tmp_path / "new", 20, fit=_Unjudged)
    expected = list(read_results(tmp_path / "new"))
    out = tmp_path / "out"
    shutil.copytree(tmp_path / "new", out)
    later = [name for name, since in SINCE.items() if since > version]
    for shard in out.glob("shard-*"):
        table = pq.read_table(shard).drop_columns(later)
        if version < PLANNED:
            table = table.replace_schema_metadata(None)
        if version == 2:
            status = ["failed" if value == "failed" else "accepted" for value in table["status"].to_pylist()]
            table = table.set_column(table.schema.names.index("status"), "status", pa.array(status))
        pq.write_table(table, shard)
    manifest = json.loads((tmp_path / "new" / "manifest.json").read_text())
    source = {"kind": "list", "entries": 20, "sha256": "0" * 64}
    old = {**manifest, "format": version}
    if version < PLANNED:
        old["source"] = source
        del old["results"], old["kind"], old["plans"]
        shutil.rmtree(out / "plans")
    (out / "manifest.json").write_text(json.dumps(old))
    rows = list(read_results(out))
    assert _same(rows, [{**row, **dict.fromkeys(later)} for row in expected])
    with pytest.raises(InputError, match=rf"was begun by an earlier version \(format {version}\); its results can be"):
        _run(out, 20)
    assert _same(list(read_results(out)), rows)
    if version < PLANNED:
        with pytest.raises(InputError, match=f"format {version}.*not copied"):
            open_store(out).copy(tmp_path / "copy", list)


# --- Disk -----------------------------------------------------------------------------------------


def test_a_full_disk_ends_with_one_line_and_resumes(
    tmp_path: Path, whole: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []
    real = tables.pq.write_table

    def write(table: Any, path: Path, **options: Any) -> None:
        written.append(path)
        if len(written) == 6:
            real(table.slice(0, 1), path, **options)  # what fitted on the disk
            raise OSError(errno.ENOSPC, "No space left on device")
        real(table, path, **options)

    monkeypatch.setattr(tables.pq, "write_table", write)
    with pytest.raises(InputError) as refused:
        _run(tmp_path / "out", 180)
    assert str(refused.value).endswith(
        "can't write there (No space left on device); make room, and run the same command again; everything up to here "
        "is kept"
    )
    assert "\n" not in str(refused.value)
    kept = list(read_results(tmp_path / "out"))
    assert 0 < len(kept) < len(whole)
    _run(tmp_path / "out", 180)
    assert _same(list(read_results(tmp_path / "out")), whole)


def test_leftovers_of_a_kill_between_merge_and_removal_count_once(tmp_path: Path) -> None:
    out = tmp_path / "out"
    rows = run(source(20), out, SETTINGS, ONE, shard_size=SHARD, observe=Look, fit=Fit)
    next(rows)
    rows.close()
    (part,) = (out / "parts").glob("part-*")
    content = part.read_bytes()
    _run(out, 20)
    part.write_bytes(content)
    (out / ".shard-00001-0123abcd.tmp.parquet").write_bytes(b"half")
    (out / "parts" / ".part-00000001-0123abcd.tmp.parquet").write_bytes(b"half")
    before = list(read_results(out))
    _run(out, 20)
    assert _same(list(read_results(out)), before)
    assert sorted(path.name for path in out.iterdir()) == [
        ".lock", "manifest.json", "parts", "plans", "shard-00000.parquet", "shard-00001.parquet",
    ]  # fmt: skip
    assert not list((out / "parts").iterdir())


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    _run(tmp_path, 8)
    (tmp_path / "shard-00000.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(InputError, match=r"shard-00000\.parquet: is damaged or cut off .*; run `dsr-fit batch`"):
        list(read_results(tmp_path))


# --- Refusals -------------------------------------------------------------------------------------


def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(InputError, match="another run is writing there"):
        _run(tmp_path, 4)
    _run(tmp_path, 4)


def test_other_settings_do_not_mix_unless_told_to(tmp_path: Path) -> None:
    record = tmp_path / "record.txt"
    rows = run(source(20), tmp_path / "out", SETTINGS, ONE, shard_size=SHARD, observe=Look, fit=partial(Fit, 0, record))
    next(rows)
    rows.close()
    begun = len(list(read_results(tmp_path / "out")))
    changed = replace(SETTINGS, config=FitConfig(weights=Weights(dsr_mc=7.0)))
    with pytest.raises(UsageError) as refused:
        _run(tmp_path / "out", 20, settings=changed)
    assert "(config.weights.dsr_mc: 4.0, now 7.0); choose another --out, or add --mix" in str(refused.value)
    _run(tmp_path / "out", 20, settings=changed, mix=True)
    runs = [row["run"] for row in read_results(tmp_path / "out")]
    assert Counter(runs)[0] == begun
    assert set(runs) == {0, 1}
    stored = open_store(tmp_path / "out").manifest.runs
    assert [one["identity"]["config"]["weights"]["dsr_mc"] for one in stored] == [4.0, 7.0]
    with pytest.raises(UsageError, match=r"dsr_mc: 7\.0, now 4\.0"):
        _run(tmp_path / "out", 20)


def test_a_changed_asset_is_another_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _run(tmp_path, 4)
    monkeypatch.setattr("dsr_fit.dataset.settings._shipped_hashes", lambda: {"semantic/prior.npz": "f" * 64})
    with pytest.raises(UsageError, match=r"shipped\.semantic/prior\.npz: [0-9a-f]{12}, now f{12}"):
        _run(tmp_path, 4)


def test_another_source_or_division_is_refused(tmp_path: Path) -> None:
    _run(tmp_path, 8)
    others = Source(Path("/nowhere"), [Entry(f"{number:05d}.jpg") for number in (8, 9)], "list")
    with pytest.raises(InputError, match=r"belongs to another source \(8 images, none of them among the 2 of /nowhere"):
        list(run(others, tmp_path, SETTINGS, ONE, shard_size=SHARD, observe=Look, fit=Fit))
    with pytest.raises(InputError, match=r"belongs to another source \(of kind list, now coco\)"):
        list(run(replace(source(8), kind="coco"), tmp_path, SETTINGS, ONE, shard_size=SHARD, observe=Look, fit=Fit))
    with pytest.raises(UsageError, match="was begun with --batch-size 4 --shard-size 4"):
        _run(tmp_path, 8, shard_size=5)


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no results of `dsr-fit batch`"):
        read_results(tmp_path)
    (tmp_path / "manifest.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(InputError, match=r"manifest\.json: is of format 99, this version reads 2 to 5; use the"):
        read_results(tmp_path)
