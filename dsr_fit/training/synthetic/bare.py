"""Bare bodies alone, for whom no folder of people is needed: what a detector gets wrong is made up."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation

from dsr_fit.body.body import Skeleton
from dsr_fit.evaluate.benchmark import SCALE_SD, SCATTER_SD, TURN_SD
from dsr_fit.joints import BODY_25
from dsr_fit.priors.recorded_poses import PoseSet
from dsr_fit.training.synthetic.lenders import MID_HIP, box, turns_to
from dsr_fit.training.synthetic.people import STORED_PIXELS, People
from dsr_fit.training.synthetic.samples import Mix, Sampler, photo_poses

NOISE = 0.012
"""Standard deviation an axis of made-up keypoints, over the longer side of their box."""


class Inventor:
    """In the place of `Lenders`: BODY_25 with noise, and landmarks as wrong as MediaPipe's are on average."""

    def lend(self, rng: np.random.Generator, joints: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For people with true keypoints (N, 49, 3): rays, confidences and `Scene.world`."""
        count, given = len(joints), np.arange(49) < len(BODY_25)
        true = joints[..., :2] / joints[..., 2:]
        middle, side = box(true, np.ones(true.shape[:2], bool))
        rays = true + rng.normal(0, NOISE, true.shape) * side[:, None, None]
        confidence = rng.uniform(0.5, 1, (count, 49)) * given
        straight = turns_to(middle)
        turn = straight.transpose(0, 2, 1) @ Rotation.from_rotvec(rng.normal(0, TURN_SD, (count, 3))).as_matrix()
        about_hips = (joints - joints[:, MID_HIP : MID_HIP + 1]) @ straight.transpose(0, 2, 1)
        wrong = about_hips * np.exp(rng.normal(0, SCALE_SD, (count, 1, 1)))
        wrong = wrong + rng.normal(0, SCATTER_SD, joints.shape)
        world = np.concatenate([wrong @ turn.transpose(0, 2, 1), confidence[..., None]], 2)
        return rays, confidence, world * given[:, None]


class BareSampler(Sampler):
    """Draws batches of bare bodies; the same seed gives the same ones."""

    def __init__(self, poses: PoseSet, skeleton: Skeleton, mix: Mix) -> None:
        self.skeleton, self.mix = skeleton, replace(mix, seen=0, labelled=0)
        self.seen = self.labelled = _nobody()
        self.lenders = Inventor()
        self.poses, self.photo_poses = poses, photo_poses()


def _nobody() -> People:
    pixels = (STORED_PIXELS, STORED_PIXELS)
    shapes = ((72,), (10,), (3,), (3,), (49, 3), (49,), (3,), pixels, pixels, (49, 3), (49, 4))
    return People(*(np.zeros((0, *shape), np.float32) for shape in shapes))
