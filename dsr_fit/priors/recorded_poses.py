"""The shipped poses: motion capture retargeted to SMPL's joints, and which clips are held out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dsr_fit.assets import shipped
from dsr_fit.errors import InputError
from dsr_fit.io.files import read_arrays

_DIMENSIONS = {"full_pose": 2, "clip": 1, "clip_names": 1, "held_out": 1}


@dataclass(frozen=True)
class PoseSet:
    """N poses out of clips; `priors/pose/poses.md` says where they come from."""

    full_pose: np.ndarray
    """(N, 72) float32 rotation vectors, radians, `global_orient` first. World: y up; at zero the body faces +z, its
    left towards +x."""
    clip: np.ndarray
    """(N,) index into `clip_names`."""
    clip_names: tuple[str, ...]
    held_out: np.ndarray
    """(N,) bool: the pose's clip is held out for evaluation; never train or tune on it."""
    frames: np.ndarray | None = None
    """(N,) frames of motion capture that have this pose as the nearest: how common it is; None where unknown."""

    def __len__(self) -> int:
        return len(self.full_pose)

    def part(self, held_out: bool) -> PoseSet:
        """Only the poses that are held out, or only the others."""
        return self.rows(self.held_out == held_out)

    def rows(self, chosen: np.ndarray) -> PoseSet:
        """Some of the poses."""
        frames = None if self.frames is None else self.frames[chosen]
        return PoseSet(self.full_pose[chosen], self.clip[chosen], self.clip_names, self.held_out[chosen], frames)


def load_poses(path: Path | None = None) -> PoseSet:
    """The shipped poses, or another file of the same format.

    Raises InputError for a file that is missing, damaged or of another format.
    """
    path = shipped("priors/pose/poses.npz") if path is None else path
    try:
        loaded = read_arrays(path)
        arrays = {name: loaded[name] for name in _DIMENSIONS} if isinstance(loaded, dict) else {}
    except (ValueError, KeyError) as error:
        raise InputError(f"{path}: not a readable pose file ({error})") from None
    if [array.ndim for array in arrays.values()] != [*_DIMENSIONS.values()] or arrays["full_pose"].shape[1] != 72:
        raise InputError(f"{path}: not a pose file, `full_pose` must be (N, 72) and the others lists")
    full_pose, clip, names, held_out = arrays.values()
    if len(clip) != len(full_pose) or len(held_out) != len(names) or not _indexes(clip, len(names)):
        raise InputError(f"{path}: poses and clips don't match")
    index, frames = clip.astype(np.int64), loaded.get("frames") if isinstance(loaded, dict) else None
    if frames is not None and frames.shape != clip.shape:
        raise InputError(f"{path}: not a pose file, `frames` must be one number a pose")
    clip_names = tuple(str(name) for name in names)
    return PoseSet(full_pose.astype(np.float32), index, clip_names, held_out.astype(bool)[index], frames)


def _indexes(clip: np.ndarray, count: int) -> bool:
    return len(clip) == 0 or (clip.dtype.kind in "iu" and clip.min() >= 0 and clip.max() < count)
