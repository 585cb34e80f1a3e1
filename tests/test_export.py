"""Exports read back by readers of our own, written from each format's definition and from nothing of the writers."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from label_folders import store_rows
from PIL import Image
from scenes import observe, open_body, person
from synthetic_smpl import synthetic_smpl, write_npz

from dsr_fit.body.parameters import Parameters
from dsr_fit.camera import Crop, project, ray_rotation, spin_translation
from dsr_fit.cli import main as cli
from dsr_fit.config import FitConfig, LeastSquares, Stage
from dsr_fit.dataset.exports.coco import write_coco
from dsr_fit.dataset.exports.eft import _residual, orthographic, write_eft
from dsr_fit.dataset.exports.labels import label_of
from dsr_fit.dataset.exports.spin import write_spin
from dsr_fit.dataset.exports.webdataset import _key
from dsr_fit.dataset.fitting import BatchFitter
from dsr_fit.dataset.listing import open_source
from dsr_fit.dataset.manifest import PlanNote
from dsr_fit.dataset.names import stored_name
from dsr_fit.dataset.records import PackedObservation, PersonObservation
from dsr_fit.dataset.schema import Row
from dsr_fit.dataset.settings import Settings
from dsr_fit.dataset.shards import open_store
from dsr_fit.fitting.convert import convert
from dsr_fit.fitting.fitter import crop_camera
from dsr_fit.io.safe_pickle import load_pickle
from dsr_fit.labels import COLOURS, OCCLUDER
from dsr_fit.rotation import axis_angle_to_matrix

QUICK = FitConfig(least_squares=LeastSquares(pose_steps=4, steps=8), stages=(Stage(56, 2),))
NAMES = ("a.png", "sub/b.png", "c.png")


def _results(folder: Path, camera: Any = "full", smpl: bool = False) -> list[Row]:
    """Two images with three fitted people, one refused, and an image without anybody, as a run leaves them."""
    images = folder / "images"
    (images / "sub").mkdir(parents=True)
    settings = Settings(config=QUICK, camera=camera)
    places = (-0.45, 0.55, 0.05)
    observed = [observe(person(seed, aside=x), noise_px=1.0, seed=seed) for seed, x in enumerate(places)]
    labels = observed[0].labels.copy()
    labels[:5] = OCCLUDER
    observed[0] = replace(observed[0], labels=labels)
    for name in NAMES:
        Image.fromarray(observed[0].image).save(images / name)
    people = enumerate([("a.png", 0), ("a.png", 1), ("sub/b.png", 0)])
    seen = [PersonObservation(*person, 100 + i, PackedObservation.of(observed[i])) for i, person in people]
    seen.append(PersonObservation("c.png", 0, reason="nobody was found"))
    rows = BatchFitter(settings, images)(seen).rows
    for row in rows[:2]:
        row.update(status="accepted", quality=0.9, reason=None)
    rows[2].update(status="refused", quality=0.1, reason="the pose is unusual")
    if smpl:  # what a run with an official body would have written
        for row in rows[:3]:
            row["num_vertices"] = 6890
    store_rows(folder / "out", images, NAMES, settings, rows)
    return rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("open")


@pytest.fixture(scope="module")
def rows(folder: Path) -> list[Row]:
    return _results(folder)


@pytest.fixture(scope="module")
def smpl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("smpl")


@pytest.fixture(scope="module")
def smpl_rows(smpl_folder: Path) -> list[Row]:
    """FittedBatch with SPIN's camera; the open body stands in for official SMPL, which can't be in a test."""
    return _results(smpl_folder, "crop", smpl=True)


def _export(folder: Path, kind: str, out: str, *options: str) -> int:
    return cli.main(["export", str(folder / "out"), "--format", kind, "--out", str(folder / out), *options])


def _posed(row: Row, orient: np.ndarray, cam_t: np.ndarray) -> torch.Tensor:
    values = (orient, row["body_pose"], row["betas"], cam_t)
    return Parameters(*(torch.from_numpy(np.float32(value))[None] for value in values)).pose(open_body()).keypoints[0]


def _crop_error(row: Row, shown: torch.Tensor) -> float:
    """RMS at 224 px between crop coordinates -1..1 (N, 2) and where the row's joints are in the full image."""
    joints = row["joints"]
    pixels = joints[:, :2] / joints[:, 2:] * row["focal_length"] + row["principal_point"]
    expected = (pixels - row["bbox_center"]) / (100 * row["bbox_scale"])
    return float(np.sqrt(((shown.numpy() - expected) ** 2).sum(1).mean()) * 112)


# --- SPIN -----------------------------------------------------------------------------------------


def test_spin_holds_joints_and_no_parameters_of_the_open_body(folder: Path, rows: list[Row]) -> None:
    assert _export(folder, "spin", "open.npz") == 0
    with np.load(folder / "open.npz", allow_pickle=False) as file:
        spin = dict(file)
    assert spin["imgname"].tolist() == ["a.png", "a.png"]
    assert not spin["pose"].any()
    assert not spin["shape"].any()
    assert spin["has_smpl"].tolist() == [0, 0]
    for index, row in enumerate(rows[:2]):
        np.testing.assert_array_equal(spin["openpose"][index], row["keypoints"][:25])
        np.testing.assert_array_equal(spin["part"][index], row["keypoints"][25:])
        np.testing.assert_allclose(spin["center"][index], row["bbox_center"])
        # 3D joints about the pelvis in the crop's view: lengths are those of the fit, wherever it looks.
        points = spin["S"][index]
        assert (points[:, 3] == 1).all()
        np.testing.assert_allclose(points[14, :3], 0, atol=1e-6)
        lengths = np.linalg.norm(row["joints"][25:] - row["joints"][39], axis=1)
        np.testing.assert_allclose(np.linalg.norm(points[:, :3], axis=1), lengths, atol=1e-5)


def test_spin_round_trips_smpl_parameters_exactly(smpl_folder: Path, smpl_rows: list[Row]) -> None:
    """FittedBatch with the crop's camera, SPIN's own projection of the file shows the fit where it is."""
    assert _export(smpl_folder, "spin", "smpl.npz", "--refused") == 0
    with np.load(smpl_folder / "smpl.npz", allow_pickle=False) as spin:
        assert spin["has_smpl"].tolist() == [1, 1, 1]
        for index, row in enumerate(smpl_rows[:3]):
            np.testing.assert_array_equal(spin["pose"][index], np.concatenate([row["global_orient"], row["body_pose"]]))
            np.testing.assert_array_equal(spin["shape"][index], row["betas"])
            cam_t = spin_translation(torch.from_numpy(spin["crop_cam"][index]))
            joints = _posed(row, spin["pose"][index, :3], cam_t.numpy())
            shown = project(joints[None], torch.tensor([[5000.0 / 112, 5000.0 / 112, 0.0, 0.0]]))[0]
            assert _crop_error(row, shown) < 0.05


def test_joints_and_orientation_are_of_one_view(folder: Path, rows: list[Row]) -> None:
    """The body turned as the export says has the joints of `S`."""
    _export(folder, "spin", "view.npz")
    with np.load(folder / "view.npz") as spin:
        row = rows[0]
        joints = _posed(row, row["crop_global_orient"], np.zeros(3)).numpy()
        np.testing.assert_allclose(spin["S"][0, :, :3], (joints - joints[39])[25:], atol=1e-5)


# --- EFT ------------------------------------------------------------------------------------------


def test_eft_refuses_another_body(folder: Path, rows: list[Row], capfd: pytest.CaptureFixture[str]) -> None:
    del rows
    assert _export(folder, "eft", "open.json") == 2
    assert "--to-body SMPL_FILE converts them" in capfd.readouterr().err
    assert not (folder / "open.json").exists()


def test_eft_is_smpl_under_its_orthographic_camera(smpl_folder: Path, smpl_rows: list[Row]) -> None:
    assert _export(smpl_folder, "eft", "eft.json") == 0
    content = json.loads((smpl_folder / "eft.json").read_text())
    assert isinstance(content["ver"], float)
    for entry, row in zip(content["data"], smpl_rows[:2], strict=True):
        rotations = np.array(entry["parm_pose"])
        assert rotations.shape == (24, 3, 3)
        pose = torch.from_numpy(np.concatenate([row["global_orient"], row["body_pose"]])).double().reshape(24, 3)
        np.testing.assert_allclose(rotations, axis_angle_to_matrix(pose).numpy(), atol=1e-6)
        np.testing.assert_array_equal(np.float32(entry["parm_shape"]), row["betas"])
        scale, tx, ty = entry["parm_cam"]
        np.testing.assert_allclose([scale, tx / scale, ty / scale], row["crop_cam"], rtol=1e-5)
        joints = _posed(row, row["global_orient"], np.zeros(3))
        shown = scale * joints[:, :2] + torch.tensor([tx, ty])
        # SPIN's camera stands some 50 m away: half a pixel of perspective is left, which the file states.
        assert _crop_error(row, shown) < 1.0
        # Single precision: some thousandths of a pixel.
        assert entry["camera_residual_px"] == pytest.approx(_crop_error(row, shown), abs=0.01)
        assert len(entry["joint_validity_openpose18"]) == 18
        assert (entry["annotId"], entry["imageName"]) == (row["source_id"], row["imgname"])


def test_efts_residual_is_that_of_the_whole_camera(smpl_rows: list[Row]) -> None:
    """Moved by a tenth of the crop's half, 11.2 px, far more than what perspective leaves."""
    label = label_of(smpl_rows[0])
    camera = orthographic(label.crop_cam)
    own = _residual(label, camera)
    for moved in ([0, 0.1, 0], [0, 0, -0.1]):
        assert _residual(label, camera + np.array(moved)) == pytest.approx(11.2, abs=own)


def test_efts_residual_holds_for_a_body_that_was_turned_towards_the_crop() -> None:
    """Fitted in the full image's camera, off the axis; in SMPL, whose root is slot 8, by `crop_camera`'s own joints."""
    truth = person(3)
    posed = truth.pose(open_body())
    joints, root = posed.keypoints[0].clone(), posed.joints()[0, 0]
    joints[8] = root
    crop, focal, center = Crop((400.0, 120.0), 200.0), 500.0, (120.0, 160.0)
    values = {name: tensor[0].numpy() for name, tensor in vars(truth).items()}
    cam, orient, residual = crop_camera(
        joints.numpy(), root.numpy(), values["cam_t"], values["global_orient"], crop, focal, center
    )
    row = {
        **values, "joints": joints.numpy(), "crop_cam": cam, "crop_global_orient": orient, "crop_residual_px": residual,
        "focal_length": focal, "principal_point": np.array(center), "bbox_center": np.array(crop.center),
        "bbox_scale": crop.side / 200, "num_vertices": 6890,
    }  # fmt: skip
    turn = ray_rotation(crop, focal, center)
    turned = (joints - root).double() @ turn.T + root - truth.cam_t[0]
    camera = orthographic(cam)
    shown = camera[0] * turned[:, :2] + torch.from_numpy(camera[1:])
    assert float(np.linalg.norm(orient - values["global_orient"])) > 0.1
    assert _residual(label_of(row), camera) == pytest.approx(_crop_error(row, shown), abs=0.01)


# --- HMR2 -----------------------------------------------------------------------------------------


def _read_webdataset(path: Path) -> dict[str, dict[str, bytes]]:
    """Members grouped by their name's first part, as webdataset does: neighbours only."""
    samples: dict[str, dict[str, bytes]] = {}
    previous = ""
    with tarfile.open(path) as archive:
        for member in archive:
            key, _, kind = member.name.partition(".")
            assert "/" not in key
            assert key == previous or key not in samples, "members of a sample are adjacent"
            previous = key
            content = archive.extractfile(member)
            assert content is not None
            samples.setdefault(key, {})[kind] = content.read()
    return samples


def test_samples_of_a_webdataset_have_names_of_their_own() -> None:
    taken: set[str] = set()
    names = [_key(name, taken) for name in ("a.jpg", "a.png", "b/a.jpg", "a_2.jpg", "c.d.jpg")]
    assert len(set(names)) == 5
    assert not any("." in name or "/" in name for name in names)


@pytest.mark.parametrize("smpl", [False, True])
def test_webdataset_is_what_hmr2_reads(
    smpl: bool, folder: Path, rows: list[Row], smpl_folder: Path, smpl_rows: list[Row]
) -> None:
    where, fits = (smpl_folder, smpl_rows) if smpl else (folder, rows)
    assert _export(where, "webdataset", "hmr2.tar", "--refused") == 0
    samples = _read_webdataset(where / "hmr2.tar")
    assert list(samples) == ["a", "sub__b"]
    assert np.asarray(Image.open(io.BytesIO(samples["a"]["png"]))).shape == (320, 240, 3)
    people = load_pickle(io.BytesIO(samples["a"]["data.pyd"]), where)
    masks = np.load(io.BytesIO(samples["a"]["detection.npz"]))["masks"]
    assert len(people) == len(masks) == 2
    for one, row in zip(people, fits, strict=False):
        assert one["keypoints_2d"].shape == (44, 3)
        assert one["keypoints_3d"].shape == (44, 4)
        np.testing.assert_array_equal(one["keypoints_2d"], row["keypoints"][:44])
        np.testing.assert_array_equal(one["scale"], np.full(2, row["bbox_scale"], np.float32))
        np.testing.assert_array_equal(one["center"], row["bbox_center"])
        assert (float(one["has_body_pose"]), float(one["has_betas"])) == (smpl, smpl)
        expected = np.concatenate([row["crop_global_orient"], row["body_pose"]]) * smpl
        np.testing.assert_array_equal(one["body_pose"], expected)
        np.testing.assert_array_equal(one["betas"], row["betas"] * smpl)
        loss = one["extra_info"]["fitting_loss"]
        assert loss.item()["reprojection_loss"] == pytest.approx(row["energy_keypoints"])
        mask = masks[one["extra_info"]["detection_npz_idx"]]
        x, y = row["keypoints"][8, :2].astype(int)  # the hips' middle is on the person
        assert mask.shape == (320, 240)
        assert mask[y, x]
    assert not masks[0][:5].any()  # an occluder is nobody


def test_the_pickle_of_webdataset_names_only_numpy(folder: Path, rows: list[Row]) -> None:
    del rows
    _export(folder, "webdataset", "plain.tar")
    content = _read_webdataset(folder / "plain.tar")["a"]["data.pyd"]
    named: set[str] = set()

    class Listing(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            named.add(module.split(".")[0])
            return super().find_class(module, name)

    Listing(io.BytesIO(content)).load()
    assert named == {"numpy"}


def test_a_lost_image_is_named(folder: Path, rows: list[Row], capfd: pytest.CaptureFixture[str]) -> None:
    del rows
    assert _export(folder, "webdataset", "lost.tar", "--images", str(folder / "out")) == 1
    assert "the image is gone; --images names the folder" in capfd.readouterr().err


# --- COCO, Graphonomy -----------------------------------------------------------------------------


def test_coco_has_the_fits_joints(folder: Path, rows: list[Row]) -> None:
    assert _export(folder, "coco", "coco.json") == 0
    content = json.loads((folder / "coco.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["a.png"]
    names = content["categories"][0]["keypoints"]
    assert (len(names), names[0], names[5], names[16]) == (17, "nose", "left_shoulder", "right_ankle")
    slots = {"nose": 44, "left_shoulder": 34, "right_ankle": 25}  # of docs/conventions.md
    for annotation, row in zip(content["annotations"], rows[:2], strict=True):
        table = np.reshape(annotation["keypoints"], (17, 3))
        assert annotation["num_keypoints"] == (table[:, 2] > 0).sum()
        assert annotation["score"] == pytest.approx(0.9)
        assert annotation["image_id"] == content["images"][0]["id"]
        assert annotation["id"] == row["source_id"]
        for name, slot in slots.items():
            joint = row["joints"][slot]
            expected = joint[:2] / joint[2] * row["focal_length"] + row["principal_point"]
            np.testing.assert_allclose(table[names.index(name), :2], expected, atol=1e-2)
        x, y, width, height = annotation["bbox"]
        seen = table[table[:, 2] > 0]
        assert (seen[:, 0] >= x - 1e-2).all()
        assert (seen[:, 1] <= y + height + 1e-2).all()
        assert annotation["area"] == pytest.approx(width * height, rel=1e-3)


@pytest.mark.parametrize(("own", "expected"), [((-1, 1), {1, 2}), ((7, 7), {1, 2}), ((9, 7), {9, 7})])
def test_ids_are_the_sources_where_they_are_distinct(
    tmp_path: Path, smpl_rows: list[Row], own: tuple[int, int], expected: set[int]
) -> None:
    labels = [label_of({**row, "source_id": number}) for row, number in zip(smpl_rows, own, strict=False)]
    write_coco(labels, tmp_path / "coco.json", tmp_path)
    content = json.loads((tmp_path / "coco.json").read_text())
    assert {annotation["id"] for annotation in content["annotations"]} == expected
    write_eft(labels, tmp_path / "eft.json", tmp_path)
    content = json.loads((tmp_path / "eft.json").read_text())
    assert len({entry["annotId"] for entry in content["data"]}) == 2


def test_names_of_any_bytes_stay_distinct_and_lead_back_to_their_files(tmp_path: Path, smpl_rows: list[Row]) -> None:
    """A file whose name is not UTF-8, and one that is called as results store that name."""
    stored = ("caf%E9.jpg", "caf%25E9.jpg")
    labels = [label_of({**row, "imgname": name}) for row, name in zip(smpl_rows, stored, strict=False)]
    write_spin(labels, tmp_path / "spin.npz", tmp_path)
    write_coco(labels, tmp_path / "coco.json", tmp_path)
    write_eft(labels, tmp_path / "eft.json", tmp_path)
    entries = json.loads((tmp_path / "eft.json").read_text(encoding="utf-8"))["data"]
    assert tuple(stored_name(entry["imageName"]) for entry in entries) == stored
    for name in ("spin.npz", "coco.json"):
        assert tuple(entry.imgname for entry in open_source(tmp_path / name).entries) == stored


def test_graphonomy_is_in_its_colours_where_dsr_looks(folder: Path, rows: list[Row]) -> None:
    assert _export(folder, "graphonomy", "grph_sequences", "--refused") == 0
    with Image.open(folder / "grph_sequences" / "sub" / "b.png.png") as picture:
        drawn = np.asarray(picture)
    with Image.open(io.BytesIO(rows[2]["labels"])) as picture:
        labels = np.asarray(picture)
    assert (drawn == COLOURS[labels]).all()
    with Image.open(folder / "grph_sequences" / "a.png.png") as picture:
        both = np.asarray(picture)
    table = {tuple(colour): index for index, colour in enumerate(COLOURS.tolist())}
    assert {tuple(colour) for colour in both.reshape(-1, 3).tolist()} <= set(table)
    assert (both[:5] == 0).all()


# --- Which fits, and in which body ----------------------------------------------------------------


def test_it_is_said_how_many_fits_are_left_out(
    folder: Path, rows: list[Row], capfd: pytest.CaptureFixture[str]
) -> None:
    del rows
    out = folder / "counted.npz"
    assert _export(folder, "spin", "counted.npz") == 0
    assert capfd.readouterr().out == f"{out}: 2 people; 1 refused left out, --refused takes them too\n"
    assert _export(folder, "spin", "counted.npz", "--refused") == 0
    assert capfd.readouterr().out == f"{out}: 3 people\n"


def test_it_is_said_how_many_images_have_no_results(
    tmp_path: Path, smpl_rows: list[Row], capfd: pytest.CaptureFixture[str]
) -> None:
    """As where a shard is lost, or the run isn't at its end."""
    store_rows(tmp_path / "out", tmp_path, NAMES[:2], Settings(), smpl_rows[:3])
    open_store(tmp_path / "out").plan(["more.png", "others.png"], PlanNote(2, added=2))
    fits_them = "2 images have no results yet, `dsr-fit batch` there again fits them\n"
    assert _export(tmp_path, "spin", "some.npz") == 0
    assert capfd.readouterr().out.endswith(f"2 people; 1 refused left out, --refused takes them too; {fits_them}")
    (tmp_path / "out" / "shard-00000.parquet").unlink()
    assert _export(tmp_path, "spin", "none.npz") == 1
    assert capfd.readouterr().err.endswith(f"no accepted fits to export; {fits_them.replace('2', '4')}")


def test_nothing_to_export_is_an_error(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    failed = {"imgname": "x.png", "person": 0, "status": "failed", "reason": "nobody"}
    results = tmp_path / "results"
    store_rows(results, tmp_path, ["x.png"], Settings(), [failed])
    for kind, out in (("eft", "x.json"), ("webdataset", "x.tar"), ("coco", "x.json"), ("spin", "x.npz")):
        (tmp_path / out).write_text("an earlier export")
        command = ["export", str(results), "--format", kind, "--out", str(tmp_path / out)]
        assert cli.main(command) == 1
        assert "no accepted fits to export\n" in capfd.readouterr().err
        assert (tmp_path / out).read_text() == "an earlier export"
    assert cli.main([*command[:-1], str(tmp_path / "x.json")]) == 2
    assert "the suffix must be .npz for --format spin" in capfd.readouterr().err


def test_fits_without_a_verdict_are_exported_on_request(
    tmp_path: Path, smpl_rows: list[Row], capfd: pytest.CaptureFixture[str]
) -> None:
    """Three fits that no gate is calibrated for, and later one that it accepted."""
    rows = [{**row, "status": "unjudged", "quality": None} for row in smpl_rows[:3]]
    store_rows(tmp_path / "out", tmp_path, NAMES[:2], Settings(), rows)
    assert _export(tmp_path, "spin", "none.npz") == 1
    assert "no accepted fits to export; --unjudged takes the 3 unjudged ones\n" in capfd.readouterr().err
    assert _export(tmp_path, "spin", "none.npz", "--refused") == 1
    assert "no accepted or refused fits to export; --unjudged takes" in capfd.readouterr().err
    assert _export(tmp_path, "spin", "all.npz", "--unjudged") == 0
    assert capfd.readouterr().out.endswith("all.npz: 3 people\n")
    shutil.rmtree(tmp_path / "out")
    store_rows(tmp_path / "out", tmp_path, NAMES[:2], Settings(), [smpl_rows[0], rows[1], smpl_rows[2]])
    assert _export(tmp_path, "spin", "some.npz") == 0
    said = capfd.readouterr().out
    assert "1 person; 1 unjudged left out, --unjudged takes them too; 1 refused left out, --refused takes" in said


def test_converting_a_body_into_itself_finds_its_mesh_again() -> None:
    """From mean shape, by surface and joints alone: within 3 mm of the surface, joints within 5 mm."""
    truth = person(4, spread=0.5)
    found = convert(truth, open_body(), open_body())
    assert float(found.surface_m) < 0.003
    assert float(found.joints_m) < 0.005
    again = found.parameters.pose(open_body()).vertices()
    assert float((again - truth.pose(open_body()).vertices()).norm(dim=-1).mean()) < 0.012
    stiff = convert(truth, open_body(), open_body(), steps=1)
    assert float(stiff.surface_m) > 2 * float(found.surface_m)


def test_to_body_writes_smpl_parameters_and_their_residuals(
    folder: Path, rows: list[Row], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-in for SMPL is a cloud of points, so its residuals are large; they are told all the same."""
    monkeypatch.setattr("dsr_fit.fitting.convert.STEPS", 3)
    smpl = synthetic_smpl()
    write_npz(folder / "smpl.npz", smpl)
    options = ("--to-body", str(folder / "smpl.npz"))
    assert _export(folder, "eft", "converted.json", *options) == 0
    told = capfd.readouterr().out
    assert "mm of surface" in told
    content = json.loads((folder / "converted.json").read_text())["data"]
    assert len(content) == 2
    assert all(np.isfinite(entry["parm_shape"]).all() for entry in content)
    lines = (folder / "converted.json.residuals.csv").read_text().splitlines()
    assert lines[0] == "imgname,person,surface_mm,joints_mm"
    fields = [line.split(",") for line in lines[1:]]
    assert [entry["imageName"] for entry in content] == [name for name, *_ in fields]
    assert all(float(value) > 0 for _, _, *residuals in fields for value in residuals)
    assert _export(folder, "spin", "converted.npz", *options) == 0
    with np.load(folder / "converted.npz") as spin:
        assert spin["has_smpl"].tolist() == [1, 1]
        assert spin["pose"].any()
        assert not np.array_equal(spin["shape"][0], rows[0]["betas"])
        nine = [5, 13, 14, 15, 16, 17, 18]  # rows of J_regressor_extra, which wasn't given
        assert (spin["S"][:, nine, 3] == 0).any()
    assert _export(folder, "spin", "other.npz", "--to-body", "open") == 1
    assert "official SMPL has 6890" in capfd.readouterr().err
