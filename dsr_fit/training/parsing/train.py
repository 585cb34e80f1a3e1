"""Train the human parser; the same settings resume an interrupted training."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import save_file
from torch.utils.data import DataLoader, Dataset

from dsr_fit.errors import InputError
from dsr_fit.evaluate import ccp
from dsr_fit.io.files import replacing
from dsr_fit.labels import UNKNOWN
from dsr_fit.observe.landmarks import LandmarkNetwork
from dsr_fit.observe.network_parser import read_decoder
from dsr_fit.observe.parsing_network import CLASSES, LABEL_CLASSES
from dsr_fit.training.checkpointing import checkpoint_callbacks, is_whole, last_checkpoint, loggers
from dsr_fit.training.parsing.augment import Sample, augmented, plain
from dsr_fit.training.parsing.examples import Example, read_examples
from dsr_fit.training.parsing.module import ParserTraining
from dsr_fit.training.parsing.photos import class_counts, photo_examples
from dsr_fit.training.parsing.self_labelled import self_labelled_examples
from dsr_fit.training.parsing.settings import ParserSettings
from dsr_fit.training.records import check_record, write_record
from dsr_fit.training.splits import Report, is_held_out
from dsr_fit.training.train import decay_of, quiet_lightning, torch_threads

SETTINGS, WEIGHTS = "settings.json", "parser.safetensors"
MAY_CHANGE = ("out", "device", "threads", "workers")
"""Settings that may change when a training is resumed."""

VALIDATION = 160
"""People of each validation set, at most."""


def train_parser(
    settings: ParserSettings, report: Report | None = None, training: type[ParserTraining] = ParserTraining
) -> Path:
    """Train, and return the path of the weights, for `--parser`. `training`: how, for experiments.

    Raises: InputError and UsageError for settings or files that can't be used.
    """
    say = report or (lambda line: None)
    settings.check_sources()
    out = settings.out / WEIGHTS
    identity = {name: str(value) for name, value in asdict(settings).items() if name not in MAY_CHANGE}
    check_record(settings.out / SETTINGS, identity)
    if is_whole(out):
        return out
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    photos, rendered = read_sources(settings)
    train = [part for part in (photos.train, rendered.train) if part]
    say(
        f"{len(photos.train)} people in photos and {len(rendered.train)} rendered ones; "
        f"{len(photos.held_out)} and {len(rendered.held_out)} held out"
    )
    on_gpu = settings.device == "cuda" or (settings.device == "auto" and torch.cuda.is_available())
    gpus = range(torch.cuda.device_count() if on_gpu else 0)
    with torch_threads(settings.threads), quiet_lightning(), torch.random.fork_rng(gpus):
        torch.manual_seed(settings.seed)
        counts = np.sum([class_counts(part) / len(part) for part in train], 0)
        held_out = {"photos": photos.held_out, "rendered": rendered.held_out}
        held_out = {name: examples[:VALIDATION] for name, examples in held_out.items() if examples}
        network = LandmarkNetwork("heavy").network
        module = training(network, class_weights(counts, settings.balance), settings, tuple(held_out))
        if settings.parser != "scratch":
            module.decoder.load_state_dict(read_decoder(weights_of(settings.parser)).state_dict())
        write_record(settings.out / SETTINGS, identity)
        trainer = lightning.Trainer(
            max_epochs=settings.epochs,
            precision=settings.precision,
            accelerator="cuda" if on_gpu else "cpu",
            devices=1,
            gradient_clip_val=1.0,
            reload_dataloaders_every_n_epochs=1,
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            logger=loggers(settings.out),
            callbacks=[*checkpoint_callbacks(settings.out, decay_of(settings.steps)), _EpochReport(say)],
            log_every_n_steps=50,
        )
        data = _Data(settings, train, list(held_out.values()))
        trainer.fit(module, datamodule=data, ckpt_path=last_checkpoint(settings.out))
        state = torch.load(settings.out / "last.ckpt", map_location="cpu", weights_only=True)["state_dict"]
        module.load_state_dict(state)
    write_decoder(out, module)
    return out


def weights_of(parser: str) -> Path | None:
    """The file that `--parser` names; None for the one that ships."""
    return None if parser in ("open", "scratch") else Path(parser)


class Split:
    """Examples to train on, and those held out."""

    def __init__(self, train: list[Example], held_out: list[Example]) -> None:
        self.train, self.held_out = train, held_out

    @classmethod
    def by_name(cls, examples: Sequence[Example], share: float) -> Split:
        held_out = [one for one in examples if is_held_out(one.name, share)]
        return cls([one for one in examples if not is_held_out(one.name, share)], held_out)

    @classmethod
    def of_ccp(cls, examples: Sequence[Example]) -> Split:
        """Training and tuning photos; validation photos are not touched."""
        train, tune = ([one for one in examples if ccp.split_of(one.name) == split] for split in ("train", "tune"))
        return cls(train, tune)


def read_sources(settings: ParserSettings) -> tuple[Split, Split]:
    """The photos and the rendered people. Raises InputError where there is nobody to train on."""
    photos, rendered = Split([], []), Split([], [])
    annotated: set[str] = set()
    if settings.photos is not None and settings.labels is not None:
        examples = photo_examples(settings.photos, settings.labels, settings.label_scheme, settings.out / "photos")
        wrong = set(settings.left_out.read_text().split()) if settings.left_out else set()
        examples = [one for one in examples if one.name not in wrong]
        is_ccp = settings.label_scheme == "ccp"
        photos = Split.of_ccp(examples) if is_ccp else Split.by_name(examples, settings.held_out)
        annotated |= {one.name for one in examples}
    if settings.fits is not None:

        def wanted(name: str) -> bool:
            return name not in annotated and (settings.label_scheme != "ccp" or ccp.split_of(name) == "train")

        cache = settings.out / "self_labelled"
        photos.train += self_labelled_examples(settings.fits, weights_of(settings.parser), cache, wanted)
    if settings.rendered is not None:
        files = sorted(settings.rendered.glob("*.npz"))
        if not files:
            raise InputError(f"{settings.rendered}: holds no rendered people; tools/train_parser.py people makes them")
        rendered = Split.by_name([one for path in files for one in read_examples(path)], settings.held_out)
    if not photos.train and not rendered.train:
        raise InputError("nobody was found to train on; the photos show nobody where their label maps do")
    return photos, rendered


def class_weights(counts: np.ndarray, balance: float) -> np.ndarray:
    """(22,) weights of the classes by their rarity among (256,) label counts, 1 on average over pixels."""
    shares = np.zeros(CLASSES)
    for label, count in enumerate(counts):
        if LABEL_CLASSES[label] != UNKNOWN:
            shares[LABEL_CLASSES[label]] += count
    shares = shares / shares.sum()
    weights = np.maximum(shares, 1e-4) ** -balance
    return weights / (weights * shares).sum()


class _Samples(Dataset[dict[str, np.ndarray]]):
    """The training samples of one epoch, by their number: sources take turns by their shares."""

    def __init__(self, settings: ParserSettings, sources: Sequence[Sequence[Example]], epoch: int) -> None:
        self.settings, self.sources, self.epoch = settings, sources, epoch
        rendered = settings.rendered_share if len(sources) > 1 else 0.0
        self.shares = [1 - rendered, rendered][: len(sources)]
        self.everybody = [one for source in sources for one in source]

    def __len__(self) -> int:
        return self.settings.epoch * self.settings.batch

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng([self.settings.seed, self.epoch, index])
        source = int(rng.choice(len(self.sources), p=self.shares))
        number = sum(map(len, self.sources[:source])) + int(rng.integers(len(self.sources[source])))
        return _arrays(augmented(self.everybody, number, rng))


class PlainSamples(Dataset[dict[str, np.ndarray]]):
    def __init__(self, examples: Sequence[Example]) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        return _arrays(plain(self.examples[index]))


def _arrays(sample: Sample) -> dict[str, np.ndarray]:
    return {"picture": sample.picture, "labels": sample.labels, "points": sample.points}


class _Data(lightning.LightningDataModule):
    def __init__(
        self, settings: ParserSettings, train: Sequence[Sequence[Example]], held_out: Sequence[Sequence[Example]]
    ) -> None:
        super().__init__()
        self.settings, self.train, self.held_out = settings, train, held_out

    def train_dataloader(self) -> DataLoader[Any]:
        assert self.trainer is not None
        samples = _Samples(self.settings, self.train, self.trainer.current_epoch)
        return DataLoader(samples, self.settings.batch, num_workers=self.settings.workers, drop_last=True)

    def val_dataloader(self) -> list[DataLoader[Any]]:
        return [DataLoader(PlainSamples(examples), self.settings.batch) for examples in self.held_out]


class _EpochReport(Callback):
    def __init__(self, say: Report) -> None:
        self.say = say

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        values = {name: float(value) for name, value in trainer.callback_metrics.items()}
        shown = [name for name in values if name == "loss" or name.endswith(("person_iou", "paper4_iou"))]
        text = ", ".join(f"{name} {values[name]:.3f}" for name in shown)
        self.say(f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}: {text}")


def write_decoder(path: Path, module: ParserTraining) -> None:
    """The weights in half precision; replaced at once or not at all."""
    state = module.decoder.state_dict().items()
    kept = {name: value.half().contiguous() for name, value in state if not name.endswith("num_batches_tracked")}
    with replacing(path) as temporary:
        save_file(kept, temporary)
