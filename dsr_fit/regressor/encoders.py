"""Sums up the open regressor's large inputs in a few numbers: the label map, and the landmark network's features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dsr_fit.labels import OCCLUDER, UNKNOWN
from dsr_fit.observe.pose_features import PARTS, parts

LABEL_PIXELS = 64
"""Side of the network's input label map."""

LABEL_CLASSES: tuple[tuple[int, ...], ...] = (
    (0,), (1, 2), (4, 13), (3, 5, 7, 10, 11), (6,), (12,), (8, 9), (14,), (15,), (16,), (17,), (18,), (19,),
    (OCCLUDER,), (UNKNOWN,),
)  # fmt: skip
"""The network's input classes: background, hair, face, tops, dress, skirt, trousers, limbs, shoes, the rest."""


class LabelEncoder(nn.Module):
    """(B, 64, 64) labels -> (B, summary)."""

    class_of: Tensor

    def __init__(self, widths: tuple[int, ...], summary: int) -> None:
        """`widths`: channels of the convolutions, each of stride 2."""
        super().__init__()
        self.register_buffer("class_of", _class_of(), persistent=False)
        channels = (len(LABEL_CLASSES), *widths)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=2, padding=1)
            for before, after in zip(channels[:-1], channels[1:], strict=True)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(8, channel) for channel in widths)
        side = LABEL_PIXELS >> len(widths)
        self.out = nn.Linear(widths[-1] * side * side, summary)

    def forward(self, labels: Tensor) -> Tensor:
        if not self.training and len(labels) > 1:  # as in `open_network.Dense`
            return torch.cat([self(one[None]) for one in labels])
        classes = self.class_of[labels.int()]
        x = (classes[..., None] == torch.arange(len(LABEL_CLASSES), dtype=torch.uint8, device=labels.device)).float()
        x = x.permute(0, 3, 1, 2)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.gelu(norm(convolution(x)))
        return self.out(x.flatten(1))


def _class_of() -> Tensor:
    """(256,) uint8 number in `LABEL_CLASSES` of each index of a label map."""
    table = torch.full((256,), len(LABEL_CLASSES) - 1, dtype=torch.uint8)
    for number, labels in enumerate(LABEL_CLASSES):
        table[list(labels)] = number
    return table


DEEP, JOINT, HEAD = 24, 16, 192
"""Numbers that are made of each cell of the deepest map, of the features at a landmark, and of the head's."""


FEATURE_NOISE = 0.1
"""Standard deviation of noise in training, on normalised features."""


class FeatureEncoder(nn.Module):
    """(B, D) `pose_features` -> (B, sight). Each part is normalised first: rendered pictures are not photos."""

    def __init__(self, sight: int, dropout: float) -> None:
        super().__init__()
        channels, high, wide = PARTS["deep"]
        joints, at_joint = PARTS["joints"]
        self.deep_norm, self.deep = nn.GroupNorm(1, channels), nn.Conv2d(channels, DEEP, 1)
        self.joint_norm = nn.LayerNorm(at_joint)
        self.joints = nn.Parameter(torch.randn(joints, at_joint, JOINT) / at_joint**0.5)
        self.head_norm, self.head = nn.LayerNorm(PARTS["head"][0]), nn.Linear(PARTS["head"][0], HEAD)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(DEEP * high * wide + joints * JOINT + HEAD + 2, sight)

    def forward(self, features: Tensor) -> Tensor:
        if not self.training and len(features) > 1:  # as in `open_network.Dense`
            return torch.cat([self(one[None]) for one in features])
        seen = parts(features.float())
        deep, joints, head = (
            self._noisy(norm(seen[name]))
            for norm, name in ((self.deep_norm, "deep"), (self.joint_norm, "joints"), (self.head_norm, "head"))
        )
        deep = F.gelu(self.deep(deep)).flatten(1)
        joints = F.gelu(torch.einsum("bji,jio->bjo", joints, self.joints)).flatten(1)
        head = F.gelu(self.head(head))
        return self.out(self.dropout(torch.cat([deep, joints, head, seen["turn"]], 1)))

    def _noisy(self, normalised: Tensor) -> Tensor:
        return normalised + FEATURE_NOISE * torch.randn_like(normalised) if self.training else normalised
