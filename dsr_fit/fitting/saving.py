"""The four files of a fit: `mesh.obj`, `mesh.npz`, `mesh.json`, `mesh.png`. Their contents are a contract."""

from __future__ import annotations

import json
import math
import platform
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from dsr_fit.body.body import Body
from dsr_fit.config import FitConfig, to_dict
from dsr_fit.fitting.fitter import FitResult
from dsr_fit.gate.gate import Verdict
from dsr_fit.io.files import BESIDE_MESH, replacing
from dsr_fit.joints import SMPL_JOINTS

ObjFrame = Literal["upright", "camera"]


def write_result(
    out: Path,
    result: FitResult,
    body: Body,
    config: FitConfig,
    picture: np.ndarray,
    timings_s: dict[str, float],
    verdict: Verdict,
    obj_frame: ObjFrame = "upright",
) -> None:
    """Write the mesh to `out` (any mesh suffix of trimesh) and `.npz`, `.json`, `.png` beside it.

    All four are written before the first takes its name, so a failure leaves an earlier result as it was.
    Raises InputError when they can't be written.
    """
    text = json.dumps(_finite(report(result, body, config, timings_s, verdict)), indent=2, allow_nan=False)
    with ExitStack() as files:
        paths = {suffix: files.enter_context(replacing(out.with_suffix(suffix))) for suffix in BESIDE_MESH}
        mesh = files.enter_context(replacing(out))
        np.savez_compressed(paths[".npz"], **arrays(result, body))
        paths[".json"].write_text(text + "\n", encoding="utf-8")
        Image.fromarray(picture).save(paths[".png"], compress_level=1)
        write_mesh(mesh, result, body, obj_frame)


def write_mesh(path: Path, result: FitResult, body: Body, frame: ObjFrame) -> None:
    """Metres. `upright`: y up, z towards the viewer, pelvis at the origin; `camera`: the image's frame."""
    import trimesh

    vertices = result.vertices
    if frame == "upright":
        vertices = (vertices - result.pelvis) * np.array([1, -1, -1], np.float32)
    mesh = trimesh.Trimesh(vertices, body.faces.numpy(), process=False)
    mesh.export(path, file_type=path.suffix.lstrip("."))


def arrays(result: FitResult, body: Body) -> dict[str, np.ndarray]:
    """The arrays of `mesh.npz`."""
    single = np.float32
    return {
        "vertices": result.vertices,
        "joints": result.joints,
        "faces": body.faces.numpy().astype(np.int32),
        "global_orient": result.global_orient,
        "body_pose": result.body_pose,
        "betas": result.betas,
        "cam_t": result.cam_t,
        "focal_length": np.array(result.focal_length, single),
        "principal_point": np.array(result.principal_point, single),
        "image_size": np.array(result.observation.image_size, single),
        "crop_cam": result.crop_cam,
        "crop_global_orient": result.crop_global_orient,
        "bbox_center": np.array(result.crop.center, single),
        "bbox_scale": np.array(result.crop.side / 200, single),
        "keypoints": result.observation.detection.keypoints.astype(single),
        "labels": result.observation.labels,
        "body": np.array([body.name, body.sha256]),
    }


def report(
    result: FitResult, body: Body, config: FitConfig, timings_s: dict[str, float], verdict: Verdict
) -> dict[str, Any]:
    """The content of `mesh.json`. `quality` and `accepted` are null where the gate isn't calibrated."""
    return {
        "energies": result.energies,
        "metrics": result.metrics,
        "labels_source": result.observation.labels_source,
        "keypoints_source": result.observation.detection.source,
        "crop_residual_px": result.crop_residual_px,
        "regressor": result.regressor,
        "joint_spread_deg": _by_joint(result.spread),
        "expected_error_m": result.expected_error_m,
        "quality": verdict.quality,
        "accepted": verdict.accepted,
        "reasons": list(verdict.reasons),
        "iterations": result.iterations,
        "stop_reason": result.stop_reason,
        "timings_s": timings_s,
        "config": to_dict(config),
        "body": {"name": body.name, "sha256": body.sha256},
        "versions": versions(),
        "seed": config.seed,
    }


def _by_joint(spread: np.ndarray | None) -> dict[str, float] | None:
    """How far off the regressor expects each joint's rotation to be, degrees."""
    if spread is None:
        return None
    return {name: round(float(np.degrees(value)), 1) for name, value in zip(SMPL_JOINTS, spread, strict=True)}


def versions() -> dict[str, str]:
    """Of Python and of the packages that decide the numbers."""
    packages = ("dsr-fit", "torch", "numpy", "numba", "mediapipe")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def _finite(value: Any) -> Any:
    """NaN and infinity have no place in JSON: null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
