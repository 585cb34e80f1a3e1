"""What the trainings of the open regressor and of HMR share: steps, logging, validation scores, data by epochs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from dsr_fit.body.body import Body
from dsr_fit.errors import InputError
from dsr_fit.priors.semantic import SemanticPrior
from dsr_fit.render.renderer import Renderer
from dsr_fit.training.settings import TrainSettings


class RegressorTraining(lightning.LightningModule, ABC):
    """Trains the weights of `network` for `body`."""

    body: Body

    def __init__(
        self, network: nn.Module, body: Body, semantic_prior: SemanticPrior | None, settings: TrainSettings
    ) -> None:
        """`semantic_prior` may be None if no rendered term has a weight."""
        super().__init__()
        self.network, self.body, self.settings = network, body, settings
        if semantic_prior is not None and not settings.semantics.outfits:
            semantic_prior = replace(semantic_prior, outfits=None)
        self.semantic_prior = semantic_prior
        self.renderer = Renderer(body.faces, body.num_vertices, device="cpu")

    @abstractmethod
    def loss(self, batch: Any) -> tuple[Tensor, int]:
        """The total loss of a batch, and its number of people."""

    @abstractmethod
    def scores(self, batch: Any) -> dict[str, Tensor]:
        """Validation score -> (B,) value of each person who has it."""

    @abstractmethod
    def write(self, path: Path) -> None:
        """Write the weights as a file that `--regressor` reads."""

    def on_fit_start(self) -> None:
        """Move everything that isn't a weight to the weights' device."""
        self.body = self.body.to(self.device)
        self.semantic_prior = self.semantic_prior and self.semantic_prior.to(self.device)
        kind = "cuda" if self.device.type == "cuda" else "cpu"
        self.renderer = Renderer(self.body.faces, self.body.num_vertices, device=kind)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        # Dropout draws from torch's generator, which a checkpoint doesn't hold.
        torch.manual_seed(1_000_003 * (self.settings.seed + 1009 * self.global_rank) + self.global_step)
        total, count = self.loss(batch)
        if not bool(total.isfinite()):
            raise InputError(
                f"training diverged at step {self.global_step}; choose a smaller learning rate, or another start, and "
                "an empty folder"
            )
        self.log("loss", total, prog_bar=True, on_step=False, on_epoch=True, batch_size=count)
        return total

    def log_losses(self, losses: Mapping[str, Tensor], count: int, kind: str = "") -> None:
        """Log the mean of each loss over an epoch as `loss_KINDname`."""
        for name, value in losses.items():
            self.log(f"loss_{kind}{name}", value, on_step=False, on_epoch=True, batch_size=count)

    @property
    def renders(self) -> bool:
        """Whether rendered terms are in the loss of this step."""
        return self.settings.weights.rendered and self.global_step >= self.settings.dsr_from

    @torch.no_grad()
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        with torch.autocast(self.device.type, enabled=False):
            for name, value in self.scores(batch).items():
                self.log(name, value.mean(), batch_size=len(value))


class TrainingData(lightning.LightningDataModule, ABC):
    """Batches by epoch and step, apart from the module, which is copied to average its weights."""

    validation: Sequence[Any] = ()
    """Keys of the validation batches."""

    def __init__(self, settings: TrainSettings) -> None:
        super().__init__()
        self.settings = settings

    @abstractmethod
    def batch(self, epoch: int, step: int, rank: int = 0, ranks: int = 1) -> Any:
        """The batch of one of `ranks` processes; the same arguments give the same batch."""

    @abstractmethod
    def validation_batch(self, key: Any) -> Any:
        """The people of a key of `validation`, without augmentation."""

    @abstractmethod
    def picture(self, module: Any) -> np.ndarray:
        """(H, W, 3) uint8 RGB: the estimates for the same few people each time, held-out ones if there are any."""

    def train_dataloader(self) -> DataLoader[Any]:
        assert self.trainer is not None
        epoch, rank, ranks = self.trainer.current_epoch, self.trainer.global_rank, self.trainer.world_size

        def batch(step: Any) -> Any:
            return self.batch(epoch, step, rank, ranks)

        return DataLoader(range(self.settings.steps_of(epoch)), batch_size=None, collate_fn=batch)  # type: ignore[arg-type]

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.validation, batch_size=None, collate_fn=self.validation_batch)  # type: ignore[arg-type]
