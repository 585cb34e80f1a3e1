"""Learns where the detector's landmarks lie on the open body, from rendered people whose pose and shape are known.

    PYTHONPATH=tools python tools/train_regressor.py people --folder people --painted 1000 --labelled 0
    python tools/calibrate_keypoints.py --people people

BlazePose's landmarks are not the body's anatomical points: ankles are marked higher, shoulders farther out. What is
between a found keypoint and the true one is turned back into the frame of the keypoint's bone and averaged, left and
right together. Fits of photos can't say it: a leg whose keypoints are too far apart is fitted bent. Writes
`keypoint_offsets.json`, which `build_body.py` adds to the first 25 keypoints of the body.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dsr_fit.assets import shipped
from dsr_fit.body.files import load_body
from dsr_fit.body.skeleton import Skeleton
from dsr_fit.camera import project
from dsr_fit.joints import BODY_25, MIRRORED_KEYPOINTS
from dsr_fit.rotation import axis_angle_to_matrix
from dsr_fit.training.synthetic.people import People, read_people

MIN_CONFIDENCE = 0.6
LARGEST_ERROR = 0.04
"""Of the longer side of the keypoints' box: larger ones are wrong detections, not offsets."""

RIDGE = 0.02
"""Of a keypoint's normal matrix: directions in which hardly any picture has seen it keep still."""


def offsets(skeleton: Skeleton, people: People) -> tuple[Tensor, Tensor]:
    """Mean offset (25, 3) of found from true keypoints, metres in the rest pose's axes; used points (25,)."""
    found = torch.from_numpy(people.keypoints).double()[:, :25]
    focal, centre = (torch.from_numpy(people.intrinsics[:, part]).double() for part in (slice(0, 1), slice(1, 3)))
    rotations = axis_angle_to_matrix(torch.from_numpy(people.full_pose).double().unflatten(1, (24, 3)))
    betas, cam_t = (torch.from_numpy(each).double() for each in (people.betas, people.cam_t))
    transforms = skeleton.transforms(rotations, skeleton.joints_at_rest(betas))
    placed = (skeleton.keypoints(rotations, betas, transforms) + cam_t[:, None])[:, :25]
    true = project(placed, torch.cat([focal, focal, centre], 1))
    residual = found[..., :2] - true
    metric = residual * placed[..., 2:] / focal[:, None]
    turn = torch.einsum("bkj,bjrc->bkrc", skeleton.moments(rotations, betas)[..., 3], transforms[..., :3])
    turn = turn[:, :25, :2]  # an image shows two of the three directions
    box = (true.amax(1) - true.amin(1)).amax(1)
    error = residual.norm(dim=-1) / box[:, None]
    seen = torch.from_numpy(people.visible[:, :25])
    used = (seen & (found[..., 2] > MIN_CONFIDENCE) & (error < LARGEST_ERROR)).double()
    normal = torch.einsum("bk,bkri,bkrj->kij", used, turn, turn)
    right = torch.einsum("bk,bkri,bkr->ki", used, turn, metric)
    mirror = list(MIRRORED_KEYPOINTS[:25])
    flip = normal.new_tensor([-1.0, 1.0, 1.0])
    normal = normal + flip[:, None] * normal[mirror] * flip
    right = right + flip * right[mirror]
    ridge = RIDGE * normal.diagonal(dim1=1, dim2=2).mean(1) + 1e-6
    lifted = normal + ridge[:, None, None] * torch.eye(3, dtype=normal.dtype)
    return torch.linalg.solve(lifted, right), used.sum(0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=Path, required=True, help="folder of `tools/train_regressor.py people`")
    parser.add_argument("--out", type=Path, default=Path("priors/open_body/keypoint_offsets.json"))
    arguments = parser.parse_args()

    people = read_people(arguments.people, held_out=False)
    people = people.rows(np.flatnonzero((people.keypoints[..., 2] > 0).sum(1) >= 8))
    step, used = offsets(load_body("open").skeleton.to(dtype=torch.float64), people)
    built_with = torch.from_numpy(np.load(shipped("priors/open_body/body.npz"))["keypoint_offsets"]).double()
    total = built_with + step
    report = {
        "what": "metres in the T-pose's axes, added to the first 25 keypoints",
        "rendered_people": len(people),
        "offsets": {name: [round(x, 5) for x in row] for name, row in zip(BODY_25, total.tolist(), strict=True)},
    }
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    for name, row, moved, count in zip(BODY_25, 1000 * total, 1000 * step, used, strict=True):
        print(f"{name:10} {_shown(row)} mm, moved by {_shown(moved)}  ({int(count)} points)")


def _shown(row: Tensor) -> str:
    return " ".join(f"{value:7.1f}" for value in row.tolist())


if __name__ == "__main__":
    main()
