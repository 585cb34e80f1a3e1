"""What every format is written from: fits in the view of their crops, as they are or converted to another body."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from dsr_fit.body.body import Body
from dsr_fit.body.parameters import Parameters
from dsr_fit.camera import Crop, crop_camera
from dsr_fit.dataset.names import exported_name
from dsr_fit.dataset.schema import Row
from dsr_fit.errors import InputError
from dsr_fit.fitting.convert import convert

SMPL_VERTICES = 6890
PELVIS = 25 + 14
"""Slot of `Pelvis (MPII)`."""

CONVERTED_TOGETHER = 8


@dataclass(frozen=True)
class Label:
    """One fitted person. Orientation and joints are in the view along the ray to the crop's centre, as a regressor that
    sees only the crop must learn them; `row` has them in the full image's camera.
    """

    row: Row
    is_smpl: bool
    """Whether the parameters are official SMPL's; others mean nothing to readers of these formats."""
    pose: np.ndarray
    """(72,) axis-angle, the crop's orientation first."""
    betas: np.ndarray
    """(10,)"""
    joints: np.ndarray
    """(49, 4) metres about the pelvis and confidence; 0 where the body doesn't define one."""
    crop_cam: np.ndarray
    """(3,) SPIN's s, tx, ty."""
    crop_residual_px: float
    """RMS error of that camera, at 224 px."""
    surface_residual_mm: float | None = None
    """Where the parameters were converted from another body: mean distance to its surface."""
    joint_residual_mm: float | None = None
    """The same of the joints."""

    @property
    def imgname(self) -> str:
        """The image's name, as other programs expect it."""
        return exported_name(self.row["imgname"])

    @property
    def side(self) -> float:
        """Side of the crop, pixels of the full image."""
        return 200 * self.row["bbox_scale"]


def label_of(row: Row) -> Label:
    """The label of a row, in the body it was fitted with."""
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


def converted(rows: Iterable[Row], old: Body, new: Body) -> Iterator[Label]:
    """Labels in the new body, in order, with residuals; rows fitted with the new body are used as they are.

    Raises InputError for rows of a third body.
    """
    waiting = iter(rows)
    while batch := list(islice(waiting, CONVERTED_TOGETHER)):
        others = [row for row in batch if row["body"][1] != new.sha256]
        foreign = [row for row in others if row["body"][1] != old.sha256]
        if foreign:
            raise InputError(
                f"{foreign[0]['imgname']}: fitted with body {foreign[0]['body'][0]!r}, which isn't at hand"
            )
        labels = iter(_convert(others, old, new)) if others else iter(())
        yield from (label_of(row) if row["body"][1] == new.sha256 else next(labels) for row in batch)


def _convert(rows: list[Row], old: Body, new: Body) -> list[Label]:
    names = ("global_orient", "body_pose", "betas", "cam_t")
    given = Parameters(*(torch.stack([torch.from_numpy(row[name]) for row in rows]) for name in names))
    found = convert(given, old, new)
    posed = found.parameters.pose(new)
    joints, pelvis = posed.keypoints.numpy(), posed.joints()[:, 0].numpy()
    labels = []
    for index, row in enumerate(rows):
        values = {name: getattr(found.parameters, name)[index].numpy() for name in names}
        crop = Crop((float(row["bbox_center"][0]), float(row["bbox_center"][1])), 200 * row["bbox_scale"])
        center = (float(row["principal_point"][0]), float(row["principal_point"][1]))
        cam, orient, residual = crop_camera(
            joints[index], pelvis[index], values["cam_t"], values["global_orient"], crop, row["focal_length"], center
        )
        moved = {
            **row, **values, "joints": joints[index], "crop_cam": cam, "crop_global_orient": orient,
            "crop_residual_px": residual, "num_vertices": new.num_vertices,
        }  # fmt: skip
        labels.append(
            replace(
                label_of(moved),
                is_smpl=new.num_vertices == SMPL_VERTICES,
                surface_residual_mm=1000 * float(found.surface_m[index]),
                joint_residual_mm=1000 * float(found.joints_m[index]),
            )
        )
    return labels


def projected(row: Row) -> np.ndarray:
    """(49, 2) the fit's joints, pixels of the full image."""
    joints = row["joints"]
    return joints[:, :2] / joints[:, 2:] * row["focal_length"] + row["principal_point"]


def by_image(labels: Iterable[Label]) -> Iterator[tuple[str, list[Label]]]:
    """People of each image; those of one image must be neighbours."""
    people: list[Label] = []
    for label in labels:
        if people and people[0].row["imgname"] != label.row["imgname"]:
            yield people[0].row["imgname"], people
            people = []
        people.append(label)
    if people:
        yield people[0].row["imgname"], people


def annotation_ids(labels: Sequence[Label], first: int) -> list[int]:
    """The source's own ids if all are there and distinct; else counted from `first`."""
    own = [int(label.row["source_id"]) for label in labels]
    return own if min(own, default=0) >= 0 and len(set(own)) == len(own) else list(range(first, first + len(own)))


def stacked(values: list[Any], *shape: int) -> np.ndarray:
    """(N, *shape) float32, also for N = 0."""
    return np.array(values, np.float32).reshape(len(values), *shape)
