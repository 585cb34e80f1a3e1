"""Motion capture readers against motions whose answer is known in closed form, and their retargeting."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from mocap.archive import read_clips
from mocap.asf_amc import parse_asf, read_asf_amc
from mocap.bvh import read_bvh
from mocap.clip import Clip, Skeleton, chain, joint_positions, unchain
from mocap.deepmimic import read_deepmimic
from mocap.legs import excess_length, flexion, shortened_legs, stance_flexion
from mocap.retarget import DEEPMIMIC, JOINT, SIDES, Follow, direction_errors, our_positions, retarget
from mocap.selection import farthest_points, features, hinge_angles, hold_out, implausible, stood_for
from scipy.spatial.transform import Rotation

from dsr_fit.body.files import load_body
from dsr_fit.joints import SMPL_JOINTS, SMPL_PARENTS

ASF = """\
:version 1.10
:units
  length 0.45
  angle deg
:root
   order TX TY TZ RX RY RZ
   axis XYZ
   position 0 0 0
   orientation 0 0 0
:bonedata
  begin
     id 1
     name thigh
     direction 0 -1 0
     length 2
     axis 0 0 90 XYZ
    dof rx ry rz
    limits (-160.0 20.0)
           (-70.0 70.0)
           (-60.0 70.0)
  end
  begin
     id 2
     name shin
     direction 0 -1 0
     length 3
     axis 0 90 0 XYZ
    dof rx
    limits (-10.0 170.0)
  end
:hierarchy
  begin
    root thigh
    thigh shin
  end
"""
AMC = """\
#!OML:ASF somewhere
:FULLY-SPECIFIED
:DEGREES
1
root 1 2 3 0 0 0
thigh 0 0 0
shin 0
2
root 1 2 3 0 90 0
thigh 90 0 0
shin 90
3
root 1 2 3 20 -30 40
thigh 0 0 0
shin 0
"""


def matrix(order: str, *degrees: float) -> np.ndarray:
    return Rotation.from_euler(order, degrees, degrees=True).as_matrix()


@pytest.fixture(scope="module")
def rest_joints() -> np.ndarray:
    return load_body().skeleton.rest_joints.double().numpy()


def test_acclaim_positions_in_closed_form() -> None:
    clip = read_asf_amc(parse_asf(ASF), AMC, "two bones")
    assert clip.fps == 120
    assert clip.skeleton.names == ("root", "thigh", "shin", "shin_end")
    np.testing.assert_allclose(clip.positions()[0], [[0, 0, 0], [0, 0, 0], [0, -2, 0], [0, -5, 0]], atol=1e-12)
    # Frame 2. The thigh's own x axis is the world's y: a turn about it leaves the bone hanging. The shin's is
    # -z: it turns from -y to -x; the thigh's quarter turn about y takes that to z, and the root's that to x.
    np.testing.assert_allclose(clip.positions()[1], [[0, 0, 0], [0, 0, 0], [0, -2, 0], [3, -2, 0]], atol=1e-12)
    # Frame 3: x first, then y, then z, about fixed axes.
    np.testing.assert_allclose(clip.rotations[2, 0], matrix("z", 40) @ matrix("y", -30) @ matrix("x", 20), atol=1e-12)


def test_acclaim_refuses_what_it_would_misread() -> None:
    with pytest.raises(ValueError, match="no bone tail"):
        read_asf_amc(parse_asf(ASF), AMC + "tail 1\n", "clip")
    with pytest.raises(ValueError, match="shin has"):
        read_asf_amc(parse_asf(ASF), AMC.removesuffix("shin 0\n"), "clip")
    with pytest.raises(ValueError, match="turned at rest"):
        parse_asf(ASF.replace("orientation 0 0 0", "orientation 0 90 0"))
    with pytest.raises(ValueError, match="outside the hierarchy: shin"):
        parse_asf(ASF.replace("    thigh shin\n", ""))


BVH = """\
HIERARCHY
ROOT Hips
{
  OFFSET 0 0 0
  CHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation
  JOINT Arm
  {
    OFFSET 1 0 0
    CHANNELS 3 Zrotation Xrotation Yrotation
    End Site
    {
      OFFSET 0 2 0
    }
  }
}
MOTION
Frames: 2
Frame Time: 0.04
9 9 9 0 0 0 0 0 0
9 9 9 10 20 30 90 -40 50
"""


def test_bvh_rotations_apply_in_the_order_of_the_channels() -> None:
    clip = read_bvh(BVH, "arm")
    assert clip.fps == pytest.approx(25)
    assert clip.skeleton.names == ("Hips", "Arm", "Arm_end")
    np.testing.assert_allclose(clip.positions()[0], [[0, 0, 0], [1, 0, 0], [1, 2, 0]], atol=1e-12)
    hips = matrix("z", 10) @ matrix("y", 20) @ matrix("x", 30)
    arm = hips @ matrix("z", 90) @ matrix("x", -40) @ matrix("y", 50)
    np.testing.assert_allclose(clip.rotations[1], [hips, arm, arm], atol=1e-12)
    expected = hips @ [1, 0, 0] + arm @ [0, 2, 0]
    np.testing.assert_allclose(clip.positions()[1, 2], expected, atol=1e-12)


@pytest.mark.parametrize(
    ("old", "new"),
    [("Frames: 2", "Frames: 3"), ("MOTION\n", ""), ("9 9 9 0 ", "9 9 9 "), ("OFFSET 1 0 0", "SHIFT 1 0 0"),
     ("  }\n}\nMOTION", "}\nMOTION")],
)  # fmt: skip
def test_bvh_refuses_malformed_files(old: str, new: str) -> None:
    assert old in BVH
    with pytest.raises(ValueError, match="arm"):
        read_bvh(BVH.replace(old, new), "arm")


def deepmimic_text(**joints: list[float]) -> str:
    """Two equal frames: identity but for the joints given."""
    order = (
        "root", "chest", "neck", "right_hip", "right_knee", "right_ankle", "right_shoulder", "right_elbow",
        "left_hip", "left_knee", "left_ankle", "left_shoulder", "left_elbow",
    )  # fmt: skip
    row = [0.05, 0.0, 0.9, 0.0]
    for name in order:
        identity = [0.0] if "knee" in name or "elbow" in name else [1.0, 0.0, 0.0, 0.0]
        row += joints.get(name, identity)
    return json.dumps({"Loop": "wrap", "Frames": [row, row]})


def test_deepmimic_bends_forward_and_turns_left() -> None:
    turn = float(np.sqrt(0.5))
    clip = read_deepmimic(
        deepmimic_text(root=[turn, 0, turn, 0], left_elbow=[np.pi / 2], right_knee=[-np.pi / 2]), "frame"
    )
    assert clip.fps == pytest.approx(20)
    points = dict(zip(clip.skeleton.names, clip.positions()[0], strict=True))
    # A quarter turn to the left about the vertical: forward is x now, and the left side is -z.
    np.testing.assert_allclose(points["left_hip"], [0, 0, -0.085], atol=1e-12)
    np.testing.assert_allclose(points["left_wrist"] - points["left_elbow"], [0.259, 0, 0], atol=1e-12)
    np.testing.assert_allclose(points["right_ankle"] - points["right_knee"], [-0.41, 0, 0], atol=1e-12)
    np.testing.assert_allclose(points["head_end"] - points["neck"], [0, 0.28, 0], atol=1e-12)


def test_deepmimic_refuses_rows_of_another_length() -> None:
    with pytest.raises(ValueError, match="44 numbers"):
        read_deepmimic(json.dumps({"Frames": [[0.0] * 43]}), "short")


def test_chain_and_unchain_are_inverse() -> None:
    vectors = np.random.default_rng(0).normal(size=(5 * 24, 3))
    local = Rotation.from_rotvec(vectors).as_matrix().reshape(5, 24, 3, 3)
    np.testing.assert_allclose(unchain(chain(local, SMPL_PARENTS), SMPL_PARENTS), local, atol=1e-12)


def smpl_clip(local: np.ndarray, joints: np.ndarray) -> Clip:
    """A clip whose skeleton is the body's own, from rotations to parents (T, 24, 3, 3)."""
    offsets = joints - joints[np.maximum(SMPL_PARENTS, 0)]
    return Clip("own", 30, Skeleton(SMPL_JOINTS, SMPL_PARENTS, offsets), chain(local, SMPL_PARENTS))


SAME = {name: Follow(name) for name in SMPL_JOINTS}


def bent_pose(frames: int = 7) -> np.ndarray:
    """Rotation vectors (T, 24, 3): random, but elbows bend as the T-pose's do and wrists don't twist."""
    pose = np.random.default_rng(1).normal(0, 0.5, (frames, 24, 3))
    bend = np.linspace(0.2, 2, frames)
    for side, sign in zip(SIDES, (-1, 1), strict=True):
        pose[:, JOINT[f"{side}_elbow"]] = np.stack([0 * bend, sign * bend, 0 * bend], 1)
        pose[:, JOINT[f"{side}_wrist"], 0] = 0
    return pose


def test_retargeting_the_bodys_own_motion_gives_it_back(rest_joints: np.ndarray) -> None:
    pose = bent_pose()
    local = Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3)
    np.testing.assert_allclose(retarget(smpl_clip(local, rest_joints), SAME, rest_joints), pose, atol=1e-6)


def test_another_rest_pose_leaves_the_same_limbs(rest_joints: np.ndarray) -> None:
    """A source whose arms hang and whose legs are spread at rest, in a motion that is the body's own."""
    pose = bent_pose()
    local = Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3)
    own = smpl_clip(local, rest_joints)
    rest = np.tile(np.eye(3), (1, 24, 1, 1))
    for joint, degrees in {
        "left_shoulder": -90,
        "right_shoulder": 90,
        "left_hip": 20,
        "right_hip": -20,
    }.items():
        rest[0, JOINT[joint]] = matrix("z", degrees)
    turned = chain(rest, SMPL_PARENTS)
    positions = joint_positions(turned, SMPL_PARENTS, own.skeleton.offsets)[0]
    source = Clip(
        "turned",
        30,
        Skeleton(SMPL_JOINTS, SMPL_PARENTS, positions - positions[np.maximum(SMPL_PARENTS, 0)]),
        own.rotations @ turned.swapaxes(-1, -2),
    )
    np.testing.assert_allclose(source.positions(), own.positions(), atol=1e-12)
    found = retarget(source, SAME, rest_joints)
    for error in direction_errors(source, SAME, found, rest_joints).values():
        assert error.max() < 0.05
    # The smallest rotation back differs from the source's by a slight twist: bones leave the frontal plane.
    np.testing.assert_allclose(found, pose, atol=1e-3)


def test_twisted_rest_arms_still_bend_about_the_vertical(rest_joints: np.ndarray) -> None:
    """The source's elbow axis is 30 degrees off, as CMU's: joints stay, and the elbow's axis becomes ours."""
    pose = np.zeros((3, 24, 3))
    pose[:, JOINT["left_elbow"]] = np.outer([1.0, 1.5, 2.0], [0, -np.cos(np.pi / 6), np.sin(np.pi / 6)])
    local = Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3)
    source = smpl_clip(local, rest_joints)
    found = retarget(source, SAME, rest_joints)
    bend, sideways = hinge_angles(found, "left", "elbow")
    np.testing.assert_allclose(bend, np.rad2deg([1.0, 1.5, 2.0]), atol=1e-4)
    np.testing.assert_allclose(sideways, 0, atol=1e-4)
    # Arms are twisted about x, from which the T-pose's leave by a tenth of a degree.
    np.testing.assert_allclose(our_positions(found, rest_joints), source.positions(), atol=1e-4)
    world = chain(Rotation.from_rotvec(found.reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3), SMPL_PARENTS)
    hand = JOINT["left_wrist"]
    np.testing.assert_allclose(world[:, hand], source.rotations[:, hand], atol=1e-6)


def test_one_chest_joint_is_spread_over_three(rest_joints: np.ndarray) -> None:
    angle = 0.9
    quaternion = [float(np.cos(angle / 2)), 0.0, 0.0, float(np.sin(angle / 2))]
    found = retarget(read_deepmimic(deepmimic_text(chest=quaternion), "bow"), DEEPMIMIC, rest_joints)
    for name in ("spine1", "spine2", "spine3"):
        # The files' z points right: a turn about it by a positive angle leans back, in our frame about -x.
        np.testing.assert_allclose(found[0, JOINT[name]], [-angle / 3, 0, 0], atol=1e-6)


def test_implausible_poses_are_named() -> None:
    pose = np.zeros((5, 24, 3))
    pose[1, JOINT["left_knee"], 0] = -0.5
    pose[2, JOINT["right_elbow"], 1] = -0.5
    pose[3, JOINT["right_knee"]] = [0.8, 0, 0.9]
    pose[4, JOINT["neck"], 0] = 1.5
    reasons = implausible(pose)
    found = {name: np.flatnonzero(mask).tolist() for name, mask in reasons.items() if mask.any()}
    assert found == {
        "knee hyperextended": [1],
        "elbow hyperextended": [2],
        "knee bent sideways": [3],
        "neck turned too far": [4],
    }


def test_features_ignore_heading_and_measure_angles() -> None:
    pose = np.zeros((3, 24, 3))
    pose[1, 0] = [0, 2.0, 0]
    pose[2, 5] = [0.02, 0, 0]
    points = features(pose)
    assert np.linalg.norm(points[0] - points[1]) < 1e-6
    assert np.linalg.norm(points[0] - points[2]) == pytest.approx(0.02 / np.sqrt(24), rel=1e-3)


def test_farthest_points_cover_and_keep_apart() -> None:
    points = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    taken, radius = farthest_points(points, 40)
    distance = np.linalg.norm(points[:, None] - points[taken], axis=2)
    assert distance.min(1).max() == pytest.approx(radius, rel=1e-4)
    between = distance[taken]
    assert between[~np.eye(40, dtype=bool)].min() >= radius * (1 - 1e-4)
    same = np.zeros((4, 2), np.float32)
    assert farthest_points(same, 10)[1] == 0.0


def test_hold_out_takes_of_every_group_by_seed() -> None:
    groups = {"a": [f"a{k}" for k in range(10)], "b": ["b0", "b1"]}
    held = hold_out(groups, 0.2, seed=3)
    assert len([name for name in held if name[0] == "a"]) == 2
    assert len([name for name in held if name[0] == "b"]) == 1
    assert held == hold_out(groups, 0.2, seed=3)
    later = {**groups, "aa": [f"c{k}" for k in range(5)]}
    assert [name for name in hold_out(later, 0.2, seed=3) if name[0] != "c"] == held


def test_taken_points_stand_for_those_nearest() -> None:
    points = np.array([[0.0], [0.1], [5.0], [4.9], [5.2]], np.float32)
    assert stood_for(points, np.array([0, 2])).tolist() == [2, 3]


def _standing(rest_joints: np.ndarray, bend: float, frames: int = 60) -> np.ndarray:
    """People who stand still with knees bent by `bend` radians more than the T-pose's, feet level."""
    pose = np.zeros((frames, 24, 3))
    for side in SIDES:
        pose[:, JOINT[f"{side}_hip"], 0] = -bend / 2
        pose[:, JOINT[f"{side}_knee"], 0] = bend
        pose[:, JOINT[f"{side}_ankle"], 0] = -bend / 2
    return pose


def test_legs_too_long_are_shortened_until_who_stands_is_straight(rest_joints: np.ndarray) -> None:
    pose = _standing(rest_joints, np.radians(24))
    stance = stance_flexion([pose], rest_joints, 30.0)
    assert stance == pytest.approx(24, abs=3.5)  # the T-pose's own bend is about another axis
    straight = shortened_legs(pose, excess_length(stance), rest_joints)
    assert stance_flexion([straight], rest_joints, 30.0) == pytest.approx(6, abs=1)
    before, after = (our_positions(each, rest_joints) for each in (pose, straight))
    for side in SIDES:
        hip, ankle = JOINT[f"{side}_hip"], JOINT[f"{side}_ankle"]
        lines = [
            (each[0, ankle] - each[0, hip]) / np.linalg.norm(each[0, ankle] - each[0, hip]) for each in (before, after)
        ]
        np.testing.assert_allclose(lines[0], lines[1], atol=1e-6)  # the leg points where it did
    feet = [
        chain(Rotation.from_rotvec(each[:1].reshape(-1, 3)).as_matrix().reshape(1, 24, 3, 3), SMPL_PARENTS)[0, 7]
        for each in (pose, straight)
    ]
    np.testing.assert_allclose(feet[0], feet[1], atol=1e-9)  # and the foot too


def test_bent_knees_and_right_legs_stay(rest_joints: np.ndarray) -> None:
    bent = _standing(rest_joints, np.radians(100), 2)
    joints = our_positions(bent, rest_joints), our_positions(shortened_legs(bent, 0.03, rest_joints), rest_joints)
    change = flexion(joints[0], "left") - flexion(joints[1], "left")
    assert (change > 0).all()
    assert (change < 4).all()
    np.testing.assert_allclose(shortened_legs(bent, 0.0, rest_joints), bent, atol=1e-9)
    assert excess_length(4.0) == 0.0
    assert excess_length(np.nan) == 0.0


def test_shared_clips_point_their_limbs_as_their_sources(shared_dir: Path, rest_joints: np.ndarray) -> None:
    folder = shared_dir / "data" / "mocap"
    if not folder.is_dir():
        pytest.skip("needs the shared motion capture")
    groups = []
    for group, clip, correspondence in read_clips(folder):
        groups.append(group)
        thinned = clip.every(40)
        pose = retarget(thinned, correspondence, rest_joints)
        for line, error in direction_errors(thinned, correspondence, pose, rest_joints).items():
            if any(part in line for part in ("thigh", "shin", "arm")):
                assert error.max() < 0.2, (clip.name, line)  # rounded quaternions of the files
    assert len(groups) == 51 + 65
    named = {"cmu 01", "cmu 02", "cmu 03", "cmu 13 and 14", "cmu 131", "deepmimic"}
    assert named | {f"cmu 0{subject}" for subject in range(5, 10)} == set(groups)
