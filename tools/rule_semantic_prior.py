"""Builds the first semantic clothing prior, P(label | vertex) over 20 labels, from body parts by rule.

    python tools/rule_semantic_prior.py

Each joint's vertices get a distribution that may change along the bone; skinning weights blend neighbouring parts, so
that sleeves and hems fade. The table is common sense about what people wear in the street; nothing is learned here.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from dsr_fit.body.body import Body
from dsr_fit.body.files import load_body
from dsr_fit.joints import SMPL_JOINTS
from dsr_fit.labels import LABEL_INDEX, LABELS

BACKGROUND = 0.02

Rule = dict[str, float]

# Part -> distribution at the near and at the far end of its bone. `arm`, `leg` and `shoe` take the vertex's side.
PARTS: dict[str, tuple[Rule, Rule]] = {
    "torso": (
        {"upperclothes": 0.50, "coat": 0.24, "dress": 0.15, "pants": 0.06, "skirt": 0.03, "jumpsuits": 0.02},
        {"upperclothes": 0.55, "coat": 0.25, "dress": 0.10, "scarf": 0.03, "hair": 0.04, "face": 0.03},
    ),
    "pelvis": (
        {"pants": 0.40, "skirt": 0.18, "dress": 0.15, "upperclothes": 0.15, "coat": 0.10, "jumpsuits": 0.02},
        {"pants": 0.40, "skirt": 0.18, "dress": 0.15, "upperclothes": 0.15, "coat": 0.10, "jumpsuits": 0.02},
    ),
    "hip": (
        {"pants": 0.48, "skirt": 0.18, "dress": 0.14, "coat": 0.10, "leg": 0.06, "upperclothes": 0.04},
        {"pants": 0.52, "leg": 0.34, "skirt": 0.05, "dress": 0.04, "coat": 0.03, "socks": 0.02},
    ),
    "knee": (
        {"pants": 0.52, "leg": 0.40, "socks": 0.03, "skirt": 0.02, "dress": 0.02, "coat": 0.01},
        {"pants": 0.44, "leg": 0.30, "shoe": 0.20, "socks": 0.06},
    ),
    "ankle": (
        {"shoe": 0.62, "pants": 0.16, "leg": 0.17, "socks": 0.05},
        {"shoe": 0.92, "leg": 0.05, "socks": 0.02, "pants": 0.01},
    ),
    "foot": ({"shoe": 0.94, "leg": 0.05, "socks": 0.01}, {"shoe": 0.94, "leg": 0.05, "socks": 0.01}),
    "collar": (
        {"upperclothes": 0.52, "coat": 0.26, "dress": 0.08, "arm": 0.02, "hair": 0.06, "face": 0.03, "scarf": 0.03},
        {"upperclothes": 0.55, "coat": 0.27, "dress": 0.07, "arm": 0.09, "hair": 0.02},
    ),
    "shoulder": (
        {"upperclothes": 0.48, "coat": 0.26, "arm": 0.20, "dress": 0.05, "jumpsuits": 0.01},
        {"upperclothes": 0.38, "coat": 0.25, "arm": 0.35, "dress": 0.02},
    ),
    "elbow": (
        {"upperclothes": 0.33, "coat": 0.25, "arm": 0.40, "dress": 0.02},
        {"arm": 0.58, "upperclothes": 0.20, "coat": 0.19, "glove": 0.03},
    ),
    "wrist": ({"arm": 0.84, "upperclothes": 0.06, "coat": 0.06, "glove": 0.04}, {"arm": 0.94, "glove": 0.06}),
    "hand": ({"arm": 0.94, "glove": 0.06}, {"arm": 0.94, "glove": 0.06}),
    "neck": (
        {"face": 0.48, "hair": 0.20, "scarf": 0.12, "upperclothes": 0.12, "coat": 0.08},
        {"face": 0.62, "hair": 0.25, "scarf": 0.10, "coat": 0.03},
    ),
}  # fmt: skip

FACE: Rule = {"face": 0.86, "hair": 0.07, "sunglasses": 0.04, "hat": 0.02, "scarf": 0.01}
SIDE: Rule = {"hair": 0.56, "face": 0.38, "hat": 0.06}
SCALP: Rule = {"hair": 0.82, "hat": 0.14, "face": 0.04}

# The joint at the far end of a part's bone.
FAR_END = {
    "spine1": "spine2", "spine2": "spine3", "spine3": "neck", "neck": "head", "hip": "knee", "knee": "ankle",
    "ankle": "foot", "collar": "shoulder", "shoulder": "elbow", "elbow": "wrist", "wrist": "hand",
}  # fmt: skip


def row(rule: Rule, side: str) -> np.ndarray:
    """(20,) probabilities without background."""
    probabilities = np.zeros(len(LABELS))
    for name, value in rule.items():
        name = side + name.capitalize() if name in ("arm", "leg", "shoe") else name
        probabilities[LABEL_INDEX[name]] += value
    return probabilities / probabilities.sum()


def along(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """(V,) place along a bone, 0 at its near and 1 at its far end."""
    axis = end - start
    return np.clip((points - start) @ axis / (axis @ axis), 0, 1)


def head_rows(points: np.ndarray, head: np.ndarray, nose: np.ndarray, ear: np.ndarray) -> np.ndarray:
    """(V, 20): the face looks forward below the hairline, hair covers the rest, ears lie between."""
    forward = (points[:, 2] - ear[2]) / (nose[2] - ear[2])  # 0 at the ears, 1 at the nose
    height = (points[:, 1] - nose[1]) / (nose[2] - ear[2])  # in units of the same length
    hairline = np.clip((0.95 - height) / 0.25, 0, 1)
    frontness = np.clip((forward - 0.05) / 0.35, 0, 1) * hairline
    backness = np.clip((0.05 - forward) / 0.3, 0, 1) + (1 - hairline)
    backness = np.clip(backness, 0, 1) * (1 - frontness)
    sideness = 1 - frontness - backness
    mixture = np.stack([frontness, sideness, backness], 1)
    return mixture @ np.stack([row(FACE, ""), row(SIDE, ""), row(SCALP, "")])


def semantic_prior(body: Body) -> np.ndarray:
    """(V, 20) float32; rows sum to 1."""
    points = body.v_template.numpy()
    weights = body.weights.dense().numpy()
    joints = body.skeleton.rest_joints.numpy()
    keypoints = body.skeleton.keypoint_moments[..., :3].sum(1).numpy()
    index = {name: number for number, name in enumerate(SMPL_JOINTS)}
    prior = np.zeros((len(points), len(LABELS)))
    for name, number in index.items():
        side = "left" if name.startswith("left_") else "right" if name.startswith("right_") else ""
        part = name.removeprefix("left_").removeprefix("right_")
        if part == "head":
            rows = head_rows(points, joints[number], keypoints[0], keypoints[18])
        else:
            near, far = PARTS["torso" if part.startswith("spine") else part]
            place = np.zeros(len(points))
            if part in FAR_END:
                end = f"{side}_{FAR_END[part]}" if side else FAR_END[part]
                place = along(points, joints[number], joints[index[end]])
            rows = (1 - place)[:, None] * row(near, side) + place[:, None] * row(far, side)
        prior += weights[:, number : number + 1] * rows
    prior = (1 - BACKGROUND) * prior / prior.sum(1, keepdims=True)
    prior[:, 0] = BACKGROUND
    return prior.astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("priors/semantic/rules.npz"))
    out = parser.parse_args().out
    body = load_body("open")
    np.savez_compressed(
        out, probabilities=semantic_prior(body), labels=np.array(LABELS), body_sha256=np.array(body.sha256)
    )
    print(f"wrote {out} for body {body.name} ({body.num_vertices} vertices)")


if __name__ == "__main__":
    main()
