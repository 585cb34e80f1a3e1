"""The open regressor's network: keypoints, 3D landmarks, label map and the landmark network's features in, a body out.

A first prediction and refinements. A refinement also gets the prediction so far and its residuals against keypoints and
3D landmarks, and predicts an update (iterative error feedback, as in HMR, with the error itself as an input). Linear
layers take one set of weights, or one for each person: EFT fine-tunes a copy for each.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dsr_fit.body.skeleton import Skeleton
from dsr_fit.regressor.encoders import FeatureEncoder, LabelEncoder
from dsr_fit.rotation import matrix_to_axis_angle, rotation_between, sixd_to_matrix
from dsr_fit.tensors import Tensors

POSE, SHAPE, CAMERA, SPREAD, ERROR = 144, 10, 3, 24, 1
POINTS = 49

HALVES = (0.1, 0.7)
"""Range of half the crop's side over the focal length in training; inputs are clamped to it. SPIN's camera lies
beyond, where perspective hardly changes."""

RESIDUAL_LIMIT = 0.5
"""Residuals are clamped at this: half crops in 2D, metres in 3D."""


@dataclass(frozen=True)
class RegressorInput(Tensors):
    """The network's input for B people, in the crop around each one's keypoints, whose half side is 1.

    The network predicts the body in the frame of a camera that looks at the crop's centre; `turns` rotates the full
    image's camera frame into that one.
    """

    points: Tensor  # (B, 49, 3) x, y (-1..1 across the crop) and confidence; all 0 where unobserved
    world: Tensor  # (B, 49, 4) metres about the mid-hip, axes of the camera that looks at the crop, and confidence
    crop: Tensor  # (B, 3) ray to the crop's centre x/z, y/z in the full image's camera, and half the side over f
    labels: Tensor  # (B, 64, 64) uint8, 0..19, 254, 255
    labels_seen: Tensor  # (B,) 1 where there is a label map
    features: Tensor  # (B, D) float16, see `dsr_fit.observe.pose_features`
    features_seen: Tensor  # (B,) 1 where there are features

    def __len__(self) -> int:
        return len(self.points)

    def turns(self) -> Tensor:
        """(B, 3, 3) from the full image's camera to the one that looks at the crop's centre."""
        ahead = self.crop.new_tensor([0.0, 0.0, 1.0])
        rays = torch.cat([self.crop[:, :2], torch.ones_like(self.crop[:, :1])], 1)
        return rotation_between(rays, ahead.expand_as(rays))


@dataclass(frozen=True)
class Prediction(Tensors):
    """B bodies as the network predicts them, in the frame of the camera that looks at the crop."""

    pose: Tensor  # (B, 144) 24 rotations in 6D, the root's as the camera that looks at the crop sees it
    betas: Tensor  # (B, 10)
    camera: Tensor  # (B, 3) log of the size in the crop, and the pelvis's place in the crop, -1..1
    spread: Tensor  # (B, 24) log of the expected rotation error, radians
    error: Tensor  # (B, 1) log of the expected mean error of the joints about the pelvis, metres

    def updated(self, delta: Prediction) -> Prediction:
        """With pose, shape and camera added; the expected errors are replaced."""
        pose, betas, camera = self.pose + delta.pose, self.betas + delta.betas, self.camera + delta.camera
        return Prediction(pose, betas, camera, delta.spread, delta.error)

    def rotations(self) -> Tensor:
        """(B, 24, 3, 3) local, the root's as the camera that looks at the crop sees it."""
        return sixd_to_matrix(self.pose.unflatten(1, (24, 6)))

    def pelvis(self, crop: Tensor) -> Tensor:
        """(B, 3) metres, full image's camera frame; at size 1 the crop is 2 m wide. `crop` as in `RegressorInput`."""
        depth = torch.exp(-self.camera[:, :1]) / crop[:, 2:]
        ray = crop[:, :2] + self.camera[:, 1:] * crop[:, 2:]
        return torch.cat([ray * depth, depth], 1)


@dataclass(frozen=True)
class Placed:
    """Predicted bodies in the full image's camera frame."""

    rotations: Tensor  # (B, 24, 3, 3) local
    betas: Tensor
    cam_t: Tensor  # (B, 3) metres
    keypoints: Tensor  # (B, 49, 3) metres

    def axis_angle(self) -> Tensor:
        """(B, 72)."""
        return matrix_to_axis_angle(self.rotations).flatten(1)


def place(prediction: Prediction, inputs: RegressorInput, turns: Tensor, skeleton: Skeleton) -> Placed:
    """The prediction in the full image's camera frame; `turns` are `inputs.turns()`."""
    rotations = prediction.rotations()
    rotations = torch.cat([turns.transpose(1, 2)[:, None] @ rotations[:, :1], rotations[:, 1:]], 1)
    cam_t = prediction.pelvis(inputs.crop) - skeleton.joints_at_rest(prediction.betas)[:, 0]
    keypoints = skeleton.keypoints(rotations, prediction.betas) + cam_t[:, None]
    return Placed(rotations, prediction.betas, cam_t, keypoints)


def in_crop(points: Tensor, crop: Tensor) -> Tensor:
    """Projection of (B, N, 3) metres in the full image's camera frame -> (B, N, 2) in the crop, -1..1."""
    rays = points[..., :2] / points[..., 2:].clamp(min=0.05)
    return (rays - crop[:, None, :2]) / crop[:, None, 2:]


def residuals(placed: Placed, inputs: RegressorInput, turns: Tensor) -> Tensor:
    """(B, 49 * 5) errors of the body in keypoints and 3D landmarks, clamped to -1..1; 0 where nothing is observed."""
    seen = inputs.points[..., 2:] > 0
    flat = (inputs.points[..., :2] - in_crop(placed.keypoints, inputs.crop)) * seen
    confidence = inputs.world[..., 3:]
    share = confidence / confidence.sum(1, keepdim=True).clamp(min=1e-6)
    straight = placed.keypoints @ turns.transpose(1, 2)
    deep = inputs.world[..., :3] - straight
    deep = (deep - (share * deep).sum(1, keepdim=True)) * (confidence > 0)
    return torch.cat([flat, deep], -1).clamp(-RESIDUAL_LIMIT, RESIDUAL_LIMIT).flatten(1) / RESIDUAL_LIMIT


def in_full_precision(like: Tensor) -> torch.autocast:
    """Switches off mixed precision: geometry needs float32."""
    return torch.autocast(like.device.type, enabled=False)


class Dense(nn.Linear):
    """A linear layer with weights (out, in) shared by the batch, or (B, out, in) of each person."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.weight.ndim == 2:
            return super().forward(x)
        if self.weight.ndim == 3 and x.device.type != "cpu":
            return torch.baddbmm(self.bias[..., None], self.weight, x[..., None])[..., 0]
        # Row by row: a person's estimate does not depend on who else is in the batch, see `skeleton.by_row`.
        weights = self.weight.unbind(0) if self.weight.ndim == 3 else [self.weight] * len(x)
        return torch.stack([weight @ row for weight, row in zip(weights, x.unbind(0), strict=True)]) + self.bias


class Norm(nn.LayerNorm):
    """Layer norm whose affine weights are (C,) or (B, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.normalized_shape, eps=self.eps) * self.weight + self.bias


class Block(nn.Module):
    """Norm, two linear layers, and a shortcut around them."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.first, self.second = Norm(width), Dense(width, width), Dense(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.dropout(F.gelu(self.first(self.norm(x)))))


class UpdateNetwork(nn.Module):
    """(B, features) -> the update that is added to the prediction so far."""

    def __init__(self, features: int, width: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.entry = Dense(features, width)
        self.blocks = nn.ModuleList(Block(width, dropout) for _ in range(depth))
        self.norm = Norm(width)
        self.pose, self.shape = Dense(width, POSE), Dense(width, SHAPE)
        self.camera, self.spread = Dense(width, CAMERA), Dense(width, SPREAD)
        self.error = Dense(width, ERROR)
        for head in (self.pose, self.shape, self.camera, self.spread, self.error):
            nn.init.normal_(head.weight, std=1e-3)
            nn.init.zeros_(head.bias)

    def forward(self, features: Tensor) -> Prediction:
        x = self.entry(features)
        for block in self.blocks:
            x = block(x)
        with in_full_precision(x):
            x = self.norm(F.gelu(x).float())
            return Prediction(self.pose(x), self.shape(x), self.camera(x), self.spread(x), self.error(x))


@dataclass(frozen=True)
class Size:
    """The network's size, stored in the file of its weights."""

    labels: tuple[int, ...] = (32, 64, 96, 128)
    """Channels of the label map's convolutions, each of stride 2."""
    summary: int = 192
    """Features of the label map."""
    first: tuple[int, int] = (640, 3)
    """Width and blocks of the first prediction's layers."""
    refinement: tuple[int, int] = (448, 2)
    refinements: int = 2
    dropout: float = 0.1
    label_dropout: float = 0.3
    """Of the label map's features: training has few label maps, and overfits to them."""
    sight: int = 0
    """Numbers that sum up the landmark network's features; 0 for a network that doesn't take them."""
    sight_dropout: float = 0.3
    """Of these numbers."""


class RegressorNetwork(nn.Module):
    """`RegressorInput` -> the first prediction and each refined one."""

    mean_pose: Tensor

    def __init__(self, size: Size | None = None) -> None:
        super().__init__()
        self.size = size = size or Size()
        # Upright before the camera, whose y points down.
        root = torch.tensor([[1.0, 0.0], [0.0, -1.0], [0.0, 0.0]])
        self.register_buffer("mean_pose", torch.cat([root.flatten(), torch.eye(3)[:, :2].flatten().repeat(23)]))
        self.labels = LabelEncoder(size.labels, size.summary)
        self.label_dropout = nn.Dropout(size.label_dropout)
        self.sight = FeatureEncoder(size.sight, size.sight_dropout) if size.sight else None
        self.sight_dropout = nn.Dropout(size.sight_dropout)
        seen = POINTS * 7 + 4 + size.summary + (size.sight + 1 if size.sight else 0)
        self.first = UpdateNetwork(seen, *size.first, size.dropout)
        with_residuals = seen + POSE + SHAPE + CAMERA + POINTS * 5
        self.refinements = nn.ModuleList(
            UpdateNetwork(with_residuals, *size.refinement, size.dropout) for _ in range(size.refinements)
        )

    def features(self, inputs: RegressorInput) -> Tensor:
        """(B, features) of everything observed."""
        summary = inputs.points.new_zeros(len(inputs), self.size.summary)
        shown = inputs.labels_seen > 0
        if bool(shown.any()):
            summary[shown] = self.label_dropout(self.labels(inputs.labels[shown]).float())
        half = inputs.crop[:, 2:].clamp(*HALVES).log()
        crop = torch.cat([inputs.crop[:, :2], half, inputs.labels_seen[:, None]], 1)
        known = [inputs.points.flatten(1), inputs.world.flatten(1), crop, summary]
        if self.sight is not None:
            sight, seen = inputs.points.new_zeros(len(inputs), self.size.sight), inputs.features_seen > 0
            if bool(seen.any()):
                sight[seen] = self.sight_dropout(self.sight(inputs.features[seen]).float())
            known += [sight, inputs.features_seen[:, None]]
        return torch.cat(known, 1)

    @torch.no_grad()
    def seeing(self, sight: int) -> RegressorNetwork:
        """The same network, which also takes the landmark network's features; it predicts the same until trained."""
        wider = RegressorNetwork(replace(self.size, sight=sight)).to(self.mean_pose.device)
        weights, old = self.state_dict(), POINTS * 7 + 4 + self.size.summary
        for name, value in wider.state_dict().items():
            if name.endswith("entry.weight"):
                # What is seen comes first, then, in refinements, the prediction so far.
                known = weights[name]
                value.zero_()
                value[:, :old] = known[:, :old]
                value[:, old + sight + 1 :] = known[:, old:]
            elif name in weights:
                value.copy_(weights[name])
        return wider

    def steps(self) -> list[nn.Module]:
        """The first prediction's layers, then each refinement's; each output is added to the prediction so far."""
        return [self.first, *self.refinements]

    def mean(self, count: int) -> Prediction:
        """The mean pose and shape, to which the first update is added."""
        zero = self.mean_pose.new_zeros
        pose = self.mean_pose.expand(count, -1)
        return Prediction(pose, zero(count, SHAPE), zero(count, CAMERA), zero(count, SPREAD), zero(count, ERROR))

    def step_input(
        self,
        number: int,
        features: Tensor,
        prediction: Prediction,
        inputs: RegressorInput,
        turns: Tensor,
        skeleton: Skeleton,
    ) -> Tensor:
        """Input of step `number`: the features, and from the second on the prediction so far and its residuals."""
        if number == 0:
            return features
        with in_full_precision(features):
            errors = residuals(place(prediction, inputs, turns, skeleton), inputs, turns)
        return torch.cat([features, prediction.pose, prediction.betas, prediction.camera, errors], 1)

    def forward(self, inputs: RegressorInput, skeleton: Skeleton) -> list[Prediction]:
        """The first prediction and its refinements. A refinement's input is detached from the predictions before it."""
        features, turns = self.features(inputs), inputs.turns()
        predictions = [self.mean(len(inputs))]
        for number, step in enumerate(self.steps()):
            step_input = self.step_input(number, features, predictions[-1].detach(), inputs, turns, skeleton)
            predictions.append(predictions[-1].updated(step(step_input)))
        return predictions[1:]
