"""Where the camera stands: focal length, pitch and roll, and the floor below the person."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class View:
    """One picture's camera. World: y up; camera: x right, y down, z forward, both in metres."""

    width: int
    height: int
    focal: float  # px
    rotation: np.ndarray  # (3, 3) world to camera
    floor: np.ndarray  # (3,) the point of the floor below the person, camera frame

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
