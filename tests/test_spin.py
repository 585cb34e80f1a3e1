"""Errors under SPIN's protocols, on files whose answers are known in closed form."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import PERSON
from scenes import open_body
from scipy.spatial.transform import Rotation
from synthetic_smpl import JOINT_VERTICES, h36m_regressor, synthetic_smpl, write_npz

from dsr_fit.body.body import Body
from dsr_fit.body.files import load_body
from dsr_fit.camera import Crop
from dsr_fit.config import FitConfig
from dsr_fit.evaluate.spin import (
    BATCH_SIZE,
    J17_OF_24,
    J17_OF_H36M,
    SMPL_VERTICES,
    CentredBody,
    EvaluatedRow,
    FailedRow,
    Protocol,
    RowError,
    RowEvaluator,
    RowPerception,
    evaluate_rows,
)
from dsr_fit.evaluate.spin_report import markdown, report
from dsr_fit.fitting.result import FitResult
from dsr_fit.io.spin_file import SpinFile
from dsr_fit.joints import KEYPOINT_INDEX, SPIN_24
from dsr_fit.observation import Detection, Observation
from dsr_fit.observe.perception import Perception
from dsr_fit.rotation import axis_angle_to_matrix

TURN = axis_angle_to_matrix(torch.tensor([[0.4, -1.0, 2.0]], dtype=torch.float64))[0].numpy()


pytestmark = pytest.mark.usefixtures("nothing_is_set")


@cache
def smpl(gender: str) -> Body:
    """Bodies of SMPL's shapes that differ by gender."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_npz(Path(folder) / f"{gender}.npz", synthetic_smpl("nmf".index(gender)))
        np.save(Path(folder) / "extra.npy", np.zeros((9, SMPL_VERTICES)))
        return load_body(path, Path(folder) / "extra.npy")


def spin_file(count: int, **columns: Any) -> SpinFile:
    columns = {
        "path": Path("file.npz"), "imgname": tuple(f"{row}.png" for row in range(count)),
        "center": np.zeros((count, 2)), "scale": np.ones(count), "part": None, "joints": None, "pose": None,
        "betas": None, "has_smpl": np.ones(count, bool), "gender": None,
    } | columns  # fmt: skip
    return SpinFile(**columns)


def observation(row: int, source: str = "truth") -> Observation:
    """Its focal length tells the fake fitter which row it is."""
    blank = np.zeros((2, 2), np.uint8)
    keypoints = np.zeros((49, 3), np.float32)
    return Observation(np.zeros((2, 2, 3), np.uint8), Detection(keypoints, source=source), blank, "none", row + 1.0)


def result(seen: Observation, vertices: np.ndarray, joints: np.ndarray) -> FitResult:
    zeros = np.zeros(3, np.float32)
    return FitResult(
        observation=seen, vertices=vertices, faces=np.zeros((0, 3), np.int32),
        joints=joints, pelvis=zeros, global_orient=zeros,
        body_pose=np.zeros(69, np.float32), betas=np.zeros(10, np.float32), cam_t=zeros, focal_length=1.0,
        principal_point=(1.0, 1.0), crop=Crop((1.0, 1.0), 2.0), crop_cam=zeros, crop_global_orient=zeros,
        crop_residual_px=0.0, energies={}, metrics={}, change_m=0.0, regressor="none", spread=None,
        expected_error_m=None, iterations=1,
        stop_reason="converged",
        timings_s={}, body_name="none", body_sha256="", config=FitConfig(), device="cpu",
    )  # fmt: skip


Fit = Callable[[list[Observation]], list[FitResult]]


def fake_fit(vertices: Sequence[np.ndarray] | None = None, joints: Sequence[np.ndarray] | None = None) -> Fit:
    """A fitter that answers row n with the nth vertices or 49 joints."""

    def fit(observations: list[Observation]) -> list[FitResult]:
        rows = [round(seen.focal_length) - 1 for seen in observations]
        none = np.zeros((49, 3))
        return [
            result(seen, none if vertices is None else vertices[row], none if joints is None else joints[row])
            for seen, row in zip(observations, rows, strict=True)
        ]

    return fit


def run(judge: RowEvaluator, fit: Fit, observe: Callable[[int], Observation] = observation) -> list[EvaluatedRow]:
    outcomes = list(evaluate_rows(judge, range(len(judge.file)), observe, fit))
    assert [item for item in outcomes if isinstance(item, FailedRow)] == []
    return [item for item in outcomes if isinstance(item, EvaluatedRow)]


# --- Ground truth from gendered bodies, as for 3DPW ------------------------------------------------


def _gendered(count: int, genders: Sequence[str], protocol: Protocol) -> tuple[RowEvaluator, list[np.ndarray]]:
    """A judge and the true vertices, far from the camera's origin."""
    rng = np.random.default_rng(3)
    pose, betas = 0.3 * rng.normal(size=(count, 72)), rng.normal(size=(count, 10))
    file = spin_file(count, pose=pose, betas=betas, gender=tuple(genders))
    bodies = {gender: smpl(gender) for gender in "mf"}
    true = []
    for row, gender in enumerate(genders):
        values = (torch.from_numpy(array[row : row + 1]).float() for array in (pose, betas))
        turned, shape = values
        posed = bodies[gender[0]](turned[:, :3], turned[:, 3:], shape, torch.zeros(1, 3))
        true.append(posed.vertices()[0].double().numpy() + [0.5, -0.2, 3.0])
    return RowEvaluator(file, protocol, True, torch.from_numpy(h36m_regressor()), bodies, True), true


@pytest.mark.parametrize("protocol", [14, 17])
def test_errors_of_known_displacements(protocol: Protocol) -> None:
    """A moved pelvis moves all other joints; a moved ankle only itself; similarities vanish under Procrustes."""
    judge, true = _gendered(6, ["m", "f", "m", "female", "f", "m"], protocol)
    found = [vertices.copy() for vertices in true]
    pelvis_vertex, ankle_vertex = JOINT_VERTICES[0], JOINT_VERTICES[J17_OF_H36M[0]]
    found[1] = found[1] + [0.3, 0.4, -2.0]  # where the body stands doesn't count
    found[2][pelvis_vertex] += [0.03, 0.04, 0.0]
    found[3][ankle_vertex] += [0.0, 0.0, 0.238]
    found[4] = 1.3 * found[4]
    found[5] = 0.8 * found[5] @ TURN.T + [0.1, 0.2, 0.3]
    rows = run(judge, fake_fit(vertices=found))
    assert [row.row for row in rows] == list(range(6))

    def about_pelvis(row: int) -> np.ndarray:
        return true[row] - true[row][pelvis_vertex]

    def picked(row: int) -> np.ndarray:
        return about_pelvis(row)[JOINT_VERTICES[list(J17_OF_H36M[:protocol])]]

    scaled = [1000 * 0.3 * np.linalg.norm(points, axis=1).mean() for points in (picked(4), about_pelvis(4))]
    turned = [
        1000 * np.linalg.norm(0.8 * points @ TURN.T - points, axis=1).mean() for points in (picked(5), about_pelvis(5))
    ]
    others = protocol - (protocol == 17)  # the pelvis itself is one of the 17
    # Float32 of the truth's vertices, micrometres on a metre.
    np.testing.assert_allclose(
        [row.mpjpe for row in rows], [0, 0, 50 * others / protocol, 238 / protocol, scaled[0], turned[0]], atol=2e-3
    )
    moved = 50 * (SMPL_VERTICES - 1) / SMPL_VERTICES
    np.testing.assert_allclose(
        [row.pve for row in rows if row.pve is not None],
        [0, 0, moved, 238 / SMPL_VERTICES, scaled[1], turned[1]], atol=2e-3,
    )  # fmt: skip
    aligned = [row.pa_mpjpe for row in rows]
    np.testing.assert_allclose([aligned[row] for row in (0, 1, 4, 5)], 0, atol=2e-3)
    moved_joints = picked(3).copy()
    moved_joints[0, 2] += 0.238
    assert aligned[3] == pytest.approx(_aligned_error(moved_joints, picked(3)), abs=2e-3)
    if protocol == 14:
        assert aligned[2] == pytest.approx(0, abs=2e-3)  # the pelvis is not one of the 14


def _aligned_error(points: np.ndarray, target: np.ndarray) -> float:
    """PA-MPJPE, mm, by scipy's solution of Wahba's problem and the scale that is linear least squares after it."""
    points, target = points - points.mean(0), target - target.mean(0)
    turned = Rotation.align_vectors(target, points)[0].apply(points)
    scale = (target * turned).sum() / (points**2).sum()
    return float(1000 * np.linalg.norm(scale * turned - target, axis=1).mean())


def test_gender_chooses_the_body() -> None:
    judge, true = _gendered(2, ["m", "f"], 14)
    swapped = replace(judge, bodies={"m": judge.bodies["f"], "f": judge.bodies["m"]})
    assert max(row.mpjpe for row in run(judge, fake_fit(vertices=true))) < 2e-3
    assert min(row.mpjpe for row in run(swapped, fake_fit(vertices=true))) > 1


def test_rows_without_parameters_or_gender_are_listed() -> None:
    judge, true = _gendered(4, ["m", "f", "m", "f"], 14)
    pose = judge.file.pose
    assert pose is not None
    pose[3, 5] = np.nan
    file = replace(judge.file, gender=("m", "x", "m", "f"), has_smpl=np.array([True, True, False, True]))
    outcomes = list(evaluate_rows(replace(judge, file=file), range(4), observation, fake_fit(vertices=true)))
    failures = {item.row: item.reason for item in outcomes if isinstance(item, FailedRow)}
    assert failures == {
        1: "its gender is 'x', not m or f",
        2: "its pose and shape are unknown (has_smpl is 0)",
        3: "its pose or shape isn't finite",
    }
    assert [item.row for item in outcomes if isinstance(item, EvaluatedRow)] == [0]


# --- Ground truth from stored joints, fits of a body with its own keypoints ------------------------


def _stored(count: int, protocol: Protocol) -> tuple[RowEvaluator, list[np.ndarray]]:
    """A judge of S, and 49 joints that agree with it."""
    rng = np.random.default_rng(4)
    joints = rng.normal(scale=0.4, size=(count, 49, 3))
    pelvis = joints[:, [25 + SPIN_24.index("Pelvis (MPII)")]]
    stored = np.concatenate([joints[:, 25:] - pelvis, np.ones((count, 24, 1))], 2)
    judge = RowEvaluator(spin_file(count, joints=stored), protocol, False, None, {}, False)
    return judge, [each + [0.1, 0.0, 4.0] for each in joints]


@pytest.mark.parametrize("protocol", [14, 17])
def test_own_keypoints_stand_for_the_protocols_joints(protocol: Protocol) -> None:
    judge, found = _stored(5, protocol)
    found[1][KEYPOINT_INDEX["Pelvis (MPII)"]] += [0.0, 0.06, 0.08]
    found[2][KEYPOINT_INDEX["Head (H36M)"]] += [0.238, 0.0, 0.0]
    found[3][KEYPOINT_INDEX["Top of Head (LSP)"]] += 1.0  # LSP's head, nor the first block: neither is compared
    found[3][:25] += 1.0
    found[4][KEYPOINT_INDEX["Spine (H36M)"]] += [0.0, 0.0, 0.17]
    rows = run(judge, fake_fit(joints=found))
    others = protocol - (protocol == 17)
    spine = 10.0 if protocol == 17 else 0.0
    np.testing.assert_allclose(
        [row.mpjpe for row in rows], [0, 100 * others / protocol, 238 / protocol, 0, spine], atol=1e-6
    )
    assert all(row.pve is None for row in rows)


def test_a_mirrored_person_is_not_forgiven() -> None:
    judge, found = _stored(1, 14)
    (row,) = run(judge, fake_fit(joints=[found[0] * [-1.0, 1.0, 1.0]]))
    assert row.pa_mpjpe > 50


def test_stored_joints_are_about_the_pelvis() -> None:
    judge, _ = _stored(1, 17)
    assert judge.file.joints is not None
    joints, known = torch.from_numpy(judge.file.joints[0, :, :3]), torch.ones(24, dtype=torch.bool)
    centred = CentredBody.from_spin_24(joints, known).joints
    # A file that isn't centred, but holds the pelvis, is brought there.
    torch.testing.assert_close(CentredBody.from_spin_24(joints + 2.0, known).joints, centred)
    known[SPIN_24.index("Pelvis (MPII)")] = False
    torch.testing.assert_close(
        CentredBody.from_spin_24(joints - joints[[2, 3]].mean(0), known).joints[:14].shape, (14, 3)
    )
    with pytest.raises(RowError, match=r"not centred on it, the hips are 3\.\d\d m away"):
        CentredBody.from_spin_24(joints - joints[[2, 3]].mean(0) + 2.0, known)


def test_rows_that_lack_a_joint_of_the_protocol_are_listed() -> None:
    judge, found = _stored(3, 14)
    assert judge.file.joints is not None
    judge.file.joints[0, SPIN_24.index("Right Knee"), 3] = 0
    judge.file.joints[1, SPIN_24.index("Spine (H36M)"), 3] = 0  # one of the 17 only
    judge.file.joints[2, SPIN_24.index("Head (H36M)"), 0] = np.nan
    outcomes = list(evaluate_rows(judge, range(3), observation, fake_fit(joints=found)))
    assert {(item.row, item.reason) for item in outcomes if isinstance(item, FailedRow)} == {
        (0, "the true place of Right Knee is unknown"), (2, "the true place of Head (H36M) is unknown"),
    }  # fmt: skip
    assert [item.row for item in outcomes if isinstance(item, EvaluatedRow)] == [1]


# --- Nothing is lost -------------------------------------------------------------------------------


def test_every_row_comes_back_once_whatever_fails() -> None:
    count = 2 * BATCH_SIZE + 5
    judge, found = _stored(count, 14)
    sizes: list[int] = []
    found[20] = found[20] * np.nan

    def observe(row: int) -> Observation:
        if row % 7 == 0:
            raise RowError("missing image", "gone")
        return observation(row)

    def fit(observations: list[Observation]) -> list[FitResult]:
        sizes.append(len(observations))
        if any(round(seen.focal_length) - 1 == 10 for seen in observations):
            raise RuntimeError("a step\nwent wrong")
        return fake_fit(joints=found)(observations)

    outcomes = list(evaluate_rows(judge, range(count), observe, fit))
    assert sorted(item.row for item in outcomes) == list(range(count))
    failures = {item.row: (item.kind, item.reason) for item in outcomes if isinstance(item, FailedRow)}
    expected = {row: ("missing image", "gone") for row in range(0, count, 7)}
    expected[10] = ("fit failed", "RuntimeError: a step went wrong")
    expected[20] = ("fit failed", "the fitted body isn't finite")
    assert failures == expected
    assert sizes[0] == BATCH_SIZE
    assert sizes.count(1) == BATCH_SIZE  # the failing batch, one by one
    found_report = report(judge, open_body(), outcomes)
    assert found_report["failures"] == {"missing image": 6, "fit failed": 2}
    assert found_report["evaluated"] + len(found_report["failed"]) == found_report["rows"] == count
    assert "**Rows that are not in the means: 8** (6 missing image, 2 fit failed)." in markdown(found_report)
    assert found_report["metrics_mm"]["mpjpe"]["people"] == count - 8


def test_intervals_resample_videos_where_there_are_many() -> None:
    """Ten videos of identical frames: over frames the interval would be narrower by the root of their number."""
    judge, found = _stored(40, 14)
    rng = np.random.default_rng(0)
    for row in range(40):
        found[row][KEYPOINT_INDEX["Right Ankle"]] += [0.014 * (row % 10), 0.0, 0.0]
    widths = []
    for names in ([f"v{row % 10}/{row}.png" for row in range(40)], [f"v/{row}.png" for row in range(40)]):
        named = replace(judge, file=replace(judge.file, imgname=tuple(names)))
        rows = run(named, fake_fit(joints=found))
        found_report = report(named, open_body(), rng.permutation(np.array(rows, dtype=object)).tolist())
        value = found_report["metrics_mm"]["mpjpe"]
        assert value["mean"] == pytest.approx(4.5)
        assert found_report["resampled"] == ("folders" if names[0].startswith("v0/") else "rows")
        widths.append(value["high"] - value["low"])
    assert widths[0] > 1.6 * widths[1]


# --- Images ----------------------------------------------------------------------------------------


class _Watched:
    """A detector that notes where it looks and finds nobody."""

    def __init__(self) -> None:
        self.boxes: list[Any] = []

    def detect(self, image: np.ndarray, bbox: Any = None, *about: Any, **more: Any) -> list[Detection]:
        self.boxes.append(bbox)
        return []

    def complete(self, image: np.ndarray, given: Detection) -> Detection:
        return given


def test_part_is_taken_where_it_is_enough_and_else_the_box_is_searched(tmp_path: Path) -> None:
    shutil.copy(PERSON, tmp_path / "person.png")
    part = np.zeros((3, 24, 3))
    part[0, :10] = [[200.0 + 20 * joint + 9 * (joint % 2), 100.0 + 50 * joint, 1.0] for joint in range(10)]
    part[1, :3, 2] = 1
    part[2] = np.nan
    file = spin_file(3, imgname=("person.png",) * 3, part=part, center=np.full((3, 2), 300.0), scale=np.full(3, 2.5))
    watched = _Watched()
    observer = RowPerception(file, tmp_path, Perception(watched), focal=777.0)
    seen = observer(0)
    assert (seen.detection.source, seen.focal_length) == ("part", 777.0)
    np.testing.assert_allclose(seen.detection.keypoints[25:35], part[0, :10])
    assert (seen.detection.keypoints[:25] == 0).all()
    watched.boxes.clear()
    for row, other in ((1, observer), (2, observer), (0, replace(observer, use_part=False))):
        with pytest.raises(RowError, match="nobody was found in the given --bbox") as caught:
            other(row)
        assert caught.value.kind == "not observed"
    assert watched.boxes == [(50.0, 50.0, 500.0, 500.0)] * 3


def test_missing_and_strange_images_are_row_errors(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "text.png").write_text("no picture")
    shutil.copy(PERSON, tmp_path / "person.png")
    names = ("gone.png", "../person.png", str(tmp_path / "person.png"), "text.png")
    observer = RowPerception(spin_file(4, imgname=names), tmp_path / "images", Perception(_Watched()))
    kinds = []
    for row in range(4):
        with pytest.raises(RowError) as caught:
            observer(row)
        kinds.append(caught.value.kind)
    assert kinds == ["missing image", "missing image", "missing image", "not observed"]


def test_the_two_joint_orders_name_the_same_joints() -> None:
    """J17_OF_24 by name; the regressor's rows are a permutation whose left and right legs and arms are blocks."""
    assert [SPIN_24[slot] for slot in J17_OF_24[12:]] == [
        "Neck (LSP)", "Head (H36M)", "Pelvis (MPII)", "Spine (H36M)", "Jaw (H36M)",
    ]  # fmt: skip
    assert J17_OF_24[:13] == tuple(range(13))
    assert sorted(J17_OF_H36M) == list(range(17))
    assert set(J17_OF_H36M[:6]) == set(range(1, 7))
    assert set(J17_OF_H36M[6:12]) == set(range(11, 17))
