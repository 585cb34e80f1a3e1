"""The human parser's network: a decoder on the features of the landmark network's encoder (BlazePose heavy).

The encoder, trained by others on far more people than anybody has labelled, stays as it is: one look at the pixels
serves landmarks, mask and labels. The decoder (a feature pyramid, Lin et al. 2017) is also given the picture once more,
the person's keypoints and mask, and where the detector sees other people.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dsr_fit.joints import KEYPOINT_INDEX
from dsr_fit.labels import LABELS, MIRRORED_LABELS, OCCLUDER, OTHER_PERSON, UNKNOWN
from dsr_fit.observe.blazepose import HEAVY, Encoder
from dsr_fit.observe.layers import doubled

CLASSES = len(LABELS) + 2
"""The 20 labels, another person, and the occluder."""

CLASS_LABELS = np.array([*range(len(LABELS)), OTHER_PERSON, OCCLUDER], np.uint8)
"""(22,) the label of each class."""

LABEL_CLASSES = np.full(256, UNKNOWN, np.uint8)
"""(256,) the class of each label; 255 stays unknown."""
LABEL_CLASSES[CLASS_LABELS] = np.arange(CLASSES)

MIRRORED_CLASSES = LABEL_CLASSES[MIRRORED_LABELS[CLASS_LABELS]].astype(np.int64)
"""(22,) what each class is in a mirror."""

# Each point's slots: BODY_25 and MediaPipe fill the first block, COCO the second.
_SLOTS: dict[str, tuple[int, ...]] = {
    name: tuple(KEYPOINT_INDEX[slot] for slot in slots)
    for name, slots in {
        "nose": ("Nose", "Nose (COCO)"),
        "left_eye": ("LEye", "Left Eye"), "right_eye": ("REye", "Right Eye"),
        "left_ear": ("LEar", "Left Ear"), "right_ear": ("REar", "Right Ear"),
        "left_shoulder": ("LShoulder", "Left Shoulder"), "right_shoulder": ("RShoulder", "Right Shoulder"),
        "left_elbow": ("LElbow", "Left Elbow"), "right_elbow": ("RElbow", "Right Elbow"),
        "left_wrist": ("LWrist", "Left Wrist"), "right_wrist": ("RWrist", "Right Wrist"),
        "left_hip": ("LHip", "Left Hip"), "right_hip": ("RHip", "Right Hip"),
        "left_knee": ("LKnee", "Left Knee"), "right_knee": ("RKnee", "Right Knee"),
        "left_ankle": ("LAnkle", "Left Ankle"), "right_ankle": ("RAnkle", "Right Ankle"),
        "left_heel": ("LHeel",), "right_heel": ("RHeel",),
        "left_toe": ("LBigToe",), "right_toe": ("RBigToe",),
    }.items()
}  # fmt: skip

POINTS = tuple(_SLOTS)
"""The decoder's input keypoints."""

_BONES = tuple(
    (POINTS.index(f"{side}_{a}"), POINTS.index(f"{side}_{b}"))
    for side in ("left", "right")
    for a, b in (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"), ("heel", "toe"))
) + tuple((POINTS.index(f"left_{joint}"), POINTS.index(f"right_{joint}")) for joint in ("shoulder", "hip"))

_OTHER_SIDE = {"left": "right", "right": "left"}
MIRRORED_POINTS = [POINTS.index("_".join(_OTHER_SIDE.get(word, word) for word in name.split("_"))) for name in POINTS]

POINT_SPREAD, BONE_SPREAD = 0.015, 0.018
"""Standard deviation of a heat map's bell, over the crop's side."""

GUIDES = len(POINTS) + len(_BONES)
MASKS = 2
"""The person's, and the others'."""


def point_array(keypoints: np.ndarray) -> np.ndarray:
    """(49, 3) keypoints -> (21, 3) float32 in the order of `POINTS`, each from its more confident slot."""
    return keypoints[[max(slots, key=lambda slot: keypoints[slot, 2]) for slots in _SLOTS.values()]].astype(np.float32)


def heatmaps(points: Tensor, size: int) -> Tensor:
    """Bells around keypoints and along the bones between them.

    `points` (B, 21, 3): x, y over the crop's side (0..1) and confidence, 0 where unseen, in the order of `POINTS`.
    Returns (B, `GUIDES`, size, size), heights by confidence.
    """
    centres = (torch.arange(size, dtype=points.dtype, device=points.device) + 0.5) / size
    x, y = centres[None, :], centres[:, None]
    start = torch.cat([points, points[:, [a for a, _ in _BONES]]], 1)
    end = torch.cat([points, points[:, [b for _, b in _BONES]]], 1)
    start_x, start_y, height, end_x, end_y, end_height = torch.cat([start, end], -1)[..., None, None].unbind(2)
    axis_x, axis_y = end_x - start_x, end_y - start_y
    length = (axis_x.square() + axis_y.square()).clamp(min=1e-8)
    along = (((x - start_x) * axis_x + (y - start_y) * axis_y) / length).clamp(0, 1)
    squared = (x - start_x - along * axis_x).square() + (y - start_y - along * axis_y).square()
    spread = points.new_tensor([POINT_SPREAD] * len(POINTS) + [BONE_SPREAD] * len(_BONES))[:, None, None]
    return torch.minimum(height, end_height) * torch.exp(squared / (-2 * spread.square()))


def mirrored_points(points: Tensor) -> Tensor:
    """(B, 21, 3) points of the mirror image: left trades places with right."""
    points = points[:, MIRRORED_POINTS]
    return torch.cat([1 - points[..., :1], points[..., 1:]], -1)


def _conv(channels: int, out: int, size: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, out, size, stride, size // 2, bias=False), nn.BatchNorm2d(out), nn.ReLU(inplace=True)
    )


class _Block(nn.Module):
    """Two 3 x 3 convolutions about a shortcut (He et al. 2016)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _conv(channels, channels)
        self.second = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(self.first(x)))


class ParsingDecoder(nn.Module):
    """(picture, features, points, masks) -> logits at half the crop's resolution."""

    def __init__(
        self,
        features: tuple[int, ...] = Encoder.widths_of(HEAVY),
        widths: tuple[int, ...] = (40, 64, 96, 160, 256),
        told: int = 48,
    ) -> None:
        """`features`: channels of the encoder's maps, from the finest at half the crop's side on; `widths`: the
        decoder's at the same levels."""
        super().__init__()
        self.told = _conv(GUIDES + MASKS, told, 1)
        self.picture = _conv(3 + MASKS, 16, 3, 2)
        beside = (16, *(told for _ in widths[1:]))
        self.enter = nn.ModuleList(_conv(f + b, w, 1) for f, b, w in zip(features, beside, widths, strict=True))
        self.context = nn.Sequential(nn.Conv2d(widths[-1], widths[-1], 1), nn.ReLU(inplace=True))
        self.down = nn.ModuleList(
            nn.Conv2d(coarse, fine, 1) for fine, coarse in zip(widths[:-1], widths[1:], strict=True)
        )
        self.blocks = nn.ModuleList([_conv(widths[0], widths[0]), *(_Block(width) for width in widths[1:])])
        self.last = nn.Conv2d(widths[0], CLASSES, 1)

    def forward(self, picture: Tensor, features: list[Tensor], points: Tensor, masks: Tensor) -> Tensor:
        """Logits (B, `CLASSES`, S/2, S/2).

        `picture` (B, 3, S, S) RGB, 0..1; `features` of `BlazePose.encoder`; `points` (B, 21, 3) as `heatmaps` takes
        them; `masks` (B, 2, S, S), this person and others, 0..1.
        """
        guides = torch.cat([heatmaps(points, picture.shape[-1] // 4), F.avg_pool2d(masks, 4)], 1)
        seen = torch.cat([picture - 0.5, masks], 1)
        told, fine = (each.contiguous(memory_format=torch.channels_last) for each in (guides, seen))
        beside = [self.picture(fine), self.told(told)]
        while len(beside) < len(features):
            beside.append(F.avg_pool2d(beside[-1], 2))
        levels = [enter(torch.cat([f, b], 1)) for enter, f, b in zip(self.enter, features, beside, strict=True)]
        x = levels.pop()
        x = self.blocks[-1](x + self.context(x.mean((2, 3), keepdim=True)))
        for number in reversed(range(len(levels))):
            x = self.blocks[number](levels[number] + doubled(self.down[number](x)))
        return self.last(x)
