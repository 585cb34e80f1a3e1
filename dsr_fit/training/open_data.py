"""What the open regressor is fed with: batches without end, and those whom its training is watched by."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import lightning
import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from dsr_fit.errors import InputError
from dsr_fit.observe.crop import cut
from dsr_fit.regressor.open_network import Sight
from dsr_fit.regressor.open_regressor import parameters_of
from dsr_fit.training.labelled import WATCHED
from dsr_fit.training.open import OpenTraining, Step
from dsr_fit.training.open_photos import Augmentation, Photos
from dsr_fit.training.pictures import PANEL, crop_window, drawn
from dsr_fit.training.settings import TrainSettings
from dsr_fit.training.synthetic.people import People
from dsr_fit.training.synthetic.samples import Sampler, Truth, finish, scene_of
from dsr_fit.view.overlay import PAPER

BATCH = 512
WATCHED_AT_ONCE = 64
"""People who are held out, a batch; see `WATCHED`."""
SHOWN = 6
"""Synthetic people, and people in photos, who are drawn after each epoch."""


@dataclass(frozen=True)
class Supply:
    """Where people come from."""

    sampler: Sampler | None
    photos: Photos | None
    held_out: People | None = None
    """Synthetic people whom nothing is learnt from."""
    held_out_photos: Photos | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)

    def step(self, size: int, share: float, key: tuple[int, ...]) -> Step:
        """`size` people, this share of them synthetic where there are photos too; the same key gives the same ones."""
        synthetic = size if self.photos is None else round(share * size) if self.sampler is not None else 0
        rng, photo_rng = (np.random.default_rng([*key, kind]) for kind in (0, 1))
        return Step(
            self.sampler.batch(synthetic, rng) if self.sampler is not None and synthetic else None,
            self.photos.batch(size - synthetic, self.augmentation, photo_rng)
            if self.photos is not None and size > synthetic
            else None,
        )


class Batches(IterableDataset[Step]):
    """One epoch."""

    def __init__(self, supply: Supply, settings: TrainSettings, epoch: int, rank: int = 0) -> None:
        self.supply, self.settings, self.epoch, self.rank = supply, settings, epoch, rank

    def __iter__(self) -> Iterator[Step]:
        settings = self.settings
        for step in range(settings.steps_of(self.epoch)):
            key = (settings.seed, self.epoch, step, self.rank)
            yield self.supply.step(settings.batch or BATCH, settings.synthetic_share, key)


class OpenData(lightning.LightningDataModule):
    """Kept apart from the module, which is copied for the average of its weights."""

    def __init__(self, supply: Supply, settings: TrainSettings) -> None:
        super().__init__()
        self.supply, self.settings = supply, settings

    def train_dataloader(self) -> DataLoader[Step]:
        assert self.trainer is not None
        batches = Batches(self.supply, self.settings, self.trainer.current_epoch, self.trainer.global_rank)
        return DataLoader(batches, batch_size=None)

    def val_dataloader(self) -> DataLoader[Step]:
        return DataLoader(self.watched(), batch_size=None)  # type: ignore[arg-type]

    def watched(self) -> list[Step]:
        """Everybody held out, with all that was observed."""
        steps, photos = [], self.supply.held_out_photos
        if self.supply.held_out is not None and len(self.supply.held_out):
            steps.append(Step(_whole(self.supply.held_out), None))
        if photos is not None:
            starts = range(0, min(len(photos), WATCHED), WATCHED_AT_ONCE)
            chosen = [np.arange(start, min(start + WATCHED_AT_ONCE, len(photos))) for start in starts]
            steps += [Step(None, photos.whole(rows)) for rows in chosen]
        return steps

    @torch.no_grad()
    def picture(self, module: OpenTraining) -> np.ndarray:
        """(H, W, 3) uint8 RGB: the same few people each time, held out where there are such, as they are estimated."""
        supply, pictures = self.supply, []
        if supply.sampler is not None:
            if supply.held_out is not None and len(supply.held_out):
                sight, _ = _whole(supply.held_out.rows(np.arange(min(len(supply.held_out), SHOWN))))
            else:
                sight, _ = supply.sampler.batch(SHOWN, np.random.default_rng(self.settings.seed))
            pictures.append(_drawn(module, sight, [None] * len(sight)))
        photos = supply.held_out_photos or supply.photos
        if photos is not None:
            rows = np.arange(min(len(photos), SHOWN))
            pictures.append(_drawn(module, photos.whole(rows).sight, [_photo(photos, int(row)) for row in rows]))
        return np.concatenate(pictures)


def _whole(people: People) -> tuple[Sight, Truth]:
    """As detector and parser see them."""
    return finish(scene_of(people, people.parsed), np.zeros(len(people), bool))


def _photo(photos: Photos, row: int) -> np.ndarray | None:
    """The crop of the photo, where it can be read."""
    try:
        return cut(photos.labels.image(row), photos.labels.crop(row), PANEL, PAPER)
    except InputError:
        return None


def _drawn(module: OpenTraining, sight: Sight, photos: list[np.ndarray | None]) -> np.ndarray:
    learning = module.training
    placed = module.eval().estimate(sight.to(module.device))
    module.train(learning)
    return drawn(
        module.body, parameters_of(placed), crop_window(sight.place), photos, sight.points, list(sight.labels.numpy())
    )
