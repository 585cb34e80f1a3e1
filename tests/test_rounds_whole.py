"""A round and a control arm as their command runs them, fits and training included, killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from dsr_fit.assets import shipped
from dsr_fit.dataset.run import read_results
from dsr_fit.regressor.open_regressor import ASSET
from dsr_fit.synthetic.dataset import write_cases

pytest.importorskip("lightning", reason="training needs Lightning: pip install 'dsr-fit[train]'")

SCRIPT = Path(__file__).resolve().parents[1] / "experiments" / "rounds" / "control_arms.py"
QUICK = """
least_squares: {pose_steps: 2, steps: 4}
stages: [{resolution: 56, iterations: 2}]
"""


def test_a_round_killed_while_it_trains_goes_on(tmp_path: Path) -> None:
    """Kill -9 as soon as the training is announced; the same command ends it, and fits nobody again."""
    write_cases(tmp_path / "cases", (10_000, 10_003))
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in (10_000, 10_003):
        (photos / f"{seed}.png").symlink_to(tmp_path / "cases" / f"{seed:06d}.png")
    (tmp_path / "quick.yaml").write_text(QUICK)
    out = tmp_path / "out"
    command = [
        *(sys.executable, str(SCRIPT), str(photos), "--out", str(out)),
        *("--config", str(tmp_path / "quick.yaml"), "--arms", "ungated", "--cases-dir", str(tmp_path / "cases")),
        *("--cases", "1", "--calibration", "0", "--steps", "3", "--train-batch", "8", "--threads", "1"),
        *("--fitters", "1", "--perceivers", "1"),
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_WAIT_POLICY": "PASSIVE"}
    begun = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert begun.stderr is not None
    said = [line for line in iter(begun.stderr.readline, "") if _kill_at("round 1: training", line, begun)]
    assert begun.wait() == -signal.SIGKILL, "".join(said)
    begun.stderr.close()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.parquet")}
    assert before
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "\nround 1: fits" not in f"\n{done.stderr}"
    assert {path: path.stat().st_mtime_ns for path in before} == before
    table = json.loads((out / "comparison.json").read_text())
    assert list(table["regressors"]) == ["start", "round 1", "ungated, round 1"]
    assert done.stdout.endswith((out / "comparison.md").read_text())
    start, trained = load_file(shipped(ASSET)), load_file(out / "round-1" / "regressor.safetensors")
    assert set(start) == set(trained)
    assert any(not np.array_equal(start[name], trained[name]) for name in start)
    rows = list(read_results(out / "round-1" / "fits"))
    assert [row["imgname"] for row in rows] == ["10000.png", "10003.png"]


def _kill_at(words: str, line: str, process: subprocess.Popen[str]) -> bool:
    if line.startswith(words):
        process.kill()
    return True
