"""A training's log, averaged weights and resumable checkpoint."""

from __future__ import annotations

import csv
import logging
import shutil
import warnings
import zipfile
from importlib.util import find_spec
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from safetensors import SafetensorError, safe_open

from dsr_fit.io.files import replacing

DECAY = 0.998
"""Of the averaged weights, per step."""


def checkpoint_callbacks(work: Path, decay: float = DECAY) -> list[Callback]:
    """Averaged weights, and `last.ckpt` after each epoch."""
    return [
        EMAWeightAveraging(decay=decay),
        # Without versions: in a folder that was moved, Lightning would add a second file and the first be resumed from.
        ModelCheckpoint(
            work, "last", every_n_epochs=1, save_on_train_epoch_end=True, save_top_k=1, enable_version_counter=False
        ),
        KeepPrevious(work),
    ]


class KeepPrevious(Callback):
    """Copies the last checkpoint to `previous.ckpt`, synced, before the next one replaces it.

    A loss of power may damage files that were just written.
    """

    def __init__(self, work: Path) -> None:
        self.work = work

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        last = self.work / "last.ckpt"
        if trainer.is_global_zero and is_whole(last):
            with replacing(self.work / "previous.ckpt", durable=True) as temporary:
                shutil.copyfile(last, temporary)


def last_checkpoint(work: Path) -> str | None:
    """The newest checkpoint that is whole, if there is one."""
    for name in ("last.ckpt", "previous.ckpt"):
        if is_whole(work / name):
            return str(work / name)
        if (work / name).exists():
            logging.getLogger("dsr_fit").warning("%s is damaged; the training goes on from before it", work / name)
    return None


def is_whole(path: Path) -> bool:
    """Whether a file of weights is there and reaches to its end."""
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt"):
                return True
        except (OSError, SafetensorError):
            return False
    return zipfile.is_zipfile(path)


def loggers(work: Path) -> list[Logger]:
    """The CSV log, and TensorBoard's if that is installed."""
    if find_spec("tensorboard") is None:
        return [csv_log(work)]
    return [csv_log(work), TensorBoardLogger(work, name="tensorboard", version=0)]


def csv_log(work: Path) -> CSVLogger:
    """One file of losses and scores for all runs: a resumed run appends to the epochs before its checkpoint."""
    logger = CSVLogger(work, name="log", version=0)
    path, checkpoint = Path(logger.log_dir) / "metrics.csv", last_checkpoint(work)
    if checkpoint is None or not path.exists():
        return logger
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    epoch = torch.load(checkpoint, map_location="cpu", mmap=True, weights_only=True)["epoch"]
    rows = [row for row in rows if (row.get("epoch") or "").isdigit() and int(row["epoch"]) <= epoch]
    with warnings.catch_warnings(action="ignore"):  # Lightning deletes the file, and says so
        writer = logger.experiment
    if rows:
        writer.metrics_keys = sorted(rows[0])
        with path.open("w", newline="", encoding="utf-8") as file:
            table = csv.DictWriter(file, writer.metrics_keys)
            table.writeheader()
            table.writerows(rows)
    return logger
