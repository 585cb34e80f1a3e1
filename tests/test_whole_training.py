"""`dsr-fit train` of the open regressor: it can be resumed, says what it can't train with, and is read back."""

from __future__ import annotations

import csv
import os
import pickle
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from label_people import known_people
from PIL import Image
from safetensors.torch import load_file
from scenes import open_body
from training_parts import SMALL, settings_of

pytest.importorskip("lightning")

from dsr_fit.cli import main as cli
from dsr_fit.errors import UsageError
from dsr_fit.regressor.open_network import RegressorNetwork
from dsr_fit.regressor.open_regressor import write_network
from dsr_fit.training import splits
from dsr_fit.training.open_data import OpenData
from dsr_fit.training.open_module import TrainingBatch
from dsr_fit.training.pictures import PANEL
from dsr_fit.training.pseudo_labels import PseudoLabels
from dsr_fit.training.train import decay_of, kind_of, train


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> PseudoLabels:
    return known_people(tmp_path_factory.mktemp("photos"), range(5))


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a small network."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("start") / "small.safetensors"
    write_network(path, RegressorNetwork(SMALL), open_body())
    return path


@pytest.fixture
def as_labels(people: PseudoLabels, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands for a folder of fits."""
    monkeypatch.setattr(splits, "read_pseudo_labels", lambda path, body, images: people)
    return people.images


def _random_state() -> bytes:
    """The global generators' state, and the seeds that Lightning leaves in the environment."""
    seeds = [os.environ.get(name) for name in ("PL_GLOBAL_SEED", "PL_SEED_WORKERS")]
    return pickle.dumps((random.getstate(), np.random.get_state(), torch.get_rng_state().numpy(), seeds))  # noqa: NPY002


def _log(out: Path) -> list[dict[str, str]]:
    with (out / "log" / "version_0" / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.filterwarnings("ignore:::lightning")
def test_an_interrupted_training_ends_as_the_uninterrupted_one(
    tmp_path: Path, start: Path, as_labels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights, Adam's and the average's, batches of both kinds and dropout all go on where they were."""
    settings = settings_of(
        labels=(as_labels,), regressor=str(start), steps=6, epoch=2, batch=6, synthetic_share=0.5, held_out=0.3,
        dsr_after=0.5, threads=1,
    )  # fmt: skip

    def run(name: str, **changes: Any) -> dict[str, bytes]:
        threads, state = torch.get_num_threads(), _random_state()
        path = train(replace(settings, out=tmp_path / name, **changes), lines.append)
        assert path == tmp_path / name / "regressor.safetensors"
        assert torch.get_num_threads() == threads
        assert _random_state() == state
        return {name: value.numpy().tobytes() for name, value in load_file(path).items()}

    lines: list[str] = []
    whole = run("whole")
    assert [line.split(":")[0] for line in lines if line.startswith("epoch")] == [
        "epoch 1 of 3",
        "epoch 2 of 3",
        "epoch 3 of 3",
    ]
    begun = {name: value.half().numpy().tobytes() for name, value in load_file(start).items()}
    assert whole.keys() == begun.keys()
    assert all(whole[name] != begun[name] for name in whole if name.endswith("weight") and "norm" not in name)
    assert run("other", seed=1) != whole
    original = OpenData.batch

    def batch(self: OpenData, epoch: int, step: int, *ranks: int) -> TrainingBatch:
        if (epoch, step) == (2, 1):
            raise RuntimeError("killed")
        return original(self, epoch, step, *ranks)

    with monkeypatch.context() as killed:
        killed.setattr(OpenData, "batch", batch)
        state = _random_state()
        with pytest.raises(RuntimeError, match="killed"):
            run("parts")
    assert _random_state() == state
    assert (tmp_path / "parts" / "last.ckpt").exists()
    assert not (tmp_path / "parts" / "regressor.safetensors").exists()
    (tmp_path / "parts").rename(tmp_path / "moved")
    lines.clear()
    assert run("moved") == whole
    assert [line.split(":")[0] for line in lines if line.startswith("epoch")] == ["epoch 3 of 3"]
    for name in ("whole", "moved"):
        rows = _log(tmp_path / name)
        assert {row["epoch"] for row in rows if row["loss"]} == {"0", "1", "2"}
        late = [bool(row["loss_photo_dsr_mc"]) for row in rows if row["loss"]]
        assert late == [False, True, True]
        assert [row["epoch"] for row in rows if row["mpjpe_photos"]] == ["0", "1", "2"]
        pictures = sorted(path.name for path in (tmp_path / name / "pictures").iterdir())
        assert pictures == ["epoch-0001.png", "epoch-0002.png", "epoch-0003.png"]
    # A run that ended between its last checkpoint and its weights; and one that is asked for again.
    finished = tmp_path / "moved" / "regressor.safetensors"
    finished.unlink()
    assert run("moved") == whole
    moment = finished.stat().st_mtime_ns
    assert run("moved", threads=2) == whole
    assert finished.stat().st_mtime_ns == moment
    with pytest.raises(UsageError, match=r"was begun with other settings \(batch: 6, now 7\); choose another --out$"):
        run("moved", batch=7)


@pytest.mark.filterwarnings("ignore:::lightning")
def test_synthetic_people_alone_and_photos_alone(
    tmp_path: Path, start: Path, as_labels: Path, people: PseudoLabels
) -> None:
    common = settings_of(regressor=str(start), steps=1, batch=3, threads=1, precision="32")
    for name, changes in (
        ("bare", {}),
        ("photos", {"labels": (as_labels,), "synthetic_share": 0.0, "schedule": "constant"}),
    ):
        settings = replace(common, out=tmp_path / name, **changes)
        assert train(settings).exists()
        (row,) = [row for row in _log(settings.out) if row.get("loss")]
        assert ("loss_pixels" in row) == (name == "bare")
        assert ("loss_photo_points" in row) == (name == "photos")
        with Image.open(settings.out / "pictures" / "epoch-0001.png") as picture:
            shown = 6 if name == "bare" else len(people)
            assert picture.size == (6 * PANEL, -(-shown // 2) * PANEL)


def test_a_short_average_forgets_where_it_began() -> None:
    assert decay_of(100_000) == 0.998
    for steps in (1, 10, 500):
        assert decay_of(steps) ** steps < 0.01


# --- Refusals -----------------------------------------------------------------------------------------

REFUSALS = {
    "no steps": (["--steps", "0"], 2, "--steps 0: at least 1"),
    "no people": (["--batch", "0"], 2, "--batch 0: at least 1"),
    "a share above one": (["--synthetic-share", "1.5"], 2, "--synthetic-share 1.5: a share lies between 0 and 1"),
    "a share below zero": (["--held-out", "-0.1"], 2, "--held-out -0.1: a share lies between 0 and 1"),
    "no rate": (["--learning-rate", "0"], 2, "--learning-rate 0: expected a positive number"),
    "a negative seed": (["--seed", "-1"], 2, "--seed -1: 0 or more"),
    "a negative weight": (["--weights.dsr-c", "-1"], 2, "weights.dsr_c is -1; a weight is 0 or more"),
    "infinite weight": (
        ["--synthetic-weights.shape", "inf"], 2, "synthetic_weights.shape is inf; a weight is 0 or more",
    ),
    "no such labels": (["--labels", "none"], 1, "none: no such file or folder to train from"),
    "labels of nothing": (
        ["--labels", "empty"], 1, "empty: holds no results of `dsr-fit batch` (no manifest.json)",
    ),
    "labels that are none": (
        ["--labels", "file.txt"], 1,
        "file.txt: no labels to train on; a folder of `dsr-fit batch` or a SPIN .npz works",
    ),
    "photos of nobody": (
        ["--images", "empty"], 2, "--images empty: says where the photos of --labels are; give those too",
    ),
    "no synthetic people": (
        ["--synthetic", "empty"], 1,
        "--synthetic empty: holds no synthetic people; tools/train_regressor.py makes them",
    ),
    "no room for photos": (
        ["--labels", "empty", "--synthetic-share", "1"], 2,
        "--synthetic-share 1 leaves no room for the photos of --labels; give a smaller share",
    ),
    "nothing to learn": (
        ["--labels", "empty", *["--weights.keypoints", "0", "--weights.parameters", "0", "--weights.dsr-mc", "0"],
         "--weights.dsr-c", "0"], 2,
        "--weights: all are 0; no loss would use the photos of --labels",
    ),
    "no weights": (
        ["--regressor", "kinematic"], 2,
        "no weights to train for open; give --regressor: a checkpoint of DSR, SPIN or EFT, our .safetensors file, or "
        "`scratch`",
    ),
    "damaged weights": (
        ["--regressor", "damaged.safetensors"], 1,
        "damaged.safetensors: not readable weights of a regressor of ours (Error while deserializing header: "
        "header too small)",
    ),
    "out is a file": (["--out", "file.txt"], 1, "--out file.txt: is a file; name a folder"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
@pytest.mark.usefixtures("nothing_is_set")
def test_what_cannot_be_trained_with_is_one_line(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("file.txt").write_text("nothing")
    Path("damaged.safetensors").write_bytes(b"\x08")
    argv, status, message = REFUSALS[case]
    assert cli.main(["train", "--out", "out", *argv]) == status
    assert capsys.readouterr().err == f"dsr-fit: {message}\n"
    assert not Path("out").exists()


def test_kinds_of_regressors_are_told_by_their_names() -> None:
    body = open_body()
    for name in (None, "open", "scratch", "mine.safetensors"):
        assert kind_of(name, body) == "open"
    assert kind_of("dsr.ckpt", body) == "hmr"
    with pytest.raises(UsageError, match="no weights to train for SMPL;"):
        kind_of(None, replace(body, name="SMPL", sha256="0" * 64))
