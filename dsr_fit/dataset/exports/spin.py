"""SPIN's and DSR's `.npz`: a row a person. With `graphonomy` PNGs beside it, what DSR's own trainer reads."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from dsr_fit.dataset.exports.labels import Label, stacked
from dsr_fit.io.files import replacing


def write_spin(labels: Iterable[Label], out: Path, images: Path) -> int:
    """Write `imgname, center, scale, part, openpose, pose, shape, has_smpl, S`, and what they leave out.

    `pose` and `shape` are zero, and `has_smpl` 0, where the parameters aren't SMPL's. Further columns, which SPIN's
    readers skip, keep the full image's camera: `global_orient, cam_t, focal_length, principal_point, image_size`, and
    `crop_cam, crop_residual_px`.
    """
    del images
    people = list(labels)
    rows = [label.row for label in people]
    columns = {
        "imgname": np.array([label.imgname for label in people], dtype=np.str_),
        "center": stacked([row["bbox_center"] for row in rows], 2),
        "scale": stacked([row["bbox_scale"] for row in rows]),
        "part": stacked([row["keypoints"][25:] for row in rows], 24, 3),
        "openpose": stacked([row["keypoints"][:25] for row in rows], 25, 3),
        "pose": stacked([label.pose * label.is_smpl for label in people], 72),
        "shape": stacked([label.betas * label.is_smpl for label in people], 10),
        "has_smpl": stacked([label.is_smpl for label in people]),
        "S": stacked([label.joints[25:] for label in people], 24, 4),
        "crop_cam": stacked([label.crop_cam for label in people], 3),
        "crop_residual_px": stacked([label.crop_residual_px for label in people]),
        **{
            name: stacked([row[name] for row in rows], *shape)
            for name, shape in {
                "global_orient": (3,), "cam_t": (3,), "focal_length": (), "principal_point": (2,), "image_size": (2,),
            }.items()
        },
    }  # fmt: skip
    with replacing(out) as temporary:
        np.savez(temporary, **columns)
    return len(people)
