"""What `dsr-fit batch` says of its progress and its end; and the example."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest
from batch_pictures import ROOT, photo
from PIL import Image

from dsr_fit.cli import main as cli
from dsr_fit.cli.batch import sentence
from dsr_fit.cli.options import NO_GATE
from dsr_fit.dataset.run import read_results
from dsr_fit.dataset.shards import open_store


def test_the_command_tells_its_progress_by_lines(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    photo().save(folder / "person.png")
    Image.new("RGB", (200, 300)).save(folder / "nobody.png")
    options = ["--stages.0.iterations", "2", "--stages.1.iterations", "1", "--fitters", "1", "--overlays"]
    command = ["batch", str(folder), "--out", str(tmp_path / "out"), *options]
    assert cli.main(command) == 3
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    last = lines[-1]
    assert (last["images"], last["done"], last["failed"]) == (2, 2, 1)
    assert last["unjudged"] == 1  # the gate that ships is not calibrated for stages so short
    assert last["accepted"] == last["refused"] == 0
    assert 0 < last["utilisation"] <= 1
    picture = cv2.imread(str(tmp_path / "out" / "overlays" / "person.png.0.jpg"))
    assert picture is not None
    assert cli.main(command) == 3
    again = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert (again["done"], again["failed"], again["unjudged"]) == (2, 1, 1)
    assert again["now"] == {"done": 0, "accepted": 0, "unjudged": 0, "refused": 0, "failed": 0}
    assert open_store(tmp_path / "out").manifest.kind == "folder"


def test_the_end_of_a_run_is_told_to_people(tmp_path: Path) -> None:
    found = {
        "done": 5, "images": 6, "accepted": 3, "refused": 1, "failed": 2, "unjudged": 0, "rate": 1.5,
        "utilisation": 0.9, "cores": 2, "now": {"done": 5}, "added": 6, "replaced": 0, "retried": 0, "removed": 0,
    }  # fmt: skip
    counts = "people: 3 accepted, 1 refused, 2 failed"
    speed = "1.50 images/s, 90 % of 2 cores\n"
    said = sentence(found, 0, tmp_path)
    assert said == f"{tmp_path}: 5 of 6 images done, 5 of them now; {counts}; {speed}"
    said = sentence({**found, "now": {"done": 3}, "added": 2, "retried": 1, "removed": 4}, 0, tmp_path)
    kept = "4 images are no longer in the source, their rows are kept"
    assert said == f"{tmp_path}: 5 of 6 images done, 3 of them now (2 added, 1 retried); {counts}; {kept}; {speed}"
    said = sentence({**found, "unjudged": 4}, 7, tmp_path)
    assert f"3 accepted, 4 unjudged ({NO_GATE}), 1 refused, 2 failed, 7 people of" in said


def test_the_example_runs(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    photo().save(tmp_path / "photos" / "person.png")
    command = [sys.executable, str(ROOT / "examples" / "fit_dataset.py"), "photos", "results"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ended = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    first, last = ended.stdout.splitlines()
    assert first.startswith("person.png ")
    assert "accepted in all" in last
    assert len(list(read_results(tmp_path / "results"))) == 1
