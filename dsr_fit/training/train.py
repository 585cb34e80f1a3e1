"""Train a regressor; the same settings resume an interrupted training."""

from __future__ import annotations

import hashlib
import json
import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from dsr_fit.assets import sha256, shipped
from dsr_fit.body.body import Body
from dsr_fit.body.files import OPEN_BODY, load_body
from dsr_fit.errors import InputError, UsageError
from dsr_fit.regressor.open_regressor import ASSET
from dsr_fit.render.device import choose_device
from dsr_fit.training import hmr_data, open_data
from dsr_fit.training.checkpointing import DECAY, checkpoint_callbacks, is_whole, last_checkpoint, loggers
from dsr_fit.training.pictures import save_picture
from dsr_fit.training.records import check_record, write_record
from dsr_fit.training.regressor_training import TrainingData
from dsr_fit.training.settings import SCRATCH, TrainSettings
from dsr_fit.training.splits import Report

SETTINGS = "settings.json"
MAY_CHANGE = ("out", "features", "device", "devices", "threads")
"""Settings that may change when a training is resumed."""

WEIGHTS = {"open": "regressor.safetensors", "hmr": "regressor.pt"}


def train(settings: TrainSettings, report: Report | None = None) -> Path:
    """Train, and return the path of the weights: `regressor.safetensors` of the open regressor, `regressor.pt` of HMR.

    The caller's random state, of `random`, NumPy and torch, stays as it was.

    Args:
        report: takes a line with the number of people, and one after each epoch.
    Raises: InputError and UsageError for settings or files that can't be used.
    """
    body = load_body(settings.body_path() or "open", settings.joint_regressor_extra)
    kind = kind_of(settings.regressor_name(), body)
    out = settings.out / WEIGHTS[kind]
    identity = _identity(settings)
    if settings.out.exists() and not settings.out.is_dir():
        raise InputError(f"--out {settings.out}: is a file; name a folder")
    check_record(settings.out / SETTINGS, identity)
    if is_whole(out):
        return out
    device = choose_device(settings.device)
    gpus = range(torch.cuda.device_count() if device == "cuda" or torch.cuda.is_initialized() else 0)
    with torch_threads(settings.threads), quiet_lightning(), torch.random.fork_rng(gpus):
        torch.manual_seed(settings.seed)
        module, data = (open_data if kind == "open" else hmr_data).prepare(
            settings, body, report or (lambda line: None)
        )
        write_record(settings.out / SETTINGS, identity)
        trainer = lightning.Trainer(
            max_epochs=settings.epochs,
            precision=settings.precision,
            accelerator=device,
            devices=settings.devices if device == "cuda" else 1,
            gradient_clip_val=1.0 if kind == "open" else None,
            reload_dataloaders_every_n_epochs=1,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            logger=loggers(settings.out),
            callbacks=[
                *checkpoint_callbacks(settings.out, decay_of(settings.steps)),
                EpochReport(settings, data, report),
            ],
            log_every_n_steps=50,
        )
        trainer.fit(module, datamodule=data, ckpt_path=last_checkpoint(settings.out))
        # After a kill past the last epoch, only the checkpoint has the averaged weights.
        state = torch.load(settings.out / "last.ckpt", map_location="cpu", weights_only=True)["state_dict"]
        module.load_state_dict(state)
        if trainer.is_global_zero:
            module.write(out)
    return out


def kind_of(regressor: str | None, body: Body) -> Literal["open", "hmr"]:
    """The kind of regressor that a name stands for. Raises UsageError for one without weights."""
    if regressor is None and body.sha256 == sha256(shipped(OPEN_BODY)):
        return "open"
    if regressor is None or regressor == "kinematic":
        raise UsageError(
            f"no weights to train for {body.name}; give --regressor: a checkpoint of DSR, SPIN or EFT, our "
            f".safetensors file, or `{SCRATCH}`"
        )
    return "open" if regressor in ("open", SCRATCH) or regressor.endswith(".safetensors") else "hmr"


def decay_of(steps: int) -> float:
    """Decay of the weights' average: over the last 500 batches, or the last fifth of a short training."""
    return min(DECAY, max(0.0, 1 - 5 / steps))


class EpochReport(Callback):
    """Reports each epoch, and saves its picture."""

    def __init__(self, settings: TrainSettings, data: TrainingData, report: Report | None) -> None:
        self.settings, self.data, self.report = settings, data, report
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        done, now = trainer.current_epoch + 1, time.perf_counter()
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        shown = [f"{name} {values[name]:.4g}" for name in REPORTED if name in values]
        if self.report:
            self.report(f"epoch {done} of {self.settings.epochs}: {', '.join(shown)} ({now - self.started:.0f} s)")
        self.started = now
        if trainer.is_global_zero:
            pl_module.eval()
            with torch.no_grad():
                picture = self.data.picture(pl_module)
            pl_module.train()
            save_picture(self.settings.out / "pictures", picture, trainer)


REPORTED = ("loss", "mpjpe", "pa_mpjpe", "keypoint_error_rel_photos", "mpjpe_photos")


def _identity(settings: TrainSettings) -> dict[str, Any]:
    """What must not change when a training is resumed: the settings, and the contents of files and folders."""
    values = {name: value for name, value in asdict(settings).items() if name not in MAY_CHANGE}
    start = None if settings.regressor == SCRATCH else Path(settings.regressor_name() or "open").expanduser()
    named = [*settings.labels, *([settings.synthetic] if settings.synthetic else [])]
    values["contents"] = {
        "regressor": sha256(start) if start and start.is_file() else sha256(shipped(ASSET)),
        **{str(path): _contents(path) for path in named},
    }
    return json.loads(json.dumps(values, default=str))


def _contents(path: Path) -> str:
    """A file's SHA-256; a folder's, of its files' names and sizes."""
    if path.is_file():
        return sha256(path)
    files = sorted(each for each in path.glob("*") if each.is_file() and not each.name.startswith("."))
    listed = "".join(f"{each.name} {each.stat().st_size}\n" for each in files)
    return hashlib.sha256(listed.encode("utf-8", "surrogateescape")).hexdigest()


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """With so many of torch's threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Without Lightning's hints, which are for programmers."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"lightning(\.|$)")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
