"""How much worse is what is seen of a person when the rest is not, and what becomes of the rest?

    PYTHONPATH=benchmarks python benchmarks/cropped.py --cache cache [--regressor FILE] \\
        --out benchmarks/results/cropped.json

The people of `standing.py`, whole, cut off by the lower edge of the picture (at the knees, thighs or waist), and behind
a counter up to the thighs, all through detector and parser. The principal point is a picture's centre, so a cut picture
is one that the same camera takes turned upwards: pixels are mapped by that rotation's homography, and the true body and
gravity turn with it.

Joints that every cut shows are compared with the whole picture, person by person. What is not seen has its angle to
gravity, and the error of each joint's rotation against what the regressor expects of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy.spatial.transform import Rotation
from standing import GROUPS, WHO, Found, arguments_of, find, fitter_of, generated, rounded, tilts, write
from torch import Tensor
from upright import INDEX

from dsr_fit.body.body import Body
from dsr_fit.evaluate import metrics, tables
from dsr_fit.joints import KEYPOINT_INDEX, SMPL_PARENTS
from dsr_fit.labels import OCCLUDER
from dsr_fit.rotation import angle_between, axis_angle_to_matrix
from dsr_fit.synthetic import ClothedCase
from dsr_fit.synthetic.dataset import read_case, write_case

CUTS = ("knees", "thighs", "waist")
KINDS = ("whole", *CUTS, "counter")
LEAST_GAP = 0.12
"""Of the person's height in the picture, between hips and knees; whose are nearer can't be cut at the thighs."""

SEGMENTS = {
    "trunk": [("pelvis", "neck")],
    "thighs": [("left_hip", "left_knee"), ("right_hip", "right_knee")],
    "shins": [("left_knee", "left_ankle"), ("right_knee", "right_ankle")],
}
"""From joint to joint; they are seen where both are."""

CHILDREN = [[child for child, parent in enumerate(SMPL_PARENTS) if parent == joint] for joint in range(24)]


def lines(case: ClothedCase) -> dict[str, float]:
    """Rows of the picture, pixels, at which each cut goes; none of people whose knees are not below their hips."""
    row = {name: case.keypoints[number, 1] for name, number in KEYPOINT_INDEX.items()}
    neck, hips = row["Neck"], row["MidHip"]
    knees, feet = min(row["LKnee"], row["RKnee"]), max(row["LAnkle"], row["RAnkle"])
    if not neck < hips < knees < feet or knees - hips < LEAST_GAP * (feet - neck):
        return {}
    found = {"knees": knees, "thighs": (hips + knees) / 2, "waist": hips - (hips - neck) / 4}
    return {name: float(value) for name, value in found.items()}


def usable(case: ClothedCase) -> bool:
    """Whole, alone, and can be cut."""
    return not (case.cropped or case.occluded or case.second_person) and bool(lines(case))


def cut(case: ClothedCase, row: float, body: Body) -> ClothedCase:
    """The case's picture above a row, taken by the same camera turned so that its axis goes through the new centre."""
    pelvis = case.parameters().pose(body).joints()[0, 0].numpy()
    height, width = case.labels.shape
    focal = case.focal_length
    top, bottom = np.arctan2(-height / 2, focal), np.arctan2(row - height / 2, focal)
    middle, half = (top + bottom) / 2, (bottom - top) / 2
    narrowed = min(np.cos(edge) / np.cos(edge - middle) for edge in (top, bottom))
    size = int(width * min(narrowed, 1.0)), int(2 * focal * np.tan(half))
    turn = Rotation.from_euler("x", middle)
    before, after = (
        np.array([[focal, 0, w / 2 - 0.5], [0, focal, h / 2 - 0.5], [0, 0, 1]]) for w, h in ((width, height), size)
    )
    homography = after @ turn.as_matrix() @ np.linalg.inv(before)

    def warped(picture: np.ndarray, how: int = cv2.INTER_NEAREST) -> np.ndarray:
        return cv2.warpPerspective(picture, homography, size, flags=how)

    joints = turn.apply(case.joints).astype(np.float32)
    pixels = joints[:, :2] / joints[:, 2:] * focal + np.array(size) / 2
    return replace(
        case,
        global_orient=(turn * Rotation.from_rotvec(case.global_orient)).as_rotvec().astype(np.float32),
        cam_t=(turn.apply(pelvis) - (pelvis - case.cam_t)).astype(np.float32),  # the body turns about its pelvis
        image=warped(case.image, cv2.INTER_LINEAR),
        labels=warped(case.labels),
        body_mask=warped(case.body_mask.astype(np.uint8)) > 0,
        clothed_mask=warped(case.clothed_mask.astype(np.uint8)) > 0,
        vertices=turn.apply(case.vertices).astype(np.float32),
        joints=joints,
        keypoint_visibility=case.keypoint_visibility & ((pixels >= 0) & (pixels <= size)).all(1),
        cropped=True,
    )


def behind(case: ClothedCase, row: float) -> ClothedCase:
    """The case with a counter painted across the picture from a row down."""
    rng, top = np.random.default_rng(case.seed), int(row)
    height, width = case.labels.shape
    wood = rng.uniform(60, 200, 3) * np.ones((height - top, width, 3))
    wood *= 1 - 0.3 * np.linspace(0, 1, height - top)[:, None, None]
    wood[:, :: int(rng.integers(40, 120))] *= 0.6
    wood[: max(2, height // 60)] *= 1.25
    image, labels = case.image.copy(), case.labels.copy()
    image[top:] = (wood + rng.normal(0, 3, wood.shape)).clip(0, 255)
    labels[top:] = OCCLUDER
    above = case.keypoints[:, 1] < row
    return replace(case, image=image, labels=labels, keypoint_visibility=case.keypoint_visibility & above)


def made(cache: Path, group: str, seeds: Sequence[int], body: Body) -> None:
    """Write the cases of every kind but the whole ones."""
    for seed in seeds:
        case = read_case(cache / group, seed)
        rows = lines(case)
        for kind in KINDS[1:]:
            folder = cache / f"{group}-{kind}"
            if not (folder / f"{seed:06d}.npz").exists():
                folder.mkdir(parents=True, exist_ok=True)
                write_case(folder, behind(case, rows["thighs"]) if kind == "counter" else cut(case, rows[kind], body))


def in_sight(joints: Tensor, cases: Sequence[ClothedCase]) -> Tensor:
    """(N, 24) bool: in the picture, and not behind the counter, if that is what the case has; (N, 24, 3) metres."""
    seen = []
    for one, case in zip(joints, cases, strict=True):
        height, width = case.labels.shape
        pixels = (one[:, :2] / one[:, 2:] * case.focal_length).numpy() + (width / 2, height / 2)
        inside = ((pixels >= 0) & (pixels < (width, height))).all(1)
        column, row = pixels.clip(0, (width - 1, height - 1)).astype(int).T
        seen.append(torch.from_numpy(inside & (case.labels[row, column] != OCCLUDER)))
    return torch.stack(seen)


def truth_of(folder: Path, seeds: Sequence[int], body: Body) -> tuple[Tensor, list[ClothedCase]]:
    """The true joints of a folder's cases, (N, 24, 3) metres, and these."""
    cases = [read_case(folder, seed) for seed in seeds]
    return torch.cat([case.parameters().pose(body).joints() for case in cases]), cases


def turns_in_sight(seen: Tensor) -> Tensor:
    """(N, 24) bool: joints whose rotation can be seen, since they and all those that hang on them are."""
    return torch.stack([seen[:, [joint, *CHILDREN[joint]]].all(1) for joint in range(24)], 1)


def distances(found: Found, who: str, common: Tensor) -> Tensor:
    """(N, 24) mm, with the means of the `common` joints (N, 24) bool on each other."""
    weight = common.float()[..., None]
    ours, true = (
        joints - (joints * weight).sum(1, keepdim=True) / weight.sum(1, keepdim=True)
        for joints in (found.joints[who], found.joints["truth"])
    )
    return metrics.MILLIMETRES * (ours - true).norm(dim=-1)


def per_person(values: Tensor, chosen: Tensor) -> Tensor:
    """(N,) means over the chosen of each row, NaN where there are none."""
    return torch.where(chosen, values, 0).sum(1) / chosen.sum(1)


def expectations(spread: Tensor, error: Tensor) -> dict[str, float | int]:
    """Expected and true errors of rotations (M,), radians: means in degrees, the true over the expected, and the share
    of errors within twice what is expected."""
    return {
        "count": len(error),
        "expected_deg": rounded(spread.mean().rad2deg()),
        "error_deg": rounded(error.mean().rad2deg()),
        "ratio": rounded(error.mean() / spread.mean()),
        "within_twice": rounded((error <= 2 * spread).float().mean(), 3),
    }


def segments(found: Found, seen: Tensor) -> dict:
    """Angles to gravity of trunk, thighs and shins, of those that are seen and those that are not."""
    report: dict = {}
    for name, bones in SEGMENTS.items():
        starts, ends = ([INDEX[bone[end]] for bone in bones] for end in (0, 1))
        both = seen[:, starts] & seen[:, ends]
        down = found.down[:, None].expand(-1, len(bones), -1)
        for state, chosen in (("seen", both), ("unseen", ~both)):
            if not chosen.any():
                continue
            directions = {who: (joints[:, ends] - joints[:, starts])[chosen] for who, joints in found.joints.items()}
            each = {who: tilts(directions[who], directions["truth"], down[chosen]) for who in WHO}
            report.setdefault(name, {})[state] = {"count": int(chosen.sum()), **each}
    return report


def against_whole(found: Found, whole: Found, common: Mapping[int, Tensor]) -> dict:
    """Errors of the joints that every cut shows, of those found in both pictures; differences are to the whole one."""
    both = [seed for seed in found.seeds if seed in whole.seeds]
    upper = torch.stack([common[seed] for seed in both])
    report: dict = {"people": len(both)}
    for who in WHO:
        here, there = (per_person(distances(one.rows(both), who, upper), upper) for one in (found, whole))
        report[who] = {
            "error_mm": tables.as_dict(metrics.bootstrap(here)),
            "whole_mm": tables.as_dict(metrics.bootstrap(there)),
            "difference_mm": tables.as_dict(metrics.paired_difference(here, there)),
        }
    return report


def turn_errors(found: Found, who: str) -> Tensor:
    """(N, 24) radians between each joint's rotation, relative to its parent, and the true one."""
    ours, true = (axis_angle_to_matrix(found.bodies[one].full_pose.unflatten(1, (24, 3))) for one in (who, "truth"))
    return angle_between(ours, true)


def measured(found: Found, whole: Found, seen: Tensor, common: Mapping[int, Tensor]) -> dict:
    """Everything of one kind of picture."""
    report: dict = {"found": len(found.seeds), "missed": len(found.missed)}
    report["joints that every cut shows"] = against_whole(found, whole, common)
    report["segments"] = segments(found, seen)
    if found.spread is not None:
        turns = turns_in_sight(seen)
        report["rotations"] = {
            state: {who: expectations(found.spread[chosen], turn_errors(found, who)[chosen]) for who in WHO}
            for state, chosen in (("seen", turns), ("unseen", ~turns))
            if chosen.any()
        }
    return report


def main() -> None:
    arguments = arguments_of(__doc__, "at most so many of each group of `standing.py`, and of these who can be cut")
    fitter = fitter_of(arguments)
    groups: dict = {}
    for group in GROUPS:
        folder = arguments.cache / group
        seeds = [seed for seed in generated(folder, group, arguments.people) if usable(read_case(folder, seed))]
        made(arguments.cache, group, seeds, fitter.body)
        folders = {kind: folder if kind == "whole" else folder.with_name(f"{group}-{kind}") for kind in KINDS}
        people = {kind: find(fitter, folders[kind], group, seeds) for kind in KINDS}
        seen = {kind: in_sight(*truth_of(folders[kind], one.seeds, fitter.body)) for kind, one in people.items()}
        common = dict(zip(seeds, in_sight(*truth_of(folders["waist"], seeds, fitter.body)), strict=True))
        groups[group] = {
            "people": len(seeds),
            **{kind: measured(found, people["whole"], seen[kind], common) for kind, found in people.items()},
        }
    write(arguments.out, fitter, {"groups": groups})


if __name__ == "__main__":
    main()
