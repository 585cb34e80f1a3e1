"""The files of a fit: `mesh.obj`, `mesh.npz`, `mesh.json`, `mesh.png`, and of several people's fits.

Their contents are a contract.
"""

from __future__ import annotations

import json
import math
import platform
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from dsr_fit.config import to_dict
from dsr_fit.errors import one_line
from dsr_fit.io.files import check_mesh_path, replacing
from dsr_fit.joints import SMPL_JOINTS

if TYPE_CHECKING:
    from dsr_fit.fitting.result import FitResult, ObjFrame


def write_result(out: Path, result: FitResult, obj_frame: ObjFrame = "upright") -> None:
    """Write the mesh to `out` (any of `MESH_SUFFIXES`) and `.npz`, `.json`, `.png` beside it; folders are made.

    All four are written before the first takes its name, so a failure leaves an earlier result as it was.
    Raises UsageError for another suffix, InputError when they can't be written.
    """
    check_mesh_path(out)
    with ExitStack() as files:
        for suffix in (".npz", ".png", ".json"):  # the report last: it says how long the picture took
            files.enter_context(_written(out.with_suffix(suffix), result))
        write_mesh(files.enter_context(replacing(out)), result, obj_frame)


def write_group(out: Path, people: Sequence[FitResult | Exception], obj_frame: ObjFrame = "upright") -> None:
    """Write the people of one image: a mesh and a `.npz` each (`numbered`), one `.png` and one `.json` of all.

    An exception says why somebody has no fit; at least one has. All files are written before the first takes its name.
    Raises as `write_result`.
    """
    check_mesh_path(out)
    fits = {number: one for number, one in enumerate(people) if not isinstance(one, Exception)}
    with ExitStack() as files:
        started = time.perf_counter()
        Image.fromarray(overlay(list(fits.values()))).save(
            files.enter_context(replacing(out.with_suffix(".png"))), compress_level=1
        )
        export = (time.perf_counter() - started) / len(fits)
        for number, result in fits.items():
            result.timings_s["export"] = export
            mesh = numbered(out, number)
            files.enter_context(_written(mesh.with_suffix(".npz"), result))
            write_mesh(files.enter_context(replacing(mesh)), result, obj_frame)
        entries = [{"reason": one_line(one)} if isinstance(one, Exception) else report(one) for one in people]
        listed = {"people": [{"person": number, **entry} for number, entry in enumerate(entries)]}
        _write_json(files.enter_context(replacing(out.with_suffix(".json"))), listed)


def numbered(out: Path, number: int) -> Path:
    """`mesh.0.obj` of `mesh.obj`."""
    return out.with_name(f"{out.stem}.{number}{out.suffix}")


def overlay(people: Sequence[FitResult]) -> np.ndarray:
    """(h, w, 3) uint8 RGB of several people of one image, see `dsr_fit.view.group`."""
    from dsr_fit.view.group import Placed, draw_group

    first = people[0]
    bodies = [Placed(one.vertices, one.pelvis, one.focal_length, one.principal_point) for one in people]
    return draw_group(first.observation.image, bodies, first.faces, first.observation.focal_length)


def write_beside(out: Path, result: FitResult) -> None:
    """Write the one of the other three files that the suffix names."""
    with _written(out, result):
        pass


@contextmanager
def _written(out: Path, result: FitResult) -> Iterator[None]:
    """A file of `BESIDE_MESH`, written at once and given its name at the block's end."""
    with replacing(out) as path:
        if path.suffix == ".npz":
            np.savez_compressed(path, **arrays(result))  # type: ignore[arg-type]
        elif path.suffix == ".png":
            started = time.perf_counter()
            Image.fromarray(result.overlay()).save(path, compress_level=1)
            result.timings_s["export"] = time.perf_counter() - started
        else:
            _write_json(path, report(result))
        yield


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(_finite(content), indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_mesh(path: Path, result: FitResult, frame: ObjFrame) -> None:
    """Metres. `upright`: y up, z towards the viewer, pelvis at the origin; `camera`: the image's frame."""
    vertices = result.vertices
    if frame == "upright":
        vertices = (vertices - result.pelvis) * np.array([1, -1, -1], np.float32)
    if path.suffix == ".obj":  # the usual one, for which importing trimesh would take a tenth of a fit's time
        with path.open("w", encoding="ascii") as file:
            np.savetxt(file, vertices, "v %.8f %.8f %.8f")
            np.savetxt(file, result.faces + 1, "f %d %d %d")
        return
    import trimesh

    mesh = trimesh.Trimesh(vertices, result.faces, process=False)
    mesh.export(path, file_type=path.suffix.lstrip("."))


def arrays(result: FitResult) -> dict[str, np.ndarray]:
    """The arrays of `mesh.npz`."""
    single = np.float32
    return {
        "vertices": result.vertices,
        "joints": result.joints,
        "faces": result.faces,
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
        "body": np.array([result.body_name, result.body_sha256]),
    }


def report(result: FitResult) -> dict[str, Any]:
    """The content of `mesh.json`. `quality` and `accepted` are null where the gate isn't calibrated."""
    return {
        "energies": result.energies,
        "metrics": result.metrics,
        "labels_source": result.observation.labels_source,
        "keypoints_source": result.observation.detection.source,
        "agreement": result.observation.detection.agreement,
        "height_m": result.observation.height,
        "crop_residual_px": result.crop_residual_px,
        "regressor": result.regressor,
        "joint_spread_deg": _by_joint(result.spread),
        "expected_error_m": result.expected_error_m,
        "quality": result.verdict.quality,
        "accepted": result.verdict.accepted,
        "reasons": list(result.verdict.reasons),
        "iterations": result.iterations,
        "stop_reason": result.stop_reason,
        "timings_s": {name: round(seconds, 4) for name, seconds in result.timings_s.items()},
        "config": to_dict(result.config),
        "body": {"name": result.body_name, "sha256": result.body_sha256},
        "device": result.device,
        "renderer": result.renderer,
        "versions": versions(),
        "seed": result.config.seed,
    }


def _by_joint(spread: np.ndarray | None) -> dict[str, float] | None:
    """How far off the regressor expects each joint's rotation to be, degrees."""
    if spread is None:
        return None
    return {name: round(float(np.degrees(value)), 1) for name, value in zip(SMPL_JOINTS, spread, strict=True)}


def versions() -> dict[str, str]:
    """Of Python and of the packages that decide the numbers."""
    packages = ("dsr-fit", "torch", "numpy", "numba")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def _finite(value: Any) -> Any:
    """NaN and infinity have no place in JSON: null."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
