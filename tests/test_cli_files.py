"""Files that people really have: suffixes in capitals, byte order marks, junk under a known suffix."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import trimesh
from command_line import PERSON, QUICK, Capture, refused
from synthetic_smpl import synthetic_smpl

from dsr_fit.assets import licensed_setting, shipped, user_file
from dsr_fit.body.files import load_body
from dsr_fit.cli import main as cli
from dsr_fit.config import load_config
from dsr_fit.dataset.listing import open_source
from dsr_fit.errors import InputError
from dsr_fit.gate.gate import ASSET, read_gate
from dsr_fit.io.keypoint_files import read_keypoints
from dsr_fit.io.safe_pickle import read_pickle

BOM = "\ufeff"
POINTS = [[float(10 + 5 * joint), float(20 + 3 * joint), 1.0] for joint in range(17)]

pytestmark = pytest.mark.usefixtures("nothing_is_set")


def test_outputs_may_be_written_in_capitals(tmp_path: Path) -> None:
    out = tmp_path / "MESH.PLY"
    assert cli.main([str(PERSON), "--out", str(out), *QUICK]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["MESH.PLY", "MESH.json", "MESH.npz", "MESH.png"]
    with out.open("rb") as file:
        mesh = trimesh.load_mesh(file, file_type="ply")
    assert isinstance(mesh, trimesh.Trimesh)
    assert len(mesh.faces) > 10_000
    assert cli.main([str(PERSON), "--out", str(tmp_path / "again.OBJ"), "--keypoints", str(_copy(tmp_path, "K.NPZ")),
                     *QUICK]) == 0  # fmt: skip


def _copy(folder: Path, name: str) -> Path:
    return Path(shutil.copy(folder / "MESH.npz", folder / name))


def test_arrays_alone_may_be_written_in_capitals(tmp_path: Path) -> None:
    """numpy appends `.npz` to any other name."""
    from dsr_fit.io.files import replacing

    with replacing(tmp_path / "A.NPZ") as temporary:
        np.savez(temporary, one=np.ones(1))
    assert [path.name for path in tmp_path.iterdir()] == ["A.NPZ"]


def test_inputs_may_be_named_in_capitals(tmp_path: Path) -> None:
    arrays = {name: np.asarray(value) for name, value in synthetic_smpl().items()}
    (tmp_path / "SMPL.PKL").write_bytes(pickle.dumps(arrays, protocol=2))
    assert load_body(tmp_path / "SMPL.PKL").num_vertices == 6890
    shutil.copy(PERSON, tmp_path / "A.PNG")
    (tmp_path / "LIST.TXT").write_text("A.PNG\n")
    (entry,) = open_source(tmp_path / "LIST.TXT").entries
    assert entry.imgname == "A.PNG"


@pytest.mark.parametrize("kept", [0, 1, 30, 2000])
@pytest.mark.parametrize("junk", ["text", "zeros", "memo", "cut"])
def test_junk_with_the_name_of_a_body_is_one_clear_line(tmp_path: Path, capfd: Capture, junk: str, kept: int) -> None:
    arrays = {name: np.asarray(value) for name, value in synthetic_smpl().items()}
    content = {
        "text": b"junk, not a pickle\n" * 200,
        "zeros": b"\0" * 4000,
        "memo": b"hhhhhhhh" * 500,  # BINGET of what was never put
        "cut": pickle.dumps(arrays, protocol=2),
    }[junk][:kept]
    path = tmp_path / "smpl.pkl"
    path.write_bytes(content)
    status, line = refused(capfd, [str(PERSON), "--out", str(tmp_path / "m.obj"), "--body", str(path)])
    assert status == 1
    assert line.startswith(f"dsr-fit: {path}: not a readable pickle: damaged, cut short, or another kind of file (")
    assert "wants" not in line


def test_what_a_pickle_may_not_name_is_told_apart_from_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"v_template": Path("x")}, protocol=2))
    with pytest.raises(InputError, match=r"refused, the pickle wants pathlib\.PosixPath"):
        read_pickle(path, ("v_template",))


def test_a_byte_order_mark_is_no_content(tmp_path: Path) -> None:
    """Editors on Windows put one before any text."""

    def written(name: str, text: str) -> Path:
        (tmp_path / name).write_text(BOM + text, encoding="utf-8")
        return tmp_path / name

    shutil.copy(PERSON, tmp_path / "a.png")
    assert load_config(written("mine.yaml", "seed: 5")).seed == 5
    (person,) = read_keypoints(written("k.json", json.dumps([{"keypoints": POINTS}])), (640, 900))
    assert (person.keypoints[:, 2] > 0).sum() == 17
    (entry,) = open_source(written("list.txt", "a.png\n")).entries
    assert entry.imgname == "a.png"
    flat = [value for x, y, _ in POINTS for value in (x, y, 2)]
    people = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"image_id": 1, "keypoints": flat}]}
    assert len(open_source(written("coco.json", json.dumps(people)))) == 1
    read_gate(written("gate.json", shipped(ASSET).read_text(encoding="utf-8")))
    user_file().parent.mkdir(parents=True)
    user_file().write_text(f"{BOM}body: smpl.pkl\n", encoding="utf-8")
    assert licensed_setting("body") == ("smpl.pkl", str(user_file()))


@pytest.mark.parametrize("text", ["seed: 1".encode("utf-16"), b"seed: \xff", b"seed: 2024-13-45", b"[" * 3000])
def test_a_configuration_that_is_no_text_is_one_line(tmp_path: Path, capfd: Capture, text: bytes) -> None:
    (tmp_path / "mine.yaml").write_bytes(text)
    argv = [str(PERSON), "--out", str(tmp_path / "m.obj"), "--config", str(tmp_path / "mine.yaml")]
    status, line = refused(capfd, argv)
    assert (status, "mine.yaml: not valid YAML (" in line) == (2, True)


def test_ids_beyond_64_bits_are_found_when_the_file_is_read(tmp_path: Path) -> None:
    shutil.copy(PERSON, tmp_path / "a.png")
    flat = [value for x, y, _ in POINTS for value in (x, y, 2)]
    annotation = {"image_id": 1, "keypoints": flat, "id": 2**64}
    people = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": [annotation]}
    (tmp_path / "coco.json").write_text(json.dumps(people))
    with pytest.raises(
        InputError, match=r"annotation 0 can't be read \(its id 18446744073709551616 has more than 64 bits"
    ):
        open_source(tmp_path / "coco.json")
