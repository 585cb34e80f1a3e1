"""Train a regressor; the same settings go on where they were stopped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dsr_fit.training.settings import TrainSettings


def train(settings: TrainSettings, report: Callable[[str], None] | None = None) -> Path:
    """Train, and return the path of the weights: `regressor.safetensors` of the open regressor, `regressor.pt` of HMR.

    `report` is told a line after each epoch. Raises InputError and UsageError for what can't be trained with.
    """
    raise NotImplementedError
