"""Rendered people of `dsr_fit.synthetic.dataset` as labels without error."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from dsr_fit.assets import sha256, shipped
from dsr_fit.body.body import Body
from dsr_fit.body.files import OPEN_BODY
from dsr_fit.observe.perception import MIN_KEYPOINTS
from dsr_fit.synthetic.dataset import read_cases
from dsr_fit.synthetic.people import ClothedCase
from dsr_fit.training.losses import MID_HIP
from dsr_fit.training.pseudo_labels import PseudoLabels


def read_rendered_people(folder: Path, body: Body) -> PseudoLabels:
    """Everybody of whom at least `MIN_KEYPOINTS` keypoints are seen. They have the open body's parameters; any other
    body learns from their keypoints in the picture and in space alone. Raises InputError as `read_cases` does.
    """
    records = [_record(case) for case in read_cases(folder) if case.keypoint_visibility.sum() >= MIN_KEYPOINTS]
    arrays = {name: np.stack([record[name] for record in records]) for name in records[0]}
    seeds = arrays.pop("seed")
    own = body.sha256 == sha256(shipped(OPEN_BODY))
    for name in ("full_pose", "betas", "cam_t") if not own else ():
        arrays[name] = np.zeros_like(arrays[name])
    return PseudoLabels(
        images=folder.absolute(),
        imgname=tuple(f"{seed:06d}.png" for seed in seeds),
        person=np.zeros(len(seeds), int),
        has_body=np.full(len(seeds), own),
        quality=np.ones(len(seeds), np.float32),
        accepted=np.ones(len(seeds), bool),
        unjudged=np.zeros(len(seeds), bool),
        label_maps=tuple(folder.absolute() / f"{seed:06d}_labels.png" for seed in seeds),
        **arrays,
    )


def _record(case: ClothedCase) -> dict[str, np.ndarray]:
    keypoints = case.keypoints
    keypoints[~case.keypoint_visibility] = 0
    about = np.concatenate([case.joints - case.joints[MID_HIP], np.ones((49, 1))], 1)
    height, width = case.labels.shape
    return {
        "seed": np.array(case.seed),
        "keypoints": keypoints,
        "world": about.astype(np.float32),
        "full_pose": np.concatenate([case.global_orient, case.body_pose]),
        "betas": case.betas,
        "cam_t": case.cam_t,
        "intrinsics": np.array([case.focal_length, width / 2, height / 2], np.float32),
        "image_size": np.array([width, height]),
    }
