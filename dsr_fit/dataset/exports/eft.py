"""EFT's `.json`: rotation matrices, and an orthographic camera s * X + t in -1..1 of the crop."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from dsr_fit.dataset.exports.labels import Label, annotation_ids, projected
from dsr_fit.errors import UsageError
from dsr_fit.io.files import replacing
from dsr_fit.joints import OPENPOSE_18_SLOTS

MIN_CONFIDENCE = 0.3


def write_eft(labels: Iterable[Label], out: Path, images: Path) -> int:
    """Write the list `data` of EFT's version 0.1. Raises UsageError where the parameters aren't official SMPL's."""
    del images
    people = list(labels)
    data = [_entry(number, label) for number, label in zip(annotation_ids(people, first=0), people, strict=True)]
    with replacing(out) as temporary:
        temporary.write_text(json.dumps({"ver": 0.1, "data": data}, allow_nan=False), encoding="utf-8")
    return len(data)


def orthographic(crop_cam: np.ndarray) -> np.ndarray:
    """SPIN's (s, tx, ty), which projects s (X + t) in the far limit, as EFT's s X + t."""
    s, tx, ty = (float(value) for value in crop_cam)
    return np.array([s, s * tx, s * ty])


def _entry(number: int, label: Label) -> dict[str, Any]:
    if not label.is_smpl:
        raise UsageError(
            "--format eft holds SMPL parameters, and these fits are of another body; --to-body SMPL_FILE converts them"
        )
    row = label.row
    slots = list(OPENPOSE_18_SLOTS)
    camera = orthographic(label.crop_cam)
    return {
        "parm_pose": Rotation.from_rotvec(label.pose.reshape(24, 3)).as_matrix().tolist(),
        "parm_shape": label.betas.tolist(),
        "parm_cam": camera.tolist(),
        "bbox_scale": row["bbox_scale"],
        "bbox_center": row["bbox_center"].tolist(),
        "joint_validity_openpose18": (row["keypoints"][slots, 2] > MIN_CONFIDENCE).tolist(),
        "smpltype": "smpl",
        "annotId": number,
        "subjectId": row["person"],
        "imageName": label.imgname,
        "camera_residual_px": _residual(label, camera),
    }


def _residual(label: Label, camera: np.ndarray) -> float:
    """RMS at 224 px between the joints under that EFT camera and where the fit has them."""
    row = label.row
    seen = label.joints[:, 3] > 0
    # The camera counts from the body's own origin. The body turns about its root, which is slot 8 of official SMPL.
    joints = label.joints[:, :3] - label.joints[8, :3] + row["joints"][8] - row["cam_t"]
    shown = camera[0] * joints[seen, :2] + camera[1:]
    expected = (projected(row)[seen] - row["bbox_center"]) / (label.side / 2)
    return float(np.sqrt(((shown - expected) ** 2).sum(1).mean()) * 112)
