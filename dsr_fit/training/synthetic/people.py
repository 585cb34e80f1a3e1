"""Synthetic people on disk, in shards: rendered bodies in clothes, and what detector and parser find of them.

`tools/synthetic_people.py` makes them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from dsr_fit.errors import InputError
from dsr_fit.observe.pose_features import LENGTH

PAINTED_SEED, LABELLED_SEED, HELD_OUT_SEED = 1_000_000, 2_000_000, 3_000_000
"""First seeds: of people to train on, and of painted ones for validation, whose motion clips are held out. The
benchmark's seeds are far below."""
FEATURES = "features"
"""Folder beside the people's files with (N, `pose_features.LENGTH`) float16 of the painted ones, .npy; zeros where the
detector missed the person."""
STORED_PIXELS = 112
"""Side of the stored label maps."""


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


def read_people(folder: Path, held_out: bool) -> People:
    """All people of the folder to train on, or all that are held out, in the order of their seeds."""
    shards = []
    for path in sorted(folder.glob("[0-9]*.npz")):
        if (int(path.stem) >= HELD_OUT_SEED) == held_out:
            with np.load(path, allow_pickle=False) as archive:
                shards.append([archive[field.name] for field in fields(People)])
    return People(*(np.concatenate(arrays) for arrays in zip(*shards, strict=True)))


def read_features(folder: Path, held_out: bool) -> np.ndarray:
    """(M, `pose_features.LENGTH`) float16 of the first M people of `read_people`: all who were painted.

    Zero rows where the detector missed the person, or where a file of people came without; no rows where all did.
    """
    shards = []
    for path in sorted(folder.glob("[0-9]*.npz")):
        seed = int(path.stem)
        if (seed >= HELD_OUT_SEED) == held_out and not LABELLED_SEED <= seed < HELD_OUT_SEED:
            with np.load(path, allow_pickle=False) as archive:
                count = len(archive["betas"])
            stored = (folder / FEATURES / path.name).with_suffix(".npy")
            kept = np.load(stored, mmap_mode="r", allow_pickle=False) if stored.exists() else None
            if kept is not None and kept.shape != (count, LENGTH):
                raise InputError(f"{stored}: not the features of the {count} people in {path.name}; remove both")
            shards.append(np.zeros((count, LENGTH), np.float16) if kept is None else kept)
    if not any(shard.any() for shard in shards):
        return np.zeros((0, LENGTH), np.float16)
    return np.concatenate(shards)
