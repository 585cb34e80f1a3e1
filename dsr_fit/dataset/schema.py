"""The columns of a shard: a contract, described in `docs/shards.md`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa

from dsr_fit.config import Weights
from dsr_fit.dataset.names import readable

METRICS = ("keypoint_error_px", "keypoint_error_rel", "mc_iou", "containment", "silhouette_iou")
ENERGIES = tuple(field.name for field in fields(Weights))

Row = dict[str, Any]
"""One person: column -> value. Arrays have the shapes of `mesh.npz`; None for no value."""

STATUSES = ("accepted", "unjudged", "refused", "failed")
"""Fits the gate accepts, fits it isn't calibrated for, fits it rejects or that diverged; people without a fit."""


@dataclass(frozen=True)
class Column:
    """One column. `shape` is that of its array, () for a single value."""

    name: str
    kind: pa.DataType
    what: str
    shape: tuple[int, ...] = ()

    def field(self) -> pa.Field:
        # Lists of a fixed size would say more, but Parquet doesn't read them back where some are null.
        kind = pa.list_(self.kind) if self.shape else self.kind
        return pa.field(self.name, kind, metadata={"shape": str(list(self.shape))})


def _single(name: str, what: str, *shape: int) -> Column:
    return Column(name, pa.float32(), what, shape)


COLUMNS: tuple[Column, ...] = (
    Column(
        "imgname", pa.string(), "image, relative to the source's folder of images, forward slashes ([names](#names))"
    ),
    Column("person", pa.int32(), "which person of the image, from 0"),
    Column("source_id", pa.int64(), "the source's own number: COCO's annotation id, SPIN's row; -1 without one"),
    Column(
        "status",
        pa.string(),
        "`accepted`, `unjudged` (without a quality), `refused` (rejected), `failed` (no fit)",
    ),
    Column("reason", pa.string(), "why it was rejected or failed; several are separated by `; `"),
    Column("run", pa.int32(), "which of the settings in `manifest.json` made it, from 0"),
    Column("batch", pa.int64(), "which batch of the folder it was fitted in, from 0"),
    Column("asked", pa.string(), "hash of the people, boxes and keypoints that the source gave for the image"),
    Column(
        "input_bytes", pa.int64(), "size of the image and its keypoint file; 0: it could not be read; null: not known"
    ),
    Column("input_mtime_ns", pa.int64(), "when they were last modified, nanoseconds since 1970"),
    Column("input_sha256", pa.string(), "of their bytes"),
    _single("quality", "probability 0..1 that the mean vertex error is under 80 mm; null where not calibrated"),
    _single("joints", "metres, camera frame", 49, 3),
    _single("global_orient", "axis-angle", 3),
    _single("body_pose", "axis-angle", 69),
    _single("betas", "shape", 10),
    _single("cam_t", "metres", 3),
    _single("focal_length", "pixels of the full image"),
    _single("principal_point", "pixels", 2),
    _single("image_size", "width, height", 2),
    _single("crop_cam", "SPIN's s, tx, ty", 3),
    _single("crop_global_orient", "the orientation that goes with it", 3),
    _single("crop_residual_px", "how far the joints under `crop_cam` lie from where they are, RMS at 224 px"),
    _single("bbox_center", "pixels", 2),
    _single("bbox_scale", "side / 200"),
    _single("keypoints", "observed pixels and confidence", 49, 3),
    _single("world_landmarks", "the detector's 3D: metres about the mid-hip, axes of its crop, and confidence", 49, 4),
    Column("labels", pa.binary(), "the label map that the fit saw: a greyscale PNG of the image's size"),
    Column("body", pa.string(), "name and SHA-256 of the body's file", (2,)),
    Column("num_vertices", pa.int32(), "of that body; 6890 is official SMPL"),
    Column("keypoints_source", pa.string(), "who made the keypoints"),
    _single("agreement", "0..1 (OKS), how far person finder and landmark network saw the same person; null without"),
    Column("labels_source", pa.string(), "who made the label map"),
    *(_single(name, "as in `mesh.json`, of the final fit") for name in METRICS),
    *(_single(f"{name}_initial", "the same of the initial estimate") for name in METRICS),
    *(_single(f"energy_{name}", "unweighted, of the final fit") for name in ENERGIES),
    *(_single(f"energy_{name}_initial", "the same of the initial estimate") for name in ENERGIES),
    Column("regressor", pa.string(), "who made the initial estimate"),
    _single("spread", "by how much it expected each of SMPL's 24 rotations to be off, radians", 24),
    _single("expected_error_m", "by how far it expected its 24 joints to be off about the pelvis, on average, metres"),
    _single("change_m", "mean distance of joints, about the pelvis, between the initial estimate and the fit"),
    Column("iterations", pa.int32(), "steps taken"),
    Column("stop_reason", pa.string(), "`converged`, `keypoints fitted`, `iteration limit` or `diverged`"),
)

SCHEMA = pa.schema([column.field() for column in COLUMNS])
VERSION = 5
"""Of the columns and their meaning. 3: the status `unjudged`; 4: batches, and what an image's files held; 5: closeness
of keypoints to the estimate's."""
READABLE = (2, 3, 4, 5)
PLANNED = 4
"""From here on folders hold plans of their work."""
SINCE: dict[str, int] = {
    **dict.fromkeys(("batch", "asked", "input_bytes", "input_mtime_ns", "input_sha256", "agreement"), 4),
    **dict.fromkeys(("energy_initial_points", "energy_initial_points_initial"), 5),
}
"""Version in which a column came, of those that were not always there."""


def to_table(rows: Iterable[Row]) -> pa.Table:
    """Rows as a table; columns that a row lacks are null. Raises KeyError for keys that are no columns."""
    rows = list(rows)
    unknown = {name for row in rows for name in row} - set(SCHEMA.names)
    if unknown:
        raise KeyError(f"not columns of a shard: {', '.join(sorted(unknown))}")
    arrays = [pa.array([_flat(row.get(field.name)) for row in rows], field.type) for field in SCHEMA]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)


def to_rows(table: pa.Table) -> list[Row]:
    """A table's rows, arrays in their shapes."""
    columns = {column.name: _values(column, table[column.name]) for column in COLUMNS}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _flat(value: Any) -> Any:
    """An array as a list; NaN, where there is nothing to measure, as null; text as valid Unicode."""
    if isinstance(value, str):
        return readable(value)
    if isinstance(value, np.ndarray):
        return value.ravel().tolist()
    if isinstance(value, (float, np.floating)):
        return None if np.isnan(value) else float(value)
    return value


def _values(column: Column, chunks: pa.ChunkedArray) -> list[Any]:
    """One value a row; single precision survives, None is null."""
    if not column.shape:
        return chunks.to_pylist()
    array = chunks.combine_chunks()
    flat = array.flatten()  # without the null rows
    numbers = flat.to_pylist() if column.kind == pa.string() else flat.to_numpy(zero_copy_only=False)
    stacked = iter(np.array(numbers).reshape(-1, *column.shape))
    return [next(stacked) if valid else None for valid in array.is_valid().to_pylist()]
