"""Build `priors/pose/photo_poses.npz`: how people stand and walk in street photos, as rotations.

    python tools/build_photo_poses.py --photos ../shared/data/ccp

Training photos of Clothing Co-Parsing (Yang, Luo and Lin, CVPR 2014) are fitted by least squares to the detector's
keypoints and 3D landmarks under the hand-written prior. A fit is kept where the whole body is seen and every confident
keypoint is met. Only rotations of the body's joints are written, no image, shape or name. `--detections` reads what
the detector found from a folder of `NNNN.npz` (`keypoints`, `world`) instead of running it.

    python tools/build_photo_poses.py --photos ../shared/data/ccp --fits FITS --out poses_of_fits.npz

takes the bodies of whole fits, of a folder of `dsr-fit batch`, instead (`experiments/from_fits.py` compares the two).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from annotated import AnnotatedPhotos

from dsr_fit.body.files import load_body
from dsr_fit.config import load_config
from dsr_fit.dataset.run import read_results
from dsr_fit.evaluate import ccp
from dsr_fit.fitting.metrics import keypoint_errors
from dsr_fit.io.files import replacing
from dsr_fit.io.images import read_image
from dsr_fit.joints import KEYPOINT_INDEX
from dsr_fit.observation import Observation
from dsr_fit.observe.batch import Batch
from dsr_fit.optimise.least_squares import Problem, solve
from dsr_fit.priors.pose import load_pose_prior
from dsr_fit.regressor import kinematic

ROOT = Path(__file__).resolve().parents[1]
SEEN = [
    KEYPOINT_INDEX[side + name]
    for side in ("L", "R")
    for name in ("Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Ankle")
]
MIN_CONFIDENCE = 0.7
LARGEST_ERROR = 0.006
"""Mean keypoint error of a fit that is kept, over the longer side of the box."""
LARGEST_OF_FITS = 0.01
"""The same of whole fits, which meet the clothing too."""
BATCH = 32


def detections(photos: Path, cache: Path | None) -> list[Observation]:
    """The most prominent person of every training photo that has one; label maps are left empty."""
    seen, found = AnnotatedPhotos(photos, cache), []
    for number in ccp.photo_numbers(photos, "train", annotated=False):
        image, _ = read_image(ccp.photo_path(photos, number))
        detection = seen.detection(number)
        if detection is not None:
            blank = np.broadcast_to(np.uint8(0), image.shape)
            labels = np.broadcast_to(np.uint8(0), image.shape[:2])
            focal = float(np.hypot(image.shape[0], image.shape[1]))
            found.append(Observation(blank, detection, labels, "none", focal))
    return found


def fit(observations: list[Observation]) -> tuple[np.ndarray, np.ndarray]:
    """Rotation vectors (N, 69) of the body's joints, and keypoint errors over the box (N,)."""
    config, double = load_config("pose_ranges"), torch.float64  # not with the prior that these poses make
    skeleton, prior = load_body().skeleton.to(dtype=double), load_pose_prior("ranges").to(dtype=double)
    batch = Batch(observations, crop_camera=False, keypoint_valid=skeleton.keypoint_valid)
    problem = Problem(skeleton, batch.points.to(dtype=double), prior, config.weights, config.scales)
    settings = config.least_squares
    state = solve(problem, kinematic.estimate(problem, settings), settings.steps, settings.damping)
    keypoints = skeleton.keypoints(state.rotations, state.betas) + state.cam_t[:, None]
    return state.parameters().body_pose.numpy(), keypoint_errors(keypoints, problem.points)[1].numpy()


def solved(photos: Path, cache: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """Rotation vectors (N, 69) and keypoint errors (N,) of everybody seen whole, by least squares."""
    observations = detections(photos, cache)
    whole = [item for item in observations if item.detection.keypoints[SEEN, 2].min() > MIN_CONFIDENCE]
    print(f"{len(observations)} people, ", end="")
    fits = [fit(whole[start : start + BATCH]) for start in range(0, len(whole), BATCH)]
    poses, errors = (np.concatenate(each) for each in zip(*fits, strict=True))
    return poses, errors


def taken(photos: Path, fits: Path) -> tuple[np.ndarray, np.ndarray]:
    """The same, of a run's fits of the open body to these photos."""
    numbers, body = set(ccp.photo_numbers(photos, "train", annotated=False)), load_body().sha256
    rows = [
        row
        for row in read_results(fits)
        if Path(row["imgname"]).stem in numbers and row["keypoint_error_rel"] is not None and row["body"][1] == body
    ]
    print(f"{len(rows)} people, ", end="")
    whole = [row for row in rows if row["keypoints"][SEEN, 2].min() > MIN_CONFIDENCE]
    return np.stack([row["body_pose"] for row in whole]), np.array([row["keypoint_error_rel"] for row in whole])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder of Clothing Co-Parsing")
    parser.add_argument("--fits", type=Path, help="folder of `dsr-fit batch` of these photos")
    parser.add_argument("--detections", type=Path, help="folder of earlier detections")
    parser.add_argument("--out", type=Path, default=ROOT / "priors" / "pose" / "photo_poses.npz")
    arguments = parser.parse_args()

    if arguments.fits:
        (poses, errors), largest = taken(arguments.photos, arguments.fits), LARGEST_OF_FITS
    else:
        (poses, errors), largest = solved(arguments.photos, arguments.detections), LARGEST_ERROR
    kept = errors < largest
    with replacing(arguments.out) as path:
        np.savez_compressed(path, body_pose=poses[kept].astype(np.float16))
    print(f"{len(poses)} of them seen whole, {kept.sum()} kept; ", end="")
    print(f"keypoint error of the kept, median {100 * np.median(errors[kept]):.2f} % of the box")


if __name__ == "__main__":
    main()
