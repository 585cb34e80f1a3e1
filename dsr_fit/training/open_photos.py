"""Batches of pseudo-labelled people in photos for the open regressor.

The network's input is a noisy part of the observations, mirrored half of the time; its output is mirrored back
(`mirrored`) and compared with all observations and with the fitted body.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from dsr_fit.camera import Crop
from dsr_fit.joints import MIRRORED_JOINTS, MIRRORED_KEYPOINTS
from dsr_fit.labels import shows_person
from dsr_fit.observation import Detection, Observation
from dsr_fit.observe.batch import Batch, crop_labels
from dsr_fit.regressor.open_network import Placed, RegressorInput
from dsr_fit.rotation import axis_angle_to_matrix
from dsr_fit.training.pseudo_labels import PseudoLabels
from dsr_fit.training.synthetic.detector_errors import box
from dsr_fit.training.synthetic.samples import (
    FEWEST,
    Mix,
    Scene,
    Truth,
    drop_observations,
    finish,
    no_features,
)

WINDOW, WINDOW_PIXELS = 1.5, 168
"""The stored label maps: side over the crop's, so that shifted crops stay inside, and pixels. The crop is the middle
of it, at `settings.RESOLUTION`."""


@dataclass(frozen=True)
class PhotoAugmentation:
    """How the network's input differs from the observations; shares of people, as in `Mix`."""

    dropout: Mix = field(default_factory=Mix)
    noise: float = 0.015
    """Largest standard deviation of the keypoint noise per axis, over the longer side of the keypoints' box."""
    cut: float = 0.2
    """People seen only on one side of a line; the crop moves to what is left."""
    mirrored: float = 0.5


@dataclass(frozen=True)
class PhotoBatch:
    """B people: the network's input, and what its output is compared with."""

    inputs: RegressorInput
    mirror: Tensor  # (B,) bool: the input is mirrored
    observed: Batch  # in pixels of the stored label maps
    truth: Truth  # the fitted bodies, full image's camera frame
    has_body: Tensor  # (B,) 1 if known
    weight: Tensor  # (B,) of each fitted body

    def __len__(self) -> int:
        return len(self.inputs)

    def to(self, device: torch.device) -> PhotoBatch:
        """`observed` stays on the CPU; its users move what they need."""
        truth = Truth(*(value.to(device) for value in self.truth))
        tensors = {name: getattr(self, name).to(device) for name in ("inputs", "mirror", "has_body", "weight")}
        return replace(self, truth=truth, **tensors)


@dataclass(frozen=True)
class CutObservation(Observation):
    """An observation in the pixels of a window that was cut from the full image."""

    centre: tuple[float, float] = (0.0, 0.0)
    """The full image's principal point."""

    @property
    def principal_point(self) -> tuple[float, float]:
        return self.centre


class Photos:
    """Draws batches; the same generator gives the same batches."""

    def __init__(
        self, labels: PseudoLabels, keypoint_valid: Tensor, by_quality: bool, features: np.ndarray | None = None
    ) -> None:
        """`keypoint_valid` (49,) marks what the body defines; `features` (N, 2, D) are of `photo_features`."""
        self.labels, self.keypoint_valid, self.features = labels, keypoint_valid, features
        focal, centre = labels.intrinsics[:, None, :1], labels.intrinsics[:, None, 1:]
        self.rays = (labels.keypoints[..., :2] - centre) / focal
        self.confidence = labels.keypoints[..., 2] * keypoint_valid.numpy()
        self.weight = labels.quality if by_quality else np.ones(len(labels), np.float32)
        self._cache: dict[int, tuple[CutObservation, bytes]] = {}

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, size: int, augmentation: PhotoAugmentation, rng: np.random.Generator) -> PhotoBatch:
        """Random people, with augmented input."""
        rows = rng.integers(len(self), size=size)
        mirror = rng.uniform(size=size) < augmentation.mirrored
        scene, observed = self._scene(rows, mirror)
        augment(scene, augmentation, rng)
        return self._batch(rows, scene, observed, mirror)

    def whole(self, rows: np.ndarray) -> PhotoBatch:
        """These people, with all observations as input."""
        mirror = np.zeros(len(rows), bool)
        return self._batch(rows, *self._scene(rows, mirror), mirror)

    def _batch(self, rows: np.ndarray, scene: Scene, observed: Batch, mirror: np.ndarray) -> PhotoBatch:
        labels = self.labels
        pose, betas, cam_t = (torch.from_numpy(v[rows]) for v in (labels.full_pose, labels.betas, labels.cam_t))
        return PhotoBatch(
            finish(scene, mirror)[0],
            torch.from_numpy(mirror),
            observed,
            Truth(axis_angle_to_matrix(pose.unflatten(1, (24, 3))), betas, cam_t),
            torch.from_numpy(labels.has_body[rows]).float(),
            torch.from_numpy(self.weight[rows]),
        )

    def _scene(self, rows: np.ndarray, mirror: np.ndarray) -> tuple[Scene, Batch]:
        """The observations of these people: for the network's input (features as mirrored), and for the losses."""
        observations: list[Observation] = [self._observation(int(row)) for row in rows]
        observed = Batch(observations, crop_camera=False, keypoint_valid=self.keypoint_valid)
        maps = np.stack([observation.labels for observation in observations])
        shown = np.any(shows_person(maps), axis=(1, 2))
        focal = np.array([observation.focal_length for observation in observations])
        centre = np.array([observation.principal_point for observation in observations])
        window = np.column_stack([(WINDOW_PIXELS / 2 - centre) / focal[:, None], WINDOW_PIXELS / focal])
        labels = self.labels
        features = no_features(len(rows))
        if self.features is not None:
            shown_features = self.features[rows, mirror.astype(int)]
            features = shown_features, np.asarray(shown_features.any(1))
        scene = Scene(
            labels.full_pose[rows], labels.betas[rows], labels.cam_t[rows], self.rays[rows], self.confidence[rows],
            labels.world[rows], window, maps, shown, *features,
        )  # fmt: skip
        return scene, observed

    def _observation(self, row: int) -> CutObservation:
        """Cut once and kept compressed, since the label maps of a whole data set are large."""
        if row not in self._cache:
            observation = self._cut(row)
            packed = zlib.compress(observation.labels.tobytes(), 1)
            self._cache[row] = replace(observation, labels=_NOTHING), packed
        observation, packed = self._cache[row]
        labels = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(WINDOW_PIXELS, WINDOW_PIXELS)
        return replace(observation, labels=labels)

    def _cut(self, row: int) -> CutObservation:
        crop = self.labels.crop(row)
        window = Crop(crop.center, crop.side * WINDOW)
        scale = WINDOW_PIXELS / window.side
        keypoints = self.labels.keypoints[row].copy()
        keypoints[:, :2] = (keypoints[:, :2] - window.origin) * scale * (keypoints[:, 2:] > 0)
        focal, x, y = (float(value) for value in self.labels.intrinsics[row])
        return CutObservation(
            image=_NO_IMAGE,
            detection=Detection(keypoints, source="pseudo-labels"),
            labels=crop_labels(self.labels.labels(row), window, WINDOW_PIXELS),
            labels_source="pseudo-labels",
            focal_length=focal * scale,
            centre=((x - window.origin[0]) * scale, (y - window.origin[1]) * scale),
        )


_NOTHING = np.zeros((0, 0), np.uint8)
_NO_IMAGE = np.broadcast_to(np.zeros(3, np.uint8), (WINDOW_PIXELS, WINDOW_PIXELS, 3))


def augment(scene: Scene, augmentation: PhotoAugmentation, rng: np.random.Generator) -> None:
    """Add noise to keypoints, cut people off, and drop observations as `Mix` says."""
    side = box(scene.rays, scene.confidence > 0.2)[1]
    noise = rng.uniform(0, augmentation.noise, len(scene.rays)) * side
    scene.rays = scene.rays + rng.normal(size=scene.rays.shape) * noise[:, None, None]
    left = scene.confidence * ~_cut_off(scene, augmentation.cut, rng)
    enough = (left > 0.2).sum(1) >= FEWEST
    scene.confidence = np.where(enough[:, None], left, scene.confidence)
    drop_observations(scene, augmentation.dropout, rng)


def _cut_off(scene: Scene, share: float, rng: np.random.Generator) -> np.ndarray:
    """(N, 49) bool: points beyond a horizontal or vertical line, for this share of the people."""
    count, seen = len(scene.rays), scene.confidence > 0.2
    low = np.where(seen[..., None], scene.rays, np.inf).min(1)
    high = np.where(seen[..., None], scene.rays, -np.inf).max(1)
    line = low + rng.uniform(0.35, 0.95, (count, 1)) * (high - low)
    beyond = scene.rays > line[:, None]  # below, or right of it
    # Mostly the legs are out of the picture.
    axis = (rng.uniform(size=count) < 0.7).astype(int)
    cut = rng.uniform(size=count) < share
    return beyond[np.arange(count), :, axis] & cut[:, None]


def mirrored(placed: Placed, mirror: Tensor) -> Placed:
    """Bodies mirrored (x negated) where `mirror` (B,) bool is set; its own inverse.

    Keypoints are exact up to the millimetres by which a body isn't symmetric.
    """
    over = placed.cam_t.new_tensor([-1.0, 1.0, 1.0])
    chosen = mirror[:, None, None]
    rotations = placed.rotations[:, list(MIRRORED_JOINTS)] * torch.outer(over, over)
    return Placed(
        torch.where(chosen[..., None], rotations, placed.rotations),
        placed.betas,
        torch.where(mirror[:, None], placed.cam_t * over, placed.cam_t),
        torch.where(chosen, placed.keypoints[:, list(MIRRORED_KEYPOINTS)] * over, placed.keypoints),
    )
