"""The options of `dsr-fit train`."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from dsr_fit.config import Semantics
from dsr_fit.errors import UsageError
from dsr_fit.model_files import ModelFiles

RESOLUTION = 112
"""Pixels of the side of a crop's render in training."""

SCRATCH = "scratch"
"""Name of an untrained regressor."""


@dataclass(frozen=True)
class LossWeights:
    """Weights of the losses on photos, as multiples of the regressor's own; 0 drops a term."""

    keypoints: float = 1.0
    """Reprojection of the observed keypoints."""
    parameters: float = 1.0
    """Closeness to the fitted body: pose, shape, 3D joints."""
    dsr_mc: float = 1.0
    """DSR-MC: the rendered body matches the minimally clothed regions tightly."""
    dsr_c: float = 1.0
    """DSR-C: the body stays inside its clothing."""
    silhouette: float = 0.0
    """The paper's baseline: the rendered body matches the whole clothed person; a multiple of DSR-MC's weight."""

    def __post_init__(self) -> None:
        _check_weights("weights", self)

    @property
    def rendered(self) -> bool:
        """Whether any term needs a render."""
        return self.dsr_mc > 0 or self.dsr_c > 0 or self.silhouette > 0


@dataclass(frozen=True)
class SyntheticWeights:
    """Weights of the open regressor's losses on synthetic people."""

    earlier: float = 0.4
    """Weight of each of the network's estimates but the last."""
    pixels: float = 2.0
    """Keypoints in the crop, per half a crop's side."""
    points: float = 5.0
    """Keypoints in space about the mid-hip, per metre."""
    rotations: float = 1.0
    """Joint rotations, mean difference of the matrices' entries."""
    root: float = 2.0
    """The same for the orientation."""
    shape: float = 10.0
    """Vertices of the T-pose, root mean square, per metre: as they are, and again with the scale removed."""
    depth: float = 0.5
    """Logarithm of the distance."""
    spread: float = 0.05
    """The regressor's predicted errors of its rotations."""
    error: float = 0.05
    """Its predicted error of the joints."""

    def __post_init__(self) -> None:
        _check_weights("synthetic_weights", self)


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Options that `dsr-fit train` and `dsr-fit rounds` share."""

    steps: int = 2000
    """Training steps, one batch each."""
    learning_rate: float | None = None
    """Highest learning rate; default: the regressor's own."""
    schedule: Literal["one-cycle", "constant"] = "one-cycle"
    """Learning rate up and down in one cycle, or constant after a warm-up."""
    synthetic: Path | None = None
    """Folder of synthetic people (HMR: of rendered cases); default: bare bodies, drawn on the fly (HMR: none)."""
    synthetic_share: float = 0.75
    """Share of synthetic people in each batch, if there are both these and photos."""
    dsr_after: float = 0.2
    """Share of the steps before the rendered losses start."""
    precision: Literal["bf16-mixed", "32"] = "bf16-mixed"
    """Precision of the network's layers in training; geometry is always in single precision."""
    threads: int | None = None
    """Torch's CPU threads in training; default: torch's own choice."""


@dataclass(frozen=True, kw_only=True)
class TrainSettings(TrainOptions, ModelFiles):
    """Train a regressor on synthetic people, on fitted people in photos, or on both; the same command resumes."""

    out: Path
    """Folder of the weights, the log, the pictures and the checkpoint."""
    labels: tuple[Path, ...] = ()
    """People in photos: folders of `dsr-fit batch`, or SPIN or DSR .npz."""
    images: Path | None = None
    """Folder of the photos, if they have moved since the labels were made."""
    regressor: str | None = None
    """What to start from: `open`, our .safetensors file, a checkpoint of DSR, SPIN or EFT, or `scratch`; default: the
    one for the body."""
    gate: Literal["accepted", "unjudged", "all"] = "accepted"
    """Fits whose bodies are trained on: `accepted` by the quality gate, or also the `unjudged` ones, for which no gate
    is calibrated, or `all`. Keypoints and label maps are used of everyone."""
    by_quality: bool = True
    """Weight each body by the gate's probability that the fit is good."""
    features: Path | None = None
    """Folder of what the landmark network shows of the photos, which several trainings can share; default:
    OUT/features."""
    held_out: float = 0.05
    """Share of the photos that are held out for validation, chosen by their names."""
    epoch: int = 200
    """Steps between checkpoints, which come with validation scores."""
    batch: int | None = None
    """People per batch; default: the regressor's own (`open`: 512, HMR: 64)."""
    weights: LossWeights = field(default_factory=LossWeights)
    synthetic_weights: SyntheticWeights = field(default_factory=SyntheticWeights)
    semantics: Semantics = field(default_factory=Semantics)
    seed: int = 0
    """Random seed; the same seed gives the same weights."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the training runs; `auto` is the best that works: a GPU needs torch's CUDA build."""
    devices: int = 1
    """How many GPUs."""

    def __post_init__(self) -> None:
        """Raises UsageError for numbers that can't work."""
        for name in ("steps", "epoch", "batch", "devices", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{_option(name)} {value}: at least 1")
        for name in ("synthetic_share", "held_out", "dsr_after"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{_option(name)} {getattr(self, name):g}: a share lies between 0 and 1")
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise UsageError(f"{_option('learning_rate')} {self.learning_rate:g}: expected a positive number")
        if not 0 <= self.seed < 2**32:  # multiplied by the step's number, it stays in torch's 64 bits
            raise UsageError(f"{_option('seed')} {self.seed}: 0 or more, and below 2^32")

    @property
    def epochs(self) -> int:
        return -(-self.steps // self.epoch)

    def steps_of(self, epoch: int) -> int:
        """The number of batches of an epoch; the last one may be shorter."""
        return min(self.epoch, self.steps - epoch * self.epoch)

    @property
    def dsr_from(self) -> int:
        """The step at which the rendered terms start."""
        return round(self.dsr_after * self.steps)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _check_weights(where: str, weights: LossWeights | SyntheticWeights) -> None:
    for name, weight in vars(weights).items():
        if not 0 <= weight < math.inf:
            raise UsageError(f"{where}.{name} is {weight:g}; a weight is 0 or more")
