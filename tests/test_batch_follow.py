"""A folder of results follows its source: images that come, go and change; files that are damaged, lost or strange."""

from __future__ import annotations

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
import pyarrow.parquet as pq
import pytest
from batch_stages import BATCH, SHARD, Fit, Look, source
from command_line import Capture

from dsr_fit.cli import main as cli
from dsr_fit.dataset.changes import Follow
from dsr_fit.dataset.fingerprints import fingerprint
from dsr_fit.dataset.listing import open_source
from dsr_fit.dataset.progress import RunProgress, summary
from dsr_fit.dataset.records import PersonObservation
from dsr_fit.dataset.run import Resources, read_results, run
from dsr_fit.dataset.schema import Row
from dsr_fit.dataset.settings import Settings
from dsr_fit.dataset.shards import open_store
from dsr_fit.dataset.sources import Entry
from dsr_fit.errors import InputError

HERE = Path(__file__).resolve().parent
SETTINGS = Settings(batch_size=BATCH)
ONE = Resources(observers=1, fitters=1)


class Read(Look):
    """Looks at files; one that begins with "bad" shows nobody that can be fitted."""

    def __init__(self, images: Path) -> None:
        super().__init__()
        self.images = images

    def __call__(self, entry: Entry) -> list[PersonObservation]:
        path = self.images / entry.imgname
        good = path.exists() and not path.read_bytes().startswith(b"bad")
        one = PersonObservation(entry.imgname, 0, reason="" if good else "damaged", files=fingerprint([path]))
        return [one]


class Content(Fit):
    """Betas by the image's content."""

    def __call__(self, batch: list[PersonObservation]) -> Any:
        rows = []
        for one in batch:
            value = np.full(10, 0 if one.files is None else one.files.size, np.float32)
            fitted = {"betas": value, "status": "accepted", "quality": 1.0}
            rows.append({**one.named(), **({"status": "failed", "reason": one.reason} if one.reason else fitted)})
        return replace(super().__call__([]), rows=rows)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(10):
        (folder / f"{number:05d}.jpg").write_text("x" * (number + 1))
    return folder


def _follow(photos: Path, out: Path, follow: Follow | None = None) -> RunProgress:
    """A run over a folder; returns its last progress."""
    last: list[RunProgress] = []
    listed = open_source(photos, out=out)
    rows = run(
        listed, out, SETTINGS, ONE, shard_size=SHARD, follow=follow or Follow(),
        report=lambda progress: last.append(progress), observe=partial(Read, listed.images), fit=Content,
    )  # fmt: skip
    for _ in rows:
        pass
    return last[-1]


def _sizes(out: Path) -> dict[str, int]:
    return {row["imgname"]: -1 if row["betas"] is None else int(row["betas"][0]) for row in read_results(out)}


def test_new_images_are_appended(photos: Path, tmp_path: Path) -> None:
    _follow(photos, tmp_path / "out")
    before = list(read_results(tmp_path / "out"))
    (photos / "00003b.jpg").write_text("new")
    progress = _follow(photos, tmp_path / "out")
    assert (progress.images, progress.before, progress.done) == (11, 10, 1)
    assert progress.changes == {"added": 1, "replaced": 0, "retried": 0, "removed": 0}
    after = list(read_results(tmp_path / "out"))
    assert [row["imgname"] for row in after] == [*(row["imgname"] for row in before), "00003b.jpg"]
    assert _follow(photos, tmp_path / "out").done == 0


def test_removed_images_keep_their_rows(photos: Path, tmp_path: Path) -> None:
    _follow(photos, tmp_path / "out")
    (photos / "00003.jpg").unlink()
    progress = _follow(photos, tmp_path / "out")
    assert (progress.images, progress.before, progress.done, progress.changes["removed"]) == (9, 9, 0, 1)
    assert len(_sizes(tmp_path / "out")) == 10


def test_a_failed_image_that_is_removed_no_longer_counts(photos: Path, tmp_path: Path) -> None:
    """Neither among the images nor in the exit status: nothing can be done about it."""
    (photos / "00005.jpg").write_text("bad")
    assert _follow(photos, tmp_path / "out").statuses == {"accepted": 9, "failed": 1}
    (photos / "00005.jpg").unlink()
    progress = _follow(photos, tmp_path / "out")
    assert (progress.statuses, summary(progress)["finished"]) == ({"accepted": 9}, True)
    (photos / "00005.jpg").write_text("bad")
    assert _follow(photos, tmp_path / "out").statuses == {"accepted": 9, "failed": 1}


def test_a_replaced_image_is_fitted_again(photos: Path, tmp_path: Path) -> None:
    """Of another size, or of the same size at another time; one that was only touched is left alone."""
    _follow(photos, tmp_path / "out")
    (photos / "00002.jpg").write_text("x" * 50)
    (photos / "00003.jpg").write_text("bad!")
    (photos / "00004.jpg").touch()
    progress = _follow(photos, tmp_path / "out")
    assert (progress.done, progress.changes["replaced"]) == (2, 2)
    assert progress.statuses == {"accepted": 9, "failed": 1}
    assert progress.now == {"accepted": 1, "failed": 1}
    assert _sizes(tmp_path / "out") == {f"{n:05d}.jpg": {2: 50, 3: -1}.get(n, n + 1) for n in range(10)}
    people = [(row["imgname"], row["person"]) for row in read_results(tmp_path / "out")]
    assert len(people) == len(set(people)) == 10


def test_only_new_leaves_replaced_images_alone(photos: Path, tmp_path: Path) -> None:
    _follow(photos, tmp_path / "out")
    (photos / "00002.jpg").write_text("x" * 50)
    (photos / "00011.jpg").write_text("x" * 12)
    assert _follow(photos, tmp_path / "out", Follow(only_new=True)).done == 1
    assert _sizes(tmp_path / "out")["00002.jpg"] == 3


def test_strict_refuses_any_change(photos: Path, tmp_path: Path) -> None:
    """Also one that neither size nor time betray."""
    _follow(photos, tmp_path / "out")
    assert _follow(photos, tmp_path / "out", Follow(strict=True)).done == 0
    times = (photos / "00002.jpg").stat()
    (photos / "00002.jpg").write_text("y" * 3)
    os.utime(photos / "00002.jpg", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert _follow(photos, tmp_path / "out").done == 0
    with pytest.raises(InputError, match=r"--strict: .*\(0 new, 1 replaced, 0 removed, such as 00002\.jpg\)"):
        _follow(photos, tmp_path / "out", Follow(strict=True))


def test_a_repaired_photo_is_fitted(photos: Path, tmp_path: Path) -> None:
    """One that was damaged, and one that a list named before it was there."""
    (photos / "00005.jpg").write_text("bad")
    listed = tmp_path / "photos" / "list.txt"
    listed.write_text("00005.jpg\n00042.jpg\n")
    assert _follow(listed, tmp_path / "out").statuses == {"failed": 2}
    (photos / "00005.jpg").write_text("repaired")
    (photos / "00042.jpg").write_text("found")
    progress = _follow(listed, tmp_path / "out")
    assert progress.statuses == {"accepted": 2}
    assert _sizes(tmp_path / "out") == {"00005.jpg": 8, "00042.jpg": 5}


def test_retry_fits_again_what_failed(photos: Path, tmp_path: Path) -> None:
    """As where the cause was not the image: a library that was missing, short memory."""
    (photos / "00005.jpg").write_text("bad")
    _follow(photos, tmp_path / "out")
    assert _follow(photos, tmp_path / "out").done == 0
    progress = _follow(photos, tmp_path / "out", Follow(retry=("failed",)))
    assert (progress.done, progress.changes["retried"], progress.statuses["failed"]) == (1, 1, 1)
    assert _follow(photos, tmp_path / "out", Follow(retry=("refused",))).done == 0


def test_people_asked_for_are_part_of_an_image(photos: Path, tmp_path: Path) -> None:
    """An image whose keypoint file appears is fitted again; the kinds of source that name images mix."""
    _follow(photos, tmp_path / "out")
    (photos / "00001_keypoints.json").write_text('{"people": []}')
    progress = _follow(photos, tmp_path / "out")
    assert (progress.done, progress.changes["replaced"]) == (1, 1)


def test_an_interrupted_change_is_finished(photos: Path, tmp_path: Path) -> None:
    """Images that were added, and vanish from the source before they are fitted, are rows that say so."""
    _follow(photos, tmp_path / "out")
    for number in range(10, 20):
        (photos / f"{number:05d}.jpg").write_text("x" * (number + 1))
    looks = partial(Read, photos)
    rows = run(open_source(photos), tmp_path / "out", SETTINGS, ONE, shard_size=SHARD, observe=looks, fit=Content)
    next(rows)
    rows.close()
    (photos / "00019.jpg").unlink()
    (photos / "00001.jpg").write_text("changed meanwhile")
    progress = _follow(photos, tmp_path / "out")
    assert (progress.statuses, progress.images) == ({"accepted": 19}, 19)
    assert progress.before + progress.done == 19
    reasons = {row["imgname"]: row["reason"] for row in read_results(tmp_path / "out")}
    assert reasons["00019.jpg"] == "no longer in the source"
    assert _sizes(tmp_path / "out")["00001.jpg"] == 17
    (photos / "00019.jpg").write_text("back again")
    assert _follow(photos, tmp_path / "out").statuses == {"accepted": 20}


def test_results_are_no_input(tmp_path: Path) -> None:
    """Results inside the folder of images, beside them, and above them."""
    photos = tmp_path / "photos"
    for name in ("a.jpg", "results/overlays/a.jpg.0.jpg", "sub/results/c.jpg", "overlays/mine.jpg"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_text(name)
    names = lambda out: {entry.imgname for entry in open_source(photos, out=out).entries}  # noqa: E731
    everything = {"a.jpg", "results/overlays/a.jpg.0.jpg", "sub/results/c.jpg", "overlays/mine.jpg"}
    assert names(None) == names(tmp_path) == everything
    assert names(photos / "results") == everything - {"results/overlays/a.jpg.0.jpg"}
    assert names(photos / "sub" / ".." / "sub" / "results") == everything - {"sub/results/c.jpg"}
    assert names(photos) == everything - {"overlays/mine.jpg"}


def test_the_summary_has_totals_and_this_runs_part(photos: Path, tmp_path: Path) -> None:
    _follow(photos, tmp_path / "out")
    said = summary(_follow(photos, tmp_path / "out"))
    assert (said["done"], said["accepted"]) == (10, 10)
    assert said["now"] == {"done": 0, "accepted": 0, "unjudged": 0, "refused": 0, "failed": 0}


def test_an_interrupted_command_says_the_counts(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: Any, report: Any, **options: Any) -> Any:
        report(RunProgress(10, 3, statuses=Counter(accepted=2, failed=1)))
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr("dsr_fit.dataset.run.run", interrupted)
    assert cli.main(["batch", str(photos), "--out", str(tmp_path / "out")]) == 130
    said = capfd.readouterr()
    last = json.loads(said.out.splitlines()[-1])
    assert (last["done"], last["accepted"], last["failed"], last["finished"]) == (3, 2, 1, False)
    assert said.err == "dsr-fit: interrupted\n"


@pytest.mark.parametrize(("failed", "status"), [(0, 0), (1, 3)])
def test_the_status_says_whether_people_have_no_fit(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Capture, failed: int, status: int
) -> None:
    def done(*_: Any, report: Any, **options: Any) -> Any:
        report(RunProgress(10, 10, statuses=Counter(accepted=9, failed=failed)))
        yield {"imgname": "a.jpg", "status": "failed" if failed else "accepted", "reason": "no person"}

    monkeypatch.setattr("dsr_fit.dataset.run.run", done)
    assert cli.main(["batch", str(photos), "--out", str(tmp_path / "out")]) == status
    assert capfd.readouterr().err.splitlines() == ["dsr-fit: failed: a.jpg: no person"] * failed


# --- Damage ---------------------------------------------------------------------------------------


def test_a_missing_or_damaged_manifest_is_restored_from_the_shards(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    _follow(photos, out)
    (photos / "00011.jpg").write_text("more")
    _follow(photos, out)
    rows, manifest = _sizes(out), (out / "manifest.json").read_text()
    for content in (None, "", manifest[:100]):
        (out / "manifest.json").unlink()
        if content is not None:
            (out / "manifest.json").write_text(content)
        assert _follow(photos, out).done == 0
        assert (out / "manifest.json").read_text() == manifest
    assert _sizes(out) == rows


def test_shards_without_a_manifest_that_they_name_are_refused(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    shutil.copy(_old_shard(tmp_path), out / "shard-00000.parquet")
    with pytest.raises(InputError, match=r"holds shards, but no manifest\.json that says what they are; put it back"):
        _follow(photos, out)


def test_a_strangers_manifest_is_not_overwritten(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "manifest.json").write_text('{"name": "an app"}')
    with pytest.raises(InputError, match=r"manifest\.json: can't be read"):
        _follow(photos, out)
    assert (out / "manifest.json").read_text() == '{"name": "an app"}'


@pytest.mark.parametrize("version", [1, 6])
def test_a_manifest_of_another_format_is_not_overwritten(photos: Path, tmp_path: Path, version: int) -> None:
    """Nor is it restored where it is lost and a shard repeats it; a format that no version writes is damage."""
    out = tmp_path / "out"
    _follow(photos, out)
    ours = (out / "manifest.json").read_text()
    others = ours.replace('"format": 5', f'"format": {version}')
    (out / "manifest.json").write_text(others)
    for work in (lambda: read_results(out), lambda: _follow(photos, out)):
        with pytest.raises(InputError, match=rf"manifest\.json: is of format {version}, this version reads 2 to 5"):
            work()
    assert (out / "manifest.json").read_text() == others
    (out / "manifest.json").write_text(ours.replace('"format": 5', '"format": -4'))
    assert _follow(photos, out).done == 0
    assert (out / "manifest.json").read_text() == ours
    table = pq.read_table(out / "shard-00000.parquet")
    about = {**json.loads(table.schema.metadata[b"dsr_fit"]), "manifest": others}
    pq.write_table(table.replace_schema_metadata({"dsr_fit": json.dumps(about)}), out / "shard-00000.parquet")
    (out / "manifest.json").unlink()
    with pytest.raises(InputError, match=rf"shard-00000\.parquet: is of format {version}"):
        _follow(photos, out)
    assert not (out / "manifest.json").exists()


@pytest.mark.parametrize("damage", ["cut", "empty", "no rows", "fewer rows"])
def test_a_damaged_shard_is_set_aside_and_its_images_fitted_again(photos: Path, tmp_path: Path, damage: str) -> None:
    out = tmp_path / "out"
    _follow(photos, out)
    rows, shard = _sizes(out), out / "shard-00000.parquet"
    if damage in ("cut", "empty"):
        shard.write_bytes(shard.read_bytes()[: -100 if damage == "cut" else 0])
    else:
        pq.write_table(pq.read_table(shard).slice(0, 0 if damage == "no rows" else 3), shard)
    with pytest.raises(InputError, match=r"shard-00000\.parquet: .*; run `dsr-fit batch` there again"):
        read_results(out)
    assert _follow(photos, out).done == 10
    assert _sizes(out) == rows
    assert (out / "shard-00000.parquet.damaged").exists()


@pytest.mark.parametrize("column", ["imgname", "labels", "betas"])
def test_a_shard_with_a_damaged_page_is_set_aside_too(photos: Path, tmp_path: Path, column: str) -> None:
    """One bit of any column, behind an end of the file that is whole; readers say what mends it."""
    out = tmp_path / "out"
    _follow(photos, out)
    rows, shard = _sizes(out), out / "shard-00000.parquet"
    group = pq.read_metadata(shard).row_group(0)
    chunk = next(
        chunk for chunk in map(group.column, range(group.num_columns)) if chunk.path_in_schema.startswith(column)
    )
    content = bytearray(shard.read_bytes())
    content[chunk.data_page_offset + chunk.total_compressed_size - 5] ^= 0x10
    shard.write_bytes(content)
    with pytest.raises(
        InputError, match=r"shard-00000\.parquet: is damaged .*; run `dsr-fit batch` there again, which"
    ):
        list(read_results(out))
    assert _follow(photos, out).done == 10
    assert _sizes(out) == rows
    assert (out / "shard-00000.parquet.damaged").exists()


def test_images_whose_shard_is_gone_are_known(photos: Path, tmp_path: Path) -> None:
    """Those of a lost shard; a replaced image whose second fit is lost still has its first."""
    out = tmp_path / "out"
    _follow(photos, out)
    (photos / "00001.jpg").write_text("other content")
    (photos / "00010.jpg").write_text("new")
    _follow(photos, out)
    assert open_store(out).missing() == set()
    (out / "shard-00001.parquet").unlink()
    assert open_store(out).missing() == {"00010.jpg"}
    assert _follow(photos, out).done == 2
    (out / "shard-00000.parquet").unlink()
    assert open_store(out).missing() == {f"{n:05d}.jpg" for n in (0, *range(2, 10))}


def test_an_image_that_was_replaced_twice_is_fitted_once_where_all_shards_are_gone(
    photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    _follow(photos, out)
    for content in ("once", "twice as much"):
        (photos / "00004.jpg").write_text(content)
        _follow(photos, out)
    before = _sizes(out)
    for path in out.glob("shard-*.parquet"):
        path.unlink()
    progress = _follow(photos, out)
    assert (progress.images, progress.before, progress.done, progress.statuses) == (10, 0, 10, {"accepted": 10})
    assert _sizes(out) == before
    assert _follow(photos, out).done == 0


@pytest.mark.parametrize("name", ["shard-00001.parquet", "shard-00000 (1).parquet", "parts/part-00000007.parquet"])
def test_a_stray_copy_of_a_shard_is_refused(photos: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    _follow(photos, out)
    shutil.copy(out / "shard-00000.parquet", out / name)
    for work in (lambda: read_results(out), lambda: _follow(photos, out)):
        with pytest.raises(InputError, match=r"; move it elsewhere"):
            work()
    (out / name).unlink()
    assert len(_sizes(out)) == 10


def test_a_shard_of_other_results_is_refused(photos: Path, tmp_path: Path) -> None:
    for name in ("one", "other"):
        _follow(photos, tmp_path / name)
    shutil.copy(tmp_path / "one" / "shard-00000.parquet", tmp_path / "other" / "shard-00000.parquet")
    with pytest.raises(InputError, match=r"shard-00000\.parquet: belongs to other results; move it elsewhere"):
        read_results(tmp_path / "other")


def test_a_lost_plan_is_made_from_the_rows(photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    rows = run(
        open_source(photos), out, SETTINGS, ONE, shard_size=SHARD, observe=partial(Read, photos), fit=Content
    )  # fmt: skip
    next(rows)
    rows.close()
    done = len(_sizes(out))
    plan = out / "plans" / "plan-0000.parquet"
    plan.write_bytes(plan.read_bytes()[:50])
    progress = _follow(photos, out)
    assert progress.done == 10 - done
    assert _sizes(out) == {f"{n:05d}.jpg": n + 1 for n in range(10)}


def test_power_losses_leave_the_same_rows(tmp_path: Path) -> None:
    """SIGKILL, then the last 4 KB of the three youngest files are gone. DSR_FIT_KILLS says how often."""
    whole = tmp_path / "whole"
    for _ in run(source(180), whole, SETTINGS, ONE, shard_size=SHARD, observe=Look, fit=Fit):
        pass
    out, record = tmp_path / "out", tmp_path / "record.txt"
    record.touch()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, sys.path)])}
    command = [sys.executable, str(HERE / "batch_stages.py"), str(out), "180", str(record), "0.02"]
    moments = random.Random(1)
    for _ in range(int(os.environ.get("DSR_FIT_KILLS", "5"))):
        begun = len(record.read_text())
        process = subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while len(record.read_text()) <= begun and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(moments.uniform(0, 0.3))
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        files = [path for path in out.rglob("*") if path.is_file() and path.name != ".lock"]
        for path in sorted(files, key=lambda file: file.stat().st_mtime_ns)[-3:]:
            os.truncate(path, max(0, path.stat().st_size - 4096))
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    key = lambda row: (row["imgname"], row["person"])  # noqa: E731
    found, expected = (sorted(read_results(folder), key=key) for folder in (out, whole))
    assert list(map(_comparable, found)) == list(map(_comparable, expected))


def _comparable(row: Row) -> dict[str, Any]:
    """Everything but the batch: an image whose plan was lost is planned again."""
    return {name: str(value) for name, value in row.items() if name != "batch"}


def _old_shard(tmp_path: Path) -> Path:
    """A shard that doesn't say what it is."""
    for _ in run(source(4), tmp_path / "old", SETTINGS, ONE, shard_size=SHARD, observe=Look, fit=Fit):
        pass
    table = pq.read_table(tmp_path / "old" / "shard-00000.parquet").replace_schema_metadata(None)
    pq.write_table(table, tmp_path / "old.parquet")
    return tmp_path / "old.parquet"


def test_the_manifest_is_valid_json_and_counts_its_plans(photos: Path, tmp_path: Path) -> None:
    _follow(photos, tmp_path / "out")
    (photos / "00011.jpg").write_text("more")
    (photos / "00001.jpg").write_text("other content")
    _follow(photos, tmp_path / "out")
    plans = json.loads((tmp_path / "out" / "manifest.json").read_text())["plans"]
    assert [(plan["images"], plan["added"], plan["replaced"]) for plan in plans] == [(10, 10, 0), (2, 1, 1)]
