"""What every format is written from: the chosen fits of a folder, in the view of their crops."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from dsr_fit.dataset.schema import Row

SMPL_VERTICES = 6890
PELVIS = 25 + 14
"""Slot of `Pelvis (MPII)`."""


@dataclass(frozen=True)
class Label:
    """One fitted person. Orientation and joints are those seen along the ray to the crop's centre, as a regressor that
    sees the crop alone must learn them; `row` has them in the full image's camera.
    """

    row: Row
    is_smpl: bool
    """The parameters are official SMPL's; else they mean nothing to a reader of these formats."""
    pose: np.ndarray
    """(72,) axis-angle, the crop's orientation first."""
    betas: np.ndarray
    """(10,)"""
    joints: np.ndarray
    """(49, 4) metres about the pelvis and confidence; 0 where the body doesn't define one."""
    crop_cam: np.ndarray
    """(3,) SPIN's s, tx, ty."""
    crop_residual_px: float
    """Of that camera, RMS at 224 px."""
    surface_residual_mm: float | None = None
    """Where the parameters were converted from another body: mean distance of its surface."""
    joint_residual_mm: float | None = None
    """The same of the joints."""

    @property
    def side(self) -> float:
        """Of the crop, pixels of the full image."""
        return 200 * self.row["bbox_scale"]


def chosen(rows: Iterable[Row], refused: bool) -> Iterator[Row]:
    """Accepted fits, and the refused ones too where they are wanted."""
    wanted = ("accepted", "refused") if refused else ("accepted",)
    return (row for row in rows if row["status"] in wanted)


def label_of(row: Row) -> Label:
    """A row as it stands."""
    turn = Rotation.from_rotvec(row["crop_global_orient"]) * Rotation.from_rotvec(row["global_orient"]).inv()
    joints = row["joints"].astype(np.float64)
    defined = (np.abs(joints - row["cam_t"]) > 1e-6).any(1)
    about = turn.apply(joints - joints[PELVIS if defined[PELVIS] else 8])
    return Label(
        row=row,
        is_smpl=row["num_vertices"] == SMPL_VERTICES,
        pose=np.concatenate([row["crop_global_orient"], row["body_pose"]]),
        betas=row["betas"],
        joints=np.column_stack([np.where(defined[:, None], about, 0), defined]).astype(np.float32),
        crop_cam=row["crop_cam"],
        crop_residual_px=row["crop_residual_px"],
    )


def projected(row: Row) -> np.ndarray:
    """(49, 2) pixels of the full image where the fit's joints are."""
    joints = row["joints"]
    return joints[:, :2] / joints[:, 2:] * row["focal_length"] + row["principal_point"]


def by_image(labels: Iterable[Label]) -> Iterator[tuple[str, list[Label]]]:
    """People of each image; those of one image follow each other."""
    people: list[Label] = []
    for label in labels:
        if people and people[0].row["imgname"] != label.row["imgname"]:
            yield people[0].row["imgname"], people
            people = []
        people.append(label)
    if people:
        yield people[0].row["imgname"], people


def annotation_ids(labels: Sequence[Label], first: int) -> list[int]:
    """The source's own numbers where everybody has one that nobody else has; else counted from `first`."""
    own = [int(label.row["source_id"]) for label in labels]
    return own if min(own, default=0) >= 0 and len(set(own)) == len(own) else list(range(first, first + len(own)))


def stacked(values: list[Any], *shape: int) -> np.ndarray:
    """(N, *shape) float32, also of none."""
    return np.array(values, np.float32).reshape(len(values), *shape)
