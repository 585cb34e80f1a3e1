"""Make the people whom the open body's regressor learns from, and average what was learnt.

    PYTHONPATH=tools python tools/train_regressor.py people --folder people
    dsr-fit train --synthetic people --out work
    PYTHONPATH=tools python tools/train_regressor.py average --checkpoints a/last.ckpt b/last.ckpt

The first command makes the people (hours on one core; run it several times at once with --share 0/2, 1/2, ...) and goes
on where it stopped; `dsr-fit train` learns from them (docs/training.md); the last averages the weights of several
checkpoints. Weights are written in half precision. What ships is told in `priors/regressor/README.md`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import tyro
from synthetic_people import SHARD, write_shard

from dsr_fit.body.files import load_body
from dsr_fit.regressor.open_network import RegressorNetwork
from dsr_fit.regressor.open_regressor import read_network, write_network
from dsr_fit.training.synthetic.people import HELD_OUT_SEED, LABELLED_SEED, PAINTED_SEED


@dataclass(frozen=True)
class People:
    """Make people to learn from."""

    folder: Path
    painted: int = 10_000
    first: int = 0
    """Number of the first painted person, for others than an earlier folder's."""
    labelled: int = 12_000
    held_out: int = 300
    share: str = "0/1"
    """Which part of the work: number/of."""


@dataclass(frozen=True)
class Average:
    """Write the mean of several checkpoints' weights."""

    checkpoints: tuple[Path, ...]
    """Of one run, or of runs that followed each other. A .safetensors file of ours is one too."""
    out: Path = Path("priors/regressor/regressor.safetensors")


def seeds_of(arguments: People) -> list[int]:
    """First seeds of the shards of this share of the work."""
    number, of = (int(part) for part in arguments.share.split("/"))
    if arguments.first % SHARD or PAINTED_SEED + arguments.first + arguments.painted > LABELLED_SEED:
        raise SystemExit(f"--first {arguments.first}: a multiple of {SHARD}, and no painted person from a million on")
    counts = {
        HELD_OUT_SEED: arguments.held_out,
        PAINTED_SEED + arguments.first: arguments.painted,
        LABELLED_SEED: arguments.labelled,
    }
    return [first + k for first, count in counts.items() for k in range(0, count, SHARD)][number::of]


def make(arguments: People) -> None:
    torch.set_num_threads(1)
    for seed in seeds_of(arguments):
        if write_shard(arguments.folder, seed):
            print(f"{arguments.folder}: people from seed {seed} on", flush=True)


def average(arguments: Average) -> None:
    states = [_weights(path) for path in arguments.checkpoints]
    network, sums = RegressorNetwork(), states[0].get("sight.out.bias")
    if sums is not None:
        network = network.seeing(len(sums))
    network.load_state_dict({name: torch.stack([state[name] for state in states]).mean(0) for name in states[0]})
    write_network(arguments.out, network, load_body())


def _weights(path: Path) -> dict[str, torch.Tensor]:
    """The network's averaged weights in a checkpoint or in a file of ours."""
    if path.suffix == ".safetensors":
        return read_network(path)[0].state_dict()
    state = torch.load(path, weights_only=True, map_location="cpu")["state_dict"]
    return {name.removeprefix("network."): value for name, value in state.items() if name.startswith("network.")}


if __name__ == "__main__":
    arguments = tyro.extras.subcommand_cli_from_dict({"people": People, "average": Average})
    {People: make, Average: average}[type(arguments)](arguments)
