"""`benchmarks/gpu.py`'s runner, whatever its steps do; and the table made of its results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tables import gpu as tables

ROOT = Path(__file__).resolve().parents[1]
RUNNER = """
import sys, json
from pathlib import Path
sys.path[:0] = sys.argv[2].split(":")
import gpu
from gpu_steps.setup import Setup

gpu.STEPS = dict.fromkeys(("works", "fails", "dies", "also works"), None)
gpu.DRY_SECONDS = 1
gpu.STEPS = {"works": ("stand_ins.works", 60), "fails": ("stand_ins.fails", 60), "dies": ("stand_ins.dies", 60),
             "hangs": ("stand_ins.hangs", 1), "ends": ("stand_ins.works", 60), "late": ("stand_ins.works", 60)}
if __name__ == "__main__":
    out = Path(sys.argv[1])
    report = gpu.Report(out / "gpu.json", {"steps": {}})
    gpu.run(Setup("cpu", True, out, out, out), list(gpu.STEPS)[:5], 120, report)
    gpu.run(Setup("cpu", True, out, out, out), ["late"], 0, report)
"""
STAND_INS = """
import os, time

def works(setup):
    yield {"first": 1}
    yield {"second": 2}

def fails(setup):
    yield {"first": 1}
    raise ValueError("two\\nlines")

def dies(setup):
    yield {"first": 1}
    os._exit(7)

def hangs(setup):
    yield {"first": 1}
    time.sleep(600)
"""


def test_a_step_that_fails_dies_or_hangs_costs_no_other(tmp_path: Path) -> None:
    (tmp_path / "runner.py").write_text(RUNNER)
    (tmp_path / "gpu_steps").mkdir()
    for name in ("__init__", "setup"):
        source = ROOT / "benchmarks" / "gpu_steps" / f"{name}.py"
        (tmp_path / "gpu_steps" / source.name).write_text(source.read_text())
    (tmp_path / "gpu_steps" / "stand_ins.py").write_text(STAND_INS)
    paths = f"{tmp_path}:{ROOT / 'benchmarks'}:{ROOT}"
    started = time.monotonic()
    command = [sys.executable, str(tmp_path / "runner.py"), str(tmp_path), paths]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "PYTHONPATH": paths})
    assert time.monotonic() - started < 300
    steps = json.loads((tmp_path / "gpu.json").read_text())["steps"]
    assert {name: step.get("first") for name, step in steps.items()} == {
        "works": 1, "fails": 1, "dies": 1, "hangs": 1, "ends": 1, "late": None,
    }  # fmt: skip
    assert "error" not in steps["works"] | steps["ends"]
    assert steps["ends"]["second"] == 2
    assert steps["fails"]["error"] == "ValueError: two lines"
    assert steps["dies"]["error"] == "its process ended with status 7"
    assert steps["hangs"]["error"].startswith("cut off after")
    assert steps["late"]["error"] == "not reached within 0 s"


@pytest.mark.parametrize("broken", [None, "fits"])
def test_the_table_of_a_report(broken: str | None) -> None:
    """Of the dry run, whose form is that of a GPU's."""
    report = json.loads((ROOT / "benchmarks" / "results" / "gpu_dry_run.json").read_text())
    assert report["device"] == "cpu"
    assert not any("error" in step for step in report["steps"].values())
    if broken:
        report["steps"][broken] = {"error": "RuntimeError: CUDA error"}
    rows = tables.table(report).splitlines()
    assert all(row.count("|") == 3 for row in rows)
    assert any(row.startswith("| whole pipeline") for row in rows)
    assert any("CUDA error" in row for row in rows) == bool(broken)
