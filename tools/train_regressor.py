"""Train the open body's regressor on rendered people.

    PYTHONPATH=tools python tools/train_regressor.py people --folder people
    PYTHONPATH=tools python tools/train_regressor.py train --folder people --work work --out regressor.safetensors
    PYTHONPATH=tools python tools/train_regressor.py average --checkpoints a.ckpt b.ckpt --out regressor.safetensors

The first command makes the people (hours on one core; run it several times at once with --share 0/2, 1/2, ...), the
second learns from them, the third averages checkpoints. The first two go on where they stopped. Weights are written in
half precision. What ships is told in `priors/regressor/README.md`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import lightning
import torch
import tyro

from dsr_fit.body_files import load_body
from dsr_fit.regressor.network import RegressorNetwork
from dsr_fit.regressor.open_regressor import read_network, write_network
from dsr_fit.training.keeping import keepers, kept, log
from dsr_fit.training.open import RegressorTraining, Settings
from dsr_fit.training.synthetic.people import (
    HELD_OUT_SEED,
    LABELLED_SEED,
    PAINTED_SEED,
    SHARD,
    read_people,
    write_shard,
)


@dataclass(frozen=True)
class People:
    """Make people to learn from."""

    folder: Path
    painted: int = 10_000
    labelled: int = 12_000
    held_out: int = 300
    share: str = "0/1"
    """Which part of the work: number/of."""


@dataclass(frozen=True)
class Train:
    """Learn."""

    folder: Path
    """Where the people are."""
    work: Path
    """Checkpoints and log."""
    out: Path = Path("priors/regressor/regressor.safetensors")
    settings: tyro.conf.OmitArgPrefixes[Settings] = Settings()
    start: Path | None = None
    """Checkpoint of an earlier run whose weights this one starts from."""
    threads: int = 2


@dataclass(frozen=True)
class Average:
    """Write the mean of several checkpoints' weights."""

    checkpoints: tuple[Path, ...]
    """Of one run, or of runs that followed each other. A .safetensors file of ours is one too."""
    out: Path = Path("priors/regressor/regressor.safetensors")


def make(arguments: People) -> None:
    number, of = (int(part) for part in arguments.share.split("/"))
    torch.set_num_threads(1)
    counts = {HELD_OUT_SEED: arguments.held_out, PAINTED_SEED: arguments.painted, LABELLED_SEED: arguments.labelled}
    seeds = [first + k for first, count in counts.items() for k in range(0, count, SHARD)]
    for seed in seeds[number::of]:
        if write_shard(arguments.folder, seed):
            print(f"{arguments.folder}: people from seed {seed} on", flush=True)


def train(arguments: Train) -> None:
    settings = arguments.settings
    torch.set_num_threads(arguments.threads)
    lightning.seed_everything(settings.seed)
    body = load_body()
    people, held_out = (read_people(arguments.folder, held_out=part) for part in (False, True))
    module = RegressorTraining(body, people, held_out, settings)
    if arguments.start is not None:
        module.network.load_state_dict(_weights(arguments.start))
    trainer = lightning.Trainer(
        max_epochs=settings.epochs,
        precision="bf16-mixed",
        accelerator="cpu",
        gradient_clip_val=1.0,
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        logger=log(arguments.work),
        callbacks=keepers(arguments.work),
        log_every_n_steps=50,
    )
    trainer.fit(module, ckpt_path=kept(arguments.work))
    write_network(arguments.out, module.network, body)


def average(arguments: Average) -> None:
    states = [_weights(path) for path in arguments.checkpoints]
    network = RegressorNetwork()
    network.load_state_dict({name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]})
    write_network(arguments.out, network, load_body())


def _weights(path: Path) -> dict[str, torch.Tensor]:
    """The network's averaged weights in a checkpoint or in a file of ours."""
    if path.suffix == ".safetensors":
        return read_network(path)[0].state_dict()
    state = torch.load(path, weights_only=True, map_location="cpu")["state_dict"]
    return {name.removeprefix("network."): value for name, value in state.items() if name.startswith("network.")}


if __name__ == "__main__":
    arguments = tyro.extras.subcommand_cli_from_dict({"people": People, "train": Train, "average": Average})
    {People: make, Train: train, Average: average}[type(arguments)](arguments)
