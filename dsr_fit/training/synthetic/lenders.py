"""What the detector gets wrong, lent: who was not painted takes the errors of somebody who was and stands alike."""

from __future__ import annotations

import numpy as np
import torch

from dsr_fit.rotation import rotation_between
from dsr_fit.training.synthetic.people import People

MID_HIP = 8
SIMILAR = [1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14]
"""Keypoints that say how alike two people stand: neck, arms, legs."""
LENDERS = 8
"""Errors are borrowed from one of so many who are most alike."""


def box(rays: np.ndarray, used: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centres (N, 2) and longer sides (N,) of the boxes around the used of (N, 49, 2) points."""
    low = np.where(used[..., None], rays, np.inf).min(1)
    high = np.where(used[..., None], rays, -np.inf).max(1)
    return (low + high) / 2, np.maximum((high - low).max(1), 1e-3)


def turns_to(centre: np.ndarray) -> np.ndarray:
    """(N, 2) rays -> (N, 3, 3) from the image's camera to the one that looks along each."""
    ahead = torch.tensor([0.0, 0.0, 1.0]).expand(len(centre), 3)
    rays = torch.from_numpy(np.concatenate([centre, np.ones((len(centre), 1))], 1)).float()
    return rotation_between(rays, ahead).numpy()


class Lenders:
    """What the detector made of painted people, to be lent to others."""

    def __init__(self, people: People) -> None:
        """`people` whom the detector has found."""
        focal, centre = people.intrinsics[:, None, :1], people.intrinsics[:, None, 1:]
        seen = (people.keypoints[..., :2] - centre) / focal
        true = people.joints[..., :2] / people.joints[..., 2:]
        self.confidence = people.keypoints[..., 2]
        side = box(true, np.ones(true.shape[:2], bool))[1]
        self.error = (seen - true) / side[:, None, None] * (self.confidence > 0)[..., None]
        turns = turns_to(box(seen, self.confidence > 0.2)[0])
        straight = _straight(people.joints, turns)
        self.world_error = (people.world[..., :3] - straight) * (people.world[..., 3:] > 0)
        self.world_confidence = people.world[..., 3]
        self.looks = _look(straight)

    def lend(self, rng: np.random.Generator, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For people with true keypoints (N, 49, 3): rays, confidences and `Scene.world`, wrong as is usual."""
        true = joints[..., :2] / joints[..., 2:]
        middle, side = box(true, np.ones(true.shape[:2], bool))
        turns = turns_to(middle)
        look = _look(_straight(joints, turns))
        distance = (look**2).sum(1)[:, None] - 2 * look @ self.looks.T + (self.looks**2).sum(1)
        nearest = np.argpartition(distance, LENDERS, axis=1)[:, :LENDERS]
        chosen = nearest[np.arange(len(true)), rng.integers(LENDERS, size=len(true))]
        rays = true + self.error[chosen] * side[:, None, None]
        points = _about_hips(joints) + self.world_error[chosen] @ turns
        world = np.concatenate([points, self.world_confidence[chosen][..., None]], 2)
        return rays, self.confidence[chosen], world * (world[..., 3:] > 0)


def _straight(joints: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """(N, 49, 3) about the mid-hip, axes of the camera that looks at each person."""
    return _about_hips(joints) @ turns.transpose(0, 2, 1)


def _about_hips(joints: np.ndarray) -> np.ndarray:
    return joints - joints[:, MID_HIP : MID_HIP + 1]


def _look(straight: np.ndarray) -> np.ndarray:
    return straight[:, SIMILAR].reshape(len(straight), -1)
