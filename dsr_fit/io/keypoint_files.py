"""Keypoints from files: OpenPose, COCO, MediaPipe and our own results, all mapped to the 49 slots."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dsr_fit.errors import InputError
from dsr_fit.io.files import read_arrays
from dsr_fit.joints import COCO_17_SLOTS, MEDIAPIPE_33_TO_SLOT, OPENPOSE_18_SLOTS, empty_keypoints
from dsr_fit.observation import Detection

# Number of points -> (source, point index -> slot). The number alone tells the layout.
_LAYOUTS: dict[int, tuple[str, Mapping[int, int]]] = {
    17: ("coco", dict(enumerate(COCO_17_SLOTS))),
    18: ("openpose", dict(enumerate(OPENPOSE_18_SLOTS))),
    25: ("openpose", {index: index for index in range(25)}),
    33: ("mediapipe", MEDIAPIPE_33_TO_SLOT),
    49: ("dsr-fit", {index: index for index in range(49)}),
}
_LENGTHS = "17 (COCO), 18 or 25 (OpenPose), 33 (MediaPipe) or 49 (dsr-fit)"

# COCO's visibility flags as confidence: not labelled, labelled but hidden, visible.
_COCO_FLAG_CONFIDENCE = np.array([0.0, 0.5, 1.0])

_NORMALISED_LIMIT = 2.0
"""MediaPipe coordinates that all stay below this are shares of the image's size (over 1 outside it)."""

_POINT_KEYS = ("keypoints", "pose_keypoints_2d", "pose_landmarks", "landmarks")
_WORLD_KEYS = ("world_landmarks", "pose_world_landmarks")


Layout = Literal["coco17", "openpose18", "openpose25", "mediapipe33", "dsr-fit49"]


@dataclass(frozen=True)
class Keypoints:
    """One person's keypoints as an array, in a layout of the field."""

    points: np.ndarray
    """(N, 3) x, y in pixels of the image and confidence 0..1."""
    layout: Layout = "openpose25"

    def detection(self, image_size: tuple[int, int]) -> Detection:
        """In the 49 slots. Raises InputError for an array that is not of the layout."""
        count = int(self.layout[-2:])
        if self.points.shape != (count, 3):
            shape = " x ".join(map(str, self.points.shape))
            raise InputError(f"keypoints of layout {self.layout} must be {count} x 3 (x, y, confidence), not {shape}")
        return _detection("the keypoints", self.points.tolist(), None, image_size, {})


def read_keypoints(path: str | Path, image_size: tuple[int, int], image_name: str | None = None) -> list[Detection]:
    """People of one image in the file's order; those without any point are kept, so that numbers match.

    Reads OpenPose json (`people[i].pose_keypoints_2d`), COCO annotations or results (`keypoints`; flags v =
    0, 1, 2 become confidence 0, 0.5, 1), MediaPipe json (33 landmarks, lists [x, y, (z), visibility] or
    dicts; coordinates relative to the image are scaled by `image_size`; optional `world_landmarks`), and
    `mesh.npz` (`keypoints`). A confidence that is negative or not a number, and a point whose place isn't a
    number, is confidence 0.

    Args:
        image_size: width, height in pixels of the image.
        image_name: file name that selects the image where a COCO file holds several.
    Raises: InputError where the file can't be read, holds another number of points, or doesn't hold the
    image.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"no such keypoint file: {path}")
    if path.suffix.lower() == ".npz":
        return [_detection(path, _own_keypoints(path), None, image_size, {})]
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:  # covers bad JSON and bad UTF-8
        raise InputError(f"{path} is not a JSON keypoint file ({error}); .json and .npz files work") from None
    return [
        _detection(path, points, world, image_size, entry)
        for entry, points, world in (_fields(path, entry) for entry in _people(path, content, image_name))
    ]


def _people(path: Path, content: Any, image_name: str | None) -> list[Any]:
    """The entries of one image's people, whatever the file wraps them in."""
    if isinstance(content, dict):
        if isinstance(content.get("people"), list):
            return content["people"]
        if isinstance(content.get("annotations"), list):
            return _entries_of_image(path, content["annotations"], content.get("images") or [], image_name)
        if any(key in content for key in _POINT_KEYS):
            return [content]
    elif isinstance(content, list):
        if not content:
            return []
        if _is_point(content[0]) or _is_number(content[0]):
            return [content]  # one person's points
        if all(isinstance(entry, dict) for entry in content):
            return _entries_of_image(path, content, [], image_name)
        if all(isinstance(entry, list) for entry in content):
            return content
    raise InputError(
        f"{path} holds no keypoints in a known form; OpenPose, COCO or MediaPipe-33 json or a mesh.npz work"
    )


def _entries_of_image(path: Path, entries: list[Any], images: list[Any], image_name: str | None) -> list[Any]:
    """The COCO entries that belong to the image; all where the file is about one image only."""
    entries = [entry for entry in entries if isinstance(entry, dict)]
    if len({str(entry.get("image_id")) for entry in entries}) <= 1 and len(images) <= 1:
        return entries
    if image_name is None:
        raise InputError(f"{path} holds keypoints of several images; the image's file name is needed to choose one")
    name, stem = Path(image_name).name, Path(image_name).stem
    ids = {
        str(image.get("id"))
        for image in images
        if isinstance(image, dict) and Path(str(image.get("file_name", ""))).name == name
    }
    # Results files name no images: their ids are COCO's numbers (000000000139.jpg is 139) or the names
    # themselves.
    ids = ids or {name, stem, stem.lstrip("0")}
    chosen = [entry for entry in entries if Path(str(entry.get("image_id"))).name in ids]
    if not chosen:
        raise InputError(f"{path} holds several images but none named {name}; name the image as the file does")
    return chosen


def _fields(path: Path, entry: Any) -> tuple[Mapping[str, Any], Any, Any]:
    """An entry as a mapping, its points and its world landmarks (or None)."""
    if isinstance(entry, list):
        return {}, entry, None
    if isinstance(entry, dict):
        for key in _POINT_KEYS:
            if key in entry:
                world = next((entry[name] for name in _WORLD_KEYS if entry.get(name)), None)
                return entry, entry[key], world
    raise InputError(f"{path} has a person without keypoints; each needs one of {', '.join(_POINT_KEYS)}")


def _detection(
    path: str | Path, points: Any, world: Any, image_size: tuple[int, int], entry: Mapping[str, Any]
) -> Detection:
    """One person's `Detection` from points in any of the layouts."""
    table = _table(path, points)
    source, slots = _LAYOUTS[len(table)]
    confidence = table[:, -1].copy()
    if source == "coco" and np.isin(confidence, (0, 1, 2)).all() and (2 in confidence or "num_keypoints" in entry):
        confidence = _COCO_FLAG_CONFIDENCE[confidence.astype(int)]
    place = table[:, :2].copy()
    if source == "mediapipe":
        finite = np.abs(place[np.isfinite(place)])
        if finite.size and finite.max() <= _NORMALISED_LIMIT:
            place *= image_size
            # What MediaPipe guesses outside the picture is unknown.
            confidence[((place < 0) | (place > image_size)).any(axis=1)] = 0
    usable = np.isfinite(place).all(axis=1) & np.isfinite(confidence) & (confidence > 0)
    rows, columns = list(slots), list(slots.values())
    keypoints = empty_keypoints()
    keypoints[columns] = np.where(usable[:, None], np.column_stack([place, confidence.clip(0, 1)]), 0)[rows]

    world_landmarks = None
    if world is not None and source == "mediapipe":
        world_table = _table(path, world)
        if world_table.shape != (33, 4):
            raise InputError(f"{path}: world landmarks need 33 points of x, y, z, visibility")
        world_table[:, 3] = np.where(usable & np.isfinite(world_table).all(axis=1), confidence.clip(0, 1), 0)
        world_landmarks = np.zeros((len(keypoints), 4), dtype=np.float32)
        world_landmarks[columns] = np.nan_to_num(world_table)[rows]
    return Detection(keypoints, world_landmarks, None, source)


def _table(path: str | Path, points: Any) -> np.ndarray:
    """(n, 3 or 4) float64 of points given flat, nested or as dicts; the last column is the confidence."""
    try:
        if isinstance(points, list) and points and isinstance(points[0], dict):
            points = [[p["x"], p["y"], p.get("z", 0.0), p.get("visibility", 1.0)] for p in points]
        table = np.array(points, dtype=np.float64)
    except (TypeError, ValueError, KeyError):
        raise InputError(f"{path} has keypoints that aren't numbers x, y, confidence") from None
    if table.ndim == 1:
        columns = 4 if table.size == 33 * 4 else 3
        if table.size % columns == 0:
            table = table.reshape(-1, columns)
    if table.ndim != 2 or len(table) not in _LAYOUTS or table.shape[1] not in ((3, 4) if len(table) == 33 else (3,)):
        shape = " x ".join(str(size) for size in table.shape)
        raise InputError(f"{path} has keypoints of size {shape}; {_LENGTHS} points of x, y, confidence work")
    return table


def _own_keypoints(path: Path) -> np.ndarray:
    """The (49, 3) `keypoints` of a `mesh.npz`."""
    try:
        arrays = read_arrays(path)
    except ValueError as error:
        raise InputError(f"{path} can't be read ({error}); a mesh.npz written by dsr-fit works") from None
    if isinstance(arrays, np.ndarray) or "keypoints" not in arrays:
        raise InputError(f"{path} has no array `keypoints`; a mesh.npz written by dsr-fit works")
    return arrays["keypoints"]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_point(value: Any) -> bool:
    if isinstance(value, dict):
        return "x" in value and "y" in value
    return isinstance(value, list) and 2 <= len(value) <= 4 and all(_is_number(number) for number in value)
