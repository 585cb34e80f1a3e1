"""HMR: from an image of a person to pose, shape and a weak-perspective camera (Kanazawa et al. 2018, SPIN's version).

Iterative error feedback: image features and the estimate so far go through two linear layers, without a nonlinearity
between them, to an update of the estimate; three times, from the mean body.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dsr_fit.priors.pose import load_pose_prior
from dsr_fit.regressor.resnet import FEATURES, ResNet50
from dsr_fit.rotation import axis_angle_to_matrix, matrix_to_sixd

POSE, SHAPE, CAMERA = 144, 10, 3
HIDDEN = 1024
ITERATIONS = 3


class CropEstimate(NamedTuple):
    """B bodies in their crops."""

    pose: Tensor  # (B, 144) 24 rotations in 6D, the root's in the frame of the camera that looks at the crop's centre
    betas: Tensor  # (B, 10)
    crop_cam: Tensor  # (B, 3) SPIN's s, tx, ty


def mean_estimate() -> CropEstimate:
    """The default start, B = 1: upright, facing the camera, in the pose prior's mean pose."""
    root = torch.tensor([[math.pi, 0.0, 0.0]])
    pose = torch.cat([root, load_pose_prior("ranges").center.view(23, 3)])
    sixd = matrix_to_sixd(axis_angle_to_matrix(pose)).flatten()
    return CropEstimate(sixd[None], torch.zeros(1, SHAPE), torch.tensor([[0.9, 0.0, 0.0]]))


class Head(nn.Module):
    """(B, 2048) features -> `CropEstimate`."""

    init_pose: Tensor
    init_shape: Tensor
    init_cam: Tensor

    def __init__(self, start: CropEstimate) -> None:
        super().__init__()
        self.fc1 = nn.Linear(FEATURES + POSE + SHAPE + CAMERA, HIDDEN)
        self.fc2 = nn.Linear(HIDDEN, HIDDEN)
        self.decpose, self.decshape, self.deccam = (nn.Linear(HIDDEN, size) for size in (POSE, SHAPE, CAMERA))
        for layer in (self.decpose, self.decshape, self.deccam):
            nn.init.xavier_uniform_(layer.weight, gain=0.01)  # the first estimates are near the mean
        self.dropout = nn.Dropout()
        for name, value in zip(("init_pose", "init_shape", "init_cam"), start, strict=True):
            self.register_buffer(name, value.clone())

    def forward(self, features: Tensor) -> CropEstimate:
        pose, betas, cam = (
            start.expand(len(features), -1) for start in (self.init_pose, self.init_shape, self.init_cam)
        )
        for _ in range(ITERATIONS):
            x = self.dropout(self.fc1(torch.cat([features, pose, betas, cam], 1)))
            x = self.dropout(self.fc2(x))
            pose, betas, cam = pose + self.decpose(x), betas + self.decshape(x), cam + self.deccam(x)
        return CropEstimate(pose, betas, cam)


class Hmr(nn.Module):
    """(B, 3, 224, 224) crops, normalised by ImageNet's mean and standard deviation -> `CropEstimate`."""

    def __init__(self, start: CropEstimate | None = None) -> None:
        """`start` of the iterations, B = 1; `mean_estimate()` by default."""
        super().__init__()
        self.backbone = ResNet50()
        self.head = Head(start or mean_estimate())

    def forward(self, crops: Tensor) -> CropEstimate:
        return self.head(self.backbone(crops))
