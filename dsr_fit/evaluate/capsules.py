"""A person's 2D skeleton, complete even where keypoints are missing, and the body as capsules around its bones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dsr_fit.joints import KEYPOINT_INDEX
from dsr_fit.labels import LABEL_INDEX, UNKNOWN

# Parent and position of each joint of a person standing upright, facing the camera, in units of their height: x to the
# image's right, y down from the crown. A missing joint is placed relative to its parent, a root relative to the box.
_TEMPLATE: dict[str, tuple[str | None, float, float]] = {
    "Neck": (None, 0.0, 0.18), "MidHip": (None, 0.0, 0.50),
    "Nose": ("Neck", 0.0, 0.09), "LEye": ("Nose", 0.02, 0.075), "REye": ("Nose", -0.02, 0.075),
    "LEar": ("Nose", 0.045, 0.08), "REar": ("Nose", -0.045, 0.08),
    "LShoulder": ("Neck", 0.10, 0.19), "RShoulder": ("Neck", -0.10, 0.19),
    "LElbow": ("LShoulder", 0.13, 0.36), "RElbow": ("RShoulder", -0.13, 0.36),
    "LWrist": ("LElbow", 0.15, 0.49), "RWrist": ("RElbow", -0.15, 0.49),
    "LHip": ("MidHip", 0.06, 0.50), "RHip": ("MidHip", -0.06, 0.50),
    "LKnee": ("LHip", 0.06, 0.72), "RKnee": ("RHip", -0.06, 0.72),
    "LAnkle": ("LKnee", 0.06, 0.93), "RAnkle": ("RKnee", -0.06, 0.93),
    "LHeel": ("LAnkle", 0.06, 0.96), "RHeel": ("RAnkle", -0.06, 0.96),
    "LBigToe": ("LAnkle", 0.08, 0.99), "RBigToe": ("RAnkle", -0.08, 0.99),
}  # fmt: skip

# COCO's points fill the second block of the 49 slots.
_SECOND_SLOT = {"Nose": KEYPOINT_INDEX["Nose (COCO)"]} | {
    side[0] + joint: KEYPOINT_INDEX[f"{side} {joint}"]
    for side in ("Left", "Right")
    for joint in ("Eye", "Ear", "Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Ankle")
}


def complete_skeleton(keypoints: np.ndarray, box: tuple[int, int, int, int]) -> tuple[dict[str, np.ndarray], float]:
    """Every joint of the template, and the torso's length, in pixels; keypoints mostly outside the box are ignored."""
    known: dict[str, np.ndarray] = {}
    for name in _TEMPLATE:
        for slot in (KEYPOINT_INDEX[name], _SECOND_SLOT.get(name)):
            if slot is not None and name not in known and keypoints[slot, 2] > 0:
                known[name] = keypoints[slot, :2].astype(np.float64)
    left, top, right, bottom = box
    inside = [left <= x < right and top <= y < bottom for x, y in known.values()]
    if sum(inside) < 0.5 * len(inside):
        known = {}  # keypoints of another person
    for middle, sides in (("Neck", "Shoulder"), ("MidHip", "Hip")):
        pair = [known[side + sides] for side in "LR" if side + sides in known]
        if middle not in known and len(pair) == 2:
            known[middle] = np.mean(pair, axis=0)

    height = float(bottom - top)
    origin = np.array([(left + right) / 2, top])
    pairs = [("LShoulder", "RShoulder"), ("LHip", "RHip")]
    leftward = sum(known[a][0] - known[b][0] for a, b in pairs if a in known and b in known)
    facing = -1.0 if leftward < 0 else 1.0  # facing away, the left joints are on the image's left
    points: dict[str, np.ndarray] = {}
    for name, (parent, x, y) in _TEMPLATE.items():
        start, (_, start_x, start_y) = (points[parent], _TEMPLATE[parent]) if parent else (origin, (None, 0.0, 0.0))
        points[name] = known.get(name, start + height * np.array([facing * (x - start_x), y - start_y]))
    torso = float(np.linalg.norm(points["Neck"] - points["MidHip"]))
    shoulders = float(np.linalg.norm(points["LShoulder"] - points["RShoulder"]))
    return points, max(torso, 1.3 * shoulders, 0.15 * height)


class Bone(NamedTuple):
    """A capsule around a bone, pixels."""

    label: int  # of bare skin there
    start: np.ndarray
    end: np.ndarray
    radius: float
    handicap: float = 0.0  # added to distances, in radii, of parts that arms and hands are usually in front of


def bones_of(points: dict[str, np.ndarray], unit: float) -> list[Bone]:
    """The body as capsules; `unit` is the torso's length."""
    face, belly = LABEL_INDEX["face"], UNKNOWN
    neck, hips = points["Neck"], points["MidHip"]
    head = (points["LEar"] + points["REar"]) / 2
    chest, navel = neck + 0.3 * (hips - neck), neck + 0.6 * (hips - neck)
    bones = [
        (face, head, points["Nose"], 0.17),
        (face, head, neck, 0.13),
        *((face, neck + 0.6 * (points[side + "Shoulder"] - neck), chest, 0.13, 0.5) for side in "LR"),
        (belly, navel, hips, 0.22, 1.0),
    ]
    for side, arm, leg in (("L", LABEL_INDEX["leftArm"], LABEL_INDEX["leftLeg"]),
                           ("R", LABEL_INDEX["rightArm"], LABEL_INDEX["rightLeg"])):  # fmt: skip
        shoulder, elbow, wrist, hip, knee, ankle, heel, toe = (
            points[side + name] for name in ("Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Ankle", "Heel", "BigToe")
        )
        forearm = (wrist - elbow) / max(float(np.linalg.norm(wrist - elbow)), 1e-6)
        bones += [
            (arm, shoulder, elbow, 0.11),
            (arm, elbow, wrist, 0.08),
            (arm, wrist, wrist + 0.3 * unit * forearm, 0.11),
            (leg, hip, knee, 0.16, 0.6),
            (leg, knee, ankle, 0.11, 0.6),
            (leg, ankle, heel, 0.10, 0.6),
            (leg, ankle, toe, 0.10, 0.6),
        ]
    return [Bone(label, start, end, radius * unit, *rest) for label, start, end, radius, *rest in bones]


def distances(pixels: np.ndarray, bones: Sequence[Bone]) -> np.ndarray:
    """(bones, N) float32 distances of pixels (N, 2) from the bones' axes, in units of their radii."""
    table = [(*bone.start, *bone.end, bone.radius, bone.handicap) for bone in bones]
    start_x, start_y, end_x, end_y, radius, handicap = np.array(table, dtype=np.float32).T[:, :, None]
    span_x, span_y = end_x - start_x, end_y - start_y
    x, y = pixels.astype(np.float32).T
    x, y = x - start_x, y - start_y
    along = np.clip((x * span_x + y * span_y) / np.maximum(span_x**2 + span_y**2, 1e-6), 0, 1)
    return np.hypot(x - along * span_x, y - along * span_y) / radius + handicap
