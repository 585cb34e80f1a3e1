"""The parser's training as a Lightning module: batches, loss, schedule, validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import lightning
import numpy as np
import torch
import torch.nn.functional as F
from confusion import Confusion
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dsr_fit.labels import UNKNOWN
from dsr_fit.observe.network_parser import CLASSES, SIZE, ParserNetwork, prepare
from dsr_fit.training.checkpointing import DECAY
from parser_training.augment import Sample, augmented, plain
from parser_training.photos import Photo

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Settings:
    """How long and how fast."""

    epochs: int = 90
    batch: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    dice: float = 0.5
    """Share of the Dice loss beside the cross entropy."""
    balance: float = 0.5
    """Power of a class's rarity that its cross entropy is weighted by; 0 treats every pixel alike."""
    sizes: tuple[int, ...] = (160, 192, 224)
    """Window sides of the first part, drawn batch by batch."""
    last_sizes: tuple[int, ...] = (256, 320)
    """Of the last quarter, near the size that fits use."""
    decay: float = DECAY
    """Of the average of the weights, a step."""
    workers: int = 1
    seed: int = 0


REFINING = Settings(epochs=34, learning_rate=8e-4, balance=0.15, sizes=(256, 320), seed=1)
"""A second run from the first one's weights. Weights by rarity find rare labels early, but widen people's outlines."""

FURTHER = Settings(epochs=8, learning_rate=3e-4, balance=0.15, sizes=(256, 320), decay=0.99, seed=2)
"""A short run from weights that are done, to see what other photos bring."""


class Samples(Dataset[Batch]):
    """One epoch of training samples, or the photos as they are."""

    def __init__(self, photos: Sequence[Photo], epoch: int | None, seed: int) -> None:
        self.photos, self.epoch, self.seed = photos, epoch, seed

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> Batch:
        if self.epoch is None:
            return _tensors(plain(self.photos[index], SIZE))
        rng = np.random.default_rng([self.seed, self.epoch, index])
        return _tensors(augmented(self.photos, index, SIZE, rng))


def _tensors(sample: Sample) -> Batch:
    return {
        "picture": torch.from_numpy(sample.picture),
        "classes": torch.from_numpy(sample.classes),
        "mask": torch.from_numpy(sample.mask),
        "mask_seen": torch.tensor(sample.mask_seen),
        "points": torch.from_numpy(sample.points.astype(np.float32)),
    }


def class_weights(photos: Sequence[Photo], balance: float) -> Tensor:
    """(classes,) the rarer, the heavier: inverse share of the pixels to this power, 0.4 to 4 times the median's."""
    counts = sum(np.bincount(photo.classes.ravel(), minlength=256)[:CLASSES] for photo in photos)
    rarity = np.median(counts) / np.maximum(counts, 1)
    return torch.from_numpy((rarity**balance).clip(0.4, 4)).float()


def loss(logits: Tensor, classes: Tensor, weights: Tensor, dice: float) -> Tensor:
    """Weighted cross entropy plus soft Dice over the classes present; `classes` (B, S, S), 255 ignored."""
    known = classes != UNKNOWN
    entropy = F.cross_entropy(logits, classes.where(known, -100), weights, ignore_index=-100)
    share = logits.softmax(1) * known[:, None]
    truth = F.one_hot(classes.where(known, 0), CLASSES).permute(0, 3, 1, 2) * known[:, None]
    both, total = (share * truth).sum((0, 2, 3)), (share + truth).sum((0, 2, 3))
    present = truth.sum((0, 2, 3)) > 0
    return entropy + dice * (1 - 2 * both[present] / total[present]).mean()


class ParserTraining(lightning.LightningModule):
    """Trains a `ParserNetwork`."""

    def __init__(self, train: Sequence[Photo], tune: Sequence[Photo], settings: Settings) -> None:
        super().__init__()
        self.train_photos, self.tune_photos, self.settings = train, tune, settings
        self.network = ParserNetwork().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.register_buffer("weights", class_weights(train, settings.balance), persistent=False)
        self.confusion = Confusion()

    def train_dataloader(self) -> DataLoader[Batch]:
        settings = self.settings
        order = torch.Generator().manual_seed(settings.seed * 100_003 + self.current_epoch)
        samples = Samples(self.train_photos, self.current_epoch, settings.seed)
        return DataLoader(
            samples, settings.batch, shuffle=True, drop_last=True, num_workers=settings.workers, generator=order
        )

    def val_dataloader(self) -> DataLoader[Batch]:
        return DataLoader(Samples(self.tune_photos, None, 0), self.settings.batch)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        settings, epoch = self.settings, self.current_epoch
        sizes = settings.sizes if epoch < 0.75 * settings.epochs else settings.last_sizes
        size = int(np.random.default_rng([settings.seed, epoch, batch_idx]).choice(sizes))
        logits = self.network(*prepare(*_resized(batch, size)))
        classes = batch["classes"][:, None].float()
        classes = F.interpolate(classes, logits.shape[-2:], mode="nearest-exact")[:, 0].long()
        value = loss(logits.float(), classes, self.weights, settings.dice)  # type: ignore[arg-type]
        self.log("loss", value, prog_bar=True, on_step=False, on_epoch=True)
        return value

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        logits = self.network(*prepare(batch["picture"], batch["mask"], batch["mask_seen"], batch["points"]))
        logits = F.interpolate(logits.float(), scale_factor=2.0, mode="bilinear", align_corners=False)
        self.confusion.add(logits.argmax(1).cpu().numpy(), batch["classes"].cpu().numpy())

    def on_validation_epoch_end(self) -> None:
        self.log_dict(self.confusion.scores(), prog_bar=False)
        self.confusion = Confusion()

    def configure_optimizers(self):
        settings = self.settings
        optimizer = torch.optim.AdamW(self.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
        steps = settings.epochs * (len(self.train_photos) // settings.batch)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, settings.learning_rate, steps, pct_start=0.05)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def _resized(batch: Batch, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    pictures = batch["picture"].permute(0, 3, 1, 2).float()
    masks = batch["mask"][:, None].float()
    both = F.interpolate(torch.cat([pictures, masks], 1), (size, size), mode="bilinear", antialias=True)
    both = both.round().clamp(0, 255).to(torch.uint8)
    return both[:, :3].permute(0, 2, 3, 1), both[:, 3], batch["mask_seen"], batch["points"]
