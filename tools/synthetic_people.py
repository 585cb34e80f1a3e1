"""Makes the synthetic people of `dsr_fit.training.synthetic.people`, which the open body's regressor learns from.

A label map alone takes a tenth of a second; some people are painted too, so that the real detector and parser can run
on them, and their errors are reused for the others. Each painted one is seen twice: as it is, and mirrored in a worse
picture, which may end somewhere above the feet.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Self

import numpy as np

from dsr_fit.boxes import joint_area, keypoint_box, shared_area
from dsr_fit.camera import CROP_MARGIN, Crop
from dsr_fit.io.files import replacing
from dsr_fit.io.label_files import keep_own_labels
from dsr_fit.joints import MIRRORED_KEYPOINTS, mirrored_pose
from dsr_fit.labels import MIRRORED_LABELS, UNKNOWN
from dsr_fit.observation import Detection
from dsr_fit.observe.batch import crop_labels
from dsr_fit.observe.detector import PersonDetector
from dsr_fit.observe.parser import HumanParser, load_parser
from dsr_fit.observe.pose_features import LENGTH
from dsr_fit.priors.recorded_poses import PoseSet, load_poses
from dsr_fit.synthetic import ClothedCase, generate
from dsr_fit.synthetic.staging import Casting
from dsr_fit.training.parsing.augment import photographed
from dsr_fit.training.synthetic.augment import swap_limbs
from dsr_fit.training.synthetic.people import (
    FEATURES,
    HELD_OUT_SEED,
    LABELLED_SEED,
    STORED_PIXELS,
    People,
)

FEWEST = 8
"""Visible keypoints of a person who is recorded."""
SHARD = 50
"""People in a file."""
STORED_SIDE = 1.8
"""Side of the stored label maps over the keypoints' box, wide enough for jittered crops."""
STANDING = 0.2
"""Share of people who stand, which motion capture knows little of."""
WORSE = 0.3
"""Chance of each thing that makes a mirrored picture worse."""
CUT_SHORT, CUT = 0.45, (0.35, 0.95)
"""Chance that a mirrored picture ends above the feet, and where, in shares of the keypoints' height."""
SAME_PERSON = 0.3
"""IoU of the keypoints' boxes from which a detection is the person's."""


def casting() -> Casting:
    """Poses to train on, half of them with swapped limbs, seen by a photo's cameras; all more varied than in the
    benchmark."""
    captured = load_poses().part(held_out=False)
    mixed = swap_limbs(captured.full_pose, 1.0, np.random.default_rng(0))
    clip, held_out = (np.tile(each, 2) for each in (captured.clip, captured.held_out))
    poses = PoseSet(np.concatenate([captured.full_pose, mixed]), clip, captured.clip_names, held_out)
    return Casting(poses, pose_noise=0.06, pitch=(0.04, 0.18), roll=0.06, standing=STANDING)


@dataclass
class CaseObserver:
    """Detector and parser, for painted people."""

    detector: PersonDetector
    parser: HumanParser

    @classmethod
    def make(cls) -> Self:
        return cls(PersonDetector(), load_parser("open", "fast"))

    def find(self, case: ClothedCase) -> Detection | None:
        """The detection that is the case's person, if any."""
        box = keypoint_box(case.keypoints)
        if min(box[2:]) < 1:
            return None
        for found in self.detector.detect(case.image, box):
            other = keypoint_box(found.keypoints)
            if shared_area(box, other) > SAME_PERSON * joint_area(box, other):
                return found
        return None


def mirrored(case: ClothedCase, rng: np.random.Generator) -> ClothedCase:
    """The case in a mirror, photographed badly; only what `record` reads."""
    over, order = np.array([-1, 1, 1], np.float32), list(MIRRORED_KEYPOINTS)
    pose = mirrored_pose(np.concatenate([case.global_orient, case.body_pose])[None])[0].astype(np.float32)
    return replace(
        case,
        image=photographed(np.ascontiguousarray(case.image[:, ::-1]), rng, WORSE),
        global_orient=pose[:3],
        body_pose=pose[3:],
        cam_t=case.cam_t * over,
        joints=case.joints[order] * over,
        keypoint_visibility=case.keypoint_visibility[order],
        labels=MIRRORED_LABELS[case.labels[:, ::-1]],
    )


def cut(case: ClothedCase, rng: np.random.Generator) -> ClothedCase:
    """The case in a picture that ends between its chest and its ankles; its camera remains the whole picture's."""
    _, top, _, height = keypoint_box(case.keypoints)
    end = int(np.clip(top + rng.uniform(*CUT) * height, 1, len(case.image)))
    above = case.keypoints[:, 1] < end
    return replace(
        case,
        image=np.ascontiguousarray(case.image[:end]),
        keypoint_visibility=case.keypoint_visibility & above,
        labels=np.concatenate([case.labels[:end], np.full_like(case.labels[end:], UNKNOWN)]),
    )


def record(case: ClothedCase, observer: CaseObserver | None) -> dict[str, np.ndarray]:
    """One row of `People`."""
    crop = Crop.around(case.keypoints)
    window = Crop(crop.center, crop.side / CROP_MARGIN * STORED_SIDE)
    found = None if observer is None else observer.find(case)
    seen = None if found is None else found.features
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
        FEATURES: np.zeros(LENGTH, np.float16) if seen is None else seen,
    }


def write_shard(folder: Path, first_seed: int) -> bool:
    """Make the `SHARD` people from this seed on; False if they exist."""
    path = folder / f"{first_seed:07d}.npz"
    if path.exists():
        return False
    painted = not LABELLED_SEED <= first_seed < HELD_OUT_SEED
    observer = CaseObserver.make() if painted else None
    cast = Casting() if first_seed >= HELD_OUT_SEED else casting()
    rows = []
    for seed in range(first_seed, first_seed + SHARD):
        case = generate(seed, cast, painted=painted)
        if case.keypoint_visibility.sum() < FEWEST:
            continue
        rows.append(record(case, observer))
        if painted and first_seed < HELD_OUT_SEED:
            rng = np.random.default_rng(seed)
            other = mirrored(case, rng)
            short = cut(other, rng) if rng.uniform() < CUT_SHORT else other
            rows.append(record(short if short.keypoint_visibility.sum() >= FEWEST else other, observer))
    if painted:
        (folder / FEATURES).mkdir(parents=True, exist_ok=True)
        with replacing((folder / FEATURES / path.name).with_suffix(".npy")) as temporary, temporary.open("wb") as file:
            np.save(file, np.stack([row[FEATURES] for row in rows]))
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as file:
        arrays = {field.name: np.stack([row[field.name] for row in rows]) for field in fields(People)}
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return True
