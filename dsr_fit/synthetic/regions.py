"""Regions of the body: signed distances inside garments' outlines, labels of skin, texture coordinates.

All functions take points (N, 3) on the mean body's T-pose (see `surface`); distances are roughly metric.
"""

from __future__ import annotations

import numpy as np

from dsr_fit.labels import LABEL_INDEX, UNKNOWN

WAIST, CROTCH, KNEE, ANKLE = 0.075, -0.075, -0.40, -0.83  # heights
SHOULDER, ELBOW, WRIST = 0.18, 0.43, 0.655  # |x| along the stretched arm
HAIRLINE = (  # height of the hairline by depth z, from the nape past the ear to the forehead
    np.array([-0.10, 0.010, 0.030, 0.062, 0.070, 0.100, 0.130, 0.160]),
    np.array([0.585, 0.600, 0.640, 0.645, 0.690, 0.728, 0.742, 0.745]),
)


def ramp(distance: np.ndarray, width: float) -> np.ndarray:
    """Smoothstep: 0 at negative distances, 1 beyond the width."""
    t = (distance / width).clip(0.0, 1.0)
    return t * t * (3 - 2 * t)


def waves(rest: np.ndarray, length: float | tuple[float, float, float], rng: np.random.Generator) -> np.ndarray:
    """Smooth noise (N,) of about this wavelength, standard deviation about 0.5."""
    frequency = 2 * np.pi / (1.7 * np.asarray(length)) * rng.normal(size=(10, 3))
    return np.sin(rest @ frequency.T + rng.uniform(0, 2 * np.pi, 10)).sum(1) / np.sqrt(20)


def arm(rest: np.ndarray) -> np.ndarray:
    """Distance along the arm (N,): 0 at the shoulder seam, negative on the torso."""
    return np.where(rest[:, 1] > 0.25, np.abs(rest[:, 0]) - SHOULDER, -0.2)


def top(rest: np.ndarray, sleeve_end: float, hem: float, neck: tuple[float, float]) -> np.ndarray:
    """A top down to height `hem` with sleeves to |x| = `sleeve_end`; `neck` is the neckline's depth and V-ness."""
    x, y, z = np.abs(rest[:, 0]), rest[:, 1], rest[:, 2]
    depth, vee = neck
    collar = 0.525 - 0.35 * z.clip(-0.1, 0.02) - depth * ramp(z, 0.05)
    neckline = y - collar - (1.1 + 1.2 * vee) * np.maximum(x - 0.055 * (1 - vee), 0.0)
    strap = 0.3 * np.minimum(y - 0.30, 0.1).clip(0, None) if sleeve_end < SHOULDER else 0.0
    side = np.maximum(0.40 - y, 0.0)  # the sleeve's end doesn't apply below the armpit
    return np.minimum.reduce([sleeve_end - strap - x + 2 * side, y - hem, -neckline, 0.575 - y])


def trousers(rest: np.ndarray, waist: float, hem: float) -> np.ndarray:
    return np.minimum(rest[:, 1] - hem, waist - rest[:, 1])


def shoes(rest: np.ndarray, height: float) -> np.ndarray:
    y, z = rest[:, 1], rest[:, 2]
    return height + 0.25 * (z + 0.03).clip(-0.05, 0.05) * (height < -0.8) - y


def hair(rest: np.ndarray, recede: float = 0.0) -> np.ndarray:
    """The scalp; positive `recede` raises the hairline on the forehead, negative lowers it."""
    x, y, z = np.abs(rest[:, 0]), rest[:, 1], rest[:, 2]
    ear = (x > 0.0685) & (y < 0.69) & (y > 0.615) & (z > 0.015) & (z < 0.07)
    edge = np.interp(z, *HAIRLINE) + recede * ramp(z - 0.05, 0.06)
    return np.where(ear & (recede > -0.02), -0.01, y - edge)


def skin_labels(rest: np.ndarray) -> np.ndarray:
    """Labels (N,) uint8 of bare skin: the face down to the neckline, arms, legs; a bare belly is unknown."""
    x, y = rest[:, 0], rest[:, 1]
    left = x > 0
    on_arm = (np.abs(x) > 0.115) & (y > 0.2)
    legs = np.where(left, LABEL_INDEX["leftLeg"], LABEL_INDEX["rightLeg"])
    arms = np.where(left, LABEL_INDEX["leftArm"], LABEL_INDEX["rightArm"])
    trunk = np.where(y > 0.25, LABEL_INDEX["face"], np.where(y > CROTCH + 0.03, UNKNOWN, legs))
    return np.where(on_arm, arms, trunk).astype(np.uint8)


def pattern_coordinates(rest: np.ndarray) -> np.ndarray:
    """(N, 2) metres around and along the limb or torso; front and back mirror each other, so side seams match."""
    x, y, z = rest.T
    side = np.abs(x)
    on_arm = arm(rest) > 0
    on_leg = ~on_arm & (y < CROTCH)
    across = np.where(on_arm, y - 0.467, np.where(on_leg, x - np.sign(x) * 0.125, x))
    radius = np.where(on_arm, 0.05, np.where(on_leg, 0.08, 0.14))
    behind = np.abs(z - np.where(on_arm, 0.01, np.where(on_leg, -0.01, 0.01)))
    around = radius * np.arctan2(across, behind + 0.03)
    along = np.where(on_arm, side + 0.35, y)
    return np.stack([around, along], 1)
