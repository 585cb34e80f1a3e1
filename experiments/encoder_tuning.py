"""Does the regressor gain by blocks of the landmark network that are its own, and learn with it?

    PYTHONPATH=tools python experiments/encoder_tuning.py people --folder people --first 17100 --painted 3800 \\
        --labelled 1500
    PYTHONPATH=tools python experiments/encoder_tuning.py train --folder people --arm low-rank --out low-rank.json

The encoder's last `LATE` blocks are copied; from the map before them the copy makes the `deep` part of the features
(`dsr_fit.observe.pose_features`), everything else stays the network's. Either the copy is frozen, which continues the
training of what ships, or its pointwise convolutions learn an update of low rank (LoRA, Hu et al. 2021). Both arms see
the same batches. `people` makes people as `tools/train_regressor.py` does, here painted ones whom what ships has not
seen, and keeps their maps of 16 px. The recorded run also had people in photos in each batch, and another weight of the
shape (see the note in its file).
"""

from __future__ import annotations

import copy
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np
import synthetic_people
import torch
import torch.nn.functional as F
import tyro
from synthetic_people import CaseObserver, write_shard
from torch import Tensor, nn
from train_regressor import People, seeds_of

from dsr_fit.assets import shipped
from dsr_fit.body.files import load_body
from dsr_fit.io.files import replacing
from dsr_fit.observation import Detection
from dsr_fit.observe.blazepose import HEAVY, BlazePose, Encoder
from dsr_fit.observe.layers import Convolution, InvertedResidual, with_weights
from dsr_fit.observe.pose_features import PARTS
from dsr_fit.priors.recorded_poses import load_poses
from dsr_fit.regressor.encoders import FeatureEncoder
from dsr_fit.regressor.open_network import RegressorNetwork
from dsr_fit.regressor.open_regressor import OpenRegressor
from dsr_fit.synthetic import ClothedCase
from dsr_fit.training.open_data import HeldOut
from dsr_fit.training.open_module import OpenTraining, scores_of
from dsr_fit.training.settings import TrainSettings
from dsr_fit.training.synthetic.people import FEATURES, HELD_OUT_SEED, read_people
from dsr_fit.training.synthetic.samples import Mix, Sampler

LATE = 4
"""Blocks of the deepest stage, of eight, that the regressor has a copy of."""
RANK = 8
"""Of the updates: 122,000 weights, .24 MB in half precision."""
LEVEL = 3
"""The encoder's map at 16 px."""
MAPS = "maps"
DEEP = int(np.prod(PARTS["deep"]))
DECAY = 0.995


@dataclass(frozen=True)
class Train:
    """Train one arm."""

    folder: Path
    out: Path
    arm: Literal["frozen", "low-rank"] = "low-rank"
    steps: int = 1500
    batch: int = 160
    learning_rate: float = 3e-4
    late_learning_rate: float = 5e-4
    every: int = 150


class Watching(CaseObserver):
    """Keeps the map of everybody it is asked for; zeros of who is not found."""

    kept: list[np.ndarray]

    def find(self, case: ClothedCase) -> Detection | None:
        found = super().find(case)
        look = None if found is None else found.look
        empty = np.zeros((Encoder.widths_of(HEAVY)[LEVEL], 16, 16), np.float16)
        self.kept.append(empty if look is None else look.features[LEVEL].numpy())
        return found


def make(arguments: People) -> None:
    torch.set_num_threads(1)
    observer = Watching.make()
    synthetic_people.CaseObserver.make = lambda: observer  # type: ignore[method-assign]
    (arguments.folder / MAPS).mkdir(parents=True, exist_ok=True)
    for seed in seeds_of(arguments):
        observer.kept = []
        if write_shard(arguments.folder, seed) and observer.kept:
            path = arguments.folder / MAPS / f"{seed:07d}.npy"
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.save(file, np.stack(observer.kept))


class LowRank(nn.Module):
    """A pointwise convolution with an update of low rank."""

    def __init__(self, convolution: Convolution) -> None:
        super().__init__()
        self.convolution = convolution
        out, channels = convolution.conv.weight.shape[:2]
        self.narrow = nn.Parameter(torch.randn(RANK, channels) / channels**0.5)
        self.wide = nn.Parameter(torch.zeros(out, RANK))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.convolution.conv.weight + (self.wide @ self.narrow)[:, :, None, None]
        return self.convolution.activation(F.conv2d(x, weight, self.convolution.conv.bias))


class OwnFeatures(nn.Module):
    """The shipped summary of features, whose deepest map comes of blocks of its own."""

    def __init__(self, known: FeatureEncoder, late: nn.Module) -> None:
        super().__init__()
        self.known, self.late = known, late

    def forward(self, features: Tensor) -> Tensor:
        deep = self.late(features[:, :DEEP].float().unflatten(1, PARTS["deep"]))
        return self.known(torch.cat([deep.flatten(1), features[:, DEEP:].float()], 1))


def blocks(arm: str) -> tuple[nn.Module, nn.Module]:
    """The deepest stage's first blocks, and the copy of its last ones."""
    stage = with_weights(lambda: BlazePose(HEAVY), shipped("priors/detector/heavy.safetensors")).encoder.stages[-1]
    assert isinstance(stage, nn.Sequential)
    late = copy.deepcopy(stage[-LATE:]).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    for block in late if arm == "low-rank" else ():
        assert isinstance(block, InvertedResidual)
        block.widen, block.narrow = LowRank(block.widen), LowRank(block.narrow)  # type: ignore[assignment]
    for module in late.modules():
        if hasattr(module, "inplace"):
            module.inplace = False  # what is overwritten has no gradient
    return stage[:-LATE], late


@torch.no_grad()
def features_before(folder: Path, held_out: bool, early: nn.Module) -> np.ndarray:
    """Of `dsr_fit.training.synthetic.people.read_features`, with the map before the copied blocks in the place of the
    deepest; a shard whose maps were not written is an error, so remove its other files."""
    parts = []
    for path in sorted((folder / FEATURES).glob("*.npy")):
        if (int(path.stem) >= HELD_OUT_SEED) == held_out:
            features, maps = np.load(path), np.load(folder / MAPS / path.name)
            found = np.concatenate(
                [early(part.float()).flatten(1).half().numpy() for part in torch.tensor(maps).split(25)]
            )
            features[:, :DEEP] = found * features.any(1, keepdims=True)  # zeros are people whom nobody found
            parts.append(features)
    return np.concatenate(parts)


def train(arguments: Train) -> None:
    torch.set_num_threads(1)
    body, (early, late) = load_body(), blocks(arguments.arm)
    network = OpenRegressor(body).network.train().requires_grad_(True)
    assert network.sight is not None
    network.sight = OwnFeatures(network.sight, late)  # type: ignore[assignment]
    own = [value for module in late.modules() if isinstance(module, LowRank) for value in (module.narrow, module.wide)]
    others = [value for name, value in network.named_parameters() if ".late." not in name]
    module = OpenTraining(network, body, None, TrainSettings(out=arguments.out.parent, steps=arguments.steps))
    module.log_losses = lambda losses, count, kind="": None  # type: ignore[method-assign]
    held_out = read_people(arguments.folder, held_out=True)
    found = np.flatnonzero((held_out.keypoints[..., 2] > 0).sum(1) >= 8)
    seen, truth = HeldOut(held_out.rows(found), features_before(arguments.folder, True, early)[found]).all_seen()
    sampler = Sampler(
        read_people(arguments.folder, held_out=False), load_poses().part(held_out=False), body.skeleton,
        Mix(painted=0.6, label_only=0.2), features_before(arguments.folder, False, early),
    )  # fmt: skip
    groups = [{"params": others, "lr": arguments.learning_rate, "weight_decay": 0.02}]
    rates = [arguments.learning_rate]
    if own:
        groups.append({"params": own, "lr": arguments.late_learning_rate, "weight_decay": 0.0})
        rates.append(arguments.late_learning_rate)
    optimizer = torch.optim.AdamW(groups)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, arguments.steps, pct_start=0.1)
    average = copy.deepcopy(network).eval()

    @torch.no_grad()
    def scores(of: RegressorNetwork) -> dict[str, float]:
        module.network = of.eval()
        values = scores_of(module.estimate(seen), truth, body)
        module.network = network.train()
        return {name: round(float(value.mean()), 2) for name, value in values.items()}

    curve, started = [{"step": 0, **scores(network)}], time.process_time()
    for step in range(arguments.steps):
        torch.manual_seed(step)
        loss = module._on_synthetic(*sampler.batch(arguments.batch, np.random.default_rng([7, step])))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            share = 1 - min(DECAY, (step + 1) / (step + 10))
            for ours, theirs in zip(average.parameters(), network.parameters(), strict=True):
                ours.lerp_(theirs, share)
        if (step + 1) % arguments.every == 0:
            curve.append({"step": step + 1, **scores(average)})
            print(curve[-1], flush=True)
    report = {
        "arm": arguments.arm, "people": len(found), "own_weights": sum(value.numel() for value in own),
        "cpu_s_a_step": round((time.process_time() - started) / arguments.steps, 2), "curve": curve,
    }  # fmt: skip
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    chosen = tyro.extras.subcommand_cli_from_dict({"people": People, "train": Train})
    {People: make, Train: train}[type(chosen)](chosen)
