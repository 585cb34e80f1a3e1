"""BlazePose's landmark network (Bazarevsky et al. 2020; the GHUM release): 39 landmarks of one person in a crop.

An encoder of inverted residuals; a decoder that leads from 8 x 8 back to 256 x 256 for heat maps and the person's mask;
and a head that regresses coordinates. `heavy` is the accurate size, `full` the fast one. The weights are Google's,
converted by `tools/build_detector.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dsr_fit.observe.layers import Convolution, InvertedResidual, depthwise, doubled, pointwise

INPUT = 256
"""Side of the crop, pixels."""

LANDMARKS = 39
"""33 of the body, two that place the next look's region, four of no use here."""

PYRAMID = 48
"""Channels of the decoder up to 64 x 64."""

FINE = 8
"""Channels of the decoder from 128 x 128 on."""

HEAD = 288
"""Channels of the head from 8 x 8 on."""


class Landmarks(NamedTuple):
    """What the network says of B crops, as it says it."""

    points: Tensor  # (B, 39, 5) x, y, z in pixels of the crop; logits of visibility and presence
    person: Tensor  # (B,) probability that there is a person at all
    mask: Tensor  # (B, 256, 256) logits
    heatmaps: Tensor  # (B, 39, 64, 64) logits
    world: Tensor  # (B, 39, 3) metres about the mid-hip, in the crop's axes
    head: Tensor  # (B, 1152) what all coordinates are read from


@dataclass(frozen=True)
class Size:
    """One size of the network."""

    stem: int
    """Channels at 128 x 128."""
    stages: tuple[tuple[tuple[int, int, int], ...], ...]
    """Per stage: (wide, out, filter size) of each block; a stage's first block halves height and width."""
    last: int
    """Channels of the encoder's last layer."""
    head: tuple[tuple[int, int], ...]
    """Per level of the head: channels, blocks. The first is fed by the decoder where there are five levels."""


FULL = Size(
    stem=16,
    stages=(
        ((64, 24, 3), (144, 24, 3)),
        ((144, 32, 5), (192, 32, 5)),
        ((192, 64, 3), (384, 64, 3), (384, 64, 3), (384, 88, 5), (528, 88, 5), (528, 88, 5)),
        ((528, 144, 5), (864, 144, 5), (864, 144, 5), (864, 144, 5)),
    ),
    last=864,
    head=((HEAD, 4), (HEAD, 5)),
)

HEAVY = Size(
    stem=24,
    stages=(
        ((96, 32, 3), (128, 32, 3), (192, 32, 3), (192, 32, 3)),
        ((192, 56, 5), (336, 56, 5), (336, 56, 5), (336, 56, 5)),
        ((336, 112, 3), *((672, 112, 3),) * 5, (672, 160, 5), *((960, 160, 5),) * 5),
        ((960, 272, 5), *((1632, 272, 5),) * 7),
    ),
    last=1632,
    head=((96, 6), (192, 7), (HEAD, 7), (HEAD, 7), (HEAD, 7)),
)


class Encoder(nn.Module):
    """(B, 3, 256, 256) -> features at 128, 64, 32, 16 and 8 pixels, each before the next stage halves it."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            Convolution(3, 24, 3, 2),
            depthwise(24),
            pointwise(24, size.stem, None),
        )
        channels, stages = size.stem, []
        for blocks in size.stages:
            stage = []
            for wide, out, filter_size in blocks:
                stage.append(InvertedResidual(channels, wide, out, filter_size, 1 if stage else 2))
                channels = out
            stages.append(nn.Sequential(*stage))
        self.stages = nn.ModuleList(stages)
        self.last = nn.Sequential(pointwise(channels, size.last), depthwise(size.last))
        self.widths = self.widths_of(size)

    @staticmethod
    def widths_of(size: Size) -> tuple[int, ...]:
        """Channels of the features, from the finest on."""
        return (size.stem, *(blocks[-1][1] for blocks in size.stages))

    def forward(self, picture: Tensor) -> list[Tensor]:
        features = [self.stem(picture)]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return features


class _Separable(nn.Module):
    """Depthwise, pointwise; added to the input, ReLU6."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.filter = depthwise(channels)
        self.mix = pointwise(channels, channels, None)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu6(x + self.mix(self.filter(x)))


class _Halving(nn.Module):
    """The same with a stride of 2; the shortcut is pooled, and zeros fill its missing channels."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.filter = depthwise(channels, 3, 2, same=True)
        self.mix = pointwise(channels, out, None)
        self.missing = out - channels

    def forward(self, x: Tensor) -> Tensor:
        shortcut = F.pad(F.max_pool2d(x, 2), (0, 0, 0, 0, 0, self.missing))
        return F.relu6(shortcut + self.mix(self.filter(x)))


def _tap(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(depthwise(channels), pointwise(channels, out))


class _Decoder(nn.Module):
    """Features -> (B, 48, 64, 64)."""

    def __init__(self, encoder: Encoder, deepest: int) -> None:
        super().__init__()
        self.taps = nn.ModuleList(_tap(width, PYRAMID) for width in encoder.widths[1:4])
        self.deepest = _tap(deepest, PYRAMID)

    def forward(self, features: list[Tensor], deepest: Tensor) -> Tensor:
        x = self.deepest(deepest)
        for tap, feature in zip(reversed(self.taps), reversed(features[1:4]), strict=True):
            x = doubled(x) + tap(feature)
        return x


class _MaskDecoder(nn.Module):
    """(B, 48, 64, 64) and the features at 128 pixels -> (B, 1, 256, 256) logits."""

    def __init__(self, finest: int) -> None:
        super().__init__()
        self.enter = _tap(PYRAMID, FINE)
        self.tap = _tap(finest, FINE)
        self.middle = nn.Sequential(_Separable(FINE), _Separable(FINE))
        self.fine = nn.Sequential(_Separable(FINE), _Separable(FINE))
        self.last = Convolution(FINE, 1, 3, activation=None)

    def forward(self, pyramid: Tensor, finest: Tensor) -> Tensor:
        x = self.middle(doubled(self.enter(pyramid)) + self.tap(finest))
        return self.last(self.fine(doubled(x)))


class _Head(nn.Module):
    """-> (B, 288, 2, 2), what the coordinates are read from."""

    def __init__(self, size: Size, encoder: Encoder) -> None:
        super().__init__()
        self.deepest = _tap(size.last, HEAD)
        self.from_pyramid = len(size.head) == 5
        channels = PYRAMID if self.from_pyramid else HEAD
        levels = []
        for out, blocks in size.head:
            levels.append(nn.Sequential(_Halving(channels, out), *(_Separable(out) for _ in range(blocks))))
            channels = out
        self.levels = nn.ModuleList(levels)
        joined = zip(encoder.widths[2:4], [out for out, _ in size.head], strict=False) if self.from_pyramid else ()
        self.taps = nn.ModuleList(_tap(width, out) for width, out in joined)

    def forward(self, pyramid: Tensor, features: list[Tensor], deepest: Tensor) -> Tensor:
        deepest = self.deepest(deepest)
        if not self.from_pyramid:
            return self.levels[1](self.levels[0](deepest))
        x = pyramid
        joined = [*(tap(feature) for tap, feature in zip(self.taps, features[2:4], strict=True)), deepest]
        for number, level in enumerate(self.levels):
            x = level(x)
            if number < len(joined):
                x = x + joined[number]
        return x


class BlazePose(nn.Module):
    """(B, 3, 256, 256) RGB, 0..1 -> `Landmarks`."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.encoder = Encoder(size)
        self.decoder = _Decoder(self.encoder, size.last)
        self.mask = _MaskDecoder(size.stem)
        self.heatmaps = Convolution(PYRAMID, LANDMARKS, activation=None)
        self.head = _Head(size, self.encoder)
        self.points = Convolution(HEAD, 5 * LANDMARKS, 2, activation=None)
        self.world = Convolution(HEAD, 3 * LANDMARKS, 2, activation=None)
        self.person = Convolution(HEAD, 1, 2, activation=None)

    def forward(self, picture: Tensor) -> Landmarks:
        return self.read(self.encoder(picture))

    def read(self, features: list[Tensor]) -> Landmarks:
        """What the encoder's features show."""
        deepest = self.encoder.last(features[-1])
        pyramid = self.decoder(features, deepest)
        coordinates = self.head(pyramid, features, deepest)
        return Landmarks(
            self.points(coordinates).unflatten(1, (LANDMARKS, 5)).flatten(2),
            torch.sigmoid(self.person(coordinates)).flatten(),
            self.mask(pyramid, features[0])[:, 0],
            self.heatmaps(pyramid),
            self.world(coordinates).unflatten(1, (LANDMARKS, 3)).flatten(2),
            coordinates.flatten(1),
        )
