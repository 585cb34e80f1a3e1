"""Would a fit gain from scales of each joint? Least squares on rendered people, whose bodies are known.

    PYTHONPATH=benchmarks:experiments python experiments/joint_scales.py --cases-dir cases/tuning cases/standing
        --people people --out benchmarks/results/joint_scales.json

**Of the detector.** Student's t with 4 degrees of freedom is fitted to its errors of each joint, in the picture, and of
its 3D landmarks along and across the view, at confidence 1; and the landmarks' mean errors, which a fit could take off.
The terms weigh each joint accordingly, the mean weight as it is. `--people` is a folder of
`tools/train_regressor.py people`.

**Of the estimate.** The `initial` term holds some joints closer, or less close, than their expected errors say.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from starts import Told, against, means, solved, told_of, write

from dsr_fit.camera import ray_rotation
from dsr_fit.joints import BODY_25, MIRRORED_KEYPOINTS, SMPL_JOINTS
from dsr_fit.observe.batch import Points
from dsr_fit.optimise.objective import TERMS, Bodies, Given, Term
from dsr_fit.terms import points as on_points
from dsr_fit.terms.points import box_side
from dsr_fit.terms.residual import Dual, Residual
from dsr_fit.training.synthetic.detector_errors import box, turns_to
from dsr_fit.training.synthetic.people import People, read_people

DEGREES_OF_FREEDOM = 4.0
SEEN = 0.2
"""Least confidence of keypoints that span a box."""
FEWEST, WRONG = 8, 0.15
"""People with fewer keypoints, or with shoulders, hips and knees this share of the box off, were not found."""

GROUPS = {
    "pelvis": ("pelvis",),
    "hips": ("left_hip", "right_hip"),
    "knees": ("left_knee", "right_knee"),
    "shoulders": ("left_shoulder", "right_shoulder"),
}


@dataclass(frozen=True)
class DetectorScales:
    """The detector's errors of each of 49 slots at confidence 1, relative to all slots' (mean weight 1)."""

    picture: np.ndarray  # (49,)
    world: np.ndarray  # (49, 3) across, across, along the view
    world_mean: np.ndarray  # (49, 3) metres, in the axes of a camera that looks at the person

    @classmethod
    def of(cls, people: People) -> DetectorScales:
        confidence, sure = people.keypoints[..., 2], people.world[..., 3]
        focal, centre = people.intrinsics[:, None, :1], people.intrinsics[:, None, 1:]
        pixels = torch.from_numpy(people.keypoints[..., :2])
        side = box_side(pixels, torch.from_numpy(confidence)).numpy()
        true = people.joints[..., :2] / people.joints[..., 2:] * focal + centre
        off = (people.keypoints[..., :2] - true) / side[:, None, None]
        trunk = [BODY_25.index(f"{side}{part}") for side in "LR" for part in ("Shoulder", "Hip", "Knee")]
        found = np.median(np.linalg.norm(off[:, trunk], axis=-1), 1) < WRONG
        off, confidence, sure, people = off[found], confidence[found], sure[found], people.rows(np.flatnonzero(found))
        rays = (people.keypoints[..., :2] - people.intrinsics[:, None, 1:]) / people.intrinsics[:, None, :1]
        turns = turns_to(box(rays, confidence > SEEN)[0])
        away = people.world[..., :3] - people.joints @ turns.transpose(0, 2, 1)
        share = sure**2 / (sure**2).sum(1, keepdims=True)
        away = away - (share[..., None] * away).sum(1, keepdims=True)
        slots = np.flatnonzero((confidence > 0).any(0))
        mean = np.zeros((49, 3))
        mean[slots] = [robust_mean(away[:, slot], sure[:, slot]) for slot in slots]
        away = away - mean
        away = away - (share[..., None] * away).sum(1, keepdims=True)
        picture, across, along = np.ones(49), np.ones(49), np.ones(49)
        for slot in slots:
            picture[slot] = robust_scale(off[:, slot], confidence[:, slot])
            across[slot] = robust_scale(away[:, slot, :2], sure[:, slot])
            along[slot] = robust_scale(away[:, slot, 2:], sure[:, slot])
        other = np.array(MIRRORED_KEYPOINTS)
        picture, across, along = ((each + each[other]) / 2 for each in (picture, across, along))
        world = np.stack([across, across, along], 1)
        return cls(
            relative(picture[:, None], confidence, slots)[:, 0], relative(world, sure, slots), mean
        )  # fmt: skip


def robust_scale(errors: np.ndarray, confidence: np.ndarray) -> float:
    """Of Student's t: errors (N, D) times their confidence, by expectation maximisation."""
    squared = (errors**2).sum(1)[confidence > 0] * confidence[confidence > 0] ** 2
    dimensions = errors.shape[1]
    variance = np.median(squared) / dimensions
    for _ in range(100):
        weight = (DEGREES_OF_FREEDOM + dimensions) / (DEGREES_OF_FREEDOM + squared / variance)
        variance = (weight * squared).mean() / dimensions
    return float(variance**0.5)


def robust_mean(errors: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """(D,) of errors (N, D), likewise."""
    errors, confidence = errors[confidence > 0], confidence[confidence > 0, None]
    mean = np.median(errors, 0)
    for _ in range(50):
        squared = (errors - mean) ** 2
        weight = confidence**2 / (1 + squared / (2.2 * np.median(squared, 0)) / DEGREES_OF_FREEDOM)
        mean = (weight * errors).sum(0) / weight.sum(0)
    return mean


def relative(scales: np.ndarray, confidence: np.ndarray, slots: np.ndarray) -> np.ndarray:
    """(49, D) scales over the one that has their mean weight; 1 for slots without."""
    weight = confidence[:, slots].astype(np.float64) ** 2
    mean = (weight[..., None] / scales[slots] ** 2).sum() / (weight.sum() * scales.shape[1])
    found = np.ones_like(scales)
    found[slots] = scales[slots] * mean**0.5
    return found


def keypoints_by(scales: np.ndarray) -> Callable[[Bodies, Given], Residual]:
    """The term `keypoints` with a scale of each keypoint."""
    weights = torch.from_numpy(scales**-2.0)

    def term(bodies: Bodies, given: Given) -> Residual:
        seen, units = given.points, given.scales
        target = (seen.intrinsics, seen.pixels, seen.confidence, seen.box, torch.ones_like(seen.box))
        residual = on_points.keypoints(bodies.keypoints, *target, units.unit, units.robust)
        return replace(residual, weight=residual.weight * weights)

    return term


def landmarks_by(scales: np.ndarray) -> Callable[[Bodies, Given], Residual]:
    """The term `world_landmarks` with a scale of each landmark across and along the camera's axis."""
    inverse = torch.from_numpy(1 / scales)

    def term(bodies: Bodies, given: Given) -> Residual:
        seen = given.points
        weight = seen.world_confidence.square()
        share = weight[..., None] * inverse**2
        share = share / share.sum(1, keepdim=True).clamp(min=1e-9)
        error = bodies.keypoints - seen.world
        value = error.value - (share * error.value).sum(1, keepdim=True)
        slope = error.slope
        slope = None if slope is None else slope - (share[..., None] * slope).sum(1, keepdim=True)
        observed = (seen.world_confidence > 0).sum(1, keepdim=True).clamp(min=1)
        return Residual(Dual(value, slope) * inverse[None], weight / observed / given.scales.world_unit**2)

    return term


def try_scales(told: Told, learned: DetectorScales) -> dict:
    """Least squares from the estimate, its terms on observed points weighed otherwise."""
    batch = told.batch
    turns = [ray_rotation(*seen) for seen in zip(batch.crops, batch.focal_lengths, batch.principal_points, strict=True)]
    means_off = torch.from_numpy(learned.world_mean) @ torch.stack(turns)
    unbiased = replace(batch.points, world=batch.points.world - means_off.float())

    def terms(**residuals: Callable) -> tuple[Term, ...]:
        return tuple(replace(term, residual=residuals.get(term.name, term.residual)) for term in TERMS)

    picture, world = keypoints_by(learned.picture), landmarks_by(learned.world)
    variants: dict[str, tuple[tuple[Term, ...], Points]] = {
        "one scale": (TERMS, batch.points),
        "keypoints by joint": (terms(keypoints=picture), batch.points),
        "landmarks less their mean errors": (TERMS, unbiased),
        "landmarks less their mean errors, by joint": (terms(world_landmarks=world), unbiased),
        "all of it": (terms(keypoints=picture, world_landmarks=world), unbiased),
    }
    report, base = {}, None
    for name, (of, points) in variants.items():
        rows = told.errors(solved(told.problem(of, points), told.start).parameters())
        if base is None:
            base = rows
            report["estimate"] = means(told.errors(told.start.parameters()))
            report[name] = means(rows)
        else:
            report[name] = against(rows, base)
        print(name, means(rows), flush=True)
    return report


def described(learned: DetectorScales) -> dict[str, list[float]]:
    """Keypoint -> relative scales in the picture, of the landmark across and along, and its mean error in mm."""
    return {
        name: [
            *(round(float(value), 2) for value in (learned.picture[slot], *learned.world[slot, 1:])),
            *(round(1000 * float(value)) for value in learned.world_mean[slot]),
        ]
        for slot, name in enumerate(BODY_25)
        if learned.world_mean[slot].any()
    }


def try_holds(told: Told) -> dict:
    """Least squares from the estimate, some joints held within another share of their expected errors."""
    variants: dict[str, dict[str, float]] = {"expected errors": {}}
    for group, names in GROUPS.items():
        variants |= {f"{group} x {share}": dict.fromkeys(names, share) for share in (0.6, 1.6)}
    hips, shoulders = (dict.fromkeys(GROUPS[group], share) for group, share in (("hips", 0.6), ("shoulders", 0.7)))
    variants["hips x 0.6, shoulders x 0.7"] = hips | shoulders
    report: dict[str, dict] = {}
    base: dict[str, np.ndarray] = {}
    for name, held in variants.items():
        spread = told.expected * told.expected.new_tensor([held.get(joint, 1.0) for joint in SMPL_JOINTS])
        problem = told.problem()
        assert problem.anchor is not None
        problem = replace(problem, anchor=replace(problem.anchor, spread=spread.double()))
        rows = told.errors(solved(problem, told.start).parameters())
        base = base or rows
        report[name] = means(rows) if base is rows else against(rows, base)
        print(name, means(rows), flush=True)
    return report


def scales_of(folder: Path) -> DetectorScales:
    people = read_people(folder, held_out=False)
    return DetectorScales.of(people.rows(np.flatnonzero((people.keypoints[..., 2] > 0).sum(1) >= FEWEST)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases-dir", type=Path, nargs="+", required=True, help="folders of rendered people")
    parser.add_argument("--people", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    learned = scales_of(arguments.people)
    groups = [told_of(folder) for folder in arguments.cases_dir]
    found = [{"detector": try_scales(told, learned), "estimate": try_holds(told)} for told in groups]
    write(arguments.out, {"scales": described(learned), "groups": found})


if __name__ == "__main__":
    main()
