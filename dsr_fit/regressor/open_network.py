"""The open regressor's network: keypoints, 3D landmarks and a label map in, a body out.

A first guess and refinements, each told how the body so far misses what was observed (as in HMR's iterations, but with
the misses spelled out). Linear layers take one set of weights, or one a person: a fit may move each person's own copy.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dsr_fit.body.skeleton import Skeleton
from dsr_fit.labels import OCCLUDER, UNKNOWN
from dsr_fit.rotation import matrix_to_axis_angle, rotation_between, sixd_to_matrix

LABEL_PIXELS = 64
"""Side of the label map that the network looks at."""

LABEL_CLASSES: tuple[tuple[int, ...], ...] = (
    (0,), (1, 2), (4, 13), (3, 5, 7, 10, 11), (6,), (12,), (8, 9), (14,), (15,), (16,), (17,), (18,), (19,),
    (OCCLUDER,), (UNKNOWN,),
)  # fmt: skip
"""Labels that the network tells apart: background, hair, face, tops, dress, skirt, trousers, limbs, shoes, the rest."""

POSE, SHAPE, CAMERA, SPREAD, ERROR = 144, 10, 3, 24, 1
POINTS = 49

HALVES = (0.1, 0.7)
"""Crops' half sides over the focal length, as far as they were seen in training: SPIN's camera stands farther off,
where perspective changes no more."""

MISS = 0.5
"""Misses beyond this (half crops, metres) tell the refinements no more."""


@dataclass(frozen=True)
class Sight:
    """What is seen of B people, in the crop around each one's keypoints, whose half side is 1.

    A camera that looks at the crop's centre sees the body as the network describes it; `turns` leads from the full
    image's camera to that one.
    """

    points: Tensor  # (B, 49, 3) x, y (-1..1 across the crop) and confidence; all 0 where unobserved
    world: Tensor  # (B, 49, 4) metres about the mid-hip, axes of the camera that looks at the crop, and confidence
    place: Tensor  # (B, 3) ray to the crop's centre x/z, y/z in the full image's camera, and half the side over f
    labels: Tensor  # (B, 64, 64) uint8, 0..19, 254, 255
    labels_seen: Tensor  # (B,) 1 where there is a label map

    def __len__(self) -> int:
        return len(self.points)

    def to(self, device: torch.device) -> Sight:
        return Sight(*(value.to(device) for value in vars(self).values()))

    def turns(self) -> Tensor:
        """(B, 3, 3) from the full image's camera to the one that looks at the crop's centre."""
        ahead = self.place.new_tensor([0.0, 0.0, 1.0])
        rays = torch.cat([self.place[:, :2], torch.ones_like(self.place[:, :1])], 1)
        return rotation_between(rays, ahead.expand_as(rays))


@dataclass(frozen=True)
class Guess:
    """A body as the network describes it."""

    pose: Tensor  # (B, 144) 24 rotations in 6D, the root's as the camera that looks at the crop sees it
    betas: Tensor  # (B, 10)
    camera: Tensor  # (B, 3) log of the size in the crop, and the pelvis's place in the crop, -1..1
    spread: Tensor  # (B, 24) log of the expected rotation error, radians
    error: Tensor  # (B, 1) log of the expected mean error of the joints about the pelvis, metres

    def moved(self, delta: Guess) -> Guess:
        """Pose, shape and camera added; what errors are expected, replaced."""
        pose, betas, camera = self.pose + delta.pose, self.betas + delta.betas, self.camera + delta.camera
        return Guess(pose, betas, camera, delta.spread, delta.error)

    def detach(self) -> Guess:
        return Guess(*(value.detach() for value in vars(self).values()))

    def rotations(self) -> Tensor:
        """(B, 24, 3, 3) local, the root's as the camera that looks at the crop sees it."""
        return sixd_to_matrix(self.pose.unflatten(1, (24, 6)))

    def pelvis(self, place: Tensor) -> Tensor:
        """(B, 3) metres, full image's camera frame: a body of size 1 is as far as a crop of 2 m is."""
        depth = torch.exp(-self.camera[:, :1]) / place[:, 2:]
        ray = place[:, :2] + self.camera[:, 1:] * place[:, 2:]
        return torch.cat([ray * depth, depth], 1)


@dataclass(frozen=True)
class Placed:
    """A guess in the full image's camera frame."""

    rotations: Tensor  # (B, 24, 3, 3) local
    betas: Tensor
    cam_t: Tensor  # (B, 3) metres
    keypoints: Tensor  # (B, 49, 3) metres

    def axis_angle(self) -> Tensor:
        """(B, 72)."""
        return matrix_to_axis_angle(self.rotations).flatten(1)


def place(guess: Guess, sight: Sight, turns: Tensor, skeleton: Skeleton) -> Placed:
    """The guessed body in the full image's camera frame; `turns` are the sight's."""
    rotations = guess.rotations()
    rotations = torch.cat([turns.transpose(1, 2)[:, None] @ rotations[:, :1], rotations[:, 1:]], 1)
    cam_t = guess.pelvis(sight.place) - skeleton.joints_at_rest(guess.betas)[:, 0]
    keypoints = skeleton.keypoints(rotations, guess.betas) + cam_t[:, None]
    return Placed(rotations, guess.betas, cam_t, keypoints)


def in_crop(points: Tensor, place: Tensor) -> Tensor:
    """(B, N, 3) metres in the full image's camera frame -> (B, N, 2) in the crop, -1..1."""
    rays = points[..., :2] / points[..., 2:].clamp(min=0.05)
    return (rays - place[:, None, :2]) / place[:, None, 2:]


def misses(placed: Placed, sight: Sight, turns: Tensor) -> Tensor:
    """(B, 49 * 5) by how much the body misses keypoints and 3D landmarks; 0 where nothing is observed."""
    seen = sight.points[..., 2:] > 0
    flat = (sight.points[..., :2] - in_crop(placed.keypoints, sight.place)) * seen
    confidence = sight.world[..., 3:]
    share = confidence / confidence.sum(1, keepdim=True).clamp(min=1e-6)
    straight = placed.keypoints @ turns.transpose(1, 2)
    deep = sight.world[..., :3] - straight
    deep = (deep - (share * deep).sum(1, keepdim=True)) * (confidence > 0)
    return torch.cat([flat, deep], -1).clamp(-MISS, MISS).flatten(1) / MISS


def in_full_precision(like: Tensor) -> torch.autocast:
    """Half precision, where training asks for it, is not for geometry."""
    return torch.autocast(like.device.type, enabled=False)


class Dense(nn.Linear):
    """A linear layer whose weights are (out, in) for everybody, or (B, out, in) with each person's own."""

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.ndim == 2:
            if self.training:
                return super().forward(x)
            # Row by row: a person's estimate does not depend on who else is in the batch, see `skeleton.by_row`.
            return torch.stack([self.weight @ row for row in x.unbind(0)]) + self.bias
        return torch.baddbmm(self.bias[..., None], self.weight, x[..., None])[..., 0]


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


class Step(nn.Module):
    """From features to what is added to the guess."""

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

    def forward(self, features: Tensor) -> Guess:
        x = self.entry(features)
        for block in self.blocks:
            x = block(x)
        with in_full_precision(x):
            x = self.norm(F.gelu(x).float())
            return Guess(self.pose(x), self.shape(x), self.camera(x), self.spread(x), self.error(x))


@dataclass(frozen=True)
class Size:
    """How large the network is; kept in the file of its weights."""

    labels: tuple[int, ...] = (32, 64, 96, 128)
    """Channels of the convolutions, each at half the resolution of the last."""
    summary: int = 192
    """Numbers that the label map comes down to."""
    first: tuple[int, int] = (640, 3)
    """Width and blocks of the first guess."""
    refinement: tuple[int, int] = (448, 2)
    refinements: int = 2
    dropout: float = 0.1
    label_dropout: float = 0.3
    """Of the summary: label maps are few, and easily learnt by heart."""


class LabelEncoder(nn.Module):
    """(B, 64, 64) labels -> (B, summary)."""

    class_of: Tensor

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.register_buffer("class_of", _class_of(), persistent=False)
        channels = (len(LABEL_CLASSES), *size.labels)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, 3, stride=2, padding=1)
            for before, after in zip(channels[:-1], channels[1:], strict=True)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(8, channel) for channel in size.labels)
        side = LABEL_PIXELS >> len(size.labels)
        self.out = nn.Linear(size.labels[-1] * side * side, size.summary)

    def forward(self, labels: Tensor) -> Tensor:
        if not self.training and len(labels) > 1:  # as in `Dense`
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


class RegressorNetwork(nn.Module):
    """Sight -> the first guess and each refined one."""

    mean_pose: Tensor

    def __init__(self, size: Size | None = None) -> None:
        super().__init__()
        self.size = size = size or Size()
        # Upright before the camera, whose y points down.
        root = torch.tensor([[1.0, 0.0], [0.0, -1.0], [0.0, 0.0]])
        self.register_buffer("mean_pose", torch.cat([root.flatten(), torch.eye(3)[:, :2].flatten().repeat(23)]))
        self.labels = LabelEncoder(size)
        self.forget = nn.Dropout(size.label_dropout)
        seen = POINTS * 7 + 4 + size.summary
        self.first = Step(seen, *size.first, size.dropout)
        told = seen + POSE + SHAPE + CAMERA + POINTS * 5
        self.refinements = nn.ModuleList(Step(told, *size.refinement, size.dropout) for _ in range(size.refinements))

    def look(self, sight: Sight) -> Tensor:
        """(B, features) everything observed, as the steps take it."""
        summary = sight.points.new_zeros(len(sight), self.size.summary)
        shown = sight.labels_seen > 0
        if bool(shown.any()):
            summary[shown] = self.forget(self.labels(sight.labels[shown]).float())
        half = sight.place[:, 2:].clamp(*HALVES).log()
        place = torch.cat([sight.place[:, :2], half, sight.labels_seen[:, None]], 1)
        return torch.cat([sight.points.flatten(1), sight.world.flatten(1), place, summary], 1)

    def steps(self) -> list[nn.Module]:
        """The first guess's layers, then each refinement's; each one's output is added to the guess so far."""
        return [self.first, *self.refinements]

    def mean(self, count: int) -> Guess:
        """What everybody starts from."""
        zero = self.mean_pose.new_zeros
        pose = self.mean_pose.expand(count, -1)
        return Guess(pose, zero(count, SHAPE), zero(count, CAMERA), zero(count, SPREAD), zero(count, ERROR))

    def told(
        self, number: int, features: Tensor, guess: Guess, sight: Sight, turns: Tensor, skeleton: Skeleton
    ) -> Tensor:
        """What step `number` is given: the features, and from the second on the guess and its misses."""
        if number == 0:
            return features
        with in_full_precision(features):
            missed = misses(place(guess, sight, turns, skeleton), sight, turns)
        return torch.cat([features, guess.pose, guess.betas, guess.camera, missed], 1)

    def forward(self, sight: Sight, skeleton: Skeleton) -> list[Guess]:
        """The first guess and its refinements. No gradient flows through what a refinement is told of the guess."""
        features, turns = self.look(sight), sight.turns()
        guesses = [self.mean(len(sight))]
        for number, step in enumerate(self.steps()):
            told = self.told(number, features, guesses[-1].detach(), sight, turns, skeleton)
            guesses.append(guesses[-1].moved(step(told)))
        return guesses[1:]
