"""The options of `dsr-fit train parser`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dsr_fit.errors import InputError, UsageError

AnnotationScheme = Literal["lip", "atr", "ccp"]
"""What a label map's indices mean: LIP's or ATR's labels, or the tags of Clothing Co-Parsing."""


@dataclass(frozen=True, kw_only=True)
class ParserSettings:
    """Train the human parser on labelled photos and rendered people; the same command resumes."""

    out: Path
    """Folder of the weights, the log, the checkpoint and what the detector finds in the photos."""
    photos: Path | None = None
    """Folder of photos."""
    labels: Path | None = None
    """Folder of their label maps, of the same names."""
    label_scheme: AnnotationScheme = "lip"
    """What indices of the label maps mean: `lip` (CIHP's and our own too), `atr`, or `ccp`, whose `labels.txt` lies
    beside the folder of label maps."""
    left_out: Path | None = None
    """Text file with the names of photos whose annotation is wrong, one a line."""
    rendered: Path | None = None
    """Folder of rendered people with true labels, by `tools/train_parser.py people`."""
    rendered_share: float = 0.5
    """Share of rendered people in training, if there are photos too."""
    fits: Path | None = None
    """Folder of `dsr-fit batch` whose photos are learnt from too, labelled by the parser that --parser names as far as
    scales, mirror images and fits bear it out."""
    parser: str = "scratch"
    """What to start from: `open`, our .safetensors file, or `scratch`."""
    steps: int = 6000
    """Training steps, one batch each."""
    batch: int = 12
    """People per batch."""
    learning_rate: float = 2e-3
    """Highest learning rate; it rises and falls once."""
    balance: float = 0.25
    """Power of a class's rarity that its cross entropy is weighted by; 0 treats every pixel alike."""
    dice: float = 0.5
    """Weight of the Dice loss beside the cross entropy."""
    held_out: float = 0.05
    """Share of people that are held out for validation, chosen by their names; of `ccp` it is the tuning photos."""
    epoch: int = 250
    """Steps between checkpoints, which come with validation scores."""
    workers: int = 1
    """Processes that prepare pictures."""
    threads: int | None = None
    """Torch's CPU threads in training; default: torch's own choice."""
    precision: Literal["bf16-mixed", "32"] = "bf16-mixed"
    """Precision of the networks' layers in training."""
    seed: int = 0
    """Random seed."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the training runs; `auto` takes a GPU if torch sees one."""

    def __post_init__(self) -> None:
        """Raises UsageError for numbers that can't work."""
        for name in ("steps", "epoch", "batch"):
            if getattr(self, name) < 1:
                raise UsageError(f"{_option(name)} {getattr(self, name)}: at least 1")
        for name in ("rendered_share", "held_out"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{_option(name)} {getattr(self, name):g}: a share lies between 0 and 1")
        if not 0 < self.learning_rate < math.inf:
            raise UsageError(f"--learning-rate {self.learning_rate:g}: expected a positive number")
        if self.workers < 0:
            raise UsageError(f"--workers {self.workers}: 0 or more")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"--seed {self.seed}: 0 or more, and below 2^32")

    def check_sources(self) -> None:
        """Raises InputError for what isn't there to train from, and UsageError where too little is named."""
        for path in (self.photos, self.labels, self.rendered, self.left_out, self.fits):
            if path is not None and not path.exists():
                raise InputError(f"{path}: no such file or folder to train from")
        if self.photos is None and self.rendered is None:
            raise UsageError("nothing to learn from; give --photos with --labels, or --rendered")
        if (self.photos is None) != (self.labels is None):
            raise UsageError("--photos and --labels go together")

    @property
    def epochs(self) -> int:
        return -(-self.steps // self.epoch)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
