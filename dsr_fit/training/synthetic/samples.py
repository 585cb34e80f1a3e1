"""Batches of synthetic people: what the network is shown of each, and the true body.

All geometry is in rays: pixels about the principal point over the focal length, so that no image size matters. Three
kinds of people are mixed, see `Mix`. People who were not painted get the detector's errors on a painted one in a
similar pose, seen from a similar side.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from dsr_fit.assets import shipped
from dsr_fit.body.skeleton import Skeleton
from dsr_fit.camera import CROP_MARGIN
from dsr_fit.io.files import read_arrays
from dsr_fit.joints import COCO_17_SLOTS, MIRRORED_KEYPOINTS, mirrored_pose
from dsr_fit.labels import MIRRORED_LABELS, UNKNOWN
from dsr_fit.observe.pose_features import LENGTH
from dsr_fit.priors.recorded_poses import PoseSet
from dsr_fit.regressor.encoders import LABEL_PIXELS
from dsr_fit.regressor.open_network import RegressorInput
from dsr_fit.rotation import axis_angle_to_matrix
from dsr_fit.synthetic.staging import camera_rotation
from dsr_fit.synthetic.standing import stand
from dsr_fit.training.synthetic.augment import corrupt_labels, swap_limbs
from dsr_fit.training.synthetic.detector_errors import Detected, DetectorErrorBank, RandomDetectorErrors, box, turns_to
from dsr_fit.training.synthetic.people import STORED_PIXELS, People

SLOTS = (tuple(range(49)), tuple(range(25)), COCO_17_SLOTS)
"""What detectors give: everything, OpenPose's body, COCO's."""
MIRRORED_SEEN = 0.2
"""Chance that a person whose features are shown is mirrored; of others it is a half."""
FEWEST = 5
"""Fewer keypoints make no crop."""


@dataclass(frozen=True)
class Mix:
    """Shares of the kinds of people, and what is hidden from the network."""

    painted: float = 0.5
    """Painted people, with the detector's own keypoints, landmarks and features."""
    label_only: float = 0.25
    """Clothed people who were not painted, with errors from the bank; the rest are bare bodies in any pose, seen by
    any camera."""
    jitter: tuple[float, float] = (0.003, 0.01)
    """Standard deviations of noise that is added to what the detector says of them, so that it isn't learnt by heart:
    keypoints, over the longer side of their box, and landmarks, metres."""
    parsed: float = 0.6
    """Of the painted people's label maps, those by the parser; the others are true."""
    without_world: float = 0.25
    without_labels: float = 0.25
    without_features: float = 0.25
    """Of those whose features are known; painted people who are mirrored lose them too."""
    other_detector: float = 0.35
    """Of the people who were not painted, those with another detector's keypoints: noise, no landmarks, and all slots,
    OpenPose's or COCO's; for half of the clothed ones only visible keypoints."""
    sparse: float = 0.4
    """Share of people who lose many keypoints, each with a chance of up to `sparse_dropout`; others lose few."""
    sparse_dropout: float = 0.35
    dropout: float = 0.02
    """Chance that any other person's keypoint is lost."""
    swapped_limbs: float = 0.5
    """Of the bare bodies, those with limbs from several people."""
    standing: float = 0.2
    """Of the bare bodies, those who stand, whatever their arms do."""
    corrupted_labels: float = 0.6
    """Of the label maps, those with an error: a part is lost, garments or sides are confused."""
    cut: float = 0.2
    """Of the bare bodies, those seen only above some line in the picture."""


class Truth(NamedTuple):
    """The true bodies of a batch, full image's camera frame."""

    rotations: Tensor  # (B, 24, 3, 3)
    betas: Tensor  # (B, 10)
    cam_t: Tensor  # (B, 3)


@dataclass
class Scene:
    """People in front of their cameras, and what detector and parser say of them; the last fields may be empty."""

    full_pose: np.ndarray  # (N, 72)
    betas: np.ndarray  # (N, 10)
    cam_t: np.ndarray  # (N, 3)
    rays: np.ndarray  # (N, 49, 2) keypoints as seen
    confidence: np.ndarray  # (N, 49)
    world: np.ndarray  # (N, 49, 4) metres about the mid-hip, axes of the image's camera, and confidence
    window: np.ndarray  # (N, 3) the label maps' centre and side, in rays
    labels: np.ndarray  # (N, S, S) uint8
    labels_seen: np.ndarray  # (N,) bool
    features: np.ndarray  # (N, D) float16, see `dsr_fit.observe.pose_features`
    features_seen: np.ndarray  # (N,) bool


def concatenated(scenes: list[Scene]) -> Scene:
    return Scene(*(np.concatenate([getattr(scene, f.name) for scene in scenes]) for f in fields(Scene)))


class Sampler:
    """Draws batches; the same seed gives the same ones."""

    def __init__(
        self,
        people: People | None,
        poses: PoseSet,
        skeleton: Skeleton,
        mix: Mix,
        features: np.ndarray | None = None,
    ) -> None:
        """Without `people` all are bare bodies, with random detector errors; `features` (M, D) are of the first ones,
        who were painted."""
        self.skeleton, self.mix = skeleton, mix if people is not None else replace(mix, painted=0, label_only=0)
        self.people = _no_people() if people is None else people
        found = np.flatnonzero((self.people.keypoints[..., 2] > 0).sum(1) >= 8)
        self.painted = self.people.rows(found)
        self.features = None if features is None or not len(features) else features[found]
        self.detector_errors = RandomDetectorErrors() if people is None else DetectorErrorBank(self.painted)
        self.poses = poses
        self.photo_poses = read_arrays(shipped("priors/pose/photo_poses.npz"))["body_pose"].astype(np.float64)

    def batch(self, size: int, rng: np.random.Generator) -> tuple[RegressorInput, Truth]:
        """What is seen of this many people, and the truth."""
        painted, label_only = round(self.mix.painted * size), round(self.mix.label_only * size)
        kinds = (
            (self._painted, painted), (self._label_only, label_only), (self._bare, size - painted - label_only),
        )  # fmt: skip
        scene = concatenated([draw(count, rng) for draw, count in kinds if count])
        drop_observations(scene, self.mix, rng)
        mirror = rng.uniform(size=size) < np.where(scene.features_seen, MIRRORED_SEEN, 0.5)
        scene.features_seen = scene.features_seen & ~mirror  # those of a mirrored picture are others
        return finish(scene, mirror)

    def _painted(self, count: int, rng: np.random.Generator) -> Scene:
        chosen = rng.integers(len(self.painted), size=count)
        people = self.painted.rows(chosen)
        by_parser = rng.uniform(size=count) < self.mix.parsed
        features = None if self.features is None else self.features[chosen]
        scene = scene_of(people, np.where(by_parser[:, None, None], people.parsed, people.labels), features=features)
        side = box(scene.rays, scene.confidence > 0.2)[1]
        flat, deep = self.mix.jitter
        scene.rays = scene.rays + rng.normal(0, flat, scene.rays.shape) * side[:, None, None]
        scene.world[..., :3] += rng.normal(0, deep, scene.world[..., :3].shape) * (scene.world[..., 3:] > 0)
        return scene

    def _label_only(self, count: int, rng: np.random.Generator) -> Scene:
        people = self.people.rows(rng.integers(len(self.people), size=count))
        seen = self.detector_errors.apply(rng, people.joints)
        in_sight = people.visible | (rng.uniform(size=count) < 0.5)[:, None]
        return scene_of(people, people.labels, self._other_detectors(people.joints, in_sight, seen, rng))

    def _bare(self, count: int, rng: np.random.Generator) -> Scene:
        pose, betas = self._random_poses(count, rng), rng.normal(size=(count, 10)).astype(np.float32)
        cam_t, joints = self._before_cameras(pose, betas, rng)
        everything = np.ones(joints.shape[:2], bool)
        seen = self.detector_errors.apply(rng, joints)
        rays, confidence, world = self._other_detectors(joints, everything, seen, rng)
        true = joints[..., :2] / joints[..., 2:]
        cut = rng.uniform(size=count) < self.mix.cut
        lowest, highest = true[..., 1].min(1), true[..., 1].max(1)
        line = np.where(cut, lowest + rng.uniform(0.35, 0.95, count) * (highest - lowest), np.inf)
        left = confidence * (rays[..., 1] < line[:, None])
        # What the bank's detector saw of somebody may all lie beyond the line.
        confidence = np.where((left > 0).sum(1, keepdims=True) >= FEWEST, left, confidence)
        empty = np.full((count, *self.people.labels.shape[1:]), UNKNOWN, np.uint8)
        place = np.ones((count, 3), np.float32)
        return Scene(
            pose, betas, cam_t, rays, confidence, world, place, empty, np.zeros(count, bool), *no_features(count)
        )

    def _other_detectors(
        self, joints: np.ndarray, in_sight: np.ndarray, seen: Detected, rng: np.random.Generator
    ) -> Detected:
        """What was seen; for some people replaced by another detector's keypoints, of those `in_sight` (N, 49)."""
        rays, confidence, world = seen
        count = len(joints)
        true = joints[..., :2] / joints[..., 2:]
        side = box(true, np.ones(true.shape[:2], bool))[1]
        noise = np.exp(rng.uniform(np.log(0.002), np.log(0.02), count)) * side
        noisy = true + rng.normal(size=true.shape) * noise[:, None, None]
        slots = np.stack([np.isin(np.arange(49), each) for each in SLOTS])[rng.integers(len(SLOTS), size=count)]
        given = slots & in_sight
        theirs = (rng.uniform(size=count) < self.mix.other_detector) & (given.sum(1) >= FEWEST)
        sure = given * rng.uniform(0.5, 1, given.shape)
        return (
            np.where(theirs[:, None, None], noisy, rays),
            np.where(theirs[:, None], sure, confidence),
            np.where(theirs[:, None, None], 0, world),
        )

    def _random_poses(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """(N, 72) in the camera frame: captured ones, of photos, or limbs of several people on one."""
        clips = [np.flatnonzero(self.poses.clip == clip) for clip in np.unique(self.poses.clip)]
        evenly = np.array([rng.choice(clips[k]) for k in rng.integers(len(clips), size=count)])
        index = np.where(rng.uniform(size=count) < 0.5, evenly, rng.integers(len(self.poses), size=count))
        pose = self.poses.full_pose[index].astype(np.float64)
        of_photo = rng.uniform(size=count) < 0.3
        pose[of_photo, 3:] = self.photo_poses[rng.integers(len(self.photo_poses), size=of_photo.sum())]
        pose[of_photo, :3] = rng.normal(0, 0.08, (of_photo.sum(), 3))
        pose = swap_limbs(pose, self.mix.swapped_limbs, rng)
        pose[:, 3:] += rng.normal(0, 1, (count, 69)) * rng.uniform(0.02, 0.12, (count, 1))
        standing = rng.uniform(size=count) < self.mix.standing
        pose[standing] = stand(pose[standing], rng, relaxed=0.4)
        heading = Rotation.from_rotvec(rng.uniform(-np.pi, np.pi, count)[:, None] * [0, 1, 0])
        camera = np.stack([camera_rotation(*angles) for angles in rng.normal([0.06, 0], [0.2, 0.1], (count, 2))])
        root = Rotation.from_matrix(camera) * heading * Rotation.from_rotvec(pose[:, :3])
        return np.concatenate([root.as_rotvec(), pose[:, 3:]], 1).astype(np.float32)

    def _before_cameras(
        self, pose: np.ndarray, betas: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Translations (N, 3) and keypoints (N, 49, 3): each fills a part of the picture, somewhere in it."""
        count = len(pose)
        rotations = axis_angle_to_matrix(torch.from_numpy(pose).unflatten(1, (24, 3)))
        centred = self.skeleton.keypoints(rotations, torch.from_numpy(betas)).numpy()
        half = np.exp(rng.uniform(np.log(0.1), np.log(0.6), count))  # of the crop, over the focal length
        away = rng.uniform(-1, 1, (count, 2)) * np.maximum(0.55 - half, 0.12)[:, None]
        cam_t = np.zeros((count, 3), np.float32)
        cam_t[:, 2] = 1 / half
        for _ in range(6):
            placed = centred + cam_t[:, None]
            placed[..., 2] = np.maximum(placed[..., 2], 0.3)
            middle, side = box(placed[..., :2] / placed[..., 2:], np.ones(placed.shape[:2], bool))
            cam_t[:, 2] *= (CROP_MARGIN * side / 2 / half) ** 0.9
            cam_t[:, 2] = np.maximum(cam_t[:, 2], 0.4 - centred[..., 2].min(1))
            cam_t[:, :2] += (away - middle) * cam_t[:, 2:]
        return cam_t, centred + cam_t[:, None]


def drop_observations(scene: Scene, mix: Mix, rng: np.random.Generator) -> None:
    """Drop keypoints, landmarks and label maps, and corrupt some label maps."""
    count = len(scene.rays)
    confidence = scene.confidence * ~dropped_keypoints(scene.confidence.shape, mix, rng)
    # A person left with too few points for a crop keeps them all, with enough confidence to count.
    enough = (confidence > 0.2).sum(1) >= FEWEST
    everything = np.maximum(scene.confidence, 0.21) * (scene.confidence > 0)
    scene.confidence = np.where(enough[:, None], confidence, everything)
    scene.world = scene.world * (rng.uniform(size=count) >= mix.without_world)[:, None, None]
    scene.labels_seen = scene.labels_seen & (rng.uniform(size=count) >= mix.without_labels)
    scene.features_seen = scene.features_seen & (rng.uniform(size=count) >= mix.without_features)
    for row in np.flatnonzero(scene.labels_seen & (rng.uniform(size=count) < mix.corrupted_labels)):
        scene.labels[row] = corrupt_labels(scene.labels[row], rng)


def dropped_keypoints(shape: tuple[int, ...], mix: Mix, rng: np.random.Generator) -> np.ndarray:
    """(N, K) bool: keypoints that a detector doesn't give."""
    count = shape[0]
    sparse = rng.uniform(size=count) < mix.sparse
    chance = np.where(sparse, rng.uniform(0, mix.sparse_dropout, count), mix.dropout)
    return rng.uniform(size=shape) < chance[:, None]


def no_features(count: int) -> tuple[np.ndarray, np.ndarray]:
    """`Scene.features` and `Scene.features_seen` of people without."""
    return np.zeros((count, LENGTH), np.float16), np.zeros(count, bool)


def scene_of(
    people: People, labels: np.ndarray, seen: Detected | None = None, features: np.ndarray | None = None
) -> Scene:
    """As the detector has found them, or with other rays, confidences and landmarks."""
    focal, centre = people.intrinsics[:, :1], people.intrinsics[:, 1:]
    window = np.concatenate([(people.window[:, :2] - centre) / focal, people.window[:, 2:] / focal], 1)
    if seen is None:
        rays, confidence = (people.keypoints[..., :2] - centre[:, None]) / focal[:, None], people.keypoints[..., 2]
        turns = turns_to(box(rays, confidence > 0.2)[0])
        seen = rays, confidence, np.concatenate([people.world[..., :3] @ turns, people.world[..., 3:]], 2)
    shown = no_features(len(people)) if features is None else (features.copy(), np.asarray(features.any(1)))
    labelled = np.ones(len(people), bool)
    return Scene(people.full_pose, people.betas, people.cam_t, *seen, window, labels, labelled, *shown)


def finish(scene: Scene, mirror: np.ndarray) -> tuple[RegressorInput, Truth]:
    """The network's input and the truth, mirrored for some people (`mirror` (N,) bool), all but their features."""
    centre, side = box(scene.rays, scene.confidence > 0.2)
    half = CROP_MARGIN * side / 2
    points = (scene.rays - centre[:, None]) / half[:, None, None]
    points = np.concatenate([points, scene.confidence[..., None]], 2) * (scene.confidence > 0)[..., None]
    place = np.concatenate([centre, half[:, None]], 1)
    labels = _cropped(scene, centre, half)
    pose, cam_t = scene.full_pose, scene.cam_t
    world = np.concatenate([scene.world[..., :3] @ turns_to(centre).transpose(0, 2, 1), scene.world[..., 3:]], 2)
    order = list(MIRRORED_KEYPOINTS)
    x_over = np.array([-1, 1, 1, 1])
    points = np.where(mirror[:, None, None], points[:, order] * x_over[:3], points)
    world = np.where(mirror[:, None, None], world[:, order] * x_over, world)
    place = np.where(mirror[:, None], place * x_over[:3], place)
    labels = np.where(mirror[:, None, None], MIRRORED_LABELS[labels[..., ::-1]], labels)
    pose = np.where(mirror[:, None], mirrored_pose(pose), pose)
    cam_t = np.where(mirror[:, None], cam_t * x_over[:3], cam_t)

    def tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, np.float32))

    inputs = RegressorInput(
        tensor(points),
        tensor(world),
        tensor(place),
        torch.from_numpy(labels),
        tensor(scene.labels_seen),
        torch.from_numpy(scene.features),
        tensor(scene.features_seen),
    )
    rotations = axis_angle_to_matrix(tensor(pose).unflatten(1, (24, 3)))
    return inputs, Truth(rotations, tensor(scene.betas), tensor(cam_t))


def _cropped(scene: Scene, centre: np.ndarray, half: np.ndarray) -> np.ndarray:
    """(N, 64, 64) the stored label maps cut to the crops, unknown beyond them."""
    stored = scene.labels.shape[1]
    steps = (np.arange(LABEL_PIXELS) + 0.5) / LABEL_PIXELS * 2 - 1
    across = centre[..., None] + half[:, None, None] * steps  # (N, 2, 64)
    index = np.floor(((across - scene.window[:, :2, None]) / scene.window[:, 2:, None] + 0.5) * stored).astype(np.int64)
    inside = (index >= 0) & (index < stored)
    column, row = index.clip(0, stored - 1).transpose(1, 0, 2)
    cut = scene.labels[np.arange(len(half))[:, None, None], row[:, :, None], column[:, None, :]]
    known = inside[:, 1, :, None] & inside[:, 0, None, :] & scene.labels_seen[:, None, None]
    return np.where(known, cut, np.uint8(UNKNOWN))


def _no_people() -> People:
    pixels = (STORED_PIXELS, STORED_PIXELS)
    shapes = ((72,), (10,), (3,), (3,), (49, 3), (49,), (3,), pixels, pixels, (49, 3), (49, 4))
    return People(*(np.zeros((0, *shape), np.float32) for shape in shapes))
