"""The parser's network: a picture, who is meant in it, and out come 20 labels and what stands before the person.

A residual encoder and a feature pyramid (He et al. 2016; Lin et al. 2017). Keypoints and the detector's mask say whose
clothes are asked for; both may be missing, which the network has seen in training.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dsr_fit.labels import LABELS
from dsr_fit.observe.limbs import POINT_SLOTS

CLASSES = len(LABELS) + 1
"""The 20 labels, and last: something in front of this person."""

POINTS = tuple(POINT_SLOTS)
"""The keypoints that the network is given."""

_BONES = tuple(
    (POINTS.index(f"{side}_{a}"), POINTS.index(f"{side}_{b}"))
    for side in ("left", "right")
    for a, b in (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"), ("heel", "toe"))
) + tuple((POINTS.index(f"left_{joint}"), POINTS.index(f"right_{joint}")) for joint in ("shoulder", "hip"))

_OTHER_SIDE = {"left": "right", "right": "left"}
MIRRORED_POINTS = [POINTS.index("_".join(_OTHER_SIDE.get(word, word) for word in name.split("_"))) for name in POINTS]
_MIRRORED_GUIDES = MIRRORED_POINTS + [
    len(POINTS) + next(k for k, other in enumerate(_BONES) if {*other} == {MIRRORED_POINTS[a], MIRRORED_POINTS[b]})
    for a, b in _BONES
]

POINT_SPREAD, BONE_SPREAD = 0.02, 0.025
"""Standard deviation of a heatmap's bell, over the window's side."""

GUIDES = len(POINTS) + len(_BONES)
STRIDE = 32
"""The input's side must be a multiple of this."""


def heatmaps(points: Tensor, size: int) -> Tensor:
    """Bells around keypoints and along the bones between them.

    `points` (B, 21, 3): x, y over the window's side (0..1) and confidence, 0 where unseen, in the order of `POINTS`.
    Returns (B, `GUIDES`, size, size), heights by confidence.
    """
    centres = (torch.arange(size, dtype=points.dtype, device=points.device) + 0.5) / size
    pixels = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), -1).flatten(0, 1)  # (S*S, 2)
    start = torch.cat([points, points[:, [a for a, _ in _BONES]]], 1)
    end = torch.cat([points, points[:, [b for _, b in _BONES]]], 1)
    axis = (end - start)[..., :2]
    along = (torch.einsum("pc,bnc->bnp", pixels, axis) - (start[..., :2] * axis).sum(-1, keepdim=True)) / (
        axis.square().sum(-1, keepdim=True).clamp(min=1e-8)
    )
    nearest = start[:, :, None, :2] + along.clamp(0, 1)[..., None] * axis[:, :, None]
    spread = points.new_tensor([POINT_SPREAD] * len(POINTS) + [BONE_SPREAD] * len(_BONES))
    squared = (pixels - nearest).square().sum(-1) / spread[:, None].square()
    height = torch.minimum(start[..., 2], end[..., 2])
    return (height[..., None] * torch.exp(-0.5 * squared)).unflatten(-1, (size, size))


def mirrored(picture: Tensor, mask: Tensor, guides: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The network's input for the mirror image: left trades places with right."""
    return picture.flip(-1), mask.flip(-1), guides.flip(-1)[:, _MIRRORED_GUIDES]


def prepare(pictures: Tensor, masks: Tensor, mask_seen: Tensor, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The network's input from what a window shows.

    `pictures` (B, S, S, 3) uint8 RGB; `masks` (B, S, S) uint8, 255 on the person; `mask_seen` (B,) bool, whether there
    is a mask; `points` (B, 21, 3) as `heatmaps` takes them. Returns `ParserNetwork.forward`'s arguments.
    """
    picture = pictures.permute(0, 3, 1, 2).float() / 127.5 - 1
    mask = (masks.float() / 127.5 - 1) * mask_seen[:, None, None]
    return picture, mask[:, None], heatmaps(points, pictures.shape[1] // 4)


class _Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut."""

    def __init__(self, channels: int, out: int, stride: int = 1) -> None:
        super().__init__()
        self.first = _conv(channels, out, stride)
        self.second = nn.Sequential(nn.Conv2d(out, out, 3, padding=1, bias=False), nn.BatchNorm2d(out))
        changed = stride != 1 or channels != out
        self.shortcut = (
            nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))
            if changed
            else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(self.first(x)) + self.shortcut(x))


def _conv(channels: int, out: int, stride: int = 1, size: int = 3) -> nn.Sequential:
    padding = size // 2
    return nn.Sequential(
        nn.Conv2d(channels, out, size, stride, padding, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)
    )


class ParserNetwork(nn.Module):
    """(picture, mask, heatmaps) -> logits at half the input's resolution."""

    def __init__(self, widths: tuple[int, int, int, int] = (64, 128, 192, 256), pyramid: int = 96) -> None:
        super().__init__()
        half = widths[0] // 2
        self.stem = _conv(4, half, 2)
        self.entry = _conv(half, widths[0], 2)
        self.guide = _conv(widths[0] + GUIDES, widths[0], size=1)
        self.stages = nn.ModuleList(
            nn.Sequential(
                _Block(before, after, 1 if before == after else 2), *(_Block(after, after) for _ in range(count - 1))
            )
            for before, after, count in zip((widths[0], *widths[:-1]), widths, (2, 3, 3, 2), strict=True)
        )
        self.context = nn.Sequential(nn.Conv2d(widths[-1], widths[-1], 1), nn.ReLU(inplace=True))
        self.lateral = nn.ModuleList(nn.Conv2d(width, pyramid, 1) for width in widths)
        self.smooth = nn.ModuleList(_conv(pyramid, pyramid) for _ in widths[:-1])
        self.fine = _conv(pyramid + half, 48, size=1)
        self.last = nn.Sequential(_conv(48, 48), nn.Conv2d(48, CLASSES, 1))

    def forward(self, picture: Tensor, mask: Tensor, guides: Tensor) -> Tensor:
        """Logits (B, `CLASSES`, S/2, S/2).

        `picture` (B, 3, S, S) RGB, -1..1; `mask` (B, 1, S, S): -1 nobody, 1 the person, all 0 where there is none;
        `guides` (B, `GUIDES`, S/4, S/4), all 0 where there are no keypoints.
        """
        half = self.stem(torch.cat([picture, mask], 1))
        x = self.guide(torch.cat([self.entry(half), guides], 1))
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        x = x + self.context(x.mean((2, 3), keepdim=True))
        merged = self.lateral[-1](x)
        for level in range(len(self.smooth) - 1, -1, -1):
            merged = F.interpolate(merged, scale_factor=2.0, mode="bilinear", align_corners=False)
            merged = self.smooth[level](merged + self.lateral[level](features[level]))
        merged = F.interpolate(merged, scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.last(self.fine(torch.cat([merged, half], 1)))
