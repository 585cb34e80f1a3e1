"""Views for counting labels, from a folder of renders or scans of clothed people with fitted bodies.

Each has an `.npz` with the body's parameters, and beside it a file of the same name: a label map (`.png` or `.npy`; or
`labels` inside the `.npz`, as fits write it), or a mesh with a label per vertex. Arrays: `docs/command_line.md`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from torch import Tensor

from dsr_fit.body.body import Body
from dsr_fit.body.parameters import Parameters
from dsr_fit.errors import InputError, one_line
from dsr_fit.io.files import MESH_SUFFIXES, read_arrays
from dsr_fit.io.label_files import read_labels
from dsr_fit.labels import LABELS
from dsr_fit.priors.counting import View
from dsr_fit.render.renderer import Renderer

_SIZES = {"global_orient": 3, "body_pose": 69, "betas": 10, "cam_t": 3}
_MAP_SUFFIXES = (".png", ".npy")
MARGIN = 1.15
"""Side of a rendered view relative to the scan's diameter."""


def scan_paths(folder: Path) -> list[Path]:
    """All `.npz` files in a folder and its subfolders, sorted. Raises InputError if there are none."""
    paths = sorted(folder.rglob("*.npz"))
    if not paths:
        raise InputError(f"{folder}: no .npz with a body's parameters in it; see `prior build` in docs/command_line.md")
    return paths


def read_views(path: Path, body: Body, views: int, resolution: int) -> Iterator[View]:
    """The views of one `.npz`: one for a render, `views` around a scan, (resolution, resolution) each.

    Raises InputError for files that are missing, damaged or don't match.
    """
    try:
        arrays = read_arrays(path)
    except ValueError as error:
        raise InputError(f"{path}: not a readable .npz ({error})") from None
    if isinstance(arrays, np.ndarray):
        raise InputError(f"{path}: holds one array, not a body's parameters")
    parameters = Parameters(*(_row(path, arrays, name, size) for name, size in _SIZES.items()))
    vertices = parameters.pose(body).vertices()[0]
    mesh = next((path.with_suffix(suffix) for suffix in MESH_SUFFIXES if path.with_suffix(suffix).is_file()), None)
    if "focal_length" in arrays:
        yield _render(path, arrays, vertices)
    elif mesh is not None:
        yield from _around(mesh, _scan(path, mesh, arrays), vertices, views, resolution)
    else:
        raise InputError(
            f"{path}: neither `focal_length` for a render nor a mesh beside it ({', '.join(MESH_SUFFIXES)}) for a scan"
        )


def _row(path: Path, arrays: dict[str, np.ndarray], name: str, size: int) -> Tensor:
    """(1, size) float32 of a named array."""
    if name not in arrays:
        raise InputError(f"{path}: lacks `{name}`, {size} numbers")
    values = arrays[name]
    if values.size != size or values.dtype.kind not in "fiu" or not np.isfinite(values).all():
        raise InputError(f"{path}: `{name}` must be {size} finite numbers, not {values.dtype} of shape {values.shape}")
    return torch.from_numpy(values.reshape(1, size).astype(np.float32))


def _render(path: Path, arrays: dict[str, np.ndarray], vertices: Tensor) -> View:
    labels = arrays.get("labels")
    beside = next((path.with_suffix(suffix) for suffix in _MAP_SUFFIXES if path.with_suffix(suffix).is_file()), None)
    size = _row(path, arrays, "image_size", 2)[0] if "image_size" in arrays else None
    if labels is None and beside is None:
        raise InputError(f"{path}: no label map; put {path.stem}.png beside it, or `labels` into it")
    if labels is None:
        assert beside is not None
        labels = read_labels(beside, None if size is None else (int(size[0]), int(size[1])))
    elif labels.ndim != 2 or labels.dtype != np.uint8:
        raise InputError(f"{path}: `labels` must be (H, W) uint8, not {labels.dtype} of shape {labels.shape}")
    focal = _row(path, arrays, "focal_length", 1)[0]
    height, width = labels.shape
    center = torch.tensor([width / 2, height / 2])
    if "principal_point" in arrays:
        center = _row(path, arrays, "principal_point", 2)[0]
    if not focal > 0:
        raise InputError(f"{path}: `focal_length` must be pixels, a positive number")
    return View(labels, vertices, torch.cat([focal, focal, center]))


def _scan(path: Path, mesh: Path, arrays: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vertices (N, 3), faces (M, 3) and labels (N,) of a scan."""
    try:
        scan: Any = trimesh.load(mesh, force="mesh", process=False, maintain_order=True)
    except Exception as error:  # trimesh's readers raise anything on damaged files
        raise InputError(f"{mesh}: not a readable mesh ({one_line(error)})") from None
    vertices, faces = np.asarray(scan.vertices, np.float32), np.asarray(scan.faces)
    labels = arrays.get("labels")
    if labels is None or labels.shape != (len(vertices),) or labels.dtype.kind not in "iu":
        found = "none" if labels is None else f"{labels.dtype} of shape {labels.shape}"
        raise InputError(
            f"{path}: `labels` must be a whole number for each of {mesh}'s {len(vertices)} vertices: {found}"
        )
    if not np.isin(labels, range(1, len(LABELS))).all():
        raise InputError(f"{path}: `labels` of a scan are 1 to {len(LABELS) - 1}")
    return vertices, faces, labels


@torch.no_grad()
def _around(
    mesh: Path, scan: tuple[np.ndarray, np.ndarray, np.ndarray], vertices: Tensor, views: int, resolution: int
) -> Iterator[View]:
    """Views from all sides of a scan and the body (V, 3) in it, both with y up."""
    points, faces, labels = torch.from_numpy(scan[0]), scan[1], scan[2]
    low, high = points.amin(0), points.amax(0)
    radius = float((high - low).norm()) / 2
    if not 0.1 < radius < 10 or float((vertices.mean(0) - (low + high) / 2).norm()) > radius:
        raise InputError(f"{mesh}: the scan and the body in it lie apart; both need metres, y up, and one frame")
    shown = torch.nn.functional.one_hot(torch.from_numpy(labels.astype(np.int64)), len(LABELS)).float()
    renderer = Renderer(faces, len(points), device="cpu", outline="none")
    distance = 4 * radius
    focal = resolution / MARGIN / 2 * (distance / radius)
    intrinsics = torch.tensor([focal, focal, resolution / 2, resolution / 2])
    for number in range(views):
        angle = torch.tensor(2 * torch.pi * number / views)
        cos, sin = float(angle.cos()), float(angle.sin())
        turn = torch.tensor([[cos, 0.0, sin], [0.0, -1.0, 0.0], [sin, 0.0, -cos]])  # y up to y down
        placed = [(each - (low + high) / 2) @ turn.T + torch.tensor([0, 0, distance]) for each in (points, vertices)]
        picture = renderer(placed[0][None], intrinsics[None], resolution, attributes=shown)
        seen = picture.attributes[0].argmax(-1).numpy()
        yield View(np.where(picture.mask[0].numpy(), seen, 0).astype(np.uint8), placed[1], intrinsics)
