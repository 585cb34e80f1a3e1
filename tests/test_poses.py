"""The shipped poses: what every user of the file relies on, and the refusal of other files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dsr_fit.errors import InputError
from dsr_fit.priors.recorded_poses import load_poses

FOLDER = Path(__file__).resolve().parents[1] / "priors" / "pose"


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    """A small valid file: three poses of two clips."""
    return {
        "full_pose": np.arange(216, dtype=np.float16).reshape(3, 72) / 216,
        "clip": np.array([0, 1, 1], np.int16),
        "clip_names": np.array(["a", "b"]),
        "held_out": np.array([False, True]),
    }


def test_held_out_is_given_per_pose(tmp_path: Path, arrays: dict[str, np.ndarray]) -> None:
    np.savez(tmp_path / "poses.npz", **arrays)  # type: ignore[arg-type]
    poses = load_poses(tmp_path / "poses.npz")
    assert poses.held_out.tolist() == [False, True, True]
    assert poses.full_pose.dtype == np.float32
    np.testing.assert_array_equal(poses.part(True).full_pose, arrays["full_pose"][1:].astype(np.float32))
    assert len(poses.part(False)) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("full_pose", np.zeros((3, 69), np.float16)),
        ("clip", np.array([0, 1], np.int16)),
        ("clip", np.array([0, 1, 2], np.int16)),
        ("clip", np.array([0.0, 1.0, 1.0])),
        ("held_out", np.array([False])),
        ("frames", np.array([1, 2])),
        ("clip_names", np.array([{}, {}], dtype=object)),
    ],
)
def test_other_files_are_refused(tmp_path: Path, arrays: dict[str, np.ndarray], name: str, value: np.ndarray) -> None:
    np.savez(tmp_path / "poses.npz", **(arrays | {name: value}))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"poses\.npz"):
        load_poses(tmp_path / "poses.npz")


def test_missing_and_damaged_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="missing"):
        load_poses(tmp_path / "missing.npz")
    (tmp_path / "damaged.npz").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(InputError, match="damaged"):
        load_poses(tmp_path / "damaged.npz")


def test_shipped_poses_are_finite_rotation_vectors() -> None:
    poses = load_poses()
    angle = np.linalg.norm(poses.full_pose.reshape(-1, 24, 3), axis=2)
    assert len(poses) >= 3000
    assert np.isfinite(angle).all()
    assert angle.max() <= np.pi + 0.003  # float16 has steps of 0.002 there


def test_held_out_clips_are_the_listed_ones_of_every_source() -> None:
    poses = load_poses()
    listed = (FOLDER / "held_out.txt").read_text().split()
    held = {poses.clip_names[index] for index in np.unique(poses.clip[poses.held_out])}
    assert held <= set(listed) <= set(poses.clip_names)
    assert not held & {poses.clip_names[index] for index in np.unique(poses.clip[~poses.held_out])}
    first = {"cmu/01_08", "cmu/01_09", "cmu/01_11", "cmu/02_01", "cmu/02_10", "cmu/03_01", "cmu/131_02", "cmu/14_14",
             "deepmimic/jump", "deepmimic/punch", "deepmimic/spin", "deepmimic/zombie_walk"}  # fmt: skip
    assert first <= held  # trainings have left these out since the first file
    sources = {"cmu/01", "cmu/02", "cmu/03", "cmu/05", "cmu/06", "cmu/07", "cmu/08", "cmu/09", "cmu/131", "deepmimic"}
    for names in (held, set(poses.clip_names) - held):
        assert sources <= {name.rpartition("_")[0] if "cmu" in name else "deepmimic" for name in names}
    assert 0.15 < len(held) / len(poses.clip_names) < 0.3


def test_people_who_stand_have_straight_knees() -> None:
    """Motion capture bends them by 15 to 30 degrees, since its skeletons' legs are too long."""
    poses = load_poses()
    assert poses.frames is not None
    pose = poses.full_pose.reshape(-1, 24, 3)
    up = Rotation.from_rotvec(pose[:, 0]).as_matrix()[:, 1, 1]
    thighs = np.linalg.norm(pose[:, [1, 2]], axis=2).max(1)
    standing = (up > np.cos(np.radians(15))) & (thighs < np.radians(12))
    knees = np.rad2deg(pose[:, [4, 5], 0])[standing].min(1)
    assert standing.sum() > 100
    assert np.median(np.repeat(knees, poses.frames[standing])) < 8


def test_frames_are_counted_once() -> None:
    poses = load_poses()
    assert poses.frames is not None
    assert 25_000 < poses.frames.astype(int).sum() < 40_000
    assert (poses.part(held_out=True).frames == poses.frames[poses.held_out]).all()


def test_knees_and_elbows_bend_the_human_way() -> None:
    pose = load_poses().full_pose.reshape(-1, 24, 3)
    # Knees turn about +x, a left elbow about -y and a right one about +y of the T-pose.
    for joint, axis, sign in ((4, 0, 1), (5, 0, 1), (18, 1, -1), (19, 1, 1)):
        bend = sign * pose[:, joint, axis]
        assert np.median(bend) > 0.3
        assert (bend > -0.21).all()


def test_the_file_stays_small() -> None:
    assert (FOLDER / "poses.npz").stat().st_size < 2_000_000
    assert (FOLDER / "retargeted.png").stat().st_size < 400_000
