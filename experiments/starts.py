"""Would a fit gain from several starts? Least squares on rendered people, whose bodies are known.

    PYTHONPATH=benchmarks python experiments/starts.py --cases-dir cases/tuning cases/standing
        --out benchmarks/results/starts.json

Besides the estimate: the upper or the lower bone of each arm and leg mirrored in depth, which a picture hardly tells
(Lee and Chen 1985; the kinematic jumps of Sminchisescu and Triggs 2003), and the body turned by 180 degrees or with its
turn or lean mirrored. From each, least squares runs twice: under the objective of a fit, and with the start itself in
the place of the estimate that the `initial` term stays close to. Reported is what is left of it where an energy picks
the best, and what the best would bring if one knew which it is.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from machine import describe_machine
from modes import observe_cases
from torch import Tensor

from dsr_fit.body.files import load_body
from dsr_fit.body.parameters import Parameters
from dsr_fit.body.skeleton import Skeleton
from dsr_fit.config import FitConfig
from dsr_fit.evaluate.metrics import mpjpe, pa_mpjpe, paired_difference, pve
from dsr_fit.evaluate.tables import as_dict
from dsr_fit.fitting.metrics import keypoint_errors
from dsr_fit.io.files import replacing
from dsr_fit.joints import SMPL_JOINTS, SMPL_PARENTS
from dsr_fit.observation import Observation
from dsr_fit.observe.batch import Batch, Points
from dsr_fit.optimise.anchor import Anchor
from dsr_fit.optimise.least_squares import Problem, State, solve
from dsr_fit.optimise.objective import TERMS, Objective, Term
from dsr_fit.priors.pose import load_pose_prior
from dsr_fit.priors.semantic import load_semantic_prior
from dsr_fit.regressor.open_regressor import OpenRegressor
from dsr_fit.render.renderer import Renderer
from dsr_fit.rotation import axis_angle_to_matrix, rotation_between
from dsr_fit.synthetic import ClothedCase
from dsr_fit.synthetic.dataset import read_case

INDEX = {name: joint for joint, name in enumerate(SMPL_JOINTS)}
LIMBS = {
    "left leg": ("left_hip", "left_knee", "left_ankle", (1.0, 0.0, 0.0)),
    "right leg": ("right_hip", "right_knee", "right_ankle", (1.0, 0.0, 0.0)),
    "left arm": ("left_shoulder", "left_elbow", "left_wrist", (0.0, -1.0, 0.0)),
    "right arm": ("right_shoulder", "right_elbow", "right_wrist", (0.0, 1.0, 0.0)),
}
"""Upper joint, hinge, end, and the axis about which the hinge bends."""
RENDERED = 112
"""Pixels at which rendered terms are judged."""

PICKS = ("least squares", "whole energy", "whole energy, less initial", "rendered", "pa_mpjpe")
"""What picks the best of several; the last is the error itself."""

BODY, CONFIG = load_body("open"), FitConfig()
POSE_PRIOR = load_pose_prior(CONFIG.pose_prior)
SKELETON = BODY.skeleton.to(dtype=torch.float64)


def unit(vectors: Tensor) -> Tensor:
    return torch.nn.functional.normalize(vectors, dim=-1)


def mirrored(vectors: Tensor, along: Tensor) -> Tensor:
    """(B, 3) with the component along the unit vectors (B, 3) turned over."""
    return vectors - 2 * (vectors * along).sum(-1, keepdim=True) * along


def axes(first: Tensor, second: Tensor) -> Tensor:
    """(B, 3, 3) with the columns: first, what is perpendicular to it of the second, their cross product."""
    second = unit(second - (first * second).sum(-1, keepdim=True) * first)
    return torch.stack([first, second, torch.linalg.cross(first, second)], -1)


def flipped(skeleton: Skeleton, state: State, limb: str, bone: int) -> State:
    """The limb's upper (0) or lower (1) bone mirrored in depth; the hinge still bends the way that it can."""
    *names, hinge = LIMBS[limb]
    upper, lower, end = (INDEX[name] for name in names)
    world = skeleton.world_rotations(state.rotations)
    places = skeleton.positions(world, skeleton.joints_at_rest(state.betas)) + state.cam_t[:, None]
    bones = [unit(places[:, lower] - places[:, upper]), unit(places[:, end] - places[:, lower])]
    new = list(bones)
    new[bone] = mirrored(bones[bone], unit(places[:, lower]))
    bent = torch.linalg.cross(new[0], new[1])
    size = bent.norm(dim=-1, keepdim=True)
    hinges = [world[:, joint] @ bent.new_tensor(hinge) for joint in (upper, lower)]
    straight = (rotation_between(bones[0], new[0]) @ hinges[0][..., None])[..., 0]  # as it was: no bend says where
    axis = torch.where(size > 0.1, bent / size.clamp(min=1e-6), straight)
    turned = [
        axes(after, axis) @ axes(before, own).mT @ world[:, joint]
        for after, before, own, joint in zip(new, bones, hinges, (upper, lower), strict=True)
    ]
    rotations = state.rotations.clone()
    rotations[:, upper] = world[:, SMPL_PARENTS[upper]].mT @ turned[0]
    rotations[:, lower] = turned[0].mT @ turned[1]
    return replace(state, rotations=rotations)


def turned_root(state: State, turn: Tensor) -> State:
    rotations = state.rotations.clone()
    rotations[:, 0] = turn @ rotations[:, 0]
    return replace(state, rotations=rotations)


def starts(skeleton: Skeleton, state: State) -> dict[str, State]:
    """Name -> the start of B people; the state itself first."""
    found = {"estimate": state}
    for limb in LIMBS:
        for bone, name in enumerate(("upper", "lower")):
            found[f"{limb}, {name}"] = flipped(skeleton, state, limb, bone)
    root = state.rotations[:, 0]
    side, up = root[..., 0], root[..., 1]
    view = unit(skeleton.joints_at_rest(state.betas)[:, 0] + state.cam_t)
    level = unit(view - (view * up).sum(-1, keepdim=True) * up)
    across = torch.linalg.cross(up, level)
    away = torch.atan2((side * level).sum(-1), (side * across).sum(-1))
    found["turned by 180 degrees"] = turned_root(state, axis_angle_to_matrix(torch.pi * up))
    found["turn mirrored"] = turned_root(state, axis_angle_to_matrix(2 * away[:, None] * up))
    found["lean mirrored"] = turned_root(state, rotation_between(up, mirrored(up, view)))
    return found


@dataclass(frozen=True)
class Told:
    """N people: what was observed, the regressor's estimate, and the truth."""

    batch: Batch
    expected: Tensor  # (N, 24) error of each joint's rotation that the regressor expects, radians
    anchor: Anchor
    start: State
    joints: Tensor  # (N, 24, 3)
    vertices: Tensor  # (N, V, 3)

    @classmethod
    @torch.no_grad()
    def of(cls, observations: list[Observation], cases: list[ClothedCase]) -> Told:
        batch = Batch(observations, crop_camera=False, keypoint_valid=BODY.skeleton.keypoint_valid)
        estimate = OpenRegressor(BODY)(batch)
        posed = [case.parameters().pose(BODY) for case in cases]
        joints, vertices = (
            torch.cat([of(each) for each in posed]) for of in (lambda p: p.joints(), lambda p: p.vertices())
        )
        assert estimate.spread is not None
        anchor = Anchor.of(estimate.parameters, BODY.skeleton, estimate.spread)
        return cls(batch, estimate.spread, anchor, State.of(estimate.parameters), joints, vertices)

    def problem(self, terms: tuple[Term, ...] = TERMS, points: Points | None = None) -> Problem:
        problem = Problem.of(self.batch, BODY.skeleton, POSE_PRIOR, CONFIG, self.anchor, terms)
        return problem if points is None else replace(problem, points=points.to(dtype=torch.float64))

    @torch.no_grad()
    def errors(self, found: Parameters) -> dict[str, np.ndarray]:
        """Millimetres, and degrees of elbows and knees; (N,) each."""
        posed = found.pose(BODY)
        joints, vertices = posed.joints(), posed.vertices()
        return {
            "pa_mpjpe": pa_mpjpe(joints, self.joints).numpy(),
            "mpjpe": mpjpe(joints, self.joints).numpy(),
            "pve": pve(vertices, self.vertices, joints[:, 0], self.joints[:, 0]).numpy(),
            "elbows": bend_errors(joints, self.joints, "arm"),
            "knees": bend_errors(joints, self.joints, "leg"),
            "keypoints": 100 * keypoint_errors(posed.keypoints, self.batch.points)[1].numpy(),
        }


def bend_errors(found: Tensor, true: Tensor, kind: str) -> np.ndarray:
    """(N,) degrees by which the flexion of both limbs is off."""

    def flexions(joints: Tensor) -> Tensor:
        limbs = [tuple(INDEX[name] for name in limb[:3]) for name, limb in LIMBS.items() if kind in name]
        bones = [(unit(joints[:, b] - joints[:, a]), unit(joints[:, c] - joints[:, b])) for a, b, c in limbs]
        return torch.stack([(first * second).sum(-1).clamp(-1, 1).acos().rad2deg() for first, second in bones], 1)

    return (flexions(found) - flexions(true)).abs().mean(1).numpy()


def solved(problem: Problem, start: State) -> State:
    return solve(problem, start, CONFIG.least_squares.steps, CONFIG.least_squares.damping)


def try_starts(told: Told) -> dict:
    """What other starts bring; the last entries say what they could bring if one knew which is right."""
    problem, semantic = told.problem(), load_semantic_prior(BODY)
    anchor = told.anchor.to(dtype=torch.float64)
    renderer = Renderer(BODY.faces, BODY.num_vertices, device="cpu", outline="none")
    objective = Objective.of(
        BODY, told.batch, renderer, semantic, POSE_PRIOR, CONFIG, RENDERED, told.anchor
    )  # fmt: skip
    drawn = [term.name for term in TERMS if term.rendered is not None]
    of = {kind: [] for kind in ("same", "own")}
    for name, start in starts(SKELETON, told.start).items():
        own = replace(problem, anchor=replace(anchor, rotations=start.rotations))
        for kind, solving in (("same", problem), ("own", own)):
            if kind == "own" and name == "estimate":
                of["own"].append(of["same"][0])
                continue
            end = solved(solving, start)
            row = told.errors(end.parameters())
            row["least squares"] = problem.energy(end).numpy()
            with torch.no_grad():
                energies = objective(end.parameters())
            row["whole energy"] = objective.total(energies).numpy()
            row["whole energy, less initial"] = (
                row["whole energy"]
                - CONFIG.weights.initial * energies["initial"].numpy()
                - CONFIG.weights.initial_points * energies["initial_points"].numpy()
            )
            row["rendered"] = torch.stack([objective.active[term] * energies[term] for term in drawn]).sum(0).numpy()
            of[kind].append(row)
        print(name, {kind: round(float(rows[-1]["pa_mpjpe"].mean()), 1) for kind, rows in of.items()}, flush=True)
    report = {"people": len(told.joints), "one start": means(of["same"][0])}
    names = list(starts(SKELETON, told.start))
    for kind, title in (("same", "under the same objective"), ("own", "close to themselves")):
        stacked = {key: np.stack([row[key] for row in of[kind]]) for key in of[kind][0]}
        base = {key: value[0] for key, value in stacked.items()}
        picked = {}
        for by in PICKS:
            chosen = np.nan_to_num(stacked[by], nan=np.inf).argmin(0)
            gain = base[by] - stacked[by].min(0)
            chosen = np.where(gain > 1e-3 * np.abs(base[by]), chosen, 0)
            rows = {key: value[chosen, np.arange(len(chosen))] for key, value in stacked.items()}
            picked[f"picked by {by}"] = {"others": int((chosen > 0).sum()), **against(rows, base)}
        better = stacked["pa_mpjpe"] < base["pa_mpjpe"] - 1
        lower = stacked["whole energy"] < base["whole energy"] * (1 - 1e-3)
        each = {
            name: {"lower energy": int(lower[row].sum()), "and nearer": int((lower & better)[row].sum())}
            for row, name in enumerate(names)
            if row
        }
        report[title] = {**picked, "starts": each}
    return report


def means(rows: dict[str, np.ndarray]) -> dict[str, float]:
    return {
        key: round(float(rows[key].mean()), 2) for key in ("pa_mpjpe", "mpjpe", "pve", "elbows", "knees", "keypoints")
    }


def against(rows: dict[str, np.ndarray], base: dict[str, np.ndarray]) -> dict:
    """Mean paired differences with 95 % intervals."""
    return {key: as_dict(paired_difference(rows[key], base[key])) for key in means(base)}


def told_of(folder: Path) -> Told:
    """All cases of a folder that the whole pipeline finds."""
    seeds = sorted(int(path.stem) for path in folder.glob("[0-9]*.npz"))
    seen = [item for item in observe_cases(folder, seeds, None) if item.observation is not None]
    return Told.of(
        [item.observation for item in seen if item.observation], [read_case(folder, item.seed) for item in seen]
    )


def write(path: Path, report: dict) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps({"machine": describe_machine(), **report}, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases-dir", type=Path, nargs="+", required=True, help="folders of rendered people")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    write(arguments.out, {"groups": [try_starts(told_of(folder)) for folder in arguments.cases_dir]})


if __name__ == "__main__":
    main()
