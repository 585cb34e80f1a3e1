"""The poses that show whether the body bends well, and the sheet of pictures of them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from scipy import sparse

from open_body.picture import portrait
from open_body.shape_space import ShapeSpace
from open_body.skeleton import JOINT, skin

TURNS = (0, 40, 90)  # degrees, one row of the sheet each
TILE = (300, 330)
PIXELS_PER_METRE = 145
ARMS_DOWN = {"shoulder": (0, 0, -65), "collar": (0, 0, -5)}


def make_pose(degrees: dict[str, tuple[float, float, float]]) -> np.ndarray:
    """Axis-angle (24, 3) from degrees per joint; a name without its side sets the left joint and mirrors it."""
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
    "twist and bend": make_pose(
        ARMS_DOWN | {"spine1": (12, 15, 8), "spine2": (12, 15, 8), "spine3": (12, 15, 0)}
    ),
}


def pose_sheet(
    path: Path, space: ShapeSpace, faces: np.ndarray, regressor: sparse.csr_matrix, weights: np.ndarray
) -> None:
    """Write a sheet: every pose in three views, then the mean body and two standard deviations along each beta."""
    body = space.v_template
    rows = [
        np.hstack([portrait(skin(body, regressor @ body, weights, p), faces, TILE, PIXELS_PER_METRE, t) for p in POSES.values()])
        for t in TURNS
    ]  # fmt: skip
    down = make_pose(ARMS_DOWN)
    for sign in (2.0, -2.0):
        shapes = space.decode(sign * np.eye(10)[: len(POSES)])
        rows.append(
            np.hstack([portrait(skin(s, regressor @ s, weights, down), faces, TILE, PIXELS_PER_METRE, 20) for s in shapes])
        )
    cv2.imwrite(str(path), np.vstack(rows)[..., ::-1])
