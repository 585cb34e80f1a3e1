"""Draw the example picture: the open body, dressed, in a plain room, and the parameters that drew it.

    python tools/make_example.py --out examples/person.png

Beside the picture it writes a `.json` with the truth: `global_orient`, `body_pose`, `betas`, `cam_t` (camera
frame: x right, y down, z forward, metres), `focal_length` and `image_size` in pixels.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import trimesh
from open_body.clothing import dress, paint
from open_body.light import irradiance
from open_body.picture import SUPERSAMPLING, interpolate, rasterize, vertex_normals
from open_body.poses import make_pose
from open_body.skeleton import skin
from scipy.spatial.transform import Rotation

BODY = Path(__file__).resolve().parents[1] / "priors" / "open_body" / "body.npz"
SIZE = (640, 900)
FOCAL = float(np.hypot(*SIZE))  # the image's diagonal, the fitter's own guess for a photo without EXIF
TURN = 20.0  # degrees about the vertical
BETAS = np.array([0.6, -0.3, 0.3, 1.1, -0.3, 0.0, 0.2, 0.0, 0.0, 0.0])
POSE = make_pose({
    "left_collar": (0, 0, -6), "right_collar": (0, 0, 5),
    "left_shoulder": (8, 6, -63), "right_shoulder": (5, 4, 66),
    "left_elbow": (5, -24, 4), "right_elbow": (10, 34, -4),
    "left_wrist": (8, 0, -4), "right_wrist": (6, 4, 4),
    "left_hip": (-16, 8, 1), "right_hip": (1, -5, 5.5), "left_knee": (21, 0, 0), "right_knee": (1, 0, 0),
    "left_ankle": (-4, 6, 0), "right_ankle": (-2, -3, -1),
    "spine1": (2, -2, 1), "spine2": (1, -2, 2), "spine3": (2, -2, 1), "neck": (3, -4, -2), "head": (0, -5, 1),
})  # fmt: skip
HIP_DROP = -3.0  # degrees of roll: the pelvis sinks on the side of the bent knee
EXPOSURE = 3.3
DISTANCE = 2.62  # metres from the camera to the pelvis


def main() -> None:
    """Draw the picture and write the truth beside it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("examples/person.png"))
    out = parser.parse_args().out
    out.parent.mkdir(parents=True, exist_ok=True)

    with np.load(BODY, allow_pickle=False) as archive:
        body = {name: archive[name] for name in archive.files if name != "posedirs"}
    pose = POSE.copy()
    # The camera looks along z with y down: half a turn about x brings the body upright and facing it.
    pose[0] = (
        Rotation.from_euler("x", 180, degrees=True) * Rotation.from_euler("yz", [TURN, HIP_DROP], degrees=True)
    ).as_rotvec()
    camera_translation = np.array([0.0, -0.03, DISTANCE])

    shaped = body["v_template"].astype(np.float64) + body["shapedirs"] @ BETAS
    joints = np.zeros((24, 3))
    np.add.at(joints, body["J_regressor_row"], body["J_regressor_val"][:, None] * shaped[body["J_regressor_col"]])

    # Garments are laid out on the mean body, finely subdivided, and carried to this one.
    attributes = np.concatenate([body["v_template"], shaped - body["v_template"], body["weights"]], 1)
    attributes, faces = subdivide(attributes.astype(np.float64), body["f"].astype(np.int64), 2)
    rest, change, weights = np.split(attributes, [3, 6], axis=1)
    vertices = skin(dress(rest, faces) + change, joints, weights, pose) + camera_translation

    picture = draw(vertices, faces, rest)
    cv2.imwrite(str(out), picture[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
    truth = {
        "body": "open",
        "global_orient": pose[0].tolist(),
        "body_pose": pose[1:].ravel().tolist(),
        "betas": BETAS.tolist(),
        "cam_t": camera_translation.tolist(),
        "focal_length": FOCAL,
        "image_size": list(SIZE),
    }
    out.with_suffix(".json").write_text(json.dumps(truth, indent=1) + "\n")


def subdivide(attributes: np.ndarray, faces: np.ndarray, times: int) -> tuple[np.ndarray, np.ndarray]:
    """Loop subdivision of any vertex attributes (V, C)."""
    for _ in range(times):
        parts = [
            trimesh.remesh.subdivide_loop(attributes[:, c : c + 3], faces, 1) for c in range(0, attributes.shape[1], 3)
        ]
        attributes, faces = np.concatenate([p[0] for p in parts], 1), parts[0][1]
    return attributes, faces


def draw(vertices: np.ndarray, faces: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """The picture (H, W, 3) uint8 of posed vertices (V, 3) in the camera frame, painted by T-pose place."""
    width, height = (SUPERSAMPLING * s for s in SIZE)
    focal = SUPERSAMPLING * FOCAL
    pixels = vertices[:, :2] / vertices[:, 2:] * focal + np.array([width, height]) / 2
    face_map, bary_map = rasterize(np.concatenate([pixels, vertices[:, 2:]], 1), faces, height, width)
    covered = face_map >= 0

    upright = np.array([1.0, -1.0, -1.0])  # camera frame to y up
    normals = vertex_normals(vertices, faces)
    lit = irradiance(vertices * upright, normals * upright, vertices * upright, faces)
    values = interpolate(np.concatenate([rest, normals, lit[:, None]], 1), faces, face_map, bary_map)[covered]
    colour, gloss = paint(values[:, :3])
    normal = values[:, 3:6] / np.linalg.norm(values[:, 3:6], axis=1, keepdims=True)
    # Half way between the window's direction and the view.
    half = np.array([-0.4, -0.45, -0.8]) / np.linalg.norm([0.4, 0.45, 0.8])
    shine = gloss * (normal @ half).clip(0.0) ** 24
    picture = room(vertices, faces, focal, width, height)
    picture[covered] = tone(colour, values[:, 6]) + 255 * 0.35 * shine[:, None]
    small = cv2.resize(picture.clip(0, 255), SIZE, interpolation=cv2.INTER_AREA)
    grain = np.random.default_rng(0).normal(0.0, 1.2, (SIZE[1], SIZE[0], 1))
    return (small + grain).clip(0, 255).round().astype(np.uint8)


def tone(colour: np.ndarray, light: np.ndarray) -> np.ndarray:
    """sRGB colours (N, 3) in 0..255 lit by (N,), in linear light with a soft shoulder."""
    linear = (colour / 255) ** 2.2 * light[:, None] * EXPOSURE
    return 255 * (linear / (1 + 0.18 * linear)).clip(0.0, 1.0) ** (1 / 2.2)


def room(vertices: np.ndarray, faces: np.ndarray, focal: float, width: int, height: int) -> np.ndarray:
    """Floor, cove and wall (height, width, 3) with the body's soft shadow on the floor."""
    floor = vertices[:, 1].max()
    wall = DISTANCE + 1.5
    step = 4  # the shadow is soft: every fourth pixel is enough
    columns, rows = np.meshgrid(np.arange(step / 2, width, step), np.arange(step / 2, height, step))
    ray = np.stack([(columns - width / 2) / focal, (rows - height / 2) / focal, np.ones_like(rows)], -1)
    reach = np.where(ray[..., 1] > 1e-6, floor / np.maximum(ray[..., 1], 1e-6), np.inf)
    on_floor = reach < wall
    points = ray * np.where(on_floor, reach, wall)[..., None]
    flat = points[on_floor]
    up = np.tile([0.0, 1.0, 0.0], (len(flat), 1))
    upright = np.array([1.0, -1.0, -1.0])
    open_light = irradiance(np.array([[50.0, 0.0, 0.0]]), up[:1], vertices * upright, faces)[0]
    light = np.ones(on_floor.shape)
    light[on_floor] = irradiance(flat * upright, up, vertices * upright, faces) / open_light
    light = cv2.GaussianBlur(light, (0, 0), 6)
    # One backdrop paper: the bend from floor to wall is a smooth change of tone.
    bend = 1 / (1 + np.exp(-(rows - (height / 2 + focal * floor / wall)) / 55.0))
    glow = np.exp(-(((columns / width - 0.45) / 0.75) ** 2) - ((rows / height - 0.35) / 0.7) ** 2)
    tint = np.array([214.0, 217.0, 218.0]) * (0.82 + 0.22 * glow)[..., None]
    tint = (
        tint * (1 - bend[..., None])
        + np.array([206.0, 202.0, 195.0]) * (0.96 + 0.08 * glow)[..., None] * bend[..., None]
    )
    return cv2.resize(tint * light[..., None] ** 0.7, (width, height), interpolation=cv2.INTER_CUBIC)


if __name__ == "__main__":
    main()
