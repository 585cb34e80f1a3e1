"""The poses that show whether the body bends well, and the sheet of pictures of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from scipy import sparse

from open_body.picture import portrait
from open_body.shape_space import ShapeSpace
from open_body.skeleton import JOINT, skin

TURNS = (0, 40, 90)  # degrees, one row of the sheet each
TILE = (276, 330)  # pixels
PIXELS_PER_METRE = 145
ARMS_DOWN = {"shoulder": (0, 0, -65), "collar": (0, 0, -5)}


def make_pose(degrees: Mapping[str, tuple[float, float, float]]) -> np.ndarray:
    """Axis-angle (24, 3) from degrees per joint; a name without a side sets the left joint and mirrors it."""
    pose = np.zeros((24, 3))
    for name, angles in degrees.items():
        if name in JOINT:
            pose[JOINT[name]] += np.deg2rad(angles)
        else:
            pose[JOINT["left_" + name]] += np.deg2rad(angles)
            pose[JOINT["right_" + name]] += np.deg2rad(angles) * np.array([1, -1, -1])
    return pose


POSES = {
    "T-pose": make_pose({}),
    "arms up": make_pose({"shoulder": (0, 0, 70), "collar": (0, 0, 15)}),
    "arms down": make_pose(ARMS_DOWN),
    "arms forward": make_pose({"shoulder": (0, -75, 0), "collar": (0, -10, 0)}),
    "elbows at 90": make_pose({"elbow": (0, -90, 0)}),
    "elbows bent, arms down": make_pose(ARMS_DOWN | {"elbow": (0, -110, 0)}),
    "squat": make_pose({"hip": (-105, 0, 15), "knee": (115, 0, 0), "ankle": (-20, 0, 0), "shoulder": (0, -75, 0)}),
    "sitting": make_pose(ARMS_DOWN | {"hip": (-90, 0, 0), "knee": (88, 0, 0), "elbow": (0, -60, 0)}),
    "twist and bend": make_pose(ARMS_DOWN | {"spine1": (12, 15, 8), "spine2": (12, 15, 8), "spine3": (12, 15, 0)}),
}


def pose_sheet(
    path: Path, space: ShapeSpace, faces: np.ndarray, regressor: sparse.csr_matrix, weights: np.ndarray
) -> None:
    """Write a sheet: every pose of the mean body in three views, of a heavy and of a thin body in one, and
    two standard deviations up and down each of the first betas."""

    def tile(label: str, body: np.ndarray, pose: np.ndarray, turn: float) -> np.ndarray:
        posed = skin(body, regressor @ body, weights, pose)
        picture = portrait(posed, faces, TILE, PIXELS_PER_METRE, turn)
        return cv2.putText(picture, label, (8, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (90, 90, 90), 1, cv2.LINE_AA)

    heavy, thin = space.decode(np.array([[0, 2.5, 0, 0, 0, 0, 0, 0, 0, 0], [0, -2, 0, 0, 0, 0, 0, 0, 0, 0]]))
    views = [("", space.v_template, turn) for turn in TURNS] + [(", heavy", heavy, 40), (", thin", thin, 40)]
    rows = [np.hstack([tile(name + kind, body, p, turn) for name, p in POSES.items()]) for kind, body, turn in views]
    down = make_pose(ARMS_DOWN)
    for sign in (2.0, -2.0):
        shapes = space.decode(sign * np.eye(10)[: len(POSES)])
        rows.append(np.hstack([tile(f"beta {k} = {sign:+.0f}", s, down, 20) for k, s in enumerate(shapes)]))
    cv2.imwrite(str(path), np.vstack(rows)[..., ::-1])
