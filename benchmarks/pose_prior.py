"""How well pose priors tell people from perturbed people, on motions that they never saw.

    PYTHONPATH=tools python benchmarks/pose_prior.py --out benchmarks/results/pose_prior.json

Sizes are chosen on clips left out of training; the held-out clips are measured once. Real poses are set against
(a) `shuffled`, each joint from another frame; (b) `all turned`, every joint turned by 30 degrees about a random axis;
(c) `three turned`, three random joints turned so. Joints are those that motion capture moves. Figures are areas under
the ROC curve, and the share of poses that cost less than their own perturbed copy. A coupling flow (RealNVP, Dinh et
al. 2017) of the same input is the stronger density that the mixture is compared with.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from build_pose_prior import (
    COLUMNS,
    COMPONENTS,
    LEARNED,
    RESOLUTION,
    Examples,
    body_joints,
    examples,
    fit_mixture,
    straightened,
)
from machine import describe_machine
from scipy.spatial.transform import Rotation
from scipy.stats import rankdata
from torch import Tensor, nn

from dsr_fit.assets import shipped
from dsr_fit.io.files import read_arrays
from dsr_fit.priors.pose import PosePrior, load_pose_prior
from dsr_fit.priors.recorded_poses import PoseSet, load_poses

Score = Callable[[Tensor], Tensor]
TURN = np.radians(30)
FOLDS = 2
TRIED = ((1, 0.57), (4, 0.57), (8, 0.57), (4, 1.8))
"""Components before mirroring, and degrees of resolution."""


class Flow(nn.Module):
    """RealNVP: affine couplings of alternating halves of the standardised vector, shuffled between."""

    def __init__(self, mean: Tensor, std: Tensor, layers: int = 8, width: int = 128) -> None:
        super().__init__()
        self.mean, self.std, size = mean, std, len(mean)
        self.first_half = size // 2
        self.orders = [torch.randperm(size) for _ in range(layers)]
        rest = size - self.first_half
        self.nets = nn.ModuleList(
            nn.Sequential(nn.Linear(self.first_half, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(),
                          nn.Linear(width, 2 * rest)) for _ in range(layers)
        )  # fmt: skip

    def forward(self, body_pose: Tensor) -> Tensor:
        """(B, 69) -> (B,) negative log-density, up to a constant."""
        x = (body_pose[:, COLUMNS] - self.mean) / self.std
        log_volume = x.new_zeros(len(x))
        for order, net in zip(self.orders, self.nets, strict=True):
            x = x[:, order]
            kept, moved = x[:, : self.first_half], x[:, self.first_half :]
            scale, shift = net(kept).chunk(2, 1)
            scale = 2 * torch.tanh(scale / 2)
            x = torch.cat([kept, moved * scale.exp() + shift], 1)
            log_volume = log_volume + scale.sum(1)
        return 0.5 * x.square().sum(1) - log_volume


def fit_flow(given: Examples, steps: int = 1000, batch: int = 256, seed: int = 0) -> Flow:
    """Maximum likelihood, the input blurred by the mixture's resolution."""
    torch.manual_seed(seed)
    drawn = torch.from_numpy(given.draw(20_000, np.random.default_rng(seed))).float()
    flow = Flow(drawn[:, COLUMNS].mean(0), drawn[:, COLUMNS].std(0).clamp(min=RESOLUTION**0.5))
    optimiser = torch.optim.AdamW(flow.parameters(), 1e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-3, total_steps=steps)
    for _ in range(steps):
        rows = drawn[torch.randint(len(drawn), (batch,))]
        loss = flow(rows + RESOLUTION**0.5 * torch.randn_like(rows)).mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(flow.parameters(), 10.0)
        optimiser.step()
        schedule.step()
    return flow.requires_grad_(False)


def perturbed(poses: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """The three kinds of wrong poses, one for every pose (N, 69)."""
    random = np.random.default_rng(seed)
    real = poses.reshape(len(poses), 23, 3)

    def turned(mask: np.ndarray) -> np.ndarray:
        axis = random.normal(size=(len(real), len(LEARNED), 3))
        axis *= TURN / np.linalg.norm(axis, axis=2, keepdims=True)
        wrong, chosen = real.copy(), real[:, LEARNED]
        moved = Rotation.from_rotvec(chosen.reshape(-1, 3)) * Rotation.from_rotvec(axis.reshape(-1, 3))
        wrong[:, LEARNED] = np.where(mask[..., None], moved.as_rotvec().reshape(chosen.shape), chosen)
        return wrong.reshape(poses.shape)

    shuffled = real.copy()
    for joint in LEARNED:
        shuffled[:, joint] = real[random.permutation(len(real)), joint]
    three = random.random((len(real), len(LEARNED))).argsort(1) < 3
    return {
        "shuffled": shuffled.reshape(poses.shape),
        "all turned": turned(np.ones_like(three)),
        "three turned": turned(three),
    }


def auc(real: np.ndarray, wrong: np.ndarray) -> float:
    """Chance that a real pose costs less than a wrong one."""
    ranks, count = rankdata(np.concatenate([wrong, real])), len(wrong)
    return float((ranks[:count].sum() - count * (count + 1) / 2) / (count * len(real)))


@torch.no_grad()
def judged(score: Score, poses: np.ndarray, seed: int) -> dict[str, dict[str, float]]:
    """For each kind of wrong pose, the area under the curve and the share told from its own original."""
    cost = score(torch.from_numpy(poses).float()).numpy()
    report = {}
    for name, wrong in perturbed(poses, seed).items():
        other = score(torch.from_numpy(wrong).float()).numpy()
        report[name] = {"auc": round(auc(cost, other), 4), "preferred": round(float((cost < other).mean()), 4)}
    return report


def milliseconds(score: Score, poses: np.ndarray, repeats: int = 100) -> float:
    """Median time of the value and the gradient of 16 poses."""
    rows, times = torch.from_numpy(poses[:16]).float(), []
    for _ in range(repeats):
        each = rows.clone().requires_grad_()
        started = time.perf_counter()
        torch.autograd.grad(score(each).sum(), each)
        times.append(time.perf_counter() - started)
    return round(1000 * float(np.median(times)), 3)


def split(poses: PoseSet, out: np.ndarray) -> tuple[PoseSet, np.ndarray]:
    """Training poses without these clips, and the body poses of these clips."""
    away = np.isin(poses.clip, out)
    rest = PoseSet(poses.full_pose[~away], poses.clip[~away], poses.clip_names, poses.held_out[~away])
    return rest, poses.full_pose[away, 3:]


def density(prior: PosePrior, poses: np.ndarray) -> float:
    """Mean log-density of the 69 components, nats a pose."""
    likeliest = prior.offset.argmin()
    peak = torch.log(prior.component_weights()[likeliest]) + torch.linalg.slogdet(prior.whitening[likeliest])[1]
    constant = float(peak) - 69 / 2 * np.log(2 * np.pi)
    return float((-69 / 2 * prior.energy(torch.from_numpy(poses).float())).mean()) + constant


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    every = load_poses()
    training, held_out = every.part(held_out=False), every.part(held_out=True).full_pose[:, 3:]
    photos = read_arrays(shipped("priors/pose/photo_poses.npz"))
    assert isinstance(photos, dict)
    standing = straightened(photos["body_pose"].astype(np.float64), body_joints())
    clips, lengths = np.unique(training.clip, return_counts=True)
    clips = clips[np.argsort(-lengths, kind="stable")]  # dealt out by length, so that folds are alike
    choice: dict[str, dict] = {}
    for size, degrees in TRIED:
        folds, nats = [], []
        for fold in range(FOLDS):
            rest, left_out = split(training, clips[fold::FOLDS])
            prior = fit_mixture(examples(rest, standing), size, np.radians(degrees) ** 2)
            folds.append(judged(prior.energy, left_out, seed=1))
            nats.append(density(prior, left_out))
        name = f"{size} components, {degrees} degrees"
        choice[name] = {kind: round(float(np.mean([f[kind]["auc"] for f in folds])), 4) for kind in folds[0]}
        choice[name]["log_density"] = round(float(np.mean(nats)), 2)
        print(name, choice[name], flush=True)
    given = examples(training, standing)
    scores: dict[str, Score] = {
        "ranges": load_pose_prior("ranges").energy,
        "mixture": load_pose_prior("learned").energy,
        "flow": fit_flow(given),
    }
    report = {
        "held_out_poses": len(held_out),
        "training_poses": len(training),
        "photo_poses": len(photos["body_pose"]),
        "shipped": {"components": COMPONENTS, "resolution_deg": round(float(np.degrees(RESOLUTION**0.5)), 2)},
        "left_out_clips_of_training": choice,
        "held_out": {name: judged(score, held_out, seed=2) for name, score in scores.items()},
        "milliseconds_16_poses": {name: milliseconds(score, held_out) for name, score in scores.items()},
        "mean_energy": {
            name: {
                "training": round(float(scores[name](torch.from_numpy(training.full_pose[:, 3:])).mean()), 3),
                "photos": round(float(scores[name](torch.from_numpy(standing).float()).mean()), 3),
                "held out": round(float(scores[name](torch.from_numpy(held_out)).mean()), 3),
            }
            for name in ("ranges", "mixture")
        },
        "machine": describe_machine(),
    }
    print(json.dumps(report["held_out"], indent=1), report["milliseconds_16_poses"], report["mean_energy"])
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
