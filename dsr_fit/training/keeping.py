"""What every training keeps in its folder, so that the same command goes on where it stopped."""

from __future__ import annotations

import csv
import warnings
from importlib.util import find_spec
from pathlib import Path

import torch
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

DECAY = 0.998


def keepers(work: Path, decay: float = DECAY) -> list[Callback]:
    """Averaged weights, and a checkpoint after each epoch."""
    return [
        EMAWeightAveraging(decay=decay),
        # One name for good: a folder that was moved would else get a second file, and the first be taken for the last.
        ModelCheckpoint(
            work, "last", every_n_epochs=1, save_on_train_epoch_end=True, save_top_k=1, enable_version_counter=False
        ),
    ]


def log(work: Path) -> CSVLogger:
    """One file of losses and scores, which a resumed run goes on with after the epochs of its checkpoint."""
    logger = CSVLogger(work, name="log", version=0)
    path, checkpoint = Path(logger.log_dir) / "metrics.csv", kept(work)
    if checkpoint is None or not path.exists():
        return logger
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    epoch = torch.load(checkpoint, map_location="cpu", mmap=True, weights_only=True)["epoch"]
    rows = [row for row in rows if row["epoch"] and int(row["epoch"]) <= epoch]
    with warnings.catch_warnings(action="ignore"):  # Lightning starts by throwing the file away, and says so
        writer = logger.experiment
    if rows:
        writer.metrics_keys = sorted(rows[0])
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, writer.metrics_keys)
            table.writeheader()
            table.writerows(rows)
    return logger


def logs(work: Path) -> list[Logger]:
    """The same, and TensorBoard's where that is installed."""
    if find_spec("tensorboard") is None:
        return [log(work)]
    return [log(work), TensorBoardLogger(work, name="tensorboard", version=0)]


def kept(work: Path) -> str | None:
    """The checkpoint to go on from, if there is one."""
    path = work / "last.ckpt"
    return str(path) if path.exists() else None
