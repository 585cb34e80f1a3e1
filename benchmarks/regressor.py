"""The open regressor's own estimates on people it has never seen, by what it is told.

    python benchmarks/regressor.py --cases-dir cases --out benchmarks/results/regressor.json

The people are the benchmark's rendered ones (held-out motion clips, new shapes). Told accurately they give visible
keypoints, or all that are in the picture, with Gaussian noise of .5 % of the box; else what the detector and the parser
find in the picture.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from machine import describe_machine
from modes import observe_cases
from scipy.stats import rankdata

from dsr_fit.body.files import load_body
from dsr_fit.evaluate import REPORTING_SEED, metrics, tables
from dsr_fit.evaluate.benchmark import ObservedCase, observe_truth
from dsr_fit.labels import UNKNOWN
from dsr_fit.observation import Observation
from dsr_fit.observe.batch import Batch
from dsr_fit.regressor.open_regressor import OpenRegressor
from dsr_fit.rotation import angle_between, axis_angle_to_matrix
from dsr_fit.synthetic import ClothedCase
from dsr_fit.synthetic.dataset import read_case, write_cases

NOISE = 0.005


def without(seen: Observation, *, world: bool = False, labels: bool = False, features: bool = False) -> Observation:
    """The same without 3D landmarks, a label map, or the detector's features."""
    detection = replace(
        seen.detection,
        world_landmarks=None if world else seen.detection.world_landmarks,
        features=None if features else seen.detection.features,
    )
    nothing = np.full_like(seen.labels, UNKNOWN) if labels else seen.labels
    return replace(seen, detection=detection, labels=nothing)


def seen_through(case: ClothedCase) -> ClothedCase:
    """As if nothing hid what is in the picture: detectors guess what they don't see."""
    height, width = case.image.shape[:2]
    pixels = case.keypoints[:, :2]
    return replace(case, keypoint_visibility=((pixels >= 0) & (pixels <= [width, height])).all(1))


def measure(regressor: OpenRegressor, body, folder: Path, told: list[ObservedCase]) -> dict:
    """Means with intervals in mm and degrees, SMPL's 24 joints, and what the uncertainty is worth."""
    people = [item.observation for item in told if item.observation is not None]
    cases = [read_case(folder, item.seed) for item in told if item.observation is not None]
    estimate = regressor(Batch(people, crop_camera=False, keypoint_valid=body.skeleton.keypoint_valid))
    true_pose = torch.from_numpy(np.stack([np.concatenate([case.global_orient, case.body_pose]) for case in cases]))
    true_betas = torch.from_numpy(np.stack([case.betas for case in cases]))
    rotations, true_rotations = (
        axis_angle_to_matrix(pose.unflatten(1, (24, 3))) for pose in (estimate.parameters.full_pose, true_pose)
    )
    still = torch.zeros(len(cases), 3)
    joints = body(estimate.parameters.global_orient, estimate.parameters.body_pose, estimate.parameters.betas, still)
    true = body(true_pose[:, :3], true_pose[:, 3:], true_betas, still)
    angles = angle_between(rotations, true_rotations)
    assert estimate.spread is not None
    values = {
        "mpjpe": metrics.mpjpe(joints.joints(), true.joints()),
        "pa_mpjpe": metrics.pa_mpjpe(joints.joints(), true.joints()),
        "t_pose_pve_sc": metrics.t_pose_pve(estimate.parameters.betas, true_betas, body, scale_corrected=True),
        "t_pose_pve_sc_mean_shape": metrics.t_pose_pve(0 * true_betas, true_betas, body, scale_corrected=True),
        "orientation_deg": angles[:, 0].rad2deg(),
        "joint_angle_deg": angles[:, 1:].mean(1).rad2deg(),
    }
    found: dict = {name: tables.as_dict(metrics.bootstrap(value)) for name, value in values.items()}
    found |= {f"{name}_median": float(value.median()) for name, value in values.items()}
    spread = estimate.spread
    found["spread"] = {
        "expected_deg": float(spread.mean().rad2deg()),
        "found_deg": float(angles.mean().rad2deg()),
        "rank_correlation_joints": rank_correlation(spread.flatten(), angles.flatten()),
        "rank_correlation_people": rank_correlation(spread[:, 1:].mean(1), angles[:, 1:].mean(1)),
        "rank_correlation_orientation": rank_correlation(spread[:, 0], angles[:, 0]),
    }
    assert estimate.joint_error_m is not None
    found["expected_error"] = {
        "expected_mm": 1000 * float(estimate.joint_error_m.mean()),
        "rank_correlation": rank_correlation(estimate.joint_error_m, values["mpjpe"]),
    }
    return found


def rank_correlation(first: torch.Tensor, second: torch.Tensor) -> float:
    """Spearman's."""
    return float(np.corrcoef(rankdata(first), rankdata(second))[0, 1])


def milliseconds(regressor: OpenRegressor, people: list[Observation], batch: int) -> float:
    """A person, best of five, from the batch's observations on."""
    valid = regressor.skeleton.keypoint_valid
    batches = [Batch(people[k : k + batch], crop_camera=False, keypoint_valid=valid) for k in range(0, 64, batch)]
    times = []
    for _ in range(5):
        started = time.perf_counter()
        for one in batches:
            regressor(one)
        times.append((time.perf_counter() - started) / sum(len(one) for one in batches))
    return 1000 * min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases-dir", type=Path, required=True, help="folder of the cases; missing ones are generated")
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--first-seed", type=int, default=REPORTING_SEED)
    parser.add_argument("--cache", type=Path, help="folder for what perception finds")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.cases)
    write_cases(arguments.cases_dir, seeds)
    whole = [
        item for item in observe_cases(arguments.cases_dir, seeds, arguments.cache) if item.observation is not None
    ]
    accurate = [ObservedCase(seed, observe_truth(read_case(arguments.cases_dir, seed), NOISE)) for seed in seeds]
    body = load_body()
    regressor = OpenRegressor(body)

    def only(seen: list[ObservedCase], **left_out: bool) -> list[ObservedCase]:
        return [replace(item, observation=without(item.observation, **left_out)) for item in seen if item.observation]

    through = [
        ObservedCase(seed, observe_truth(seen_through(read_case(arguments.cases_dir, seed)), NOISE)) for seed in seeds
    ]
    told = {
        "accurate keypoints, hidden ones too": only(through, world=True, labels=True),
        "accurate keypoints": only(accurate, world=True, labels=True),
        "accurate keypoints, true labels": only(accurate, world=True),
        "detector's keypoints": only(whole, world=True, labels=True, features=True),
        "detector's keypoints, labels": only(whole, world=True, features=True),
        "detector's keypoints, landmarks": only(whole, labels=True, features=True),
        "detector's keypoints, landmarks, labels": only(whole, features=True),
        "all that the detector says": whole,
    }
    found = {}
    for name, seen in told.items():
        found[name] = measure(regressor, body, arguments.cases_dir, seen)
        shown = {k: found[name][k]["mean"] for k in ("mpjpe", "pa_mpjpe", "t_pose_pve_sc", "t_pose_pve_sc_mean_shape")}
        print(f"{name:42} {shown} median PA {found[name]['pa_mpjpe_median']:.1f} {found[name]['spread']}", flush=True)
    people = [item.observation for item in whole if item.observation is not None]
    timed = {f"batch of {count}": round(milliseconds(regressor, people, count), 2) for count in (1, 16)}
    print(timed)
    if arguments.out:
        report = {
            "cases": len(seeds), "found": len(whole), "noise": NOISE, "told": found,
            "milliseconds": timed, "threads": arguments.threads, "machine": describe_machine(),
        }  # fmt: skip
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
