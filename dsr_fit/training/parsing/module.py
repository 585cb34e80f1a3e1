"""The parser's training as a Lightning module: what the decoder is told, its loss, its schedule, its scores.

The landmark network looks at each training picture as it will at a user's, and the decoder is told what it says: its
keypoints and mask are as good, and as wrong, as they will be.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import lightning
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dsr_fit.evaluate.parsing import Confusion
from dsr_fit.joints import MEDIAPIPE_33_TO_SLOT, empty_keypoints
from dsr_fit.labels import OTHER_PERSON, UNKNOWN
from dsr_fit.observe.blazepose import INPUT, BlazePose
from dsr_fit.observe.landmarks import refine
from dsr_fit.observe.parsing_network import CLASSES, LABEL_CLASSES, ParsingDecoder, point_array
from dsr_fit.training.parsing.settings import ParserSettings

Batch = Mapping[str, Tensor]
"""picture (B, S, S, 3) uint8, labels (B, S, S) uint8, points (B, 21, 3) pixels and confidence."""

AGREED = 0.07
"""Median distance of the landmark network's points from the person's, over the crop's side, up to which it has measured
that person."""


class Told(NamedTuple):
    """The decoder's arguments."""

    picture: Tensor
    features: list[Tensor]
    points: Tensor
    masks: Tensor


def _landmark_of_point() -> list[int]:
    """(21,) BlazePose's landmark of each of `POINTS`."""
    keypoints = empty_keypoints()
    for landmark, slot in MEDIAPIPE_33_TO_SLOT.items():
        keypoints[slot] = landmark, 0, 1
    return point_array(keypoints)[:, 0].astype(int).tolist()


LANDMARK_OF_POINT = _landmark_of_point()


class ParserTraining(lightning.LightningModule):
    """Trains a `ParsingDecoder`; `network` stays as it is."""

    def __init__(self, network: BlazePose, weights: np.ndarray, settings: ParserSettings, scored: tuple[str, ...]):
        """`weights` (22,) of the classes in the cross entropy; `scored`: names of the validation sets."""
        super().__init__()
        self.decoder = ParsingDecoder().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.settings = settings
        self.scored = scored
        self._network = [network]  # in a list, so that its weights are not among those that are saved
        self.register_buffer("weights", torch.from_numpy(weights.astype(np.float32)), persistent=False)
        self.register_buffer("classes", torch.from_numpy(LABEL_CLASSES.astype(np.int64)), persistent=False)
        self.confusion = [Confusion() for _ in scored]

    @torch.no_grad()
    def told(self, batch: Batch, generator: torch.Generator | None) -> Told:
        """What the decoder is told about a batch; with a generator disturbed, as in training."""
        picture = (batch["picture"].permute(0, 3, 1, 2).float() / 255).contiguous(memory_format=torch.channels_last)
        network = self._network[0].to(picture.device)
        features = network.encoder(picture)
        seen = network.read(features)
        landmarks = refine(seen.points.float(), seen.heatmaps.float())[:, LANDMARK_OF_POINT]
        points = torch.cat([landmarks[..., :2] / INPUT, torch.sigmoid(landmarks[..., 3:4])], -1)
        known = batch["points"].clone()
        known[..., :2] /= INPUT
        apart = (points[..., :2] - known[..., :2]).norm(dim=-1)
        apart = apart.masked_fill(known[..., 2] <= 0.3, float("nan")).nanmedian(1).values
        agreed = ~(apart > AGREED)
        own = torch.sigmoid(seen.mask.float()) * agreed[:, None, None]
        others = (batch["labels"] == OTHER_PERSON).float()
        if generator is None:
            others = torch.zeros_like(others)
        else:
            known, points, own, others = _disturbed(known, points, own, others, generator)
        points = torch.where(agreed[:, None, None], points, known)
        points = torch.cat([points[..., :2], points[..., 2:] * _inside(points, batch["labels"])[..., None]], -1)
        points = points * (points[..., 2:] > 0)
        return Told(picture, self.features(picture, features), points, torch.stack([own, others], 1))

    def features(self, picture: Tensor, encoded: list[Tensor]) -> list[Tensor]:
        """The decoder's feature maps, from the picture or from what the landmark network's encoder makes of it."""
        return [each.float() for each in encoded]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        generator = torch.Generator().manual_seed((self.settings.seed * 100_003 + self.global_step) % 2**63)
        logits = self.decoder(*self.told(batch, generator)).float()
        value = loss(logits, self.classes[batch["labels"].long()], self.weights, self.settings.dice)  # type: ignore
        self.log("loss", value, prog_bar=True, on_step=False, on_epoch=True)
        return value

    def validation_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        logits = self.decoder(*self.told(batch, None)).float()
        logits = F.interpolate(logits, batch["labels"].shape[-2:], mode="bilinear", align_corners=False)
        self.confusion[dataloader_idx].add_classes(logits.argmax(1).cpu().numpy(), batch["labels"].cpu().numpy())

    def on_validation_epoch_end(self) -> None:
        for name, confusion in zip(self.scored, self.confusion, strict=True):
            self.log_dict({f"{name}_{score}": value for score, value in confusion.scores().items()})
        self.confusion = [Confusion() for _ in self.scored]

    def configure_optimizers(self):
        settings = self.settings
        optimizer = torch.optim.AdamW(self.decoder.parameters(), settings.learning_rate, weight_decay=0.02)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, settings.learning_rate, settings.steps, pct_start=0.08
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def loss(logits: Tensor, classes: Tensor, weights: Tensor, dice: float) -> Tensor:
    """Weighted cross entropy against each cell's shares of the classes, plus soft Dice over the classes present.

    `logits` (B, 22, S, S); `classes` (B, n S, n S), 255 ignored.
    """
    size = logits.shape[-1]
    known = classes != UNKNOWN
    truth = F.one_hot(classes.where(known, 0), CLASSES).permute(0, 3, 1, 2) * known[:, None]
    truth = F.adaptive_avg_pool2d(truth.float(), size)
    weighted = truth * weights[:, None, None]
    entropy = -(weighted * logits.log_softmax(1)).sum() / weighted.sum().clamp(min=1)
    share = logits.softmax(1) * truth.sum(1, keepdim=True)
    both, total = (share * truth).sum((0, 2, 3)), (share + truth).sum((0, 2, 3))
    present = truth.sum((0, 2, 3)) > 0
    return entropy + dice * (1 - 2 * both[present] / total[present]).mean()


def _inside(points: Tensor, labels: Tensor) -> Tensor:
    """(B, 21) 0 or 1, whether each point lies where the picture is known: a detector leaves out what lies beyond it."""
    size = labels.shape[-1]
    cells = (points[..., :2] * size).long()
    within = ((cells >= 0) & (cells < size)).all(-1)
    cells = cells.clamp(0, size - 1)
    person = torch.arange(len(points), device=points.device)[:, None]
    return (within & (labels[person, cells[..., 1], cells[..., 0]] != UNKNOWN)).float()


def _disturbed(
    known: Tensor, points: Tensor, own: Tensor, others: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Noise on given keypoints; points and masks that are missing; others' masks as bad as they come, or missing."""
    count = len(points)

    def chance(share: float, *shape: int) -> Tensor:
        return (torch.rand(*shape, generator=generator) < share).to(points.device)

    noise = torch.randn(known[..., :2].shape, generator=generator).to(points.device)
    known = torch.cat([known[..., :2] + 0.006 * noise, known[..., 2:]], -1)
    lost = chance(0.03, count, points.shape[1]) | chance(0.06, count, 1)
    known, points = (torch.cat([p[..., :2], p[..., 2:].masked_fill(lost[..., None], 0)], -1) for p in (known, points))
    reach = 2 * int(torch.randint(0, 4, (), generator=generator)) + 1
    grown = F.max_pool2d(others[:, None], reach, 1, reach // 2)[:, 0]
    shrunk = -F.max_pool2d(-others[:, None], reach, 1, reach // 2)[:, 0]
    told = torch.where(chance(0.5, count, 1, 1), grown, shrunk)
    holes = F.interpolate(torch.rand(count, 1, 8, 8, generator=generator), others.shape[-2:], mode="bilinear")[:, 0]
    told = told * ~((holes.to(points.device) > 0.75) & chance(0.3, count, 1, 1))
    told = told * chance(0.65, count, 1, 1)
    own = own * (1 - told) * ~chance(0.08, count, 1, 1)
    return known, points, own, told
