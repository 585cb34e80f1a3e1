"""A detector's errors for people whom no detector has seen: those it made on similar people, or random ones.

Both kinds have one method, `apply`: (N, 49, 3) true keypoints -> rays, confidences and `Scene.world`.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from dsr_fit.evaluate.benchmark import SCALE_SD, SCATTER_SD, TURN_SD
from dsr_fit.joints import BODY_25
from dsr_fit.rotation import rotation_between
from dsr_fit.training.synthetic.people import People

Detected = tuple[np.ndarray, np.ndarray, np.ndarray]
"""(N, 49, 2) rays, (N, 49) confidences, (N, 49, 4) `Scene.world`."""

MID_HIP = 8
POSE_KEYPOINTS = [1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14]
"""Keypoints by which two people's poses are compared: neck, arms, legs."""
NEIGHBOURS = 8
"""Errors are drawn from this many nearest neighbours."""
NOISE = 0.012
"""Standard deviation per axis of random keypoint errors, over the longer side of the keypoints' box."""


class DetectorErrorBank:
    """The detector's errors on painted people, for other people in a similar pose seen from a similar side."""

    def __init__(self, people: People) -> None:
        """`people`: those whom the detector has found."""
        focal, centre = people.intrinsics[:, None, :1], people.intrinsics[:, None, 1:]
        seen = (people.keypoints[..., :2] - centre) / focal
        true = people.joints[..., :2] / people.joints[..., 2:]
        self.confidence = people.keypoints[..., 2]
        side = _whole_box(true)[1]
        self.error = (seen - true) / side[:, None, None] * (self.confidence > 0)[..., None]
        turns = turns_to(box(seen, self.confidence > 0.2)[0])
        upright = _about_hips(people.joints) @ turns.transpose(0, 2, 1)
        self.world_error = (people.world[..., :3] - upright) * (people.world[..., 3:] > 0)
        self.world_confidence = people.world[..., 3]
        self.descriptors = _descriptors(upright)

    def apply(self, rng: np.random.Generator, joints: np.ndarray) -> Detected:
        """Keypoints and landmarks of people with true keypoints (N, 49, 3), with errors from the bank."""
        true = joints[..., :2] / joints[..., 2:]
        middle, side = _whole_box(true)
        turns = turns_to(middle)
        wanted = _descriptors(_about_hips(joints) @ turns.transpose(0, 2, 1))
        distance = (wanted**2).sum(1)[:, None] - 2 * wanted @ self.descriptors.T + (self.descriptors**2).sum(1)
        nearest = np.argpartition(distance, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
        chosen = nearest[np.arange(len(true)), rng.integers(NEIGHBOURS, size=len(true))]
        rays = true + self.error[chosen] * side[:, None, None]
        points = _about_hips(joints) + self.world_error[chosen] @ turns
        world = np.concatenate([points, self.world_confidence[chosen][..., None]], 2)
        return rays, self.confidence[chosen], world * (world[..., 3:] > 0)


class RandomDetectorErrors:
    """BODY_25 with Gaussian noise, and landmarks with MediaPipe's average error."""

    def apply(self, rng: np.random.Generator, joints: np.ndarray) -> Detected:
        """Keypoints and landmarks of people with true keypoints (N, 49, 3), with random errors."""
        count, given = len(joints), np.arange(49) < len(BODY_25)
        true = joints[..., :2] / joints[..., 2:]
        middle, side = _whole_box(true)
        rays = true + rng.normal(0, NOISE, true.shape) * side[:, None, None]
        confidence = rng.uniform(0.5, 1, (count, 49)) * given
        turns = turns_to(middle)
        turn = turns.transpose(0, 2, 1) @ Rotation.from_rotvec(rng.normal(0, TURN_SD, (count, 3))).as_matrix()
        wrong = _about_hips(joints) @ turns.transpose(0, 2, 1) * np.exp(rng.normal(0, SCALE_SD, (count, 1, 1)))
        wrong = wrong + rng.normal(0, SCATTER_SD, joints.shape)
        world = np.concatenate([wrong @ turn.transpose(0, 2, 1), confidence[..., None]], 2)
        return rays, confidence, world * given[:, None]


def box(rays: np.ndarray, used: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres (N, 2) and longer sides (N,) of the boxes around the used of (N, 49, 2) points."""
    low = np.where(used[..., None], rays, np.inf).min(1)
    high = np.where(used[..., None], rays, -np.inf).max(1)
    return (low + high) / 2, np.maximum((high - low).max(1), 1e-3)


def turns_to(centre: np.ndarray) -> np.ndarray:
    """(N, 2) rays -> (N, 3, 3) rotations from the image's camera to the view along each ray."""
    ahead = torch.tensor([0.0, 0.0, 1.0]).expand(len(centre), 3)
    rays = torch.from_numpy(np.concatenate([centre, np.ones((len(centre), 1))], 1)).float()
    return rotation_between(rays, ahead).numpy()


def _whole_box(rays: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return box(rays, np.ones(rays.shape[:2], bool))


def _about_hips(joints: np.ndarray) -> np.ndarray:
    return joints - joints[:, MID_HIP : MID_HIP + 1]


def _descriptors(upright: np.ndarray) -> np.ndarray:
    return upright[:, POSE_KEYPOINTS].reshape(len(upright), -1)
