"""What one iteration of the rendering stages costs, and where.

    python benchmarks/step.py [--out benchmarks/results/step.json]

A synthetic person (the open body drawn by its own labels) with every term on. Times are the least of many repeats, in
milliseconds an image; `forward` lists what the forward pass is made of.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from clock import least
from machine import describe_machine

from dsr_fit.body.files import load_body
from dsr_fit.body.parameters import Parameters
from dsr_fit.config import FitConfig
from dsr_fit.fitting.fitter import Fitter
from dsr_fit.labels import LABEL_INDEX
from dsr_fit.observation import Detection, Observation
from dsr_fit.observe.batch import Batch
from dsr_fit.optimise.anchor import Anchor
from dsr_fit.optimise.objective import Objective

SIZE = (480, 640)  # width, height


def observation(fitter: Fitter) -> tuple[Observation, Parameters]:
    """A standing body in the middle of a picture, its keypoints, and its most likely labels."""
    zeros = torch.zeros(1, 69)
    parameters = Parameters(
        torch.tensor([[np.pi, 0.0, 0.0]], dtype=torch.float32),
        zeros,
        torch.zeros(1, 10),
        torch.tensor([[0.0, 0.0, 2.8]]),
    )
    focal = float(np.hypot(*SIZE))
    intrinsics = torch.tensor([[focal, focal, SIZE[0] / 2, SIZE[1] / 2]])
    posed = parameters.pose(fitter.body)
    points = posed.keypoints[0].numpy()
    keypoints = np.concatenate([points[:, :2] / points[:, 2:] * focal + np.array(SIZE) / 2, np.ones((49, 1))], 1)
    keypoints[25:, 2] = 0
    side = max(SIZE)
    render = fitter.renderer(posed.vertices(), intrinsics, side, fitter.semantic_prior.probabilities)
    labels = (render.attributes.argmax(-1) * render.mask)[0, : SIZE[1], : SIZE[0]].numpy().astype(np.uint8)
    assert (labels == LABEL_INDEX["upperclothes"]).any()
    image = np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
    return Observation(image, Detection(keypoints.astype(np.float32)), labels, "truth", focal), parameters


def every_term(config: FitConfig) -> FitConfig:
    """With a weight for each term."""
    every = {name: value or 1.0 for name, value in vars(config.weights).items()}
    return replace(config, weights=replace(config.weights, **every))


def batch_of(fitter: Fitter, seen: Observation, count: int) -> Batch:
    return Batch([seen] * count, crop_camera=False, keypoint_valid=fitter.body.skeleton.keypoint_valid.cpu())


def breakdown(
    fitter: Fitter, seen: Observation, start: Parameters, count: int, resolution: int, seconds: float = math.inf
) -> dict[str, object]:
    """Milliseconds of a step of the whole batch, and an image's share of it; `seconds` of repeats for each at most."""
    many = start.map(lambda tensor: tensor.repeat(count, 1)).to(fitter.device)
    objective = Objective.of(
        fitter.body, batch_of(fitter, seen, count), fitter.renderer, fitter.semantic_prior, fitter.pose_prior,
        fitter.config, resolution, Anchor.of(many, fitter.body.skeleton),
    )  # fmt: skip
    parameters = many.map(lambda tensor: tensor.detach().clone().requires_grad_())

    def step() -> None:
        total = objective.total(objective(parameters))
        torch.autograd.grad(total.sum(), parameters.tensors())

    def forward() -> None:
        objective.total(objective(parameters))

    def taken(function: Callable[[], object]) -> float:
        return least(function, fitter.device, seconds=seconds)

    vertices = parameters.pose(fitter.body).vertices().detach().requires_grad_()
    canvas = objective.canvas
    parts = {
        "kinematics": taken(lambda: parameters.pose(fitter.body).keypoints),
        "kinematics and skinning": taken(lambda: parameters.pose(fitter.body).vertices()),
        "render": taken(lambda: fitter.renderer(vertices, canvas.window, resolution, canvas.channels)),
    }
    whole, half = taken(step), taken(forward)
    return {
        "images": count,
        "resolution": resolution,
        "step_ms": round(whole, 3),
        "step_ms_per_image": round(whole / count, 2),
        "forward_ms_per_image": round(half / count, 2),
        "forward": {name: round(value / count, 2) for name, value in parts.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    fitter = Fitter(load_body(), every_term(FitConfig()))
    seen, start = observation(fitter)
    rows = [breakdown(fitter, seen, start, count, resolution) for count in (1, 16) for resolution in (112, 224)]
    for row in rows:
        print(f"{row['images']:3} x {row['resolution']} px: {row['step_ms_per_image']:5} ms an image; {row['forward']}")
    if arguments.out:
        report = {"machine": describe_machine(), "threads": torch.get_num_threads(), "steps": rows}
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
