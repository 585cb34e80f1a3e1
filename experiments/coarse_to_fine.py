"""Does a body that starts beside its mask find it? Coarse to fine, dense outline against plain antialias.

    PYTHONPATH=benchmarks python experiments/coarse_to_fine.py [--people 6]
        [--out benchmarks/results/coarse_to_fine.json]
        [--picture docs/coarse_to_fine.png]

Open bodies in random poses are rendered to label maps, moved by 20 or 30 pixels (of the 224 pixel crop) or
turned by 25 degrees in one arm or leg, and fitted to their own labels by the rendered terms and the priors
alone: no keypoints. Stages of 56, 112 and 224 pixels; the first has DSR-MC in its distance form ("dist") or
not ("niou"). Reported: the mean distance of the body's joints from their true places in the image, pixels at
224, and the IoU of the two masks.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch
from machine import describe_machine
from torch import Tensor

from dsr_fit.body.files import load_body
from dsr_fit.body.parameters import Parameters
from dsr_fit.camera import crop_intrinsics, project
from dsr_fit.config import FitConfig, Semantics, Stage, Weights
from dsr_fit.io.files import replacing
from dsr_fit.observation import Detection, Observation
from dsr_fit.observe.batch import Batch
from dsr_fit.optimise.anchor import Anchor
from dsr_fit.optimise.least_squares import Problem
from dsr_fit.optimise.objective import Objective
from dsr_fit.optimise.quasi_newton import minimise
from dsr_fit.priors.pose import load_pose_prior
from dsr_fit.priors.semantic import load_semantic_prior
from dsr_fit.render import Renderer

SIZE = 224
WIDTH, HEIGHT, FOCAL = 480, 640, 800.0
STAGES = (Stage(56, 40), Stage(112, 30), Stage(SIZE, 20))
WEIGHTS = Weights(
    keypoints=0.0, world_landmarks=0.0, silhouette=10.0, pose=0.1, betas=0.1, initial=0.0, initial_points=0.0
)
LIMBS = {"arm": (16, 2), "leg": (1, 2)}  # SMPL joint and axis that turn a limb within the picture's plane
STARTS = ("20 px", "30 px", "arm by 25 degrees", "leg by 25 degrees")
BODY = load_body("open")
PRIOR, POSE_PRIOR = load_semantic_prior(BODY), load_pose_prior()
HARD = Renderer(BODY.faces, BODY.num_vertices, device="cpu", outline="none")


@dataclass(frozen=True)
class Method:
    """How the outline is rendered, and DSR-MC's form in the first stage."""

    outline: Literal["dense", "antialias"]
    first: Literal["dist", "niou"]

    @property
    def name(self) -> str:
        return f"{self.outline}, {self.first}"


METHODS = tuple(Method(outline, first) for outline in ("dense", "antialias") for first in ("dist", "niou"))


def people(count: int) -> Parameters:
    """Truth: people who stand about 3.4 m away, roughly facing the camera, arms off the body."""
    generator = torch.Generator().manual_seed(21)
    body_pose = POSE_PRIOR.center + 0.4 * POSE_PRIOR.std * torch.randn(count, 69, generator=generator)
    turn = 0.3 * torch.randn(count, 1, generator=generator)
    orient = math.pi * torch.cat([torch.cos(turn / 2), torch.zeros(count, 1), torch.sin(turn / 2)], 1)
    betas = 0.5 * torch.randn(count, 10, generator=generator)
    return Parameters(orient, body_pose, betas, torch.tensor([[0.0, 0.0, 3.4]]).repeat(count, 1))


@torch.no_grad()
def observe(truth: Parameters) -> Batch:
    """Each person's most likely labels as a perfect parser would see them; keypoints only place the crop."""
    posed, count = truth.pose(BODY), len(truth.betas)
    intrinsics = torch.tensor([[FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2]]).repeat(count, 1)
    render = HARD(posed.vertices(), intrinsics, (HEIGHT, WIDTH), attributes=PRIOR.probabilities)
    labels = torch.where(render.mask, render.attributes.argmax(-1), 0).numpy().astype(np.uint8)
    keypoints = np.zeros((count, 49, 3), np.float32)
    keypoints[:, :25, :2] = project(posed.keypoints, intrinsics)[:, :25].numpy()
    keypoints[:, :25, 2] = 1
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    return Batch(
        [
            Observation(image, Detection(points, source="truth"), label_map, "truth", FOCAL)
            for points, label_map in zip(keypoints, labels, strict=True)
        ],
        crop_camera=False,
        keypoint_valid=BODY.skeleton.keypoint_valid,
    )


def displaced(truth: Parameters, start: str, batch: Batch) -> Parameters:
    """The truth moved within the picture, in another direction for each person, or turned in one limb."""
    count = len(truth.betas)
    if start.endswith("px"):
        angle = 2 * math.pi * (torch.arange(count) + 0.5) / count
        pixels_per_metre = batch_window(batch)[:, 0] / truth.cam_t[:, 2]
        shift = float(start.split()[0]) / pixels_per_metre[:, None] * torch.stack([angle.cos(), angle.sin()], 1)
        return replace(truth, cam_t=truth.cam_t + torch.cat([shift, torch.zeros(count, 1)], 1))
    joint, axis = LIMBS[start.split()[0]]
    body_pose = truth.body_pose.clone()
    body_pose[:, 3 * (joint - 1) + axis] += math.radians(25) * (1 - 2 * (torch.arange(count) % 2))
    return replace(truth, body_pose=body_pose)


def batch_window(batch: Batch, size: int = SIZE) -> Tensor:
    """(B, 4) intrinsics of the crops."""
    return crop_intrinsics(batch.points.intrinsics, batch.crops, size)


def fitted(method: Method, start: Parameters, batch: Batch) -> tuple[Parameters, Tensor]:
    """The fit, and iterations (B,)."""
    renderer = Renderer(BODY.faces, BODY.num_vertices, device="cpu", outline=method.outline)
    current, iterations = start, torch.zeros(len(batch), dtype=torch.int64)
    for stage in STAGES:
        semantics = Semantics(mc_form=method.first if stage is STAGES[0] else "niou")
        config = FitConfig(
            weights=WEIGHTS,
            semantics=semantics,
            stages=STAGES,
            outline=method.outline,
            stop_improvement=0.0,  # a method without a downhill direction at first gets its chance
        )
        objective = Objective.of(
            BODY, batch, renderer, PRIOR, POSE_PRIOR, config, stage.resolution, Anchor.of(current, BODY.skeleton)
        )
        problem = Problem.of(batch, BODY.skeleton, POSE_PRIOR, config, Anchor.of(current, BODY.skeleton))
        progress = minimise(current, problem, objective, stage, config.stop_improvement)
        current = progress.best
        iterations += progress.iterations
    return current, iterations


@torch.no_grad()
def masks(parameters: Parameters, batch: Batch) -> Tensor:
    """(B, 224, 224) bool."""
    return HARD(parameters.pose(BODY).vertices(), batch_window(batch), SIZE).mask


@torch.no_grad()
def judged(parameters: Parameters, truth: Parameters, batch: Batch) -> dict[str, Tensor]:
    """Mean distance of the 24 joints from their true places, pixels, and mask IoU; (B,) each."""
    window = batch_window(batch)
    one, other = (project(p.pose(BODY).joints(), window) for p in (parameters, truth))
    seen, true = masks(parameters, batch), masks(truth, batch)
    iou = (seen & true).sum((1, 2)) / (seen | true).sum((1, 2))
    return {"joints_px": (one - other).norm(dim=-1).mean(1), "mask_iou": iou}


def draw(columns: list[tuple[str, Tensor]], true: Tensor) -> np.ndarray:
    """One row of pictures: the true mask in grey, the outline of each column's mask over it."""
    panels = []
    for title, mask in columns:
        panel = np.full((SIZE, SIZE, 3), 255, np.uint8)
        panel[true.numpy()] = 190
        found, _ = cv2.findContours(mask.numpy().astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(panel, found, -1, (200, 60, 0), 1)
        cv2.putText(panel, title, (4, 12), cv2.FONT_HERSHEY_SIMPLEX, 0.36, (0, 0, 0), 1, cv2.LINE_AA)
        panels.append(panel)
    return np.concatenate(panels, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=int, default=6)
    parser.add_argument("--out", type=Path, help="where to write the results")
    parser.add_argument("--picture", type=Path, help="where to draw the first person's fits")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    truth = people(arguments.people)
    batch = observe(truth)
    table: dict[str, dict] = {}
    rows = []
    for name in STARTS:
        start = displaced(truth, name, batch)
        table[name] = {"start": summary(judged(start, truth, batch))}
        columns = [(f"start: {name}", masks(start, batch)[0])]
        for method in METHODS:
            end, iterations = fitted(method, start, batch)
            table[name][method.name] = summary({**judged(end, truth, batch), "iterations": iterations.float()})
            columns.append((method.name, masks(end, batch)[0]))
        rows.append(draw(columns, masks(truth, batch)[0]))
        print(name, json.dumps(table[name], indent=1), flush=True)
    if arguments.out:
        settings = {"stages": [asdict(stage) for stage in STAGES], "weights": asdict(WEIGHTS)}
        report = {"machine": describe_machine(), "people": arguments.people, **settings, "results": table}
        with replacing(arguments.out) as path:
            path.write_text(json.dumps(report, indent=1) + "\n")
    if arguments.picture:
        with replacing(arguments.picture) as path:
            cv2.imwrite(str(path), np.concatenate(rows, 0))


def summary(values: dict[str, Tensor]) -> dict[str, list[float]]:
    """The median and the worst person of each figure."""
    worst = {"joints_px": torch.amax, "mask_iou": torch.amin, "iterations": torch.amax}
    return {
        name: [round(float(value.median()), 3), round(float(worst[name](value)), 3)] for name, value in values.items()
    }


if __name__ == "__main__":
    main()
