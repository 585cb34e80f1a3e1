"""The contact sheet that shows sources' stick figures beside the retargeted body."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from open_body.picture import portrait
from open_body.skeleton import skin
from PIL import Image
from scipy.spatial.transform import Rotation

from dsr_fit.joints import SMPL_PARENTS
from mocap.clip import Clip
from mocap.retarget import JOINT, SIDES, Correspondence, our_positions
from mocap.selection import upright_heading

STICK, FIGURE = (150, 230), (190, 230)  # pixels
PIXELS_PER_METRE = 108
TURN = 30.0  # degrees off the front view
COLUMNS = 4
LEFT, RIGHT, MIDDLE = (214, 60, 40), (36, 96, 200), (60, 60, 60)


@dataclass(frozen=True)
class Body:
    """What is drawn: rest vertices (V, 3), faces (F, 3), skinning weights (V, 24), rest joints (24, 3)."""

    vertices: np.ndarray
    faces: np.ndarray
    weights: np.ndarray
    joints: np.ndarray


@dataclass(frozen=True)
class Pair:
    """One frame: the source's clip and frame, and its retargeted rotation vectors (24, 3)."""

    clip: Clip
    frame: int
    correspondence: Correspondence
    pose: np.ndarray


def write_sheet(path: Path, pairs: list[Pair], body: Body) -> None:
    """Write the pairs, row by row, as a PNG of few colours."""
    tiles = [_tile(pair, body) for pair in pairs]
    rows = [np.hstack(tiles[start : start + COLUMNS]) for start in range(0, len(tiles), COLUMNS)]
    Image.fromarray(np.vstack(rows)).quantize(128, dither=Image.Dither.NONE).save(path, optimize=True)


def _tile(pair: Pair, body: Body) -> np.ndarray:
    heading = upright_heading(Rotation.from_rotvec(pair.pose[None, 0]))[0]
    view = Rotation.from_euler("y", TURN, degrees=True) * heading.inv()

    clip, frame = pair.clip, pair.frame
    points = view.apply(clip.positions()[frame])
    size = _leg(clip.skeleton.rest(), *(clip.skeleton.index(pair.correspondence[n].joint) for n in _LEG))
    points *= _leg(body.joints, *(JOINT[name] for name in _LEG)) / size
    stick = np.full((STICK[1], STICK[0], 3), 250, np.uint8)
    colours = [_colour(name) for name in clip.skeleton.names]
    _draw(stick, points, clip.skeleton.parents, colours, (points.min(0) + points.max(0)) / 2)
    cv2.putText(stick, f"{clip.name} {frame}", (4, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.34, (90, 90, 90), 1, cv2.LINE_AA)

    turned = pair.pose.copy()
    turned[0] = (view * Rotation.from_rotvec(pair.pose[0])).as_rotvec()
    vertices = skin(body.vertices, body.joints, body.weights, turned)
    figure = portrait(vertices, body.faces, FIGURE, PIXELS_PER_METRE)
    joints = our_positions(turned[None], body.joints)[0] + body.joints[0]
    middle = (vertices.min(0) + vertices.max(0)) / 2
    _draw(figure, joints, SMPL_PARENTS, [_colour(name) for name in JOINT], middle)
    return np.hstack([stick, figure])


_LEG = ("left_hip", "left_knee", "left_ankle")


def _leg(rest: np.ndarray, hip: int, knee: int, ankle: int) -> float:
    return float(np.linalg.norm(rest[knee] - rest[hip]) + np.linalg.norm(rest[ankle] - rest[knee]))


def _colour(name: str) -> tuple[int, int, int]:
    """By side: in every source, joints of the left begin with l and of the right with r, but for a few."""
    lower = name.lower()
    if lower.startswith(SIDES[0]) or (lower[0] == "l" and not lower.startswith("lower")):
        return LEFT
    return RIGHT if lower[0] == "r" and lower != "root" else MIDDLE


def _draw(
    picture: np.ndarray, points: np.ndarray, parents: tuple[int, ...], colours: list[tuple[int, int, int]],
    middle: np.ndarray,
) -> None:  # fmt: skip
    """Lines from parents to joints, seen along z, in place."""
    height, width = picture.shape[:2]
    x = (points[:, 0] - middle[0]) * PIXELS_PER_METRE + width / 2
    y = (middle[1] - points[:, 1]) * PIXELS_PER_METRE + height / 2
    pixels = np.stack([x, y], 1).round().astype(int).tolist()
    for joint in np.argsort(points[:, 2]):
        if parents[joint] >= 0:
            cv2.line(picture, pixels[parents[joint]], pixels[joint], colours[joint], 2, cv2.LINE_AA)
