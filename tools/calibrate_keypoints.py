"""Learns where a detector's landmarks lie on the open body, from fits of photos.

    python tools/calibrate_keypoints.py --photos ../shared/data/ccp

BlazePose's landmarks are not the body's anatomical points: ears are marked farther out, knees higher. Many people are
fitted by their keypoints alone; what remains is turned back into the frame of the keypoint's bone and averaged, left
and right together. Few rounds, since a fit absorbs part of each offset. Writes `keypoint_offsets.json`, which
`build_body.py` adds to the first 25 keypoints of the body. Photos: Clothing Co-Parsing (Yang, Luo and Lin, CVPR 2014),
training split.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dsr_fit.assets import shipped
from dsr_fit.body.files import load_body
from dsr_fit.body.skeleton import Skeleton
from dsr_fit.camera import project
from dsr_fit.config import LeastSquares, Scales, Weights
from dsr_fit.evaluate import ccp
from dsr_fit.io.images import read_image
from dsr_fit.joints import BODY_25, MIRRORED_KEYPOINTS
from dsr_fit.observation import Observation
from dsr_fit.observe.batch import Batch
from dsr_fit.observe.detector import PersonDetector
from dsr_fit.optimise.least_squares import Problem, State, solve
from dsr_fit.priors.pose import load_pose_prior
from dsr_fit.regressor import kinematic

MIN_CONFIDENCE = 0.6
LARGEST_ERROR = 0.04
"""Of the box: larger ones are wrong detections, not offsets."""


def detect(folder: Path, count: int, seed: int) -> list[Observation]:
    """Observations of `count` random training photos; label maps are left empty."""
    numbers = ccp.photo_numbers(folder, "train", annotated=False)
    chosen = np.random.default_rng(seed).permutation(numbers)[:count]
    detector, found = PersonDetector(), []
    for number in chosen:
        image, _ = read_image(ccp.photo_path(folder, number))
        for detection in detector.detect(image, count=1):
            labels = np.zeros(image.shape[:2], np.uint8)
            blank = np.broadcast_to(np.uint8(0), image.shape)  # only its size is needed, not the pixels of them all
            found.append(Observation(blank, detection, labels, "none", float(np.hypot(image.shape[0], image.shape[1]))))
    return found


def fit(skeleton: Skeleton, problem: Problem, settings: LeastSquares) -> State:
    problem = replace(problem, skeleton=skeleton)
    return solve(problem, kinematic.estimate(problem, settings), settings.steps, settings.damping)


def offsets(problem: Problem, state: State) -> tuple[Tensor, Tensor]:
    """Mean offset (25, 3) of observed from body keypoints, metres in the rest pose's axes; used points (25,)."""
    skeleton, points = problem.skeleton, problem.points
    transforms = skeleton.transforms(state.rotations, skeleton.joints_at_rest(state.betas))
    placed = skeleton.keypoints(state.rotations, state.betas, transforms) + state.cam_t[:, None]
    residual = points.pixels - project(placed, points.intrinsics)
    metric = (residual * placed[..., 2:] / points.intrinsics[:, None, :2])[:, :25]
    turn = torch.einsum("bkj,bjrc->bkrc", skeleton.moments(state.rotations, state.betas)[..., 3], transforms[..., :3])
    turn = turn[:, :25, :2]  # an image shows two of the three directions
    error = residual.norm(dim=-1) / points.box[:, None]
    used = ((points.confidence > MIN_CONFIDENCE) & (error < LARGEST_ERROR)).to(metric)[:, :25]
    normal = torch.einsum("bk,bkri,bkrj->kij", used, turn, turn)
    right = torch.einsum("bk,bkri,bkr->ki", used, turn, metric)
    mirror = list(MIRRORED_KEYPOINTS[:25])
    flip = normal.new_tensor([-1.0, 1.0, 1.0])
    normal = normal + flip[:, None] * normal[mirror] * flip
    right = right + flip * right[mirror]
    ridge = 0.05 * normal.diagonal(dim1=1, dim2=2).mean(1) + 1e-6
    lifted = normal + ridge[:, None, None] * torch.eye(3, dtype=normal.dtype)
    return torch.linalg.solve(lifted, right), used.sum(0)


def shifted(skeleton: Skeleton, offset: Tensor) -> Skeleton:
    """The skeleton with its first 25 keypoints moved by (25, 3) metres in the rest pose's axes."""
    moments = skeleton.keypoint_moments.clone()
    moments[:25, :, :3] += moments[:25, :, 3:] * offset[:, None].to(moments)
    return replace(skeleton, keypoint_moments=moments)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder of Clothing Co-Parsing")
    parser.add_argument("--count", type=int, default=240)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("priors/open_body/keypoint_offsets.json"))
    arguments = parser.parse_args()

    observations = detect(arguments.photos, arguments.count, arguments.seed)
    skeleton = load_body().skeleton.to(dtype=torch.float64)
    batch = Batch(observations, crop_camera=False, keypoint_valid=skeleton.keypoint_valid)
    weights = Weights(pose=0.3, betas=0.1, world_landmarks=0.1)
    prior = load_pose_prior().to(dtype=torch.float64)
    problem = Problem(skeleton, batch.points.to(dtype=torch.float64), prior, weights, Scales())
    settings = LeastSquares(steps=15)
    built_with = torch.from_numpy(np.load(shipped("priors/open_body/body.npz"))["keypoint_offsets"]).double()
    total = built_with.clone()
    for number in range(arguments.rounds + 1):
        current = replace(problem, skeleton=shifted(skeleton, total - built_with))
        state = fit(current.skeleton, current, settings)
        print(f"round {number}: median error {100 * float(_error(current, state).median()):.3f} % of the box")
        if number < arguments.rounds:
            step, used = offsets(current, state)
            total = total + step
    report = {
        "what": "metres in the T-pose's axes, added to the first 25 keypoints",
        "photos": len(observations),
        "rounds": arguments.rounds,
        "seed": arguments.seed,
        "offsets": {name: [round(x, 5) for x in row] for name, row in zip(BODY_25, total.tolist(), strict=True)},
    }
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    for name, row, count in zip(BODY_25, total, used, strict=True):
        print(f"{name:10} {1000 * row[0]:7.1f} {1000 * row[1]:7.1f} {1000 * row[2]:7.1f} mm  ({int(count)} points)")


def _error(problem: Problem, state: State) -> Tensor:
    """(B,) mean error of the confident keypoints over the box."""
    points = problem.points
    placed = problem.skeleton.keypoints(state.rotations, state.betas) + state.cam_t[:, None]
    error = (project(placed, points.intrinsics) - points.pixels).norm(dim=-1) / points.box[:, None]
    seen = points.confidence > 0.3
    return torch.where(seen, error, 0.0).sum(1) / seen.sum(1)


if __name__ == "__main__":
    main()
