"""What a fit gives back: one body, how well it lies on what was observed, and what the gate says of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from dsr_fit.body.parameters import Parameters
from dsr_fit.camera import Crop
from dsr_fit.config import FitConfig
from dsr_fit.io.files import BESIDE_MESH
from dsr_fit.observation import Observation

DIVERGED = "the fit diverged: its values are not finite; check the keypoints and the focal length"

ObjFrame = Literal["upright", "camera"]


@dataclass(frozen=True)
class Verdict:
    """What the quality gate says of a fit (`dsr_fit.gate`); all None where it is not calibrated for it."""

    quality: float | None = None
    """Probability that the fit is right, 0..1."""
    accepted: bool | None = None
    reasons: tuple[str, ...] = ()
    """Why it was rejected, the weightiest first."""


@dataclass(frozen=True)
class FitResult:
    """One fitted person. Arrays are float32, metres, in the full image's camera frame."""

    observation: Observation
    vertices: np.ndarray  # (V, 3) with cam_t
    faces: np.ndarray  # (F, 3) int32
    joints: np.ndarray  # (49, 3) with cam_t
    pelvis: np.ndarray  # (3,) SMPL's root joint, with cam_t
    global_orient: np.ndarray  # (3,)
    body_pose: np.ndarray  # (69,)
    betas: np.ndarray  # (10,)
    cam_t: np.ndarray  # (3,)
    focal_length: float
    principal_point: tuple[float, float]
    crop: Crop
    crop_cam: np.ndarray  # (3,) SPIN's s, tx, ty, for `crop_global_orient`
    crop_global_orient: np.ndarray  # (3,) orientation seen along the ray to the crop's centre
    crop_residual_px: float
    """Root mean square distance, at 224 px, between the joints under the crop and the full camera."""
    energies: dict[str, dict[str, float]]
    """Unweighted: name -> {"initial", "final"}."""
    metrics: dict[str, dict[str, float]]
    """name -> {"before", "after"}; NaN where there is nothing to judge by."""
    change_m: float
    """Mean distance of SMPL's 24 joints, about the pelvis, between the initial estimate and the final one."""
    regressor: str
    """The regressor that made the initial estimate."""
    spread: np.ndarray | None
    """(24,) expected error of each joint's rotation in the regressor's estimate, radians; None where not predicted."""
    expected_error_m: float | None
    """Expected mean error of SMPL's 24 joints, about the pelvis, in the regressor's estimate."""
    iterations: int
    stop_reason: str
    """`converged`, `keypoints fitted`, `iteration limit`, or `diverged` (then the best finite iterate is returned)."""
    timings_s: dict[str, float]
    """`detect` and `parse` where we did it, `regress` and `fit`: seconds, shared evenly by the batch."""
    body_name: str
    body_sha256: str
    config: FitConfig
    device: str
    renderer: str = "cpu"
    """`cpu`, `nvdiffrast` or `triton`."""
    verdict: Verdict = Verdict()

    def parameters(self) -> Parameters:
        """The fitted parameters, a batch of 1 on the CPU."""
        values = (self.global_orient, self.body_pose, self.betas, self.cam_t)
        return Parameters(*(torch.from_numpy(value)[None] for value in values))

    def flaw(self) -> str | None:
        """Why this is no result to hand out: values that are not finite, or an error beyond the image's diagonal."""
        error = self.metrics["keypoint_error_px"]["after"]
        parts = (self.joints, self.global_orient, self.body_pose, self.betas, self.cam_t, error)
        if not all(np.isfinite(part).all() for part in parts):
            return DIVERGED
        if error > math.hypot(*self.observation.image_size):
            return f"the fit is off by {error:.3g} pixels, more than the image's diagonal"
        return None

    def overlay(self) -> np.ndarray:
        """(448, 2240, 3) uint8 RGB: photo, labels, the body over the photo, and the body from both sides."""
        from dsr_fit.view.overlay import draw

        seen = self.observation
        camera = (self.focal_length, self.principal_point)
        return draw(seen.image, seen.labels, self.vertices, self.faces, *camera, self.crop)

    def save(self, out: str | Path, obj_frame: ObjFrame = "upright") -> None:
        """Write the mesh (`.obj`, `.ply`, `.stl` or `.glb`) with its `.npz`, `.json` and `.png` beside it, or one of
        these three alone; the folder is made if need be.

        `upright` is metres, y up, z towards the viewer, the pelvis at the origin; `camera` the image's frame.
        Raises UsageError for another suffix, InputError when the files can't be written.
        """
        from dsr_fit.fitting.saving import write_beside, write_result

        out = Path(out)
        if out.suffix.lower() in BESIDE_MESH:
            write_beside(out, self)
        else:
            write_result(out, self, obj_frame)
