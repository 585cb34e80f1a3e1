"""Do people who stand come out standing, and people who bend come out bent, through the whole pipeline?

    PYTHONPATH=benchmarks python benchmarks/standing.py --cache cache [--regressor FILE] \\
        --out benchmarks/results/standing.json

Rendered people, seen by detector and parser: some who stand, some in poses of held-out motion clips as recorded, which
crouch, sit and jump. Of estimates and of fits: knees and elbows by their true flexion (see `upright.py`), the trunk's
angle to gravity, and errors of the bodies. Cases and what perception finds are kept in the cache; people who are not
found are counted, and left out of everything else.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from machine import describe_machine
from scipy.spatial.transform import Rotation
from torch import Tensor
from upright import LIMBS, angle, flexion, joined, rounded, trunk

from dsr_fit.body.body import Body
from dsr_fit.body.files import load_body
from dsr_fit.body.parameters import Parameters
from dsr_fit.dataset.settings import Settings
from dsr_fit.evaluate import REPORTING_SEED, metrics, tables
from dsr_fit.evaluate.benchmark import fit_all
from dsr_fit.evaluate.cached_source import case_source, seed_of
from dsr_fit.evaluate.regressor import estimate
from dsr_fit.fitting.fitter import Fitter
from dsr_fit.regressor.open_regressor import OpenRegressor
from dsr_fit.synthetic import ClothedCase, generate
from dsr_fit.synthetic.dataset import read_case, write_case
from dsr_fit.synthetic.staging import Casting, random_stance

BINS = (0, 15, 30, 60, 90, 140)
"""Bounds of true flexion, degrees."""

GROUPS = {"standing": (50_000, 1.0), "ordinary": (REPORTING_SEED, 0.0)}
"""First seed, and share of those who stand."""

WHO = ("estimate", "fit")


@dataclass(frozen=True)
class Found:
    """The N people of a folder whom perception found, and what became of them; joints are SMPL's 24."""

    seeds: list[int]
    missed: dict[int, str]  # seed -> why
    bodies: dict[str, Parameters]  # "truth" and `WHO`, batches of N
    joints: dict[str, Tensor]  # likewise, (N, 24, 3) metres, camera frame
    spread: Tensor | None  # (N, 24) expected error of the estimate's rotations, radians
    down: Tensor  # (N, 3) gravity in the camera frame

    def rows(self, chosen: Sequence[int]) -> Found:
        """Those of the seeds `chosen`, in that order; all of them were found."""
        index = torch.tensor([self.seeds.index(seed) for seed in chosen], dtype=torch.long)
        return Found(
            list(chosen),
            self.missed,
            {who: body.map(lambda value: value[index]) for who, body in self.bodies.items()},
            {who: joints[index] for who, joints in self.joints.items()},
            None if self.spread is None else self.spread[index],
            self.down[index],
        )


def casting(group: str) -> Casting:
    return Casting(standing=GROUPS[group][1])


def generated(folder: Path, group: str, count: int) -> list[int]:
    """Seeds of a group's cases, generated where the folder lacks them."""
    first = GROUPS[group][0]
    for seed in range(first, first + count):
        if not (folder / f"{seed:06d}.npz").exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_case(folder, generate(seed, casting(group)))
    return list(range(first, first + count))


def gravity(case: ClothedCase, group: str) -> np.ndarray:
    """(3,) in the case's camera frame: its orientation there, against that in the world, which its seed gives."""
    stance = random_stance(np.random.default_rng([case.seed, 0]), casting(group))
    if not np.allclose(stance.body_pose, case.body_pose, atol=1e-5):
        raise SystemExit(f"case {case.seed} is of another version or casting: remove it from the cache")
    camera = Rotation.from_rotvec(case.global_orient) * Rotation.from_rotvec(stance.global_orient).inv()
    return camera.apply([0.0, -1.0, 0.0])


def find(fitter: Fitter, folder: Path, group: str, seeds: Sequence[int]) -> Found:
    """Perceive the folder's cases, cached beside it, estimate and fit."""
    source = case_source(folder, seeds, folder.with_name(f"{folder.name}-seen"))
    seen = {seed_of(name): one for name, one in source.observe(Settings(), fitter.regressor.needs_image).items()}
    people = {seed: one for seed, one in seen.items() if not isinstance(one, str)}
    missed = {seed: one for seed, one in seen.items() if isinstance(one, str)}
    if not people:
        raise SystemExit(f"{folder}: nobody is found on {len(seeds)} pictures; take more --people")
    observations = list(people.values())
    results = [(fit.parameters(), fit.spread) for fit in fit_all(fitter, observations)]
    spreads = [spread for _, spread in results if spread is not None]
    cases = [read_case(folder, seed) for seed in people]
    valid = fitter.body.skeleton.keypoint_valid
    bodies = {
        "truth": joined([case.parameters() for case in cases]),
        "estimate": joined(estimate(fitter.regressor, valid, observations)),
        "fit": joined([parameters for parameters, _ in results]),
    }
    return Found(
        list(people),
        missed,
        bodies,
        {who: body.pose(fitter.body).joints() for who, body in bodies.items()},
        torch.from_numpy(np.stack(spreads)) if len(spreads) == len(results) else None,
        torch.from_numpy(np.stack([gravity(case, group) for case in cases])).float(),
    )


def bends(true: Tensor, ours: Tensor) -> dict:
    """Degrees of flexion (N, 2) by bins of the true one: count, bias and mean absolute error; and the slope."""
    x, y = true.flatten().double().numpy(), ours.flatten().double().numpy()
    bins = {}
    for low, high in zip(BINS[:-1], BINS[1:], strict=True):
        error = (y - x)[(x >= low) & (x < high)]
        bins[f"{low}-{high}"] = {
            "count": len(error),
            "bias": rounded(error.mean()) if len(error) else None,
            "error": rounded(np.abs(error).mean()) if len(error) else None,
        }
    return {"slope": rounded(np.polyfit(x, y, 1)[0], 3), "bins": bins}


def tilts(direction: Tensor, true: Tensor, down: Tensor) -> dict[str, float]:
    """Mean degrees of directions (N, 3): angle to the true one; bias and mean absolute error of that to gravity."""
    off = angle(direction, down) - angle(true, down)
    return {
        "error": rounded(angle(direction, true).mean()),
        "tilt_bias": rounded(off.mean()),
        "tilt_error": rounded(off.abs().mean()),
    }


@torch.no_grad()
def errors(body: Body, ours: Parameters, true: Parameters) -> dict[str, Tensor]:
    """(N,) mm each."""
    posed, truth = ours.pose(body), true.pose(body)
    joints, true_joints = posed.joints(), truth.joints()
    return {
        "pve": metrics.pve(posed.vertices(), truth.vertices(), joints[:, 0], true_joints[:, 0]),
        "pa_mpjpe": metrics.pa_mpjpe(joints, true_joints),
        "t_pose_pve_sc": metrics.t_pose_pve(ours.betas, true.betas, body, scale_corrected=True),
    }


def compared(values: dict[str, dict[str, Tensor]]) -> dict:
    """Metric -> mean with interval of estimates and of fits, and of their paired difference, fit - estimate."""
    return {
        name: {
            **{who: tables.as_dict(metrics.bootstrap(values[who][name])) for who in WHO},
            "difference": tables.as_dict(metrics.paired_difference(values["fit"][name], values["estimate"][name])),
        }
        for name in values["fit"]
    }


def measured(body: Body, found: Found) -> dict:
    """Everything of one group."""
    true = found.joints["truth"]
    report: dict = {"found": len(found.seeds), "missed": len(found.missed)}
    for limb in LIMBS:
        report[limb] = {who: bends(flexion(true, limb), flexion(found.joints[who], limb)) for who in WHO}
    report["trunk"] = {who: tilts(trunk(found.joints[who]), trunk(true), found.down) for who in WHO}
    report["errors"] = compared({who: errors(body, found.bodies[who], found.bodies["truth"]) for who in WHO})
    return report


def arguments_of(description: str | None, people: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", type=Path, required=True, help="folder of cases and of what perception finds")
    parser.add_argument("--people", type=int, default=60, help=people)
    parser.add_argument("--regressor", type=Path, help="weights of an open regressor; by default what ships")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    return arguments


def fitter_of(arguments: argparse.Namespace) -> Fitter:
    body = load_body()
    return Fitter(body, regressor=OpenRegressor(body, arguments.regressor) if arguments.regressor else None)


def write(out: Path | None, fitter: Fitter, report: dict) -> None:
    report = {"regressor": fitter.regressor.fingerprint, **report, "machine": describe_machine()}
    text = json.dumps(report, indent=1) + "\n"
    print(text)
    if out:
        out.write_text(text)


def main() -> None:
    arguments = arguments_of(__doc__, "in each group")
    fitter = fitter_of(arguments)
    groups = {}
    for group in GROUPS:
        folder = arguments.cache / group
        found = find(fitter, folder, group, generated(folder, group, arguments.people))
        groups[group] = measured(fitter.body, found)
    write(arguments.out, fitter, {"people": arguments.people, "groups": groups})


if __name__ == "__main__":
    main()
