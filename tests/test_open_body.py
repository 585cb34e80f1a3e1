"""Invariants of the shipped open body, `priors/open_body/body.npz`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import trimesh

FOLDER = Path(__file__).resolve().parents[1] / "priors" / "open_body"
SMPL_PARENTS = [-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21]
# SMPL's order: pelvis, hips, spine1, knees, spine2, ankles, spine3, feet, neck, collars, head, shoulders,
# elbows, wrists, hands; left before right.
MIRROR_JOINT = [0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22]
MIRROR = np.array([-1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def body() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "body.npz", allow_pickle=False) as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def mesh(body: dict[str, np.ndarray]) -> trimesh.Trimesh:
    return trimesh.Trimesh(body["v_template"], body["f"].astype(np.int64), process=False)


def regressor(body: dict[str, np.ndarray], name: str, rows: int) -> np.ndarray:
    dense = np.zeros((rows, len(body["v_template"])))
    np.add.at(dense, (body[f"{name}_row"], body[f"{name}_col"]), body[f"{name}_val"].astype(np.float64))
    return dense


@pytest.fixture(scope="module")
def joints(body: dict[str, np.ndarray]) -> np.ndarray:
    return regressor(body, "J_regressor", 24) @ body["v_template"]


@pytest.fixture(scope="module")
def random_bodies(body: dict[str, np.ndarray]) -> np.ndarray:
    betas = np.random.default_rng(7).normal(size=(300, 10))
    return body["v_template"] + np.einsum("vik,nk->nvi", body["shapedirs"], betas)


def mirrored_name(name: str) -> str:
    if name.startswith(("Left ", "Right ")):
        side, rest = name.split(" ", 1)
        return f"{'Right' if side == 'Left' else 'Left'} {rest}"
    if name[0] in "LR" and name[1].isupper():
        return ("R" if name[0] == "L" else "L") + name[1:]
    return name


def keypoint(body: dict[str, np.ndarray], name: str) -> np.ndarray:
    index = list(body["keypoint_names"]).index(name)
    return regressor(body, "keypoint_regressor", 49)[index] @ body["v_template"]


def test_arrays_are_smpls(body: dict[str, np.ndarray]) -> None:
    v, f = len(body["v_template"]), len(body["f"])
    shapes = {
        "v_template": (v, 3),
        "shapedirs": (v, 3, 10),
        "posedirs": (v, 3, 207),
        "weights": (v, 24),
        "kintree_table": (2, 24),
        "f": (f, 3),
        "joint_names": (24,),
        "keypoint_names": (49,),
        "left_right_vertex": (v,),
    }
    assert {name: body[name].shape for name in shapes} == shapes
    for name in (
        "v_template",
        "shapedirs",
        "posedirs",
        "weights",
        "J_regressor_val",
        "keypoint_regressor_val",
    ):
        assert body[name].dtype == np.float32, name
        assert np.isfinite(body[name]).all(), name
    assert body["f"].dtype.kind in "iu"
    assert str(body["body_name"]) == "open"


def test_counts_are_never_smpls(body: dict[str, np.ndarray]) -> None:
    # With SMPL's own counts a licensed regressor or prior would load on the wrong body in silence.
    assert len(body["v_template"]) != 6890
    assert len(body["f"]) != 13776
    assert 6500 <= len(body["v_template"]) <= 7500


def test_file_is_small() -> None:
    assert (FOLDER / "body.npz").stat().st_size <= 8_000_000


def test_tree_is_smpls(body: dict[str, np.ndarray]) -> None:
    parents = body["kintree_table"][0].astype(np.int64)
    assert parents[0] == 4294967295
    assert parents[1:].tolist() == SMPL_PARENTS[1:]
    assert body["kintree_table"][1].tolist() == list(range(24))


def test_surface_is_closed_and_faces_outward(mesh: trimesh.Trimesh) -> None:
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.euler_number == 2
    assert mesh.body_count == 1
    # A positive signed volume means outward faces; an adult displaces 50 to 100 litres.
    assert 0.05 < mesh.volume < 0.1
    assert len(np.unique(mesh.faces)) == len(mesh.vertices)


def test_everything_is_its_own_mirror_image(body: dict[str, np.ndarray]) -> None:
    mirror = body["left_right_vertex"]
    np.testing.assert_array_equal(mirror[mirror], np.arange(len(mirror)))
    # float32 rounding of coordinates of at most a metre
    np.testing.assert_allclose(body["v_template"][mirror] * MIRROR, body["v_template"], atol=1e-6)
    np.testing.assert_allclose(body["shapedirs"][mirror] * MIRROR[:, None], body["shapedirs"], atol=1e-6)
    np.testing.assert_allclose(body["weights"][mirror][:, MIRROR_JOINT], body["weights"], atol=1e-6)
    turned = {frozenset(face) for face in mirror[body["f"]].tolist()}
    assert turned == {frozenset(face) for face in body["f"].tolist()}
    joint_rows = regressor(body, "J_regressor", 24)
    np.testing.assert_allclose(joint_rows[MIRROR_JOINT][:, mirror], joint_rows, atol=1e-6)
    names = [str(name) for name in body["keypoint_names"]]
    images = [mirrored_name(name) for name in names]
    keypoint_rows = regressor(body, "keypoint_regressor", 49)
    order = [names.index(image) for image in images]
    np.testing.assert_allclose(keypoint_rows[order][:, mirror], keypoint_rows, atol=1e-6)


def test_weights_are_convex(body: dict[str, np.ndarray]) -> None:
    assert body["weights"].min() >= 0
    np.testing.assert_allclose(body["weights"].sum(1), 1, atol=1e-5)


@pytest.mark.parametrize(("name", "rows"), [("J_regressor", 24), ("keypoint_regressor", 49)])
def test_regressor_rows_sum_to_one(body: dict[str, np.ndarray], name: str, rows: int) -> None:
    # Otherwise a body that moves leaves its joints behind.
    np.testing.assert_allclose(regressor(body, name, rows).sum(1), 1, atol=1e-5)
    assert len(body[f"{name}_val"]) < 0.05 * rows * len(body["v_template"])


def test_t_pose_axes(body: dict[str, np.ndarray], joints: np.ndarray) -> None:
    names = [str(name) for name in body["joint_names"]]
    joint = dict(zip(names, joints, strict=True))
    np.testing.assert_allclose(joint["pelvis"], 0, atol=1e-3)
    arm = joint["left_wrist"] - joint["left_shoulder"]
    assert arm[0] > 0.999 * np.linalg.norm(arm)  # straight out to +x
    thigh = joint["left_knee"] - joint["left_hip"]
    assert -thigh[1] > 0.99 * np.linalg.norm(thigh)
    assert joint["head"][1] > joint["neck"][1] > joint["spine3"][1] > joint["spine2"][1] > joint["spine1"][1] > 0
    assert keypoint(body, "LBigToe")[2] > joint["left_ankle"][2] + 0.1
    assert keypoint(body, "LHeel")[2] < joint["left_ankle"][2]
    # Palms down: the hand is wider along z than it is thick along y.
    hand = body["v_template"][body["weights"][:, names.index("left_wrist")] > 0.9]
    assert np.ptp(hand[:, 2]) > 1.5 * np.ptp(hand[:, 1])


def test_keypoints_lie_where_their_names_say(body: dict[str, np.ndarray], joints: np.ndarray) -> None:
    joint = dict(zip((str(name) for name in body["joint_names"]), joints, strict=True))
    for limb in ("Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Ankle"):
        assert np.linalg.norm(keypoint(body, f"L{limb}") - joint[f"left_{limb.lower()}"]) < 0.05, limb
    nose, eye, ear = (keypoint(body, name) for name in ("Nose", "LEye", "LEar"))
    assert nose[2] > eye[2] > ear[2]
    assert ear[0] > eye[0] > abs(nose[0])
    assert keypoint(body, "Top of Head (LSP)")[1] > eye[1] > nose[1] > keypoint(body, "Neck")[1]
    assert keypoint(body, "LBigToe")[0] < keypoint(body, "LSmallToe")[0]


def test_random_betas_are_adults(body: dict[str, np.ndarray], random_bodies: np.ndarray) -> None:
    stature = np.ptp(random_bodies[..., 1], axis=1)
    corner = random_bodies[:, body["f"].astype(np.int64)]
    volume = np.einsum("nfi,nfi->n", corner[:, :, 0], np.cross(corner[:, :, 1], corner[:, :, 2])) / 6
    bmi = 1000 * volume / stature**2
    assert 1.48 < np.percentile(stature, 5) < 1.62
    assert 1.64 < np.median(stature) < 1.75
    assert 1.78 < np.percentile(stature, 95) < 1.92
    assert 15 < np.percentile(bmi, 5) < 20
    assert 21 < np.median(bmi) < 27
    assert 30 < np.percentile(bmi, 95) < 38


def test_first_beta_is_stature(body: dict[str, np.ndarray]) -> None:
    template, first = body["v_template"], body["shapedirs"][..., 0]
    assert np.ptp((template + first)[:, 1]) - np.ptp(template[:, 1]) > 0.04


def test_random_joints_keep_the_skeleton_in_order(body: dict[str, np.ndarray], random_bodies: np.ndarray) -> None:
    joints = np.einsum("jv,nvi->nji", regressor(body, "J_regressor", 24), random_bodies)
    # Bones keep a length, and the left stays left: a regressor that overfits breaks on unusual bodies.
    bones = np.linalg.norm(joints[:, 1:] - joints[:, SMPL_PARENTS[1:]], axis=2)
    assert bones.min() > 0.03
    assert (joints[:, 1::3][:, :3, 0] > 0).all()  # left hip, knee, ankle


def test_readme_and_report_name_this_file() -> None:
    digest = hashlib.sha256((FOLDER / "body.npz").read_bytes()).hexdigest()
    assert json.loads((FOLDER / "report.json").read_text())["sha256"] == digest
    assert digest in (FOLDER / "README.md").read_text()


def test_joint_regressor_meets_its_promise() -> None:
    report = json.loads((FOLDER / "report.json").read_text())["joint_regressor"]["held_out_shapes"]
    assert report["mean_mm"] <= 2
    assert report["worst_joint_mean_mm"] <= 5


def test_smplx_poses_it_the_same(body: dict[str, np.ndarray]) -> None:
    """smplx is the oracle of SMPL's equations; ours here is written out from the paper."""
    smplx_lbs = pytest.importorskip("smplx.lbs")
    torch = pytest.importorskip("torch")
    from scipy.spatial.transform import Rotation

    rng = np.random.default_rng(3)
    betas, pose = rng.normal(size=10), rng.normal(0, 0.3, (24, 3))
    shaped = body["v_template"] + body["shapedirs"] @ betas
    dense = regressor(body, "J_regressor", 24)
    rest = dense @ shaped
    world = np.tile(np.eye(4), (24, 1, 1))
    for j, parent in enumerate(SMPL_PARENTS):
        local = np.eye(4)
        local[:3, :3] = Rotation.from_rotvec(pose[j]).as_matrix()
        local[:3, 3] = rest[j] - (rest[parent] if j else 0)
        world[j] = (world[parent] if j else np.eye(4)) @ local
    skinning = world.copy()
    skinning[:, :3, 3] -= np.einsum("jab,jb->ja", world[:, :3, :3], rest)
    homogeneous = np.concatenate([shaped, np.ones((len(shaped), 1))], 1)
    ours = np.einsum("vj,jab,vb->va", body["weights"], skinning, homogeneous)[:, :3]

    tensors = [torch.from_numpy(np.asarray(x, np.float64)) for x in (betas[None], pose.reshape(1, 72))]
    posedirs = torch.from_numpy(body["posedirs"].reshape(-1, 207).T.astype(np.float64))
    theirs, _ = smplx_lbs.lbs(
        *tensors,
        torch.from_numpy(body["v_template"].astype(np.float64))[None],
        torch.from_numpy(body["shapedirs"].astype(np.float64)),
        posedirs,
        torch.from_numpy(dense),
        torch.tensor(SMPL_PARENTS),
        torch.from_numpy(body["weights"].astype(np.float64)),
    )
    np.testing.assert_allclose(ours, theirs[0].numpy(), atol=1e-6)
