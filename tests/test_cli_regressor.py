"""`--regressor` and `--mode` on the command line: refusals, and what a fit of a regressor's weights reports."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from batch_stages import Fit, Look, source
from hmr_files import flat, weights
from PIL import Image
from synthetic_smpl import synthetic_smpl, write_npz

from dsr_fit.assets import LICENSED, shipped
from dsr_fit.cli import main as cli
from dsr_fit.cli.batch import BatchArguments
from dsr_fit.config import FitConfig, from_dict
from dsr_fit.dataset.run import Resources, read_results, run
from dsr_fit.dataset.settings import Settings
from dsr_fit.errors import UsageError
from dsr_fit.joints import SMPL_JOINTS
from dsr_fit.regressor.open_regressor import ASSET

PERSON = Path(__file__).resolve().parents[1] / "examples" / "person.png"
EFT = ("--mode", "eft", "--eft.iterations", "3", "--eft.resolution", "56")

Capture = pytest.CaptureFixture[str]

pytestmark = pytest.mark.usefixtures("nothing_is_set")


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The example's person in a picture of half the size."""
    folder = tmp_path / "photos"
    folder.mkdir()
    with Image.open(PERSON) as image:
        image.convert("RGB").resize((320, 450)).save(folder / "small.png")
    return folder / "small.png"


def _refused(capfd: Capture, *argv: str) -> tuple[int, str]:
    """Run what must fail: status and what it said, that being one line of stderr."""
    capfd.readouterr()
    status = cli.main(list(argv))
    said = capfd.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    return status, said.err.rstrip("\n")


def test_a_missing_checkpoint_says_where_they_come_from(tmp_path: Path, capfd: Capture) -> None:
    out = str(tmp_path / "m.obj")
    status, line = _refused(capfd, str(PERSON), "--out", out, "--regressor", "nonsense.pt")
    entry = LICENSED["regressor"]
    assert status == 1
    assert line.startswith("dsr-fit: nonsense.pt: no such file (named by --regressor); ")
    assert all(words in line for words in (entry.source, entry.variable, "--regressor PATH"))
    status, line = _refused(capfd, str(PERSON), "--out", out, "--regressor", "nonsense.safetensors")
    assert (status, "no such file of a regressor's weights: nonsense.safetensors" in line) == (1, True)
    assert list(tmp_path.iterdir()) == []


def test_damaged_weights_are_one_line(tmp_path: Path, capfd: Capture) -> None:
    path = tmp_path / "mine.safetensors"
    path.write_bytes(shipped(ASSET).read_bytes()[:-100])
    status, line = _refused(capfd, str(PERSON), "--out", str(tmp_path / "m.obj"), "--regressor", str(path))
    assert status == 1
    assert line.startswith(f"dsr-fit: {path}: not readable weights of a regressor of ours (")


def test_hmr_asks_for_official_smpl(tmp_path: Path, capfd: Capture) -> None:
    path = tmp_path / "model_checkpoint.pt"
    torch.save({"model": flat(weights())}, path)
    status, line = _refused(capfd, str(PERSON), "--out", str(tmp_path / "m.obj"), "--regressor", str(path))
    assert status == 2
    assert line.startswith("dsr-fit: model_checkpoint.pt: HMR's bodies are official SMPL")
    assert line.endswith("give an official SMPL file with --body")


def test_our_regressor_is_the_open_bodys_alone(tmp_path: Path, capfd: Capture) -> None:
    path = write_npz(tmp_path / "smpl.npz", synthetic_smpl())
    np.save(tmp_path / "prior.npy", np.full((13776, 20), 0.05, np.float32))
    options = ("--body", str(path), "--semantic-prior", str(tmp_path / "prior.npy"))
    capfd.readouterr()
    assert cli.main([str(PERSON), "--out", str(tmp_path / "m.obj"), *options, "--regressor", "open"]) == 2
    (line,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("dsr-fit: the regressor")]
    assert "was trained for another body than smpl; leave --regressor out" in line


@pytest.mark.parametrize("mode", ["eft", "eft+smplify"])
def test_what_has_no_weights_is_refused_before_the_work(tmp_path: Path, capfd: Capture, mode: str) -> None:
    options = ("--mode", mode, "--regressor", "kinematic")
    status, line = _refused(capfd, str(PERSON), "--out", str(tmp_path / "m.obj"), *options)
    assert status == 2
    assert line.startswith(f"dsr-fit: --mode {mode}: the kinematic estimate has no weights to fit; give a --regressor")


def test_unknown_layers_are_wrong_usage(tmp_path: Path, capfd: Capture, small: Path) -> None:
    status, line = _refused(capfd, str(small), "--out", str(tmp_path / "m.obj"), *EFT, "--eft.layers", "decoder")
    assert status == 2
    assert "that may move begin with 'decoder'; known: first, refinements.0, refinements.1" in line


def test_a_fit_of_weights_says_whose_and_how_sure_they_were(tmp_path: Path, small: Path) -> None:
    assert cli.main([str(small), "--out", str(tmp_path / "m.obj"), *EFT]) == 0
    report = json.loads((tmp_path / "m.json").read_text())
    assert report["regressor"] == "open"
    assert list(report["joint_spread_deg"]) == list(SMPL_JOINTS)
    assert len(SMPL_JOINTS) == 24
    assert 0.01 < report["expected_error_m"] < 1
    assert all(0 < degrees < 120 for degrees in report["joint_spread_deg"].values())
    config = from_dict(FitConfig, report["config"])
    assert (config.mode, config.eft.iterations, config.eft.resolution) == ("eft", 3, 56)
    assert report["stop_reason"] in ("iteration limit", "keypoints fitted")
    assert report["iterations"] <= 3
    # The saved configuration is one; a regressor that doesn't say how sure it is leaves the key empty.
    config_file = tmp_path / "again.yaml"
    config_file.write_text(json.dumps(report["config"] | {"mode": "smplify", "stages": []}))
    options = ("--config", str(config_file), "--regressor", "kinematic")
    assert cli.main([str(small), "--out", str(tmp_path / "k.obj"), *options]) == 0
    report = json.loads((tmp_path / "k.json").read_text())
    assert (report["regressor"], report["joint_spread_deg"], report["quality"]) == ("kinematic", None, None)


def test_a_data_set_takes_the_same_options_and_does_not_mix(tmp_path: Path, capfd: Capture, small: Path) -> None:
    out = tmp_path / "results"
    batch = ("batch", str(small.parent), "--out", str(out), "--perceivers", "1", "--fitters", "1")
    assert cli.main([*batch, *EFT]) == 0
    (row,) = read_results(out)
    assert row["regressor"] == "open"
    assert row["spread"].shape == (24,)
    assert row["iterations"] <= 3
    stored = json.loads((out / "manifest.json").read_text())["runs"][0]["identity"]
    assert (stored["config"]["mode"], stored["regressor"]) == ("eft", [None, []])
    other = tmp_path / "other.safetensors"
    shutil.copyfile(shipped(ASSET), other)
    status, line = _refused(capfd, *batch, *EFT, "--regressor", str(other))
    assert status == 2
    assert "regressor" in line
    assert "choose another --out, or add --mix" in line
    fresh = (*batch[:3], str(tmp_path / "fresh"), *batch[4:])
    status, line = _refused(capfd, *fresh, *EFT, "--regressor", "kinematic")
    assert status == 2
    assert "has no weights to fit; give a --regressor" in line
    assert not (tmp_path / "fresh").exists()


def test_another_regressor_is_another_setting(tmp_path: Path) -> None:
    own, same, mean = (tmp_path / name for name in ("own.safetensors", "same.safetensors", "mean.npz"))
    own.write_bytes(b"one")
    mean.write_bytes(b"mean")
    given = BatchArguments(
        source=Path("photos"), out=tmp_path, regressor=str(own), smpl_mean_params=mean, device="cpu"
    )  # fmt: skip
    settings = given.settings()
    assert (settings.regressor, settings.smpl_mean_params) == (str(own), mean)
    resources, results = Resources(observers=1, fitters=1), tmp_path / "results"
    list(run(source(4), results, settings, resources, observe=Look, fit=Fit))
    list(run(source(4), results, settings, resources, observe=Look, fit=Fit))
    for other in ("kinematic", "open", None):
        with pytest.raises(UsageError, match=r"regressor.*choose another --out, or add --mix"):
            list(run(source(4), results, Settings(regressor=other), resources, observe=Look, fit=Fit))
    same.write_bytes(b"two")
    identities = [Settings(regressor=str(path)).identity()["regressor"][1] for path in (own, same)]
    assert identities[0] != identities[1]


def test_mean_parameters_are_part_of_a_licensed_runs_identity(tmp_path: Path) -> None:
    """They decide where a checkpoint without its own starts; the open body knows nothing of them."""
    body, mean = tmp_path / "smpl.npz", tmp_path / "mean.npz"
    body.write_bytes(b"body")
    mean.write_bytes(b"mean")
    with_mean, without = (
        Settings(body=str(body), smpl_mean_params=path).identity()["files"]["smpl_mean_params"] for path in (mean, None)
    )
    assert (len(with_mean), without) == (64, "shipped")
    assert Settings(smpl_mean_params=mean).identity() == Settings().identity()
