"""The pose, orientation, camera and position in the frame of a person."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Literal

import numpy as np
from scipy.spatial.transform import Rotation

from dsr_fit.joints import SMPL_JOINTS
from dsr_fit.priors.recorded_poses import PoseSet, load_poses
from dsr_fit.synthetic.standing import stand
from dsr_fit.synthetic.surface import Wearer, open_surface, wearer_of

ROOMY_LIFT = np.deg2rad(58)  # no skirts on poses with thighs lifted higher
FARTHEST_TILT = np.deg2rad(50)  # of the pelvis; other poses are rejected
MIN_IN_FRAME = 0.4  # of a cropped body's vertices
ViewName = Literal["front", "side", "back"]


@dataclass(frozen=True)
class Camera:
    """A pinhole camera and the floor. World frame: y up; camera frame: x right, y down, z forward; metres."""

    width: int
    height: int
    focal: float  # px
    rotation: np.ndarray  # (3, 3) world to camera
    floor: np.ndarray  # (3,) point of the floor below the person, camera frame

    @property
    def down(self) -> np.ndarray:
        """(3,) gravity in the camera frame."""
        return -self.rotation[:, 1]

    def project(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) camera frame -> (N, 2) px."""
        return points[:, :2] / points[:, 2:] * self.focal + np.array([self.width / 2, self.height / 2])

    def clip(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) camera frame -> (N, 4) float32 clip space, row 0 at y/w = -1, near 0.1 m, far 60 m."""
        near, far = 0.1, 60.0
        z = points[:, 2]
        out = np.empty((len(points), 4), np.float32)
        out[:, 0] = 2 * self.focal / self.width * points[:, 0]
        out[:, 1] = 2 * self.focal / self.height * points[:, 1]
        out[:, 2] = (far + near) / (far - near) * z - 2 * far * near / (far - near)
        out[:, 3] = z
        return out

    def rays(self, step: int) -> np.ndarray:
        """(H / step, W / step, 3) viewing rays of depth 1 through blocks of step x step pixels."""
        x = (np.arange(step / 2, self.width, step) - self.width / 2) / self.focal
        y = (np.arange(step / 2, self.height, step) - self.height / 2) / self.focal
        grid = np.ones((len(y), len(x), 3))
        grid[..., 0], grid[..., 1] = x, y[:, None]
        return grid


def camera_rotation(pitch: float, roll: float) -> np.ndarray:
    """(3, 3) world to camera; radians. The camera looks along -z of the world; positive pitch looks down."""
    flip = np.diag([1.0, -1.0, -1.0])
    cp, sp, cr, sr = np.cos(pitch), np.sin(pitch), np.cos(roll), np.sin(roll)
    tilt = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    turn = np.array([[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]])
    return turn @ tilt @ flip


@cache
def held_out_poses() -> PoseSet:
    return load_poses().part(held_out=True)


@dataclass(frozen=True)
class Casting:
    """Distribution of poses and cameras; the default is the benchmark's."""

    poses: PoseSet = field(default_factory=held_out_poses)
    pose_noise: float = 0.0  # standard deviation on each joint's rotation vector, radians per axis
    pitch: tuple[float, float] = (0.08, 0.10)  # mean and standard deviation, radians, downwards
    roll: float = 0.04  # standard deviation, radians
    standing: float = 0.0  # share of people who stand upright


@dataclass(frozen=True)
class Stance:
    """A pose in the world frame with its heading."""

    clip: str
    global_orient: np.ndarray  # (3,) world
    body_pose: np.ndarray  # (69,)
    roomy: bool  # the thighs leave room for a skirt
    view: ViewName


def thigh_lift(body_pose: np.ndarray) -> float:
    """Largest angle between a thigh and the pelvis's downward axis, radians."""
    down = np.array([0.0, -1.0, 0.0])
    hips = body_pose.reshape(-1, 3)[[SMPL_JOINTS.index("left_hip") - 1, SMPL_JOINTS.index("right_hip") - 1]]
    return float(np.arccos((Rotation.from_rotvec(hips).apply(down) @ down).clip(-1, 1)).max())


def random_stance(rng: np.random.Generator, casting: Casting) -> Stance:
    """One of the poses, facing the camera (55 %), sideways (25 %) or away (20 %)."""
    poses = casting.poses
    by_clip = rng.uniform() < 0.5  # half of them uniformly over clips, so that long clips don't dominate
    while True:
        if by_clip:
            clip = rng.choice(np.unique(poses.clip))
            number = int(rng.choice(np.flatnonzero(poses.clip == clip)))
        else:
            number = int(rng.integers(len(poses)))
        pose = poses.full_pose[number].astype(np.float64)
        if casting.pose_noise:
            pose[3:] += rng.normal(0, casting.pose_noise, 69)
        if casting.standing and rng.uniform() < casting.standing:
            pose = stand(pose[None], rng, relaxed=0.4)[0]
        turned = Rotation.from_rotvec(pose[:3]).as_matrix()
        if np.arccos(turned[1, 1].clip(-1, 1)) < FARTHEST_TILT:
            break
    view: ViewName = rng.choice(["front", "side", "back"], p=[0.55, 0.25, 0.20])
    middle, spread = {"front": (0.0, 0.7), "side": (np.pi / 2, 0.7), "back": (np.pi, 0.7)}[view]
    heading = rng.choice([-1, 1]) * (middle + rng.uniform(-spread, spread))
    own = np.arctan2(turned[0, 2], turned[2, 2])
    orient = Rotation.from_euler("y", heading - own) * Rotation.from_matrix(turned)
    roomy = thigh_lift(pose[3:]) < ROOMY_LIFT
    return Stance(poses.clip_names[int(poses.clip[number])], orient.as_rotvec(), pose[3:], roomy, view)


@dataclass(frozen=True)
class Placed:
    """A body in the camera frame."""

    wearer: Wearer
    keypoints: np.ndarray  # (49, 3) camera frame
    global_orient: np.ndarray  # (3,) camera frame
    cam_t: np.ndarray


def place(stance: Stance, betas: np.ndarray, rotation: np.ndarray, cam_t: np.ndarray) -> Placed:
    """`rotation` (3, 3) world to camera. Rounds to float32 first, so the stored parameters are exact."""
    orient = (Rotation.from_matrix(rotation) * Rotation.from_rotvec(stance.global_orient)).as_rotvec()
    orient, cam_t = orient.astype(np.float32), cam_t.astype(np.float32)
    wearer, keypoints = wearer_of(orient, stance.body_pose, betas, cam_t, -rotation[:, 1])
    return Placed(wearer, keypoints, orient, cam_t)


def _on_floor(vertices: np.ndarray, down: np.ndarray) -> np.ndarray:
    """The floor point below the body's centre; the floor touches its lowest point."""
    middle = vertices.mean(0)
    return middle + ((vertices - middle) @ down).max() * down


def stage(
    stance: Stance, betas: np.ndarray, cropped: bool, rng: np.random.Generator, casting: Casting
) -> tuple[Placed, Camera]:
    """A camera and distance so that the body fills 55 to 92 % of the frame, or extends beyond it if `cropped`."""
    while True:
        placed, camera = _framed(stance, betas, cropped, rng, casting)
        pixels = camera.project(placed.wearer.vertices)
        inside = float(((pixels >= 0) & (pixels <= [camera.width, camera.height])).all(1).mean())
        if MIN_IN_FRAME < inside < 1 if cropped else inside == 1:
            return placed, camera


def _framed(
    stance: Stance, betas: np.ndarray, cropped: bool, rng: np.random.Generator, casting: Casting
) -> tuple[Placed, Camera]:
    """A random camera; the body may still miss the frame."""
    width, height = int(rng.integers(480, 641)), int(rng.integers(640, 901))
    focal = float(np.hypot(width, height) * np.exp(rng.uniform(np.log(0.8), np.log(2.0))))
    rotation = camera_rotation(float(rng.normal(*casting.pitch)), float(rng.normal(0, casting.roll)))
    centred = place(stance, betas, rotation, np.zeros(3)).wearer.vertices
    fill = rng.uniform(0.55, 0.92)
    across, low = rng.uniform(0.0, 1.0), rng.uniform(0.0, 1.0)
    if cropped:
        fill = rng.uniform(1.15, 1.8)
    cut_side = cropped and rng.uniform() < 0.3
    if cut_side:
        fill = rng.uniform(0.7, 1.0)
    side = rng.choice([-1, 1])

    cam_t = np.array([0.0, 0.0, 3.5])
    for _ in range(12):
        seen = Camera(width, height, focal, rotation, np.zeros(3)).project(centred + cam_t)
        lowest, highest = seen.min(0), seen.max(0)
        extent = highest - lowest
        size = extent[1] / (fill * height)
        if not cropped:
            size = max(size, extent[0] / (0.88 * width))
        cam_t[2] = max(cam_t[2] * size**0.9, 0.4 - centred[:, 2].min())
        room = np.array([width, height]) - extent
        target = lowest.copy()
        # Margins for hair and hats above the head, and for skirts.
        margin = np.array([0.05 * width, 0.045 * height])
        target[0] = margin[0] + across * (room[0] - 2 * margin[0]) if room[0] > 2 * margin[0] else room[0] / 2
        target[1] = margin[1] + low * (room[1] - 1.6 * margin[1]) if room[1] > 1.6 * margin[1] else margin[1]
        if cut_side:
            cut = (0.10 + 0.18 * across) * extent[0]
            target[0] = -cut if side < 0 else width - extent[0] + cut
        cam_t[:2] += (target - lowest) * cam_t[2] / focal
    placed = place(stance, betas, rotation, cam_t)
    return placed, Camera(width, height, focal, rotation, _on_floor(placed.wearer.vertices, -rotation[:, 1]))


def companion(
    camera: Camera, main: Placed, rng: np.random.Generator, casting: Casting
) -> tuple[Placed, Stance, np.ndarray]:
    """A second person on the same floor, beside the first and slightly nearer or farther, and its betas (10,)."""
    stance, betas = random_stance(rng, casting), rng.normal(size=10).astype(np.float32)
    right, towards = camera.rotation[:, 0], camera.rotation[:, 2]
    near = rng.uniform() < 0.35
    beside = rng.choice([-1, 1]) * rng.uniform(0.45, 0.8 if near else 1.0)
    depth = rng.uniform(0.35, 0.6) if near else -rng.uniform(0.35, 2.0)
    depth = min(depth, 0.35 * float(main.cam_t[2]))
    cam_t = main.cam_t + beside * right + depth * towards
    body = place(stance, betas, camera.rotation, cam_t).wearer.vertices
    cam_t = cam_t + (float(camera.floor @ camera.down) - float((body @ camera.down).max())) * camera.down
    return place(stance, betas, camera.rotation, cam_t), stance, betas


def body_faces() -> np.ndarray:
    """(F, 3) int32 of the open body."""
    return open_surface().body.faces.numpy()
