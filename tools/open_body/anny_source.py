"""Anny's adults, sampled and brought to SMPL's axes and T-pose (Anny: Apache-2.0, MakeHuman's data: CC0)."""

from __future__ import annotations

from dataclasses import dataclass

import anny
import numpy as np
import torch
from anny.keypoints import KeypointsRegressor
from numpy.random import Generator
from scipy.spatial.transform import Rotation

from open_body.skeleton import JOINT, PARENTS

LOCAL_CHANGES = (
    "measure-waist-circ-incr",
    "measure-hips-circ-incr",
    "measure-shoulder-dist-incr",
    "upperlegs-height-incr",
    "lowerlegs-height-incr",
)
# Prefixes of Anny's bones -> SMPL joint; the first that fits wins. A spine bone belongs to the joint at its
# lower end, and spine05, which starts at Anny's root, moves with the pelvis.
BONE_TO_JOINT = (
    ("root", "pelvis"), ("pelvis", "pelvis"), ("spine05", "pelvis"), ("spine04", "spine1"),
    ("spine03", "spine1"), ("spine02", "spine2"), ("spine01", "spine3"), ("neck", "neck"), ("head", "head"),
    ("eye", "head"), ("clavicle", "collar"), ("shoulder01", "collar"), ("upperarm", "shoulder"),
    ("lowerarm", "elbow"), ("wrist", "wrist"), ("metacarpal", "wrist"), ("finger", "hand"),
    ("upperleg", "hip"), ("lowerleg", "knee"), ("foot", "ankle"), ("toe", "foot"),
)  # fmt: skip
# The bone at whose head each SMPL joint lies (hands and feet: the mean over their knuckles).
JOINT_BONE = {
    "pelvis": "root", "spine1": "spine04", "spine2": "spine02", "spine3": "spine01", "neck": "neck01",
    "head": "head", "hip": "upperleg01", "knee": "lowerleg01", "ankle": "foot", "collar": "clavicle",
    "shoulder": "upperarm01", "elbow": "lowerarm01", "wrist": "wrist",
}  # fmt: skip
FINGERS = ("finger2-1", "finger3-1", "finger4-1", "finger5-1")
TOES = ("toe1-1", "toe2-1", "toe3-1", "toe4-1", "toe5-1")

COLLAR_SHARE = 0.2  # of the arm's lift from Anny's A-pose to the T
LEG_SPREAD = np.deg2rad(3.0)  # of thigh and shin from the vertical, so that heavy thighs clear each other
SHIN_BACK = np.deg2rad(3.0)  # a straight knee's shin leans back a little
FOREARM_ROLL = {"lowerarm01": 0.35, "lowerarm02": 0.8, "wrist": 1.0}  # share of the palm's turn to face down


@dataclass(frozen=True)
class Sample:
    """Adults in T-pose, pelvis at the origin, x to the body's left, y up, z forward, metres."""

    vertices: np.ndarray
    """(N, V, 3)"""
    joints: np.ndarray
    """(N, 24, 3)"""


def to_smpl_axes(points: np.ndarray) -> np.ndarray:
    """Anny's x left, y backward, z up to SMPL's x left, y up, z forward."""
    return np.stack([points[..., 0], points[..., 2], -points[..., 1]], -1)


def stature(vertices: np.ndarray) -> np.ndarray:
    """Crown to sole (N,) in metres of bodies (N, V, 3) with y up."""
    return np.ptp(vertices[..., 1], axis=-1)


class AnnySource:
    """One Anny model with every phenotype, a few local changes, and how its bones map to SMPL's joints."""

    def __init__(self, topology: str) -> None:
        self.model = anny.Anny(
            rig="anny",
            topology=topology,
            extrapolate_phenotypes=True,
            phenotypes="all",
            phenotype_blendshapes="original",
            local_changes=list(LOCAL_CHANGES),
        )
        self.faces = self.model.get_triangular_faces().numpy().astype(np.int64)
        self.bones = list(self.model.bone_labels)
        index = self.model.vertex_bone_indices.numpy()
        self.bone_weights = np.zeros((len(index), len(self.bones)))
        np.add.at(self.bone_weights, (np.arange(len(index))[:, None], index), self.model.vertex_bone_weights.numpy())
        self.joint_of_bone = np.array([_joint_of_bone(bone) for bone in self.bones])

    def template(self) -> np.ndarray:
        """The exactly symmetric body (V, 3) that Anny's blend shapes start from, SMPL's axes."""
        return to_smpl_axes(self.model.template_vertices.numpy())

    def joint_weights(self) -> np.ndarray:
        """Skinning weights (V, 24), summed over each joint's bones."""
        weights = np.zeros((len(self.bone_weights), 24))
        np.add.at(weights.T, self.joint_of_bone, self.bone_weights.T)
        return weights

    def rest(self, phenotypes: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Vertices (N, V, 3) and bone heads (N, B, 3) in Anny's own rest pose, SMPL's axes."""
        tensors = {k: torch.as_tensor(v, dtype=self.model.dtype) for k, v in phenotypes.items()}
        local = {k: v for k, v in tensors.items() if k in LOCAL_CHANGES}
        phenotype = {k: v for k, v in tensors.items() if k not in LOCAL_CHANGES}
        vertices, heads = [], []
        for start in range(0, len(phenotypes["age"]), 50):
            part = slice(start, start + 50)
            with torch.no_grad():
                out = self.model(
                    phenotype_kwargs={k: v[part] for k, v in phenotype.items()},
                    local_changes_kwargs={k: v[part] for k, v in local.items()},
                )
            vertices.append(to_smpl_axes(out["rest_vertices"].numpy()))
            heads.append(to_smpl_axes(out["rest_bone_heads"].numpy()))
        return np.concatenate(vertices), np.concatenate(heads)

    def t_pose(self, vertices: np.ndarray, heads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Bring bodies (N, V, 3) and bone heads (N, B, 3) to the T-pose: vertices and joints (N, 24, 3)."""
        rest_joints = self._joints(heads)
        posed = np.empty_like(vertices)
        joints = np.empty_like(rest_joints)
        for n in range(len(vertices)):
            rotation, joints[n] = self._t_pose_rotations(rest_joints[n], heads[n])
            pivot = rest_joints[n, self.joint_of_bone]
            offset = joints[n, self.joint_of_bone] - np.einsum("bij,bj->bi", rotation, pivot)
            # Roll is about the arm's axis, so it may pivot at the joint of the bone it turns.
            blended = (self.bone_weights @ rotation.reshape(len(rotation), 9)).reshape(-1, 3, 3)
            posed[n] = np.einsum("vij,vj->vi", blended, vertices[n]) + self.bone_weights @ offset
        root = joints[:, :1].copy()
        return posed - root, joints - root

    def _joints(self, heads: np.ndarray) -> np.ndarray:
        joints = np.empty((*heads.shape[:-2], 24, 3))
        for name, j in JOINT.items():
            side, _, part = name.rpartition("_")
            suffix = {"left": ".L", "right": ".R"}.get(side, "")
            bones = {"hand": FINGERS, "foot": TOES}.get(part) or (JOINT_BONE[part],)
            joints[..., j, :] = np.mean([heads[..., self.bones.index(b + suffix), :] for b in bones], axis=0)
        return joints

    def _t_pose_rotations(self, rest: np.ndarray, heads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Global rotations of the bones (B, 3, 3) and T-posed joints (24, 3) of one body."""
        rotation = np.tile(np.eye(3), (24, 1, 1))
        roll = np.zeros(24)
        for side, sign in (("left", 1.0), ("right", -1.0)):
            collar, shoulder, elbow, wrist, hand, hip, knee, ankle = (
                JOINT[f"{side}_{p}"] for p in ("collar", "shoulder", "elbow", "wrist", "hand", "hip", "knee", "ankle")
            )
            outward = np.array([sign, 0.0, 0.0])
            lift = _turn(rest[elbow] - rest[shoulder], outward)
            rotation[collar] = Rotation.from_rotvec(COLLAR_SHARE * lift.as_rotvec()).as_matrix()
            for joint, start, end in (
                (shoulder, shoulder, elbow),
                (elbow, elbow, wrist),
                (wrist, wrist, hand),
            ):
                before = rotation[PARENTS[joint]]
                rotation[joint] = _turn(before @ (rest[end] - rest[start]), outward).as_matrix() @ before
            rotation[hand] = rotation[wrist]
            suffix = ".L" if side == "left" else ".R"
            knuckles = rotation[wrist] @ (
                heads[self.bones.index("finger2-1" + suffix)] - heads[self.bones.index("finger5-1" + suffix)]
            )
            # Palm down: the index finger's knuckle in front of the little finger's.
            roll[elbow] = roll[wrist] = roll[hand] = np.arctan2(knuckles[1], knuckles[2])
            down = np.array([sign * np.sin(LEG_SPREAD), -np.cos(LEG_SPREAD), 0.0])
            shin = down - np.array([0.0, 0.0, np.tan(SHIN_BACK)])
            for joint, start, end, aim in ((hip, hip, knee, down), (knee, knee, ankle, shin)):
                before = rotation[PARENTS[joint]]
                rotation[joint] = _turn(before @ (rest[end] - rest[start]), aim).as_matrix() @ before
        joints = rest.copy()
        for j in range(1, 24):
            joints[j] = joints[PARENTS[j]] + rotation[PARENTS[j]] @ (rest[j] - rest[PARENTS[j]])
        bone_rotation = rotation[self.joint_of_bone]
        for b, bone in enumerate(self.bones):
            share = FOREARM_ROLL.get(bone[:-2], 1.0)
            angle = share * roll[self.joint_of_bone[b]]
            if angle:
                bone_rotation[b] = Rotation.from_rotvec([angle, 0.0, 0.0]).as_matrix() @ bone_rotation[b]
        return bone_rotation, joints


def coco_keypoints(source: AnnySource, vertices: np.ndarray) -> dict[str, np.ndarray]:
    """Anny's COCO keypoints (N, 3) of bodies (N, V, 3); `source` must have Anny's full topology."""
    regressor = KeypointsRegressor.coco(source.model)
    weights = regressor.regression_weights.numpy()
    return {name: w @ vertices for name, w in zip(regressor.labels, weights, strict=True)}


def draw_phenotypes(count: int, rng: Generator) -> dict[str, np.ndarray]:
    """Draw adults: young to old, both genders, thin to obese, all but the height, which stature then solves.

    Weight beyond Anny's range of 0 to 1 is what reaches a BMI of 36; local changes are in Anny's units.
    """
    race = rng.dirichlet(np.ones(3), count)
    return {
        "gender": rng.beta(0.35, 0.35, count),
        "age": rng.uniform(2 / 3, 1.0, count),
        "muscle": rng.uniform(0.0, 1.0, count),
        "weight": rng.uniform(0.0, 1.3, count),
        "proportions": rng.uniform(0.0, 1.0, count),
        "cupsize": rng.uniform(0.0, 1.0, count),
        "firmness": rng.uniform(0.2, 0.8, count),
        **{name: race[:, i] for i, name in enumerate(("african", "asian", "caucasian"))},
        **{name: rng.normal(0.0, 0.25, count).clip(-0.6, 0.6) for name in LOCAL_CHANGES[:3]},
        # Thighs and shins lengthen together.
        **dict.fromkeys(LOCAL_CHANGES[3:], rng.normal(0.0, 0.12, count)),
    }


def sample_adults(source: AnnySource, count: int, rng: Generator) -> tuple[dict[str, np.ndarray], Sample]:
    """Draw adults whose stature is N(1.76, 0.07) m for men, N(1.63, 0.065) m for women."""
    phenotypes = draw_phenotypes(count, rng)
    gender = phenotypes["gender"]
    wanted = rng.normal(0.0, 1.0, count) * (0.07 - 0.005 * gender) + 1.76 - 0.13 * gender
    # Anny's bodies are linear in `height`, so two of them give the one of any stature.
    short, tall = (
        stature(source.t_pose(*source.rest(phenotypes | {"height": np.full(count, h)}))[0]) for h in (0.0, 1.0)
    )
    phenotypes["height"] = (wanted - short) / (tall - short)
    vertices, joints = source.t_pose(*source.rest(phenotypes))
    return phenotypes, Sample(vertices, joints)


def _joint_of_bone(bone: str) -> int:
    part = next(joint for prefix, joint in BONE_TO_JOINT if bone.startswith(prefix))
    side = {".L": "left_", ".R": "right_"}.get(bone[-2:], "")
    return JOINT[part] if part in JOINT else JOINT[side + part]


def _turn(start: np.ndarray, aim: np.ndarray) -> Rotation:
    """The smallest rotation that brings one direction onto another."""
    start, aim = start / np.linalg.norm(start), aim / np.linalg.norm(aim)
    axis = np.cross(start, aim)
    sine = np.linalg.norm(axis)
    return Rotation.from_rotvec(axis / max(sine, 1e-12) * np.arctan2(sine, start @ aim))
