"""Synthetic people on disk, in shards: rendered bodies in clothes, and what detector and parser find of them.

A label map alone takes a tenth of a second; some people are painted too, so that the real detector and parser can run
on them, and their errors are reused for the others.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from dsr_fit.boxes import joint_area, keypoint_box, shared_area
from dsr_fit.camera import CROP_MARGIN, Crop
from dsr_fit.io.files import replacing
from dsr_fit.io.label_files import keep_own_labels
from dsr_fit.labels import UNKNOWN
from dsr_fit.observation import Detection
from dsr_fit.observe.batch import crop_labels
from dsr_fit.observe.detector import MediaPipeDetector
from dsr_fit.observe.parser import HumanParser, load_parser
from dsr_fit.priors.recorded_poses import PoseSet, load_poses
from dsr_fit.synthetic import ClothedCase, generate
from dsr_fit.synthetic.staging import Casting
from dsr_fit.training.synthetic.augment import swap_limbs

SHARD = 50
PAINTED_SEED, LABELLED_SEED, HELD_OUT_SEED = 1_000_000, 2_000_000, 3_000_000
"""First seeds: of people to train on, and of painted ones for validation, whose motion clips are held out. The
benchmark's seeds are far below."""
STORED_SIDE, STORED_PIXELS = 1.8, 112
"""Side of the stored label maps over the keypoints' box, wide enough for jittered crops; and their resolution."""
SAME_PERSON = 0.3


@dataclass(frozen=True)
class People:
    """N people as arrays: the truth, then what was observed."""

    full_pose: np.ndarray  # (N, 72) float32, camera frame
    betas: np.ndarray  # (N, 10) float32
    cam_t: np.ndarray  # (N, 3) float32 metres
    intrinsics: np.ndarray  # (N, 3) float32 focal, cx, cy of the full image
    joints: np.ndarray  # (N, 49, 3) float32 true keypoints, camera frame, metres
    visible: np.ndarray  # (N, 49) bool
    window: np.ndarray  # (N, 3) float32 centre and side of the stored label maps, pixels of the full image
    labels: np.ndarray  # (N, S, S) uint8 true labels
    parsed: np.ndarray  # (N, S, S) uint8 the parser's; all UNKNOWN for people who were not painted
    keypoints: np.ndarray  # (N, 49, 3) float32 the detector's; all 0 where it missed the person or wasn't asked
    world: np.ndarray  # (N, 49, 4) float32 its 3D landmarks

    def __len__(self) -> int:
        return len(self.betas)

    def rows(self, index: np.ndarray) -> People:
        return People(*(getattr(self, field.name)[index] for field in fields(self)))


def casting() -> Casting:
    """Poses to train on, half of them with swapped limbs, seen by a photo's cameras; all a little more varied than in
    the benchmark."""
    captured = load_poses().part(held_out=False)
    mixed = swap_limbs(captured.full_pose, 1.0, np.random.default_rng(0))
    clip, held_out = (np.tile(each, 2) for each in (captured.clip, captured.held_out))
    poses = PoseSet(np.concatenate([captured.full_pose, mixed]), clip, captured.clip_names, held_out)
    return Casting(poses, pose_noise=0.06, pitch=(0.06, 0.16), roll=0.06)


@dataclass
class CaseObserver:
    """Detector and parser, for painted people."""

    detector: MediaPipeDetector
    parser: HumanParser

    @classmethod
    def make(cls) -> CaseObserver:
        return cls(MediaPipeDetector(), load_parser("open", "fast"))

    def find(self, case: ClothedCase) -> Detection | None:
        """The detection that is the case's person, if any."""
        box = keypoint_box(case.keypoints)
        for found in self.detector.detect(case.image, None):
            other = keypoint_box(found.keypoints)
            if shared_area(box, other) > SAME_PERSON * joint_area(box, other):
                return found
        return None


def record(case: ClothedCase, observer: CaseObserver | None) -> dict[str, np.ndarray]:
    """One row of `People`."""
    crop = Crop.around(case.keypoints)
    window = Crop(crop.center, crop.side / CROP_MARGIN * STORED_SIDE)
    found = None if observer is None else observer.find(case)
    keypoints, world = np.zeros((49, 3), np.float32), np.zeros((49, 4), np.float32)
    parsed = np.full((STORED_PIXELS, STORED_PIXELS), UNKNOWN, np.uint8)
    if observer is not None and found is not None:
        keypoints = found.keypoints
        world = world if found.world_landmarks is None else found.world_landmarks
        labels = keep_own_labels(observer.parser.parse(case.image, found), keypoints, Crop.around(keypoints).side)
        parsed = crop_labels(labels, window, STORED_PIXELS)
    focal, _, cx, cy = case.intrinsics
    return {
        "full_pose": np.concatenate([case.global_orient, case.body_pose]),
        "betas": case.betas,
        "cam_t": case.cam_t,
        "intrinsics": np.array([focal, cx, cy], np.float32),
        "joints": case.joints,
        "visible": case.keypoint_visibility,
        "window": np.array([*window.center, window.side], np.float32),
        "labels": crop_labels(case.labels, window, STORED_PIXELS),
        "parsed": parsed,
        "keypoints": keypoints,
        "world": world,
    }


def write_shard(folder: Path, first_seed: int) -> bool:
    """Make the `SHARD` people from this seed on; False if they exist."""
    path = folder / f"{first_seed:07d}.npz"
    if path.exists():
        return False
    folder.mkdir(parents=True, exist_ok=True)
    painted = not LABELLED_SEED <= first_seed < HELD_OUT_SEED
    observer = CaseObserver.make() if painted else None
    cast = Casting() if first_seed >= HELD_OUT_SEED else casting()
    cases = (generate(first_seed + k, cast, painted=painted) for k in range(SHARD))
    rows = [record(case, observer) for case in cases if case.keypoint_visibility.sum() >= 8]
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **{name: np.stack([row[name] for row in rows]) for name in rows[0]})
    return True


def read_people(folder: Path, held_out: bool) -> People:
    """All people of the folder to train on, or all that are held out, in the order of their seeds."""
    shards = []
    for path in sorted(folder.glob("[0-9]*.npz")):
        if (int(path.stem) >= HELD_OUT_SEED) == held_out:
            with np.load(path, allow_pickle=False) as archive:
                shards.append([archive[field.name] for field in fields(People)])
    return People(*(np.concatenate(arrays) for arrays in zip(*shards, strict=True)))
