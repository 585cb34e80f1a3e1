"""MoveNet MultiPose, the person finder's network: a CenterNet (Zhou et al. 2019) for boxes and 17 COCO keypoints.

MobileNetV2, 1.5 times as wide as published; a feature pyramid up to a quarter of the input's resolution; and six heads
there. The weights are Google's, converted by `tools/build_detector.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dsr_fit.observe.layers import Convolution, InvertedResidual, doubled, pointwise

STRIDE = 4
"""Pixels of the input to a cell of the output."""

MULTIPLE = 32
"""The input's sides are multiples of this."""

KEYPOINTS = 17
"""COCO's, in COCO's order."""

_STAGES = ((24, 1, 1, 1), (40, 2, 2, 6), (48, 3, 2, 6), (96, 4, 2, 6), (144, 3, 1, 6), (240, 3, 2, 6), (480, 1, 1, 6))
"""MobileNetV2's: channels, blocks, stride of the first, widening."""


class Maps(NamedTuple):
    """The heads' output, (B, ..., H / 4, W / 4) each; pairs are y, x in cells."""

    centers: Tensor  # (B, ...) probability that a person's centre is in this cell
    box_scale: Tensor  # (B, 2, ...) height and width of the box
    box_offset: Tensor  # (B, 2, ...) from the cell to the box's centre
    heatmaps: Tensor  # (B, 17, ...) probability that a keypoint, of anybody, is in this cell
    regressed: Tensor  # (B, 17, 2, ...) from the centre's cell to this person's keypoints
    offsets: Tensor  # (B, 17, 2, ...) from a keypoint's cell to the keypoint


class _Backbone(nn.Module):
    """-> features at strides 4, 8, 16 (after its fourth of seven blocks) and 32."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Convolution(3, 48, 3, 2, same=True)
        channels, stages = 48, []
        for out, blocks, stride, widening in _STAGES:
            stage = []
            for number in range(blocks):
                step = 1 if number else stride
                stage.append(InvertedResidual(channels, widening * channels, out, 3, step, same=True))
                channels = out
            stages.append(nn.Sequential(*stage))
        self.stages = nn.ModuleList(stages)
        self.last = pointwise(channels, 1280)

    def forward(self, picture: Tensor) -> list[Tensor]:
        x, features = self.stem(picture), []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return [features[1], features[2], features[3], self.last(x)]


class _Separable(nn.Module):
    """Depthwise without bias, pointwise, ReLU."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.filter = Convolution(channels, channels, 3, depthwise=True, activation=None, bias=False)
        self.mix = pointwise(channels, out, nn.ReLU)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(self.filter(x))


class MoveNet(nn.Module):
    """(B, 3, H, W) RGB, -1..1, sides multiples of 32 -> `Maps`."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = _Backbone()
        widths = (64, 32, 24)
        self.deepest = pointwise(1280, widths[0], None)
        self.taps = nn.ModuleList(pointwise(*pair, None) for pair in zip((96, 48, 40), widths, strict=True))
        self.merged = nn.ModuleList(_Separable(*pair) for pair in zip(widths, (32, 24, 24), strict=True))
        outputs = {"center": 1, "scale": 2, "offset": 2, "heatmaps": 17, "regressed": 34, "offsets": 34}
        self.heads = nn.ModuleDict(
            {name: nn.Sequential(_Separable(24, 96), pointwise(96, out, None)) for name, out in outputs.items()}
        )

    def forward(self, picture: Tensor) -> Maps:
        *features, x = self.backbone(picture)
        x = self.deepest(x)
        for tap, merge, feature in zip(self.taps, self.merged, reversed(features), strict=True):
            x = merge(doubled(x) + tap(feature))
        out = {name: head(x) for name, head in self.heads.items()}
        pairs = (KEYPOINTS, 2)
        return Maps(
            torch.sigmoid(out["center"][:, 0]),
            out["scale"],
            out["offset"],
            torch.sigmoid(out["heatmaps"]),
            out["regressed"].unflatten(1, pairs),
            out["offsets"].unflatten(1, pairs),
        )
