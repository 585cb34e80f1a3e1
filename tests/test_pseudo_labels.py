"""Pseudo-labels read back: from shards and from SPIN's files, the bodies and observations that were written."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from label_folders import OF_PERSON, QUICK, observations, rewrite, smpl_settings, write_results
from label_people import observation_of
from PIL import Image
from scenes import open_body

from dsr_fit.body.body import Body
from dsr_fit.body.files import load_body
from dsr_fit.camera import SPIN_FOCAL, SPIN_RESOLUTION, project
from dsr_fit.cli import main as cli
from dsr_fit.dataset.records import unpack_labels
from dsr_fit.dataset.schema import Row
from dsr_fit.dataset.settings import Settings
from dsr_fit.errors import InputError
from dsr_fit.labels import COLOURS, shows_person
from dsr_fit.observe.batch import Batch
from dsr_fit.training.pseudo_labels import PseudoLabels, read_pseudo_labels
from dsr_fit.training.splits import concatenated


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("open")


@pytest.fixture(scope="module")
def rows(folder: Path) -> list[Row]:
    return write_results(folder, Settings(config=QUICK))


@pytest.fixture(scope="module")
def labels(folder: Path, rows: list[Row]) -> PseudoLabels:
    del rows
    return read_pseudo_labels(folder / "out", open_body())


@pytest.fixture(scope="module")
def smpl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("smpl")


@pytest.fixture(scope="module")
def smpl_rows(smpl_folder: Path) -> list[Row]:
    return write_results(smpl_folder, smpl_settings(smpl_folder))


@pytest.fixture(scope="module")
def smpl(smpl_folder: Path, smpl_rows: list[Row]) -> Body:
    del smpl_rows
    return load_body(smpl_folder / "smpl.npz")


def _joints(labels: PseudoLabels, body: Body) -> np.ndarray:
    return labels.parameters(list(range(len(labels)))).pose(body).keypoints.numpy()


# --- Shards ---------------------------------------------------------------------------------------


def test_shards_give_back_the_fits(labels: PseudoLabels, rows: list[Row]) -> None:
    """Fitted people only; the row's joints are those of the parameters that are read."""
    assert list(labels.imgname) == [name for name, _ in OF_PERSON]
    assert labels.accepted.tolist() == [True, True, False]
    assert labels.quality.tolist() == [0.75, 0.75, 1.0]
    assert labels.has_body.all()
    np.testing.assert_allclose(_joints(labels, open_body()), [row["joints"] for row in rows[:3]], atol=1e-5)
    np.testing.assert_array_equal(labels.intrinsics[:, 0], [row["focal_length"] for row in rows[:3]])
    np.testing.assert_array_equal(labels.intrinsics[:, 1:], [row["principal_point"] for row in rows[:3]])


def test_fits_without_a_verdict_are_not_accepted(folder: Path, rows: list[Row], tmp_path: Path) -> None:
    shutil.copytree(folder / "out", tmp_path / "out")
    (shard,) = (tmp_path / "out").glob("shard-*.parquet")
    unjudged = [{**row, "status": "unjudged", "quality": None} for row in rows[:1]]
    rewrite(shard, [{**row, "run": 0} for row in (*unjudged, *rows[1:])])
    labels = read_pseudo_labels(tmp_path / "out", open_body())
    assert labels.accepted.tolist() == [False, True, False]
    assert labels.unjudged.tolist() == [True, False, False]
    assert labels.quality.tolist() == [1.0, 0.75, 1.0]


def test_shards_give_back_the_observations(labels: PseudoLabels, rows: list[Row]) -> None:
    """The label maps as the fits saw them: where somebody stands beside is more than background."""
    for row, seen in enumerate(observations()):
        read = observation_of(labels, row)
        np.testing.assert_array_equal(read.labels, unpack_labels(rows[row]["labels"]))
        np.testing.assert_array_equal(read.detection.keypoints, seen.detection.keypoints)
        np.testing.assert_array_equal(shows_person(read.labels), shows_person(seen.labels))
        assert (read.focal_length, read.image_size) == (seen.focal_length, seen.image_size)
        if seen.detection.world_landmarks is None:
            assert read.detection.world_landmarks is None
        else:
            assert read.detection.world_landmarks is not None
            np.testing.assert_allclose(read.detection.world_landmarks, seen.detection.world_landmarks, atol=1e-6)


def test_world_is_in_the_axes_that_a_fit_compares_with(labels: PseudoLabels) -> None:
    batch = Batch(observations(), crop_camera=False, keypoint_valid=torch.ones(49))
    np.testing.assert_allclose(labels.world[..., :3], batch.points.world.numpy(), atol=1e-6)
    np.testing.assert_array_equal(labels.world[..., 3], batch.points.world_confidence.numpy())
    assert not labels.world[2].any()


def test_rows_choose_people(labels: PseudoLabels) -> None:
    for index in ([2, 0], np.array([2, 0])):
        chosen = labels.rows(index)
        assert chosen.imgname == (labels.imgname[2], labels.imgname[0])
        np.testing.assert_array_equal(chosen.betas, labels.betas[[2, 0]])
        np.testing.assert_array_equal(chosen.labels(0), labels.labels(2))
    assert len(labels.rows(labels.accepted)) == 2
    assert len(labels.rows([])) == 0


def test_images_are_read_where_they_lie(labels: PseudoLabels, folder: Path, tmp_path: Path) -> None:
    expected = np.asarray(Image.open(folder / "images" / "sub" / "b.png"))
    np.testing.assert_array_equal(observation_of(labels, 2, with_image=True).image, expected)
    moved = read_pseudo_labels(folder / "out", open_body(), tmp_path)
    with pytest.raises(InputError, match=r"no such image: .*a\.png"):
        moved.image(0)
    Image.new("RGB", (10, 20)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="is 10x20 pixels, its labels were made for 240x320"):
        moved.image(0)


def test_names_that_lead_out_of_the_folder_are_those_of_the_run(labels: PseudoLabels, folder: Path) -> None:
    """`a.png` of the folder itself is another picture."""
    inside = replace(labels, images=folder / "images" / "sub")
    expected = np.asarray(Image.open(folder / "images" / "a.png"))
    Image.fromarray(255 - expected).save(inside.images / "a.png")
    for name in ("../a.png", str(folder / "images" / "a.png")):
        alone = replace(inside, imgname=(name,) * len(labels))
        np.testing.assert_array_equal(alone.image(0), expected)
        np.testing.assert_array_equal(concatenated([labels, alone]).image(len(labels)), expected)


def test_another_body_is_refused(folder: Path, rows: list[Row], smpl: Body) -> None:
    del rows
    with pytest.raises(InputError, match="was fitted with the body") as refusal:
        read_pseudo_labels(folder / "out", smpl)
    assert "\n" not in str(refusal.value)


def test_an_older_folder_is_refused(folder: Path, rows: list[Row], tmp_path: Path) -> None:
    """Before the landmarks were kept: nothing would have told that they are missing."""
    del rows
    manifest = json.loads((folder / "out" / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "format": 1}))
    with pytest.raises(InputError, match="format 1, this version reads 2 to 5"):
        read_pseudo_labels(tmp_path, open_body())


@pytest.mark.parametrize("name", ["nothing.npz", "nothing", "labels.json"])
def test_what_holds_no_labels_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "labels.json").write_text("{}")
    with pytest.raises(InputError, match=name):
        read_pseudo_labels(tmp_path / name, open_body())


# --- SPIN -----------------------------------------------------------------------------------------


def _export(folder: Path, kind: str, out: str) -> Path:
    command = ["export", str(folder / "out"), "--format", kind, "--out", str(folder / out), "--refused"]
    assert cli.main(command) == 0
    return folder / out


def test_an_export_is_read_back_to_the_same_joints(smpl_folder: Path, smpl_rows: list[Row], smpl: Body) -> None:
    """And to the same observations: the export goes through the crop's frame, these are the full image's."""
    _export(smpl_folder, "graphonomy", "grph_sequences")
    file = _export(smpl_folder, "spin", "smpl.npz.npz")
    labels = read_pseudo_labels(file, smpl, smpl_folder / "images")
    shards = read_pseudo_labels(smpl_folder / "out", smpl)
    assert labels.has_body.all()
    assert labels.accepted.all()
    assert list(labels.imgname) == [name for name, _ in OF_PERSON]
    np.testing.assert_allclose(_joints(labels, smpl), [row["joints"] for row in smpl_rows[:3]], atol=1e-4)
    for name in ("keypoints", "intrinsics", "image_size", "betas"):
        np.testing.assert_allclose(getattr(labels, name), getattr(shards, name), rtol=1e-6, err_msg=name)
    # `S` holds the fit's own joints; without further regressors SMPL's pelvis is `MidHip`.
    joints = np.array([row["joints"] for row in smpl_rows[:3]])
    about = joints - joints[:, 8:9]
    seen = labels.world[..., 3] > 0
    assert not seen[:, :25].any()
    assert seen[:, 25:].sum() > 30
    np.testing.assert_allclose(labels.world[..., :3][seen], about[seen], atol=1e-4)
    np.testing.assert_array_equal(labels.labels(2), shards.labels(2))  # alone in its image


def _crop_file(folder: Path, body: Body, **other: np.ndarray) -> tuple[Path, np.ndarray, np.ndarray]:
    """A file as SPIN has it, three people seen by the camera of its crop; where they stand, and their keypoints."""
    rng = np.random.default_rng(3)
    center, scale = rng.uniform(90, 150, (3, 2)), np.array([0.7, 1.0, 1.3])
    pose, betas = 0.3 * rng.normal(size=(3, 72)), 0.5 * rng.normal(size=(3, 10))
    cam_t = np.column_stack([0.1 * rng.normal(size=(3, 2)), [45.0, 50.0, 60.0]])
    values = (torch.from_numpy(value).float() for value in (pose[:, :3], pose[:, 3:], betas, cam_t))
    posed = body(*values)
    focal = SPIN_FOCAL * 200 * scale / SPIN_RESOLUTION
    camera = torch.from_numpy(np.column_stack([focal, focal, center]))
    pixels = project(posed.keypoints.double(), camera).numpy()
    valid = body.skeleton.keypoint_valid.numpy().astype(float)
    keypoints = np.concatenate([pixels, np.broadcast_to(valid, (3, 49))[..., None]], 2)
    (folder / "x").mkdir(exist_ok=True)
    for name in ("1.png", "x/2.png", "3.png"):
        Image.new("RGB", (240, 320)).save(folder / name)
    columns = {
        "imgname": np.array(["1.png", "x/2.png", "3.png"]), "center": center, "scale": scale,
        "part": keypoints[:, 25:], "openpose": keypoints[:, :25], "pose": pose, "shape": betas,
        "has_smpl": np.array([1, 1, 0]),
    }  # fmt: skip
    np.savez(folder / "spin.npz", **{**columns, **other})
    return folder / "spin.npz", cam_t, posed.keypoints.numpy()


def test_files_of_others_are_seen_by_the_crops_camera(tmp_path: Path, smpl: Body) -> None:
    """They hold no translation: it is where the keypoints are matched, some millimetres of 50 m in depth."""
    path, cam_t, joints = _crop_file(tmp_path, smpl)
    labels = read_pseudo_labels(path, smpl)
    assert labels.has_body.tolist() == [True, True, False]
    assert labels.image_size.tolist() == [[240, 320]] * 3
    np.testing.assert_allclose(labels.cam_t[:2], cam_t[:2], atol=0.02)
    found = _joints(labels, smpl)[:2]
    camera = torch.from_numpy(labels.intrinsics[:2][:, [0, 0, 1, 2]])
    valid = smpl.skeleton.keypoint_valid.numpy()
    shown = project(torch.from_numpy(found), camera).numpy()
    np.testing.assert_allclose(shown[:, valid], labels.keypoints[:2, valid, :2], atol=0.02)
    np.testing.assert_allclose(found[..., :2], joints[:2, :, :2], atol=1e-3)
    assert not labels.full_pose[2].any()
    assert not labels.cam_t[2].any()


def test_confidences_of_another_unit_are_not_trained_on(tmp_path: Path, smpl: Body) -> None:
    openpose = np.full((3, 25, 3), 50.0)
    openpose[..., 2], openpose[1, 0, 2] = 1.4, 95
    path, *_ = _crop_file(tmp_path, smpl, openpose=openpose)
    with pytest.raises(InputError, match="row 1 has a confidence of 95; 0 to 1 work, and up to 2 count as 1"):
        read_pseudo_labels(path, smpl)
    openpose[1, 0, 2] = np.nan
    labels = read_pseudo_labels(_crop_file(tmp_path, smpl, openpose=openpose)[0], smpl)
    assert labels.keypoints[..., 2].max() == 1


def test_parameters_of_official_smpl_are_none_of_the_open_bodys(tmp_path: Path, smpl: Body) -> None:
    labels = read_pseudo_labels(_crop_file(tmp_path, smpl)[0], open_body())
    assert not labels.has_body.any()
    assert not labels.full_pose.any()
    assert labels.keypoints[..., 2].any()


def test_graphonomys_pngs_beside_the_file_are_its_label_maps(tmp_path: Path, smpl: Body) -> None:
    """Far from the person's keypoints is somebody else."""
    path, *_ = _crop_file(tmp_path, smpl)
    indices = np.random.default_rng(0).integers(0, 20, (320, 240)).astype(np.uint8)
    (tmp_path / "grph_sequences" / "x").mkdir(parents=True)
    Image.fromarray(COLOURS[indices]).save(tmp_path / "grph_sequences" / "x" / "2.png.png")
    labels = read_pseudo_labels(path, smpl)
    assert [one is not None for one in labels.label_maps] == [False, True, False]
    assert (labels.labels(0) == 255).all()
    read = labels.labels(1)
    assert ((read == indices) | (read == 0)).all()
    assert (read[labels.keypoints[1, 8, 1].astype(int)] > 0).any()
    whole = replace(labels, keypoints=np.array([[[0, 0, 1.0], [240, 320, 1.0]]] * 3, np.float32))
    np.testing.assert_array_equal(whole.labels(1), indices)


def test_rows_without_keypoints_are_left_out(tmp_path: Path, smpl: Body) -> None:
    part, openpose = np.zeros((3, 24, 3)), np.full((3, 25, 3), np.nan)
    part[0, :4] = 100, 100, 1
    path, *_ = _crop_file(tmp_path, smpl, part=part, openpose=openpose)
    labels = read_pseudo_labels(path, smpl)
    assert labels.imgname == ("1.png",)
    assert np.isfinite(labels.keypoints).all()


def test_images_that_are_not_there_are_named(tmp_path: Path, smpl: Body) -> None:
    path, *_ = _crop_file(tmp_path, smpl)
    with pytest.raises(InputError, match=r"no such image: .*1\.png; name the folder of the images with --images"):
        read_pseudo_labels(path, smpl, tmp_path / "elsewhere")


def test_a_files_names_may_lead_out_of_the_folder_too(tmp_path: Path, smpl: Body) -> None:
    path, *_ = _crop_file(tmp_path, smpl, imgname=np.array(["../1.png", "2.png", str(tmp_path / "3.png")]))
    Image.new("RGB", (30, 20)).save(tmp_path / "x" / "1.png")
    assert read_pseudo_labels(path, smpl, tmp_path / "x").image_size.tolist() == [[240, 320]] * 3
