"""HMR's training data: randomly augmented crops of people, with their labels transformed alike.

A crop is the image under a similarity: translated, scaled, rotated, mirrored. That is another camera's view of another
body: focal length and principal point scale and move with the image, the body rotates about the optical axis, and
mirroring swaps left and right. All labels follow these rules, and are then rotated into the view along the ray to the
crop's centre, in which HMR predicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from dsr_fit.camera import SPIN_RESOLUTION, Crop, ray_rotation
from dsr_fit.joints import MIRRORED_KEYPOINTS, mirrored_pose
from dsr_fit.labels import MIRRORED_LABELS, UNKNOWN
from dsr_fit.observe.crop import warp
from dsr_fit.regressor.hmr_regressor import normalised
from dsr_fit.training.pseudo_labels import PseudoLabels
from dsr_fit.training.settings import RESOLUTION

# The augmentation of SPIN and DSR.
NOISE = 0.4
"""Each colour channel is brightened or darkened by up to this share."""
ROTATION = 30.0
"""Degrees, standard deviation; at most twice that."""
TURNED = 0.4
"""Share of the crops that are rotated."""
SCALE = 0.25
"""Standard deviation of the crop's side, as a share of it; and at most that."""
MIRRORED = 0.5
"""Share of the crops that are mirrored."""


@dataclass(frozen=True)
class CropChange:
    """One draw of an augmentation."""

    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)
    angle: float = 0.0
    """Radians, clockwise in the picture."""
    scale: float = 1.0
    """Of the crop's side."""
    mirrored: bool = False


def draw(rng: np.random.Generator) -> CropChange:
    """Always takes the same numbers from `rng`."""
    gains = 1 + rng.uniform(-NOISE, NOISE, 3)
    angle = ROTATION * float(np.clip(rng.normal(), -2, 2))
    scale = 1 + SCALE * float(np.clip(rng.normal(), -1, 1))
    turned, mirrored = rng.uniform(size=2) < (TURNED, MIRRORED)
    return CropChange((gains[0], gains[1], gains[2]), np.radians(angle) if turned else 0.0, scale, bool(mirrored))


class CropBatch(NamedTuple):
    """B crops and their people's labels, in the view along the ray to the crop's centre."""

    images: Tensor  # (B, 3, 224, 224) normalised as for ImageNet
    keypoints: Tensor  # (B, 49, 3) -1..1 from side to side, and confidence
    world: Tensor  # (B, 49, 4) metres about the mid-hip, and confidence; 0 without
    rotations: Tensor  # (B, 24, 3, 3)
    betas: Tensor  # (B, 10)
    has_body: Tensor  # (B,) 1 where rotations and betas are known
    weight: Tensor  # (B,) of each person
    labels: Tensor  # (B, 224, 224) uint8 label map
    small_labels: Tensor  # (B, S, S) uint8, the same at the resolution of the rendered losses
    cameras: Tensor  # (B, 3) focal length, cx, cy of the image's camera, pixels of the crop
    turns: Tensor  # (B, 3, 3) from that camera's frame to the view along the crop's ray


def sample(people: PseudoLabels, row: int, change: CropChange = CropChange(), weight: float = 1.0) -> CropBatch:
    """One person as a batch of 1. Raises InputError where the image or the label map can't be read."""
    crop = people.crop(row)
    window = Crop(crop.center, crop.side * change.scale)
    matrix = window.matrix(SPIN_RESOLUTION, change.angle, change.mirrored)
    picture = warp(people.image(row), matrix, SPIN_RESOLUTION, 0)
    bright = (picture * np.array(change.gains)).clip(0, 255).astype(np.float32)

    focal, *center = people.intrinsics[row].astype(np.float64)
    camera = np.append(focal * SPIN_RESOLUTION / window.side, _moved(np.array([center]), matrix))
    whole = Crop((SPIN_RESOLUTION / 2, SPIN_RESOLUTION / 2), float(SPIN_RESOLUTION))
    turn = ray_rotation(whole, camera[0], (camera[1], camera[2])).numpy()

    keypoints, world = people.keypoints[row].astype(np.float64), people.world[row].astype(np.float64)
    spun = Rotation.from_rotvec([0, 0, change.angle])
    pose = people.full_pose[row].astype(np.float64)
    pose[:3] = (spun * Rotation.from_rotvec(pose[:3])).as_rotvec()
    keypoints[:, :2] = _moved(keypoints[:, :2], matrix) / (SPIN_RESOLUTION / 2) - 1
    world[:, :3] = spun.apply(world[:, :3])
    if change.mirrored:
        pose = mirrored_pose(pose[None])[0]
        keypoints, world = keypoints[list(MIRRORED_KEYPOINTS)], world[list(MIRRORED_KEYPOINTS)]
        world[:, 0] *= -1
    keypoints[keypoints[:, 2] == 0] = 0
    world[:, :3] = world[:, :3] @ turn.T
    rotations = Rotation.from_rotvec(pose.reshape(24, 3)).as_matrix()
    rotations[0] = turn @ rotations[0]

    labels = people.labels(row)
    return CropBatch(
        images=normalised(bright[None]),
        keypoints=_single(keypoints),
        world=_single(world),
        rotations=_single(rotations),
        betas=_single(people.betas[row]),
        has_body=_single(people.has_body[row]),
        weight=_single(weight),
        labels=torch.from_numpy(cut_labels(labels, window, change, SPIN_RESOLUTION)[None]),
        small_labels=torch.from_numpy(cut_labels(labels, window, change, RESOLUTION)[None]),
        cameras=_single(camera),
        turns=_single(turn),
    )


def cut_labels(labels: np.ndarray, window: Crop, change: CropChange, size: int) -> np.ndarray:
    """(size, size) uint8 of (H, W), nearest pixel; unknown outside the image; sides exchanged in a mirror."""
    matrix = window.matrix(size, change.angle, change.mirrored)
    seen = warp(labels, matrix, size, UNKNOWN, nearest=True)
    return MIRRORED_LABELS[seen] if change.mirrored else seen


def _moved(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]


def _single(value: np.ndarray | float) -> Tensor:
    """Add a batch dimension of 1."""
    return torch.from_numpy(np.asarray(value, np.float32)[None])


def stacked(samples: Sequence[CropBatch]) -> CropBatch:
    return CropBatch(*(torch.cat(values) for values in zip(*samples, strict=True)))
