"""What HMR costs on a CPU: one estimate, and EFT's twenty iterations on its weights.

    python benchmarks/hmr.py [--threads 2] [--out benchmarks/results/hmr.json]

Seeded weights, one picture of noise, and a keypoint loss; what is timed depends on none of them. Times are the least of
`--repeats`; `ratio` is to a matrix product of as many multiplications as one forward pass has (4.1e9), timed beside it,
so that machines can be compared. `cpu` is the work of all threads together, which a busy machine changes little.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import torch
from clock import finish
from machine import describe_machine

from dsr_fit.body.body import Body
from dsr_fit.body.files import load_body
from dsr_fit.camera import project
from dsr_fit.observation import Detection, Observation
from dsr_fit.observe.batch import Batch
from dsr_fit.optimise.descent import Adam
from dsr_fit.regressor.hmr import Hmr
from dsr_fit.regressor.hmr_regressor import SMPL_FACES, SMPL_VERTICES, HmrRegressor, crop_images

ITERATIONS = 20
GOAL_S = 8.0
"""Of the iterations on all layers, on two threads."""

LEARNING_RATE = 5e-6
SIDE = 1600
"""Side of the matrices whose product has as many multiplications as a forward pass."""


def smpl_sized() -> Body:
    """Our body's joints under official SMPL's number of vertices, which nothing here poses."""
    body = load_body("open")
    return replace(
        body,
        sha256="",
        v_template=torch.zeros(SMPL_VERTICES, 3),
        faces=torch.zeros(SMPL_FACES, 3, dtype=torch.int32),
    )


def seen(body: Body) -> Batch:
    rng = np.random.default_rng(0)
    keypoints = np.zeros((49, 3), np.float32)
    keypoints[:25] = np.column_stack([rng.uniform(200, 400, 25), rng.uniform(100, 500, 25), np.ones(25)])
    image = rng.integers(0, 256, (600, 600, 3), dtype=np.uint8)
    observation = Observation(image, Detection(keypoints), np.zeros((600, 600), np.uint8), "none", 850.0)
    return Batch([observation], crop_camera=False, keypoint_valid=body.skeleton.keypoint_valid)


def seconds(function: Callable[[], object]) -> float:
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def fine_tune(regressor: HmrRegressor, body: Body, batch: Batch, layers: tuple[str, ...]) -> dict[str, float]:
    """Seconds of a whole fit of the weights, its set-up included, of all cores' work on it, and of its parts."""

    def now() -> float:
        finish(body.v_template.device.type)
        return time.perf_counter()

    started, worked = time.perf_counter(), time.process_time()
    points = batch.points.to(body.v_template.device)
    variables = regressor.variables(batch, layers)
    optimiser = Adam(variables.tensors(), LEARNING_RATE)
    spent = {"decode": 0.0, "backward": 0.0, "adam": 0.0}
    for _ in range(ITERATIONS):
        marks = [now()]
        keypoints = variables.decode().pose(body).keypoints
        error = project(keypoints, points.intrinsics) - points.pixels
        loss = (points.confidence[..., None] * error.square()).mean()
        marks.append(now())
        gradients = torch.autograd.grad(loss, optimiser.tensors)
        marks.append(now())
        optimiser.step(gradients)
        marks.append(now())
        for name, before, after in zip(spent, marks, marks[1:], strict=False):
            spent[name] += after - before
    return {"whole": time.perf_counter() - started, "cpu": time.process_time() - worked, **spent}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    body = smpl_sized()
    regressor, batch = HmrRegressor(Hmr(), body, "seeded"), seen(body)
    square = torch.rand(SIDE, SIDE)
    yardstick = min(seconds(lambda: square @ square) for _ in range(10))
    estimate = min(seconds(lambda: regressor(batch)) for _ in range(10))
    crop = min(seconds(lambda: crop_images(batch)) for _ in range(10))
    report: dict[str, object] = {
        "machine": describe_machine(),
        "threads": arguments.threads,
        "iterations": ITERATIONS,
        "yardstick_s": round(yardstick, 4),
        "crop_s": round(crop, 5),
        "estimate": {"s": round(estimate, 4), "ratio": round(estimate / yardstick, 2)},
        "fine_tuning": {},
    }
    print(f"product of two {SIDE} x {SIDE} matrices {yardstick:.3f} s; one estimate {estimate:.3f} s", end="")
    print(f" ({estimate / yardstick:.1f} times that), of which the crop {1000 * crop:.1f} ms")
    tuned: dict[str, object] = {}
    for name, layers in (("all", ()), ("head", ("head",))):
        runs = [fine_tune(regressor, body, batch, layers) for _ in range(arguments.repeats)]
        best = min(runs, key=lambda run: run["whole"])
        ratio = best["whole"] / ITERATIONS / yardstick
        tuned[name] = {**{f"{part}_s": round(value, 3) for part, value in best.items()}, "ratio": round(ratio, 2)}
        parts = ", ".join(f"{part} {value:.2f}" for part, value in best.items() if part != "whole")
        goal = f", {best['whole'] / GOAL_S:.2f} of the goal" if name == "all" else ""
        print(f"{ITERATIONS} iterations on {name} layers: {best['whole']:.2f} s ({parts}){goal};", end="")
        print(f" one is {ratio:.1f} times the product")
    report["fine_tuning"] = tuned
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
