"""HMR's training data: randomly augmented crops of people, with their labels transformed alike.

A crop is the image under a similarity: translated, scaled, rotated, mirrored. That is another camera's view of another
body: focal length and principal point scale and move with the image, the body rotates about the optical axis, and
mirroring swaps left and right. All labels follow these rules, and are then rotated into the view along the ray to the
crop's centre, in which HMR predicts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.utils.data import Dataset

from dsr_fit.camera import SPIN_RESOLUTION, Crop, ray_rotation
from dsr_fit.errors import UsageError
from dsr_fit.joints import MIRRORED_KEYPOINTS, mirrored_pose
from dsr_fit.labels import MIRRORED_LABELS, UNKNOWN
from dsr_fit.observe.crop import warp
from dsr_fit.regressor.hmr_regressor import normalised
from dsr_fit.training.pseudo_labels import PseudoLabels


@dataclass(frozen=True)
class CropAugmentation:
    """How crops are augmented, with the values of SPIN and DSR."""

    noise: float = 0.4
    """Each colour channel is brightened or darkened by up to this share."""
    rotation: float = 30.0
    """Degrees, standard deviation; at most twice that."""
    turned: float = 0.4
    """Share of the crops that are rotated."""
    scale: float = 0.25
    """Standard deviation of the crop's side, as a share of it; and at most that."""
    mirrored: float = 0.5
    """Share of the crops that are mirrored."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            most = 180.0 if name == "rotation" else 1.0
            if not 0 <= value <= most or (name == "scale" and value == most):
                raise UsageError(f"augmentation.{name} is {value:g}; it lies between 0 and {most:g}")


@dataclass(frozen=True)
class CropChange:
    """One draw of an augmentation."""

    gains: tuple[float, float, float] = (1.0, 1.0, 1.0)
    angle: float = 0.0
    """Radians, clockwise in the picture."""
    scale: float = 1.0
    """Of the crop's side."""
    mirrored: bool = False


def draw(augmentation: CropAugmentation, rng: np.random.Generator) -> CropChange:
    """Always takes the same numbers from `rng`."""
    gains = 1 + rng.uniform(-augmentation.noise, augmentation.noise, 3)
    angle = augmentation.rotation * float(np.clip(rng.normal(), -2, 2))
    scale = 1 + augmentation.scale * float(np.clip(rng.normal(), -1, 1))
    turned, mirrored = rng.uniform(size=2) < (augmentation.turned, augmentation.mirrored)
    return CropChange((gains[0], gains[1], gains[2]), np.radians(angle) if turned else 0.0, scale, bool(mirrored))


class CropBatch(NamedTuple):
    """B crops and their people's labels, in the view along the ray to the crop's centre."""

    images: Tensor  # (B, 3, 224, 224) normalised as for ImageNet
    keypoints: Tensor  # (B, 49, 3) -1..1 from side to side, and confidence
    world: Tensor  # (B, 49, 4) metres about the mid-hip, and confidence; 0 without
    rotations: Tensor  # (B, 24, 3, 3)
    betas: Tensor  # (B, 10)
    has_body: Tensor  # (B,) 1 where rotations and betas are known
    weight: Tensor  # (B,) of each person
    labels: Tensor  # (B, 224, 224) uint8 label map
    small_labels: Tensor  # (B, S, S) uint8, the same at the resolution of the rendered losses
    cameras: Tensor  # (B, 3) focal length, cx, cy of the image's camera, pixels of the crop
    turns: Tensor  # (B, 3, 3) from that camera's frame to the view along the crop's ray


def sample(people: PseudoLabels, row: int, change: CropChange, resolution: int, weight: float = 1.0) -> CropBatch:
    """One person as a batch of 1. Raises InputError where the image or the label map can't be read."""
    crop = people.crop(row)
    window = Crop(crop.center, crop.side * change.scale)
    matrix = window.matrix(SPIN_RESOLUTION, change.angle, change.mirrored)
    picture = warp(people.image(row), matrix, SPIN_RESOLUTION, 0)
    bright = (picture * np.array(change.gains)).clip(0, 255).astype(np.float32)

    focal, *center = people.intrinsics[row].astype(np.float64)
    camera = np.append(focal * SPIN_RESOLUTION / window.side, _moved(np.array([center]), matrix))
    whole = Crop((SPIN_RESOLUTION / 2, SPIN_RESOLUTION / 2), float(SPIN_RESOLUTION))
    turn = ray_rotation(whole, camera[0], (camera[1], camera[2])).numpy()

    keypoints, world = people.keypoints[row].astype(np.float64), people.world[row].astype(np.float64)
    spun = Rotation.from_rotvec([0, 0, change.angle])
    pose = people.full_pose[row].astype(np.float64)
    pose[:3] = (spun * Rotation.from_rotvec(pose[:3])).as_rotvec()
    keypoints[:, :2] = _moved(keypoints[:, :2], matrix) / (SPIN_RESOLUTION / 2) - 1
    world[:, :3] = spun.apply(world[:, :3])
    if change.mirrored:
        pose = mirrored_pose(pose[None])[0]
        keypoints, world = keypoints[list(MIRRORED_KEYPOINTS)], world[list(MIRRORED_KEYPOINTS)]
        world[:, 0] *= -1
    keypoints[keypoints[:, 2] == 0] = 0
    world[:, :3] = world[:, :3] @ turn.T
    rotations = Rotation.from_rotvec(pose.reshape(24, 3)).as_matrix()
    rotations[0] = turn @ rotations[0]

    labels = people.labels(row)
    return CropBatch(
        images=normalised(bright[None]),
        keypoints=_single(keypoints),
        world=_single(world),
        rotations=_single(rotations),
        betas=_single(people.betas[row]),
        has_body=_single(people.has_body[row]),
        weight=_single(weight),
        labels=torch.from_numpy(cut_labels(labels, window, change, SPIN_RESOLUTION)[None]),
        small_labels=torch.from_numpy(cut_labels(labels, window, change, resolution)[None]),
        cameras=_single(camera),
        turns=_single(turn),
    )


def cut_labels(labels: np.ndarray, window: Crop, change: CropChange, size: int) -> np.ndarray:
    """(size, size) uint8 of (H, W), nearest pixel; unknown outside the image; sides exchanged in a mirror."""
    matrix = window.matrix(size, change.angle, change.mirrored)
    seen = warp(labels, matrix, size, UNKNOWN, nearest=True)
    return MIRRORED_LABELS[seen] if change.mirrored else seen


def _moved(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]


def _single(value: np.ndarray | float) -> Tensor:
    """Add a batch dimension of 1."""
    return torch.from_numpy(np.asarray(value, np.float32)[None])


def stacked(samples: Sequence[CropBatch]) -> CropBatch:
    return CropBatch(*(torch.cat(values) for values in zip(*samples, strict=True)))


class CropBatches(Dataset[CropBatch]):
    """Batch number -> batch: everyone once per pass, in a new order each pass. A function of the number alone, so that
    a resumed run sees the same batches."""

    def __init__(
        self,
        labels: Sequence[PseudoLabels],
        rendered: PseudoLabels | None,
        *,
        batch: int,
        rendered_share: float,
        augmentation: CropAugmentation,
        by_quality: bool,
        resolution: int,
        seed: int,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        """`rendered_share` of each batch comes from `rendered`; `rank` of `ranks` processes takes its own batches."""
        self.sources = [*labels, *([] if rendered is None else [rendered])]
        self.augmentation, self.by_quality, self.resolution = augmentation, by_quality, resolution
        self.seed, self.rank, self.ranks = seed, rank, ranks
        real = _everybody(labels, 0)
        drawn = _everybody([] if rendered is None else [rendered], len(labels))
        count = round(batch * rendered_share) if len(drawn) else 0
        self._groups = [(real, batch - count if len(real) else 0), (drawn, count if len(real) else batch)]
        if not len(real) and not len(drawn):
            raise UsageError("no one to train on: no labels, and no rendered people")

    def __getitem__(self, number: int) -> CropBatch:
        return stacked([self._sample(*who, number, place) for place, who in enumerate(self.people(number))])

    def people(self, number: int) -> list[tuple[int, int]]:
        """(source, row) of everyone in a batch."""
        chosen = []
        for group, (everybody, count) in enumerate(self._groups):
            first = (number * self.ranks + self.rank) * count
            for position in range(first, first + count):
                turn, place = divmod(position, len(everybody))
                source, row = everybody[_order(self.seed, group, turn, len(everybody))[place]]
                chosen.append((int(source), int(row)))
        return chosen

    def _sample(self, source: int, row: int, number: int, place: int) -> CropBatch:
        people = self.sources[source]
        change = draw(self.augmentation, np.random.default_rng([self.seed, number, self.rank, place]))
        return sample(people, row, change, self.resolution, float(people.quality[row]) if self.by_quality else 1.0)


@lru_cache(maxsize=4)
def _order(seed: int, group: int, turn: int, count: int) -> np.ndarray:
    return np.random.default_rng([seed, group, turn]).permutation(count)


def _everybody(sources: Sequence[PseudoLabels], first: int) -> np.ndarray:
    """(N, 2) source and row of each person; sources are counted from `first`."""
    pairs = [(first + number, row) for number, people in enumerate(sources) for row in range(len(people))]
    return np.array(pairs, int).reshape(-1, 2)
