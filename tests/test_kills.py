"""`train` and `export` killed at random moments, and after losses of power: the same command ends with the same files.

Batches have their own tests. DSR_FIT_KILLS says how often; every second kill is a loss of power too: the last 4 KB of
the three youngest files are gone.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from label_folders import smpl_settings, write_results
from scenes import open_body
from training_parts import SMALL

from dsr_fit.regressor.open_network import RegressorNetwork
from dsr_fit.regressor.open_regressor import write_network

KILLS = int(os.environ.get("DSR_FIT_KILLS", "2"))


def _until_it_ends(command: list[str], work: Path, results: list[Path], seed: int) -> list[bytes]:
    """The files of a command that is killed `KILLS` times before it may end; each is whole whenever it is there."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_WAIT_POLICY": "PASSIVE"}
    words = [sys.executable, "-m", "dsr_fit", *command]
    moments = random.Random(seed)
    started = time.monotonic()
    subprocess.run(words, env=environment, check=True, capture_output=True)
    took = time.monotonic() - started
    expected = [path.read_bytes() for path in results]
    for path in results:
        path.unlink()
    for path in sorted(work.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    left: dict[Path, bytes] = {}  # what a loss of power has left of a result
    for number in range(KILLS):
        process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(moments.uniform(0.3, 1) * took)
        process.send_signal(signal.SIGKILL)
        process.wait()
        for path, content in zip(results, expected, strict=True):
            assert not path.exists() or path.read_bytes() in (content, left.get(path))
        if number % 2:
            files = [path for path in [*work.rglob("*"), *results] if path.is_file()]
            for path in sorted(files, key=lambda file: file.stat().st_mtime_ns)[-3:]:
                os.truncate(path, max(0, path.stat().st_size - 4096))
            left = {path: path.read_bytes() for path in results if path.exists()}
    ended = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert [path.read_bytes() for path in results] == expected
    return expected


def test_a_training_ends_with_the_same_weights(tmp_path: Path) -> None:
    torch.manual_seed(1)
    start, out = tmp_path / "small.safetensors", tmp_path / "out"
    write_network(start, RegressorNetwork(SMALL), open_body())
    out.mkdir()
    options = ["--steps", "24", "--epoch", "3", "--batch", "8", "--synthetic-share", "1", "--threads", "1"]
    command = ["train", "--regressor", str(start), "--out", str(out), *options]
    (weights,) = _until_it_ends(command, out, [out / "regressor.safetensors"], seed=0)
    assert weights != start.read_bytes()


@pytest.mark.parametrize("kind", ["spin", "webdataset"])
def test_an_export_is_the_same_file(tmp_path: Path, kind: str) -> None:
    write_results(tmp_path, smpl_settings(tmp_path))
    work = tmp_path / "exports"
    work.mkdir()
    out = work / {"spin": "set.npz", "webdataset": "set.tar"}[kind]
    command = ["export", str(tmp_path / "out"), "--format", kind, "--out", str(out), "--refused"]
    (content,) = _until_it_ends(command, work, [out], seed=1)
    assert len(content) > 1000
