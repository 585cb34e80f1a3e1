"""Do fits keep straight limbs straight, bent ones bent and standing people upright, when nothing is seen wrongly?

    PYTHONPATH=benchmarks python benchmarks/upright.py --out benchmarks/results/upright.json

Open bodies of random shape are seen by a photo's camera through their own exact keypoints (OpenPose's 25), with exact
3D landmarks or without any. A half stand: a held-out pose whose trunk and legs are straightened, knees at 0 to 12
degrees. The others are held-out poses as recorded, chosen so that knees and elbows fill 0 to 120 degrees. Label maps
are unknown, so that only points and priors act, and the rendered terms are left out.

Flexion is the angle between thigh and shin, or upper arm and forearm, of the posed joints (the open body's knees have 3
degrees in T-pose); a hip's is that between trunk and thigh. Points that agree so well weigh more than a detector's
(`scales.agreement`); then they are taken for a detector's, and each link of the chain is set right, or left out, by
itself. `pull` is linear: by how many degrees each term alone then moves the standing ones' knees away from the truth,
which is the Gauss-Newton step there, term by term.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from machine import describe_machine
from torch import Tensor

from dsr_fit.body.body import Body
from dsr_fit.body.files import load_body
from dsr_fit.body.parameters import Parameters
from dsr_fit.camera import Crop, ray_rotation
from dsr_fit.config import FitConfig, Scales, Weights
from dsr_fit.fitting.fitter import Fitter
from dsr_fit.joints import SMPL_JOINTS
from dsr_fit.labels import UNKNOWN
from dsr_fit.observation import Detection, Observation
from dsr_fit.observe.batch import Batch
from dsr_fit.optimise.anchor import Anchor
from dsr_fit.optimise.least_squares import Problem, State
from dsr_fit.priors.pose import PosePrior, load_pose_prior
from dsr_fit.priors.recorded_poses import PoseSet
from dsr_fit.regressor.kinematic import KinematicRegressor
from dsr_fit.regressor.open_regressor import OpenRegressor
from dsr_fit.regressor.protocol import Estimate
from dsr_fit.synthetic.staging import Casting, Stance, held_out_poses, random_stance, stage
from dsr_fit.synthetic.standing import STRAIGHT_KNEE, THIGH, TILT, straightened

INDEX = {name: row for row, name in enumerate(SMPL_JOINTS)}
LIMBS = {
    "knee": [("left_hip", "left_knee", "left_ankle"), ("right_hip", "right_knee", "right_ankle")],
    "elbow": [("left_shoulder", "left_elbow", "left_wrist"), ("right_shoulder", "right_elbow", "right_wrist")],
}
BINS = np.arange(0, 121, 15)
SEEN = 25  # the first keypoints, OpenPose's
BATCH = 32
NOT_RENDERED = Weights(dsr_mc=0.0, dsr_c=0.0, silhouette=0.0)


@dataclass(frozen=True)
class People:
    """N bodies, the true one and what is seen of it."""

    truth: Parameters
    observations: list[Observation]  # with exact 3D landmarks
    standing: np.ndarray  # (N,) bool
    down: Tensor  # (N, 3) gravity in the camera frame

    def without_landmarks(self) -> list[Observation]:
        return [replace(one, detection=replace(one.detection, world_landmarks=None)) for one in self.observations]


def draw(body: Body, count: int, seed: int, poses: PoseSet | None = None) -> People:
    """Every other one stands."""
    rng = np.random.default_rng(seed)
    casting = Casting(poses=poses or held_out_poses())
    recorded = torch.from_numpy(casting.poses.full_pose)
    bends = {name: flexion(rest_joints(body, recorded), name).numpy() for name in LIMBS}
    truth, seen, down = [], [], []
    for number in range(count):
        if number % 2 == 0:
            stance = stood(random_stance(rng, casting), rng)
        else:
            name, lowest = ("knee", "elbow")[number // 2 % 2], BINS[number // 4 % (len(BINS) - 1)]
            inside = ((bends[name] >= lowest) & (bends[name] < lowest + 15)).any(1)
            stance = random_stance(rng, replace(casting, poses=casting.poses.rows(inside)))
        betas = rng.normal(size=10).astype(np.float32)
        placed, camera = stage(stance, betas, False, rng, casting)
        vectors = (placed.global_orient, stance.body_pose, betas, placed.cam_t)
        truth.append([torch.from_numpy(np.asarray(vector, np.float32)) for vector in vectors])
        seen.append(observed(placed.keypoints, camera.focal, camera.width, camera.height))
        down.append(torch.from_numpy(camera.down).float())
    parameters = Parameters(*(torch.stack(column) for column in zip(*truth, strict=True)))
    return People(parameters, seen, np.arange(count) % 2 == 0, torch.stack(down))


def stood(stance: Stance, rng: np.random.Generator) -> Stance:
    """The same person standing: trunk and legs nearly straight, one arm nearly so, the rest as it is."""
    thighs, knees = np.zeros((2, 1, 2))
    for number in range(2):
        thighs[0, number], knees[0, number] = rng.normal(0, THIGH), rng.uniform(0, STRAIGHT_KNEE)
    side, sign = (("left", -1), ("right", 1))[int(rng.integers(2))]
    elbow = sign * np.radians(rng.uniform(0, 30))
    full_pose = np.concatenate([stance.global_orient, stance.body_pose])[None]
    (pose,) = straightened(full_pose, thighs, knees, rng.normal(0, TILT, (1, 3)))
    pose[3 * INDEX[f"{side}_elbow"] + 1] = elbow
    return replace(stance, global_orient=pose[:3], body_pose=pose[3:])


def observed(keypoints: np.ndarray, focal: float, width: int, height: int) -> Observation:
    """Exactly, from keypoints (49, 3) in the camera frame."""
    centre = (width / 2, height / 2)
    pixels = np.zeros((49, 3), np.float32)
    pixels[:SEEN, :2] = keypoints[:SEEN, :2] / keypoints[:SEEN, 2:] * focal + centre
    pixels[:SEEN, 2] = 1
    straight = ray_rotation(Crop.around(pixels), focal, centre).numpy()
    world = np.zeros((49, 4), np.float32)
    world[:SEEN, :3] = (keypoints[:SEEN] - keypoints[8]) @ straight.T
    world[:SEEN, 3] = 1
    unknown = np.full((height, width), UNKNOWN, np.uint8)
    image = np.zeros((height, width, 3), np.uint8)
    return Observation(image, Detection(pixels, world, source="truth"), unknown, "none", focal)


def rest_joints(body: Body, full_pose: Tensor) -> Tensor:
    """(N, 24, 3) of the mean shape."""
    count = len(full_pose)
    return body(full_pose[:, :3], full_pose[:, 3:], torch.zeros(count, 10), torch.zeros(count, 3)).joints()


def angle(first: Tensor, second: Tensor) -> Tensor:
    """Degrees between (..., 3)."""
    first, second = (torch.nn.functional.normalize(each.double(), dim=-1) for each in (first, second))
    return torch.rad2deg(torch.atan2(torch.linalg.cross(first, second).norm(dim=-1), (first * second).sum(-1))).float()


def flexion(joints: Tensor, name: str) -> Tensor:
    """(N, 24, 3) -> (N, 2) degrees, left and right; 0 is straight."""
    sides = []
    for upper, middle, lower in LIMBS[name]:
        a, b, c = (joints[:, INDEX[each]] for each in (upper, middle, lower))
        sides.append(angle(b - a, c - b))
    return torch.stack(sides, 1)


def trunk(joints: Tensor) -> Tensor:
    return joints[:, INDEX["neck"]] - joints[:, INDEX["pelvis"]]


def hips(joints: Tensor) -> Tensor:
    """(N, 2) degrees between the trunk, downwards, and each thigh."""
    thighs = [joints[:, INDEX[f"{side}_knee"]] - joints[:, INDEX[f"{side}_hip"]] for side in ("left", "right")]
    return torch.stack([angle(-trunk(joints), thigh) for thigh in thighs], 1)


def lean(joints: Tensor, down: Tensor) -> Tensor:
    """(N,) degrees by which the trunk leans out of the image plane towards the camera, gravity's share removed."""
    direction = torch.nn.functional.normalize(trunk(joints), dim=-1)
    return torch.rad2deg(torch.asin(-direction[:, 2]) - torch.asin(down[:, 2]))


@torch.no_grad()
def measured(body: Body, people: People, found: Parameters) -> dict:
    """Degrees: in each bin of true flexion the median error and the bias, slopes, and how the standing ones stand."""
    true, ours = (each.pose(body).joints() for each in (people.truth, found))
    standing = torch.from_numpy(people.standing)
    report: dict = {}
    for name in LIMBS:
        x, y = (flexion(each, name).flatten().numpy() for each in (true, ours))
        bins = {}
        for low in BINS[:-1]:
            inside = (x >= low) & (x < low + 15)
            error = (y - x)[inside]
            bins[f"{low}-{low + 15}"] = {
                "count": int(inside.sum()),
                "median_error": rounded(np.median(np.abs(error))) if len(error) else None,
                "bias": rounded(error.mean()) if len(error) else None,
            }
        report[name] = {"slope": rounded(np.polyfit(x, y, 1)[0], 3), "bins": bins}
    bent = (flexion(ours, "knee") - flexion(true, "knee"))[standing]
    leans = (lean(ours, people.down) - lean(true, people.down))[standing]
    report["standing"] = {
        "knee_true": rounded(flexion(true, "knee")[standing].mean()),
        "knee_bias": rounded(bent.mean()),
        "knee_median_error": rounded(bent.abs().median()),
        "trunk_error_median": rounded(angle(trunk(ours), trunk(true))[standing].median()),
        "trunk_lean_bias": rounded(leans.mean()),
        "hip_true": rounded(hips(true)[standing].mean()),
        "hip_bias": rounded((hips(ours) - hips(true))[standing].mean()),
    }
    return report


def rounded(value: object, digits: int = 2) -> float:
    return round(float(value), digits)  # type: ignore[arg-type]


class Told(OpenRegressor):
    """Estimates what it is told; the expected errors stay the network's."""

    def __init__(self, body: Body, truth: Parameters) -> None:
        super().__init__(body)
        self.truth, self.next = truth, 0

    def __call__(self, batch: Batch) -> Estimate:
        index = torch.arange(self.next, self.next + len(batch))
        self.next += len(batch)
        return replace(super().__call__(batch), parameters=self.truth.map(lambda value: value[index]))


Make = Callable[[Body, People], Fitter]


def fitter(body: Body, regressor=None, prior: PosePrior | None = None, **weights: float) -> Fitter:
    """Without the rendered terms, with points taken for a detector's; with changes."""
    config = FitConfig(weights=replace(NOT_RENDERED, **weights), scales=Scales(agreement=0.0))
    return Fitter(body, config, regressor=regressor, pose_prior=prior)


def as_shipped(body: Body, regressor=None) -> Fitter:
    """But for the rendered terms."""
    return Fitter(body, FitConfig(weights=NOT_RENDERED), regressor=regressor)


SHIPPED = Weights()
LINKS: dict[str, Make] = {
    "as shipped": lambda body, people: as_shipped(body),
    "kinematic estimate": lambda body, people: as_shipped(body, KinematicRegressor(body, FitConfig())),
    "taken for a detector's": lambda body, people: fitter(body),
    "start at the truth": lambda body, people: fitter(body, Told(body, people.truth), initial=0.0, initial_points=0.0),
    "estimate is the truth": lambda body, people: fitter(body, Told(body, people.truth)),
    "kinematic estimate, taken for a detector's": lambda body, people: fitter(
        body, KinematicRegressor(body, FitConfig(scales=Scales(agreement=0.0)))
    ),
    "without closeness to the estimate": lambda body, people: fitter(body, initial=0.0, initial_points=0.0),
    "without the pose prior": lambda body, people: fitter(body, pose=0.0),
    "without both": lambda body, people: fitter(body, initial=0.0, initial_points=0.0, pose=0.0),
    "3D landmarks x10": lambda body, people: fitter(body, world_landmarks=10 * SHIPPED.world_landmarks),
    "3D landmarks x10, without both": lambda body, people: fitter(
        body, world_landmarks=10 * SHIPPED.world_landmarks, initial=0.0, initial_points=0.0, pose=0.0
    ),
    "hand-written ranges": lambda body, people: fitter(body, prior=load_pose_prior("ranges")),
    "backward bends free": lambda body, people: fitter(body, bending=0.0),
    "without the tilt": lambda body, people: fitter(body, tilt=0.0),
    "without straight limbs": lambda body, people: fitter(body, straight=0.0),
}  # fmt: skip


def fitted(one: Fitter, observations: list[Observation]) -> tuple[Parameters, Parameters]:
    """Estimates and fits."""
    estimates, fits = [], []
    for start in range(0, len(observations), BATCH):
        part = observations[start : start + BATCH]
        batch = Batch(part, crop_camera=False, keypoint_valid=one.body.skeleton.keypoint_valid)
        estimates.append(one.regressor(batch).parameters)
        if isinstance(one.regressor, Told):
            one.regressor.next = start
        fits += [result.parameters() for result in one.fit(part)]
    return joined(estimates), joined(fits)


def joined(parts: list[Parameters]) -> Parameters:
    return Parameters(*(torch.cat(values) for values in zip(*(part.tensors() for part in parts), strict=True)))


def pull(one: Fitter, people: People, observations: list[Observation]) -> dict[str, float]:
    """Mean degrees by which each term moves a standing knee from the truth, to first order."""
    totals: dict[str, list[Tensor]] = {}
    for start in range(0, len(observations), BATCH):
        batch = Batch(observations[start : start + BATCH], crop_camera=False,
                      keypoint_valid=one.body.skeleton.keypoint_valid)  # fmt: skip
        estimate = one.regressor(batch)
        anchor = Anchor.of(estimate.parameters, one.body.skeleton, estimate.spread)
        problem = Problem.of(batch, one.body.skeleton, one.pose_prior, one.config, anchor)
        state = State.of(people.truth.map(lambda value, at=start: value[at : at + BATCH]))
        alone = {
            name: replace(problem, weights=replace(Weights(**dict.fromkeys(vars(SHIPPED), 0.0)), **{name: weight}))
            for name, weight in vars(one.config.weights).items()
            if weight and name not in ("dsr_mc", "dsr_c", "silhouette")
        }
        blocks = {name: each.linearise(state) for name, each in alone.items()}
        normal = torch.stack([jacobian.mT @ jacobian for _, jacobian in blocks.values()]).sum(0)
        normal = normal + 1e-9 * torch.eye(normal.shape[-1], dtype=normal.dtype)
        standing = torch.from_numpy(people.standing[start : start + BATCH])
        for name, (residual, jacobian) in blocks.items():
            step = -torch.linalg.solve(normal, jacobian.mT @ residual[..., None])[..., 0]
            knees = step[:, [3 * INDEX["left_knee"], 3 * INDEX["right_knee"]]][standing]
            totals.setdefault(name, []).append(torch.rad2deg(knees).mean(1))
    return {name: rounded(torch.cat(values).mean()) for name, values in totals.items()}


def energies(one: Fitter, people: People, observations: list[Observation], found: Parameters) -> dict[str, dict]:
    """Mean weighted energy of the standing ones' terms at the truth and at the fit."""
    sums: dict[str, dict[str, list[Tensor]]] = {"truth": {}, "fit": {}}
    for start in range(0, len(observations), BATCH):
        batch = Batch(observations[start : start + BATCH], crop_camera=False,
                      keypoint_valid=one.body.skeleton.keypoint_valid)  # fmt: skip
        estimate = one.regressor(batch)
        anchor = Anchor.of(estimate.parameters, one.body.skeleton, estimate.spread)
        standing = torch.from_numpy(people.standing[start : start + BATCH])
        for where, parameters in (("truth", people.truth), ("fit", found)):
            state = State.of(parameters.map(lambda value, at=start: value[at : at + BATCH]))
            for name, weight in vars(one.config.weights).items():
                if weight and name not in ("dsr_mc", "dsr_c", "silhouette"):
                    only = replace(Weights(**dict.fromkeys(vars(SHIPPED), 0.0)), **{name: weight})
                    problem = replace(one.config, weights=only)
                    value = Problem.of(batch, one.body.skeleton, one.pose_prior, problem, anchor).energy(state)
                    sums[where].setdefault(name, []).append(value[standing])
    return {where: {k: rounded(torch.cat(v).mean(), 4) for k, v in terms.items()} for where, terms in sums.items()}


def row(name: str, found: dict) -> str:
    standing = found["standing"]
    first = [found[limb]["bins"]["0-15"] for limb in LIMBS]
    last = [found[limb]["bins"][f"{BINS[-2]}-{BINS[-1]}"]["bias"] for limb in LIMBS]
    return (
        f"| {name} | {first[0]['median_error']} | {first[0]['bias']:+} | {first[1]['median_error']} | "
        f"{first[1]['bias']:+} | {found['knee']['slope']} | {found['elbow']['slope']} | {last[0]} | {last[1]} | "
        f"{standing['knee_bias']:+} | {standing['hip_bias']:+} | {standing['trunk_error_median']} | "
        f"{standing['trunk_lean_bias']:+} |"
    )


HEAD = (
    "| link | straight knee: median error | bias | straight elbow: median error | bias | knee slope | elbow slope | "
    "bent knee bias | bent elbow bias | standing knee bias | hip bias | trunk error | trunk lean |\n"
    + "| --- " * 13
    + "|"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=128)
    parser.add_argument("--seed", type=int, default=1000, help="settings are chosen on seeds below 1000")
    parser.add_argument("--links", default=";".join(LINKS), help="separated by semicolons")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    body = load_body()
    people = draw(body, arguments.people, arguments.seed)
    told = {"with 3D": people.observations, "keypoints alone": people.without_landmarks()}
    report: dict = {"people": arguments.people, "seed": arguments.seed}
    for how, observations in told.items():
        print(f"\n{how}\n{HEAD}", flush=True)
        found: dict = {}
        for name in arguments.links.split(";"):
            one = LINKS[name](body, people)
            estimates, fits = fitted(one, observations)
            if name == "as shipped" or name.startswith("kinematic estimate"):
                found[f"{name}: estimate alone"] = measured(body, people, estimates)
                print(row(f"{name}: estimate alone", found[f"{name}: estimate alone"]), flush=True)
            found[name] = measured(body, people, fits)
            print(row(name, found[name]), flush=True)
            if name == "taken for a detector's":
                found["pull"] = pull(one, people, observations)
                found["energies"] = energies(one, people, observations, fits)
                print(found["pull"], found["energies"], flush=True)
        report[how] = found
    report["machine"] = describe_machine()
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
