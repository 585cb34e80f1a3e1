"""Fits of one body as labels in another: official SMPL's parameters for those who own its file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice

import torch

from dsr_fit.body.body import Body
from dsr_fit.body.parameters import Parameters
from dsr_fit.camera import Crop, crop_camera
from dsr_fit.dataset.exports.labels import SMPL_VERTICES, Label, label_of
from dsr_fit.dataset.schema import Row
from dsr_fit.errors import InputError
from dsr_fit.fitting.convert import convert

BATCH = 8


def converted(rows: Iterable[Row], old: Body, new: Body) -> Iterator[Label]:
    """Labels of the new body, in order, each with its residuals; rows that are of the new body already stay as they
    are. Raises InputError for rows of a third body.
    """
    waiting = iter(rows)
    while batch := list(islice(waiting, BATCH)):
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
