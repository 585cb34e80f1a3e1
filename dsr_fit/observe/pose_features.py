"""What the landmark network's features show of one person, as one vector: the regressor goes on from it.

Keypoints alone don't say which leg is in front; the features that they were read from may.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dsr_fit.observe.blazepose import HEAD, HEAVY, INPUT, Encoder, Landmarks

POINTS = (0, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32)
"""Landmarks at which features are taken: nose, ears, shoulders, elbows, wrists, hips, knees, ankles, heels, toes."""

LEVELS = (2, 3)
"""Of the encoder's maps from which they are taken: at 32 and 16 px."""

_WIDTHS = Encoder.widths_of(HEAVY)

PARTS: dict[str, tuple[int, ...]] = {
    "deep": (_WIDTHS[-1], INPUT >> 5, INPUT >> 5),
    "joints": (len(POINTS), sum(_WIDTHS[level] for level in LEVELS)),
    "head": (4 * HEAD,),
    "turn": (2,),
}
"""The vector's parts: the encoder's deepest map; its features at the landmarks; what the network reads coordinates
from; cosine and sine of the angle by which the network's square is turned."""

LENGTH = sum(math.prod(shape) for shape in PARTS.values())


def pose_features(seen: Landmarks, features: tuple[Tensor, ...], angle: float) -> np.ndarray:
    """(`LENGTH`,) float16 of one look: what the network says, its encoder's maps, the square's turn in radians."""
    places = seen.points[list(POINTS), :2] / INPUT * 2 - 1
    at_joints = [
        F.grid_sample(features[level][None].float(), places[None, None], align_corners=False)[0, :, 0].T
        for level in LEVELS
    ]
    turn = torch.tensor([math.cos(angle), math.sin(angle)])
    told = (features[-1], torch.cat(at_joints, 1), seen.head, turn)
    return torch.cat([part.flatten().half() for part in told]).numpy()


def parts(features: Tensor) -> dict[str, Tensor]:
    """(B, `LENGTH`) -> each of `PARTS`."""
    flat = features.split([math.prod(shape) for shape in PARTS.values()], 1)
    return {name: part.unflatten(1, shape) for (name, shape), part in zip(PARTS.items(), flat, strict=True)}
