"""`dsr-fit evaluate spin`: files of data sets in SPIN's format, and the command from photo to table."""

from __future__ import annotations

import json
import os
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import PERSON, Capture
from scenes import open_body
from synthetic_smpl import h36m_regressor, synthetic_smpl, write_npz

from dsr_fit.assets import LICENSED
from dsr_fit.cli import main as cli
from dsr_fit.errors import InputError, UsageError
from dsr_fit.evaluate.spin import SMPL_VERTICES
from dsr_fit.io.spin_file import read_spin
from dsr_fit.joints import SPIN_24
from dsr_fit.rotation import axis_angle_to_matrix

TURN = axis_angle_to_matrix(torch.tensor([[0.4, -1.0, 2.0]], dtype=torch.float64))[0].numpy()

OPTION = re.compile(r"`(--[a-z0-9-]+)")


pytestmark = pytest.mark.usefixtures("nothing_is_set")


class _Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("attacked",)


def _run(argv: list[str]) -> None:
    cli.parse(["evaluate", "spin", *argv]).run()


def _write(path: Path, **columns: Any) -> Path:
    base = {"imgname": np.array(["a.png", "b.png"]), "center": np.zeros((2, 2)), "scale": np.ones(2)}
    np.savez(path, **(base | columns))
    return path


@pytest.mark.parametrize(
    "names",
    [
        np.array(["a.png", "é/b.png"]),
        np.array([b"a.png", "é/b.png".encode()]),
        np.array(["a.png", "é/b.png"], dtype=object),
        np.array(["a.png", "é/b.png".encode()], dtype=object),
        np.array([np.str_("a.png"), np.str_("é/b.png")], dtype=object),
    ],
    ids=["text", "bytes", "objects", "mixed objects", "numpy objects"],
)
def test_names_are_read_however_they_are_stored(tmp_path: Path, names: np.ndarray) -> None:
    file = read_spin(_write(tmp_path / "a.npz", imgname=names, gender=np.array([b"m", "f"], dtype=object)))
    assert file.imgname == ("a.png", "é/b.png")
    assert file.gender == ("m", "f")
    assert file.has_smpl.tolist() == [True, True]
    assert file.box(0) == (-100.0, -100.0, 200.0, 200.0)


@pytest.mark.parametrize("column", ["imgname", "gender", "S", "center"])
def test_a_pickle_that_runs_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: str) -> None:
    monkeypatch.chdir(tmp_path)
    path = _write(tmp_path / "evil.npz", **{column: np.array([_Attack(), _Attack()], dtype=object)})
    with pytest.raises(InputError, match=r"evil\.npz: refused, the pickle wants (posix|nt)\.mkdir") as caught:
        read_spin(path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "attacked").exists()


def test_columns_that_nobody_needs_are_not_looked_at(tmp_path: Path) -> None:
    assert len(read_spin(_write(tmp_path / "a.npz", other=np.array([_Attack()], dtype=object)))) == 2


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"S": np.zeros((2, 17, 4))}, r"`S` has shape \(2, 17, 4\), expected \(2, 24, 4\)"),
        ({"scale": np.ones(3)}, r"`scale` has shape \(3,\), expected \(2,\)"),
        ({"center": np.array(["a", "b"])}, "`center` holds something else than numbers"),
        ({"imgname": np.zeros(2)}, "`imgname` must be a list of texts"),
        ({"imgname": np.array([3, "b"], dtype=object)}, "`imgname` must be a list of texts"),
        ({"imgname": np.array("a.png")}, "`imgname` must be a list of texts"),
        ({"gender": np.array(["m"])}, "`gender` has 1 rows, `imgname` 2"),
        ({"imgname": np.array([], dtype=str)}, "holds no rows"),
    ],
)
def test_wrong_columns_are_one_line(tmp_path: Path, columns: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        read_spin(_write(tmp_path / "a.npz", **columns))
    assert "\n" not in str(caught.value)


def test_files_of_another_kind_are_one_line(tmp_path: Path) -> None:
    whole = _write(tmp_path / "a.npz").read_bytes()
    np.savez(tmp_path / "part.npz", imgname=np.array(["a"]))
    (tmp_path / "pickle.npz").write_bytes(pickle.dumps(_Attack()))
    (tmp_path / "cut.npz").write_bytes(whole[:-30])
    for name, words in {
        "part.npz": "it lacks center, scale",
        "pickle.npz": "not a readable",
        "cut.npz": "not a readable",
        "gone.npz": "no such dataset in SPIN",
    }.items():
        with pytest.raises(InputError, match=words):
            read_spin(tmp_path / name)


def _smpl_files(folder: Path) -> list[str]:
    for gender in "nmf":
        write_npz(folder / f"{gender}.npz", synthetic_smpl("nmf".index(gender)))
    np.save(folder / "h36m.npy", h36m_regressor())
    np.save(folder / "extra.npy", np.zeros((9, SMPL_VERTICES)))
    return [
        "--body-male", str(folder / "m.npz"), "--body-female", str(folder / "f.npz"),
        "--joint-regressor-h36m", str(folder / "h36m.npy"), "--joint-regressor-extra", str(folder / "extra.npy"),
    ]  # fmt: skip


def _quick(folder: Path) -> list[str]:
    (folder / "quick.yaml").write_text("stages: [{resolution: 56, iterations: 2}]\n")
    return ["--config", str(folder / "quick.yaml")]


def _person_file(path: Path, missing: bool = True) -> Path:
    """The example photo with its true joints, and a row whose image doesn't exist."""
    truth = json.loads(PERSON.with_suffix(".json").read_text())
    names = ("global_orient", "body_pose", "betas")
    orient, pose, betas = (torch.tensor([truth[name]]) for name in names)
    posed = open_body()(orient, pose, betas, torch.zeros(1, 3))
    joints = posed.keypoints[0, 25:].numpy()
    joints = joints - joints[SPIN_24.index("Pelvis (MPII)")]
    stored = np.concatenate([joints, np.ones((24, 1))], 1)
    count = 2 if missing else 1
    np.savez(
        path, imgname=np.array(["person.png", "gone.png"][:count]), center=np.array([[320.0, 450.0]] * count),
        scale=np.array([4.5] * count), S=np.stack([stored] * count), pose=np.zeros((count, 72)),
        shape=np.zeros((count, 10)), gender=np.array(["m", "f"][:count]),
    )  # fmt: skip
    return path


def test_the_command_fits_a_photo_and_counts_what_is_missing(tmp_path: Path, capfd: Capture) -> None:
    data, out = _person_file(tmp_path / "d.npz"), tmp_path / "r.json"
    argv = ["--data", str(data), "--images", str(PERSON.parent), "--out", str(out), "--truth", "joints"]
    _run([*argv, "--protocol", "17", *_quick(tmp_path)])
    said = capfd.readouterr().out
    found = json.loads(out.read_text())
    assert said == out.with_suffix(".md").read_text()
    assert (found["rows"], found["evaluated"], found["failures"]) == (2, 1, {"missing image": 1})
    assert (found["protocol"], found["truth"], found["keypoints"]) == (17, "S", {"blazepose-heavy": 1})
    assert "the body's own keypoints" in said
    assert "This body isn't SMPL" in said
    assert "row 1, gone.png: no such image" in said
    (row,) = found["per_row"]
    # The detector's landmarks carry the depth: a wrong frame or joint order would be several times that.
    assert max(row["pa_mpjpe"], row["mpjpe"]) < 150
    assert found["metrics_mm"]["mpjpe"] == {"mean": row["mpjpe"], "low": None, "high": None, "people": 1}
    assert found["metrics_mm"]["pve"] is None


def test_genders_make_bodies_the_truth(tmp_path: Path, capfd: Capture) -> None:
    data, out = _person_file(tmp_path / "d.npz", missing=False), tmp_path / "r.json"
    argv = ["--data", str(data), "--images", str(PERSON.parent), "--out", str(out), *_quick(tmp_path)]
    _run([*argv, *_smpl_files(tmp_path)])
    assert json.loads(out.read_text())["truth"] == "posed SMPL by J_regressor_h36m"
    assert "true joints: posed SMPL" in capfd.readouterr().out


def test_a_fit_of_smpl_is_judged_by_its_vertices(tmp_path: Path, capfd: Capture) -> None:
    data, out, files = _person_file(tmp_path / "d.npz", missing=False), tmp_path / "r.json", _smpl_files(tmp_path)
    np.save(tmp_path / "prior.npy", np.full((13776, 20), 0.05))
    own = ["--body", str(tmp_path / "n.npz"), "--semantic-prior", str(tmp_path / "prior.npy")]
    argv = ["--data", str(data), "--images", str(PERSON.parent), "--out", str(out), *_quick(tmp_path)]
    _run([*argv, *files, *own])
    found, said = json.loads(out.read_text()), capfd.readouterr().out
    assert found["joints"] == "J_regressor_h36m of the fit's vertices"
    assert "This body isn't SMPL" not in said
    assert found["per_row"][0]["pve"] > 0
    assert "| PVE | " in said


def test_licensed_files_that_are_needed_are_named_with_their_source(tmp_path: Path) -> None:
    data = _person_file(tmp_path / "d.npz")
    argv = ["--data", str(data), "--images", str(PERSON.parent), "--out", str(tmp_path / "r.json")]
    files = _smpl_files(tmp_path)
    for flag in ("body_male", "body_female", "joint_regressor_h36m"):
        option, entry = "--" + flag.replace("_", "-"), LICENSED[flag]
        at = files.index(option)
        with pytest.raises(InputError) as caught:
            _run([*argv, *files[:at], *files[at + 2 :]])
        line = str(caught.value)
        assert all(words in line for words in (entry.what, entry.source, f"{option} PATH", entry.variable))
        assert "\n" not in line
        with pytest.raises(InputError, match=rf"no such file \(named by {option}\)"):
            _run([*argv, *files[:at], option, "none.npz", *files[at + 2 :]])
    assert not (tmp_path / "r.json").exists()


@pytest.mark.parametrize(
    ("words", "error", "line"),
    [
        (["--every", "0"], UsageError, "--every 0: expected a positive number"),
        (["--focal", "-1"], UsageError, "--focal -1: expected pixels"),
        (["--out", "r.txt"], UsageError, "the suffix must be .json"),
        (["--out", "d.npz/r.json"], InputError, "d.npz is a file, not a folder"),
        (["--truth", "joints"], InputError, "holds no ground truth"),
        (["--truth", "bodies"], InputError, "lacks `pose` or `shape`"),
    ],
)
def test_what_cannot_work_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], error: type[Exception], line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    _write(tmp_path / "d.npz")
    given = {"--data": "d.npz", "--images": ".", "--out": "r.json"} | dict([words])
    with pytest.raises(error, match=line.replace("`", ".")):
        _run([word for pair in given.items() for word in pair])
    assert not list(tmp_path.glob("*.json"))


def test_a_file_of_which_nothing_works_fails_and_still_lists_why(tmp_path: Path) -> None:
    data, out = _person_file(tmp_path / "d.npz"), tmp_path / "r.json"
    (tmp_path / "empty").mkdir()
    argv = ["--data", str(data), "--images", str(tmp_path / "empty"), "--out", str(out), "--truth", "joints"]
    with pytest.raises(InputError, match="none of 2 rows could be evaluated"):
        _run(argv)
    assert json.loads(out.read_text())["failures"] == {"missing image": 2}


def test_the_command_line_knows_it(capfd: Capture) -> None:
    assert cli.main(["evaluate", "--help"]) == 0
    assert "  evaluate spin " in capfd.readouterr().out
    status = cli.main(["evaluate", "spin", "--data", "gone.npz", "--images", ".", "--out", "r.json"])
    assert (status, capfd.readouterr().err) == (1, "dsr-fit: --data gone.npz: no such file\n")
