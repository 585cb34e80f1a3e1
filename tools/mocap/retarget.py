"""Motion of another skeleton on SMPL's 24 joints, in the open body's rest frames (T-pose, x left, y up, z
forward).

Each of our joints follows the world rotation of one source joint. The source's rest pose is brought into our
T-pose first: going down each limb, the smallest rotation that lays the source's bone along ours is put on top
of the parent's. With A that alignment and R the source's rotation, our joint's world rotation is R A^-1, so
that limbs point exactly as the source's do. The trunk, neck and head take the source's rotations as they are,
since both stand upright at rest, and feet are aligned in heading only, since both are flat on the floor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from dsr_fit.joints import SMPL_JOINTS, SMPL_PARENTS
from dsr_fit.rotation import rotation_between
from mocap.clip import Clip, Skeleton, chain, joint_positions, unchain

JOINT = {name: index for index, name in enumerate(SMPL_JOINTS)}
SIDES = ("left", "right")
LIMBS = ("hip", "knee", "ankle", "shoulder", "elbow")
"""Joints whose bone is aligned at rest."""
NEXT = {"hip": "knee", "knee": "ankle", "ankle": "foot", "shoulder": "elbow", "elbow": "wrist"}
LEAST_BEND = np.deg2rad(20)  # of an elbow, on average, before its axis can be told


@dataclass(frozen=True)
class Follow:
    """Our joint takes `share` of the rotation from the source joint `base` to `joint`, on top of base's."""

    joint: str
    base: str = ""
    share: float = 1.0


Correspondence = Mapping[str, Follow]
"""For each of SMPL's joints the source's; limbs' bones run between the sources of neighbouring joints."""


def _both_sides(pairs: Mapping[str, tuple[str, str]]) -> dict[str, Follow]:
    return {f"{side}_{name}": Follow(sources[k]) for name, sources in pairs.items() for k, side in enumerate(SIDES)}


CMU: Correspondence = {
    "pelvis": Follow("root"),
    "spine1": Follow("lowerback"),
    "spine2": Follow("upperback"),
    "spine3": Follow("thorax"),
    "neck": Follow("upperneck"),
    "head": Follow("head"),
} | _both_sides({
    "hip": ("lfemur", "rfemur"),
    "knee": ("ltibia", "rtibia"),
    "ankle": ("lfoot", "rfoot"),
    "foot": ("ltoes", "rtoes"),
    "collar": ("lclavicle", "rclavicle"),
    "shoulder": ("lhumerus", "rhumerus"),
    "elbow": ("lradius", "rradius"),
    "wrist": ("lhand", "rhand"),
    "hand": ("lhand", "rhand"),
})  # fmt: skip

CMU_BVH: Correspondence = {
    "pelvis": Follow("Hips"),
    "spine1": Follow("lowerback"),
    "spine2": Follow("Chest"),
    "spine3": Follow("Chest2"),
    "neck": Follow("Neck"),
    "head": Follow("Head"),
} | _both_sides({
    name: (f"Left{source}", f"Right{source}")
    for name, source in {
        "hip": "Hip", "knee": "Knee", "ankle": "Ankle", "foot": "Toe", "collar": "Collar",
        "shoulder": "Shoulder", "elbow": "Elbow", "wrist": "Wrist", "hand": "Wrist",
    }.items()
})  # fmt: skip

CMU_HAHNE: Correspondence = {
    "pelvis": Follow("Hips"),
    "spine1": Follow("LowerBack"),
    "spine2": Follow("Spine"),
    "spine3": Follow("Spine1"),
    "neck": Follow("Neck1"),
    "head": Follow("Head"),
} | _both_sides({
    name: (f"Left{source}", f"Right{source}")
    for name, source in {
        "hip": "UpLeg", "knee": "Leg", "ankle": "Foot", "foot": "ToeBase", "collar": "Shoulder",
        "shoulder": "Arm", "elbow": "ForeArm", "wrist": "Hand", "hand": "Hand",
    }.items()
})  # fmt: skip

DEEPMIMIC: Correspondence = {
    "pelvis": Follow("root"),
    "spine1": Follow("chest", "root", 1 / 3),
    "spine2": Follow("chest", "root", 2 / 3),
    "spine3": Follow("chest"),
    "neck": Follow("neck", "chest", 1 / 2),
    "head": Follow("neck"),
} | _both_sides({
    name: (f"left_{source}", f"right_{source}")
    for name, source in {"shoulder": "shoulder", "elbow": "elbow", "wrist": "wrist", "hand": "wrist",
                         "hip": "hip", "knee": "knee", "ankle": "ankle", "foot": "toe"}.items()
} | {"collar": ("chest", "chest")})  # fmt: skip


def retarget(clip: Clip, correspondence: Correspondence, rest_joints: np.ndarray) -> np.ndarray:
    """Rotation vectors (T, 24, 3) of the clip on a body of rest joints (24, 3); the first is global."""
    followed = np.stack([_followed(clip, correspondence[name]) for name in SMPL_JOINTS], 1)
    world = followed @ alignments(clip.skeleton, correspondence, rest_joints).swapaxes(-1, -2)
    world = _share_twist(_lay_elbow_hinges(world))
    local = unchain(world, SMPL_PARENTS)
    return Rotation.from_matrix(local.reshape(-1, 3, 3)).as_rotvec().reshape(-1, 24, 3)


def alignments(skeleton: Skeleton, correspondence: Correspondence, rest_joints: np.ndarray) -> np.ndarray:
    """(24, 3, 3): what turns the source's rest pose into the T-pose, for each of our joints."""
    rest = skeleton.rest()
    turns = np.tile(np.eye(3), (24, 1, 1))
    for index, name in enumerate(SMPL_JOINTS[1:], start=1):
        turns[index] = turns[SMPL_PARENTS[index]]
        side, _, part = name.partition("_")
        if part not in LIMBS:
            continue
        below = f"{side}_{NEXT[part]}"
        start, stop = (skeleton.index(correspondence[joint].joint) for joint in (name, below))
        source = turns[index] @ (rest[stop] - rest[start])
        ours = rest_joints[JOINT[below]] - rest_joints[index]
        if part == "ankle":
            source, ours = source * [1, 0, 1], ours * [1, 0, 1]
        turns[index] = rotation_between(torch.from_numpy(source), torch.from_numpy(ours)).numpy() @ turns[index]
    return turns


def our_positions(pose: np.ndarray, rest_joints: np.ndarray) -> np.ndarray:
    """Joints (T, 24, 3) of rotation vectors (T, 24, 3), pelvis at the origin."""
    local = Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3)
    parents = np.maximum(SMPL_PARENTS, 0)
    return joint_positions(chain(local, SMPL_PARENTS), SMPL_PARENTS, rest_joints - rest_joints[parents])


BONES = {
    "hips": ("right_hip", "left_hip"),
    "trunk": ("pelvis", "neck"),
    "shoulders": ("right_shoulder", "left_shoulder"),
    "neck": ("neck", "head"),
} | {
    f"{side} {name}": (f"{side}_{start}", f"{side}_{stop}")
    for name, start, stop in (
        ("thigh", "hip", "knee"), ("shin", "knee", "ankle"), ("foot", "ankle", "foot"),
        ("upper arm", "shoulder", "elbow"), ("forearm", "elbow", "wrist"),
    )
    for side in SIDES
}  # fmt: skip
"""Lines between joints by which a retargeted pose is compared with its source."""


def direction_errors(
    clip: Clip, correspondence: Correspondence, pose: np.ndarray, rest_joints: np.ndarray
) -> dict[str, np.ndarray]:
    """Degrees (T,) between the source's lines and ours, for each of `BONES`.

    NaN where both ends are one joint of the source.
    """
    theirs, ours = clip.positions(), our_positions(pose, rest_joints)
    errors = {}
    for name, (start, stop) in BONES.items():
        s, e = (clip.skeleton.index(correspondence[joint].joint) for joint in (start, stop))
        a = theirs[:, e] - theirs[:, s]
        b = ours[:, JOINT[stop]] - ours[:, JOINT[start]]
        sine, cosine = np.linalg.norm(np.cross(a, b), axis=1), (a * b).sum(1)
        errors[name] = np.rad2deg(np.arctan2(sine, cosine)) if s != e else np.full(len(pose), np.nan)
    return errors


def _followed(clip: Clip, follow: Follow) -> np.ndarray:
    """World rotations (T, 3, 3) that one of our joints takes from the source, before the alignment."""
    target = clip.rotations[:, clip.skeleton.index(follow.joint)]
    if not follow.base:
        return target
    base = clip.rotations[:, clip.skeleton.index(follow.base)]
    step = Rotation.from_matrix(base.swapaxes(-1, -2) @ target).as_rotvec()
    return base @ Rotation.from_rotvec(follow.share * step).as_matrix()


def _lay_elbow_hinges(world: np.ndarray) -> np.ndarray:
    """Twist both bones of each arm alike, so that over the clip the elbow bends about the vertical of the
    T-pose.

    Sources disagree about the twist of an upper arm at rest (CMU's elbows bend about an axis 30 degrees off);
    joints stay where they are, and the hand keeps its turn.
    """
    world = world.copy()
    for side, down in zip(SIDES, (-1.0, 1.0), strict=True):
        upper, lower = JOINT[f"{side}_shoulder"], JOINT[f"{side}_elbow"]
        bend = Rotation.from_matrix(world[:, upper].swapaxes(-1, -2) @ world[:, lower]).as_rotvec().mean(0)
        if np.hypot(bend[1], bend[2]) < LEAST_BEND:
            continue
        twist = np.arctan2(down * bend[2], down * bend[1])
        turn = Rotation.from_euler("x", twist).as_matrix()
        world[:, [upper, lower]] = world[:, [upper, lower]] @ turn
    return world


def _share_twist(world: np.ndarray) -> np.ndarray:
    """Give the elbow half of the hand's turn about the forearm, so that skin doesn't wring at the wrist."""
    world = world.copy()
    for side in SIDES:
        lower, hand = JOINT[f"{side}_elbow"], JOINT[f"{side}_wrist"]
        turn = Rotation.from_matrix(world[:, lower].swapaxes(-1, -2) @ world[:, hand]).as_quat()
        sign = np.where(turn[:, 3] < 0, -1.0, 1.0)
        twist = 2 * np.arctan2(sign * turn[:, 0], sign * turn[:, 3])
        world[:, lower] = world[:, lower] @ Rotation.from_euler("x", twist[:, None] / 2).as_matrix()
    return world
