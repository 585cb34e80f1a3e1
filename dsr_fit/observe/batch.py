"""The observations of a batch of people as tensors: points, and label maps cut to the crop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor

from dsr_fit.camera import SPIN_FOCAL, SPIN_RESOLUTION, Crop, ray_rotation
from dsr_fit.labels import LABEL_SETS, MC_LABELS, UNKNOWN, shows_person, valid_mc_labels
from dsr_fit.observation import Observation
from dsr_fit.observe.crop import warp
from dsr_fit.tensors import Tensors
from dsr_fit.terms.points import box_side, disagreement


@dataclass(frozen=True)
class Points(Tensors):
    """Observed points of B people; N = 49 slots."""

    pixels: Tensor  # (B, N, 2) full image
    confidence: Tensor  # (B, N), 0 where unobserved
    box: Tensor  # (B,) longer side of the confident points' box, pixels
    world: Tensor  # (B, N, 3) metres, camera axes, about an origin of the detector's
    world_confidence: Tensor  # (B, N), all 0 for people without 3D
    intrinsics: Tensor  # (B, 4) fx, fy, cx, cy of the full image
    height: Tensor | None = None  # (B,) metres, NaN where unknown; None where nobody's is known
    disagreement: Tensor | None = None  # (B,) of pixels and world, see `dsr_fit.terms.points`; None: not compared


@dataclass(frozen=True)
class Targets(Tensors):
    """The targets of the rendered terms at one resolution S. K classes of the label set."""

    resolution: int
    classes: Tensor  # (B, S, S) int64, 0 where unknown
    known: Tensor  # (B, S, S) 1 where the label is known, 0 on occluders, unknown pixels and outside the image
    class_weights: Tensor  # (B, S, S) weight of the observed class, 0 where unknown
    person: Tensor  # (B, S, S) 1 on any label of the person
    mc_mask: Tensor  # (B, S, S) 1 on the image's valid MC labels
    mc_distance: Tensor  # (B, S, S) pixels at 224 px to the nearest MC pixel
    mc_seen: Tensor  # (B,) 1 where there is a valid MC label


def crop_labels(labels: np.ndarray, crop: Crop, resolution: int) -> np.ndarray:
    """(H, W) labels -> (S, S) of the crop, nearest pixel; outside the image is unknown."""
    return warp(labels, crop.matrix(resolution), resolution, UNKNOWN, nearest=True)


def crop_camera_of(crop: Crop) -> tuple[float, tuple[float, float]]:
    """SPIN's camera as one of the full image: focal length and principal point (the crop's centre), pixels."""
    return SPIN_FOCAL * crop.side / SPIN_RESOLUTION, crop.center


class Batch:
    """B observations, ready for the fit."""

    def __init__(self, observations: list[Observation], *, crop_camera: bool, keypoint_valid: Tensor) -> None:
        """`crop_camera` fits with SPIN's camera; `keypoint_valid` (49,) marks what the body defines.

        `labels` are the label maps cut to the crop, (224, 224) each; `axes` (B, 3, 3) turn the axes of the full image's
        camera into those of the fit's.
        """
        self.observations = observations
        self.crops = [Crop.around(item.detection.keypoints) for item in observations]
        cameras = [
            crop_camera_of(crop) if crop_camera else (item.focal_length, item.principal_point)
            for item, crop in zip(observations, self.crops, strict=True)
        ]
        self.focal_lengths = [focal for focal, _ in cameras]
        self.principal_points = [point for _, point in cameras]
        # SPIN's camera looks along the crop's centre; the full image's is the fit's own. (B, 3, 3)
        self.axes = torch.stack([
            ray_rotation(crop, item.focal_length, item.principal_point).float() if crop_camera else torch.eye(3)
            for item, crop in zip(observations, self.crops, strict=True)
        ])  # fmt: skip
        keypoints = torch.from_numpy(np.stack([item.detection.keypoints for item in observations])).float()
        confidence = keypoints[..., 2] * keypoint_valid
        world = torch.zeros(len(observations), keypoints.shape[1], 4)
        for row, (item, crop) in enumerate(zip(observations, self.crops, strict=True)):
            if item.detection.world_landmarks is not None:
                world[row] = torch.from_numpy(item.detection.world_landmarks)
                # A detector looks at a crop, and knows nothing of where it lies in the image.
                turn = ray_rotation(crop, self.focal_lengths[row], self.principal_points[row])
                world[row, :, :3] = (world[row, :, :3].double() @ turn).float()
        intrinsics = torch.tensor([[focal, focal, *point] for focal, point in cameras], dtype=torch.float32)
        world, world_confidence = world[..., :3], world[..., 3] * keypoint_valid
        self.points = Points(
            pixels=keypoints[..., :2],
            confidence=confidence,
            box=box_side(keypoints[..., :2], keypoints[..., 2]),
            world=world,
            world_confidence=world_confidence,
            intrinsics=intrinsics,
            height=_heights([item.height for item in observations]),
            disagreement=disagreement(keypoints[..., :2], confidence, world, world_confidence, intrinsics),
        )
        self.labels = [crop_labels(item.labels, crop, 224) for item, crop in zip(observations, self.crops, strict=True)]
        self.mc_valid = torch.from_numpy(np.stack([valid_mc_labels(labels) for labels in self.labels]))  # (B, 5)

    def __len__(self) -> int:
        return len(self.observations)

    def targets(self, resolution: int, label_set: str, class_weights: bool) -> Targets:
        """Label maps at this resolution. `class_weights` balances classes by area as the released code does."""
        items = zip(self.observations, self.crops, strict=True)
        labels = np.stack([crop_labels(item.labels, crop, resolution) for item, crop in items])
        return targets_of(labels, self.mc_valid.numpy(), label_set, class_weights)


def _heights(known: Sequence[float | None]) -> Tensor | None:
    if not any(known):
        return None
    return torch.tensor([math.nan if height is None else height for height in known], dtype=torch.float32)


def targets_of(labels: np.ndarray, mc_valid: np.ndarray, label_set: str, class_weights: bool) -> Targets:
    """Of (B, S, S) label maps cut to the crops; `mc_valid` (B, 5) are the labels of `MC_LABELS` that count."""
    resolution = labels.shape[1]
    lookup = LABEL_SETS[label_set].lookup()
    classes = lookup[labels]
    known = classes >= 0
    classes = np.where(known, classes, 0)
    mc_mask = np.zeros(labels.shape, bool)
    for row, valid in enumerate(mc_valid):
        mc_mask[row] = np.isin(labels[row], np.array(MC_LABELS)[valid])
    weights = known.astype(np.float32)
    if class_weights:
        for row in range(len(labels)):
            weights[row] *= _balance(classes[row], known[row], LABEL_SETS[label_set].num_classes)[classes[row]]
    distance = np.stack([_distance(mask) * (224 / resolution) for mask in mc_mask])

    def single(array: np.ndarray) -> Tensor:
        return torch.from_numpy(array.astype(np.float32))

    return Targets(
        resolution=resolution,
        classes=torch.from_numpy(classes),
        known=single(known),
        class_weights=single(weights),
        person=single(shows_person(labels)),
        mc_mask=single(mc_mask),
        mc_distance=single(distance),
        mc_seen=single(np.any(mc_mask, axis=(1, 2))),
    )


def _balance(classes: np.ndarray, known: np.ndarray, num_classes: int) -> np.ndarray:
    """(K,) released class weights: area of the smallest class over this class's area, 0 for hardly visible ones."""
    areas = np.bincount(classes[known], minlength=num_classes).astype(np.float64)
    present = areas > 60 * (classes.shape[0] / 224) ** 2
    if not present.any():
        return np.zeros(num_classes, np.float32)
    return np.where(present, areas[present].min() / np.maximum(areas, 1), 0).astype(np.float32)


def _distance(mask: np.ndarray) -> np.ndarray:
    """Pixels to the nearest pixel of the mask; zeros where the mask is empty."""
    if not mask.any():
        return np.zeros(mask.shape, np.float32)
    return cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
