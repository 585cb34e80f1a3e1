"""Keypoints from files: OpenPose, COCO, MediaPipe and our own results, all mapped to the 49 slots."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from dsr_fit.errors import InputError, UsageError
from dsr_fit.io.files import check_file, read_arrays, read_json
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
"""MediaPipe's coordinates are shares of the image's size (over 1 outside it) where most stay below this."""

_FARTHEST = 1e9
"""Pixels, and confidence: what lies beyond is taken to lie here, in single precision's range, and refused when it is
observed."""

_POINT_KEYS = ("keypoints", "pose_keypoints_2d", "pose_keypoints", "pose_landmarks", "landmarks")
_WORLD_KEYS = ("world_landmarks", "pose_world_landmarks")


Layout = Literal["coco17", "openpose18", "openpose25", "mediapipe33", "dsr-fit49"]


@dataclass(frozen=True)
class Keypoints:
    """One person's keypoints as an array, in a layout of the field."""

    points: np.ndarray
    """(N, 3) x, y in pixels of the image and confidence 0..1."""
    layout: Layout = "openpose25"

    def detection(self, image_size: tuple[int, int]) -> Detection:
        """In the 49 slots. Raises InputError for an array that is not of the layout, UsageError for no layout."""
        if self.layout not in get_args(Layout):
            raise UsageError(f"no layout is called {self.layout!r}; {', '.join(get_args(Layout))} are")
        count, points = int(self.layout[-2:]), np.asarray(self.points)
        if points.shape != (count, 3):
            shape = " x ".join(map(str, points.shape))
            raise InputError(f"keypoints of layout {self.layout} must be {count} x 3 (x, y, confidence), not {shape}")
        return _detection("the array of keypoints", points.tolist(), None, image_size, {})


def read_keypoints(path: str | Path, image_size: tuple[int, int], image_name: str | None = None) -> list[Detection]:
    """People of one image in the file's order; those without any point are kept, so that numbers match.

    Reads OpenPose json (`people[i].pose_keypoints_2d`), COCO annotations or results (`keypoints`; flags v =
    0, 1, 2 become confidence 0, 0.5, 1), MediaPipe json (33 landmarks, lists [x, y, (z), visibility] or
    dicts; coordinates relative to the image are scaled by `image_size`; optional `world_landmarks`), and
    `mesh.npz` (`keypoints`). A point whose place or confidence is null or NaN, and a confidence that is negative, is
    confidence 0; those above 1 stay as they are, for `dsr_fit.observe.checks` to judge.

    Args:
        image_size: width, height in pixels of the image.
        image_name: file name that selects the image where a COCO file holds several.
    Raises: InputError where the file can't be read, holds another number of points, doesn't hold the image, or says
    that the image has another size.
    """
    path = Path(path)
    check_file(path, "keypoint file")
    if path.suffix.lower() == ".npz":
        return [_detection(str(path), _own_keypoints(path, image_size).tolist(), None, image_size, {})]
    try:
        content = read_json(path)
    except ValueError as error:
        raise InputError(f"{path} is not a JSON keypoint file ({error}); .json and .npz files work") from None
    people = []
    for number, person in enumerate(_people(path, content, image_size, image_name)):
        who = f"person {number} of {path}"
        entry, points, world = _fields(who, person)
        people.append(_detection(who, points, world, image_size, entry))
    return people


def _people(path: Path, content: Any, image_size: tuple[int, int], image_name: str | None) -> list[Any]:
    """The entries of one image's people, whatever the file wraps them in."""
    if isinstance(content, dict):
        if isinstance(content.get("people"), list):
            return content["people"]
        if isinstance(content.get("annotations"), list):
            images = content.get("images")
            images = [image for image in images if isinstance(image, dict)] if isinstance(images, list) else []
            chosen = _entries_of_image(path, content["annotations"], images, image_name)
            _check_size(path, images, chosen, image_size)
            return chosen
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


def _check_size(path: Path, images: list[Any], chosen: list[Any], image_size: tuple[int, int]) -> None:
    """Raises InputError where the file says that the image of the chosen entries has another size."""
    ids = {str(entry.get("image_id")) for entry in chosen}
    for image in images if len(images) == 1 else [image for image in images if str(image.get("id")) in ids]:
        _check_said_size(path, (image.get("width"), image.get("height")), image_size)


def _check_said_size(path: Path, said: tuple[Any, ...], image_size: tuple[int, int]) -> None:
    if len(said) == 2 and all(map(_is_number, said)) and said != image_size:
        shown = " x ".join(f"{side:.6g}" if abs(side) < _FARTHEST else "too many" for side in said)
        raise InputError(
            f"{path} is of an image of {shown} pixels, this one has {image_size[0]} x {image_size[1]}; "
            "keypoints of this very image work, upright as its EXIF says"
        )


def _entries_of_image(path: Path, entries: list[Any], images: list[Any], image_name: str | None) -> list[Any]:
    """The COCO entries that belong to the image; all where the file is about one image only."""
    entries = [entry for entry in entries if isinstance(entry, dict)]
    if len({str(entry.get("image_id")) for entry in entries}) <= 1 and len(images) <= 1:
        return entries
    if image_name is None:
        raise InputError(f"{path} holds keypoints of several images; give the image as a file, whose name chooses")
    name, stem = Path(image_name).name, Path(image_name).stem
    ids = {str(image.get("id")) for image in images if Path(str(image.get("file_name", ""))).name == name}
    # Results files name no images: their ids are COCO's numbers (000000000139.jpg is 139) or the names
    # themselves.
    ids = ids or {name, stem, stem.lstrip("0")}
    chosen = [entry for entry in entries if Path(str(entry.get("image_id"))).name in ids]
    if not chosen:
        raise InputError(f"{path} holds several images but none named {name}; name the image as the file does")
    return chosen


def _fields(who: str, entry: Any) -> tuple[Mapping[str, Any], Any, Any]:
    """An entry as a mapping, its points and its world landmarks (or None)."""
    if isinstance(entry, list):
        return {}, entry, None
    if isinstance(entry, dict):
        for key in _POINT_KEYS:
            if key in entry:
                world = next((entry[name] for name in _WORLD_KEYS if entry.get(name)), None)
                return entry, entry[key], world
    raise InputError(f"{who} has no keypoints; each person needs one of {', '.join(_POINT_KEYS)}")


def _detection(who: str, points: Any, world: Any, image_size: tuple[int, int], entry: Mapping[str, Any]) -> Detection:
    """One person's `Detection` from points in any of the layouts."""
    table = _table(who, points)
    source, slots = _LAYOUTS[len(table)]
    confidence = table[:, -1].clip(-_FARTHEST, _FARTHEST)
    if source == "coco" and np.isin(confidence, (0, 1, 2)).all() and (2 in confidence or "num_keypoints" in entry):
        confidence = _COCO_FLAG_CONFIDENCE[confidence.astype(int)]
    place = table[:, :2].clip(-_FARTHEST, _FARTHEST)
    if source == "mediapipe":
        finite = np.abs(place[np.isfinite(place).all(axis=1)])
        if len(finite) and np.median(finite.max(axis=1)) <= _NORMALISED_LIMIT:
            place *= image_size
            # What MediaPipe guesses outside the picture is unknown.
            confidence[((place < 0) | (place > image_size)).any(axis=1)] = 0
    usable = np.isfinite(table[:, :2]).all(axis=1) & (confidence > 0)
    rows, columns = list(slots), list(slots.values())
    keypoints = empty_keypoints()
    keypoints[columns] = np.where(usable[:, None], np.column_stack([place, confidence]), 0)[rows]

    world_landmarks = None
    if world is not None and source == "mediapipe":
        world_table = _table(f"{who}: its world landmarks", world)
        if world_table.shape != (33, 4):
            raise InputError(f"{who}: world landmarks need 33 points of x, y, z, visibility")
        world_table = world_table.clip(-_FARTHEST, _FARTHEST)
        world_table[:, 3] = np.where(usable & np.isfinite(world_table).all(axis=1), confidence.clip(0, 1), 0)
        world_landmarks = np.zeros((len(keypoints), 4), dtype=np.float32)
        world_landmarks[columns] = np.nan_to_num(world_table)[rows]
    return Detection(keypoints, world_landmarks, None, source)


def _table(who: str, points: Any) -> np.ndarray:
    """(n, 3 or 4) float64 of points given flat, nested or as dicts; the last column is the confidence.

    What is null is not a number, which leaves the point unobserved.
    """
    if isinstance(points, list) and points and all(isinstance(point, dict) for point in points):
        points = [
            [point.get("x"), point.get("y"), point.get("z", 0.0), point.get("visibility", 1.0)] for point in points
        ]
    flat = _flat(points) if isinstance(points, list) else [points]
    wrong = next((value for value in flat if not _is_number_or_null(value)), None)
    if wrong is not None or not isinstance(points, list):
        raise InputError(f"{who} has keypoints that aren't numbers x, y, confidence, but {repr(wrong):.20}")
    try:
        table = np.array(points, dtype=np.float64)
    except OverflowError:
        raise InputError(f"{who} has a keypoint with a number too large for any image") from None
    except ValueError:
        raise InputError(f"{who} has keypoints of different lengths; each is x, y, confidence") from None
    if table.ndim == 1:
        columns = 4 if table.size == 33 * 4 else 3
        if table.size % columns == 0:
            table = table.reshape(-1, columns)
    if table.ndim != 2 or len(table) not in _LAYOUTS or table.shape[1] not in ((3, 4) if len(table) == 33 else (3,)):
        shape = " x ".join(str(size) for size in table.shape)
        given = f"{len(table)} keypoints" if table.ndim == 2 and table.shape[1] == 3 else f"keypoints of size {shape}"
        raise InputError(f"{who} has {given}; {_LENGTHS} points of x, y, confidence work")
    return table


def _flat(points: list[Any]) -> Iterator[Any]:
    """The leaves of points given flat or as rows."""
    for point in points:
        yield from point if isinstance(point, list) else (point,)


def _own_keypoints(path: Path, image_size: tuple[int, int]) -> np.ndarray:
    """The (49, 3) `keypoints` of a `mesh.npz`. Raises InputError where it is of an image of another size."""
    try:
        arrays = read_arrays(path)
    except ValueError as error:
        raise InputError(f"{path} can't be read ({error}); a mesh.npz written by dsr-fit works") from None
    if isinstance(arrays, np.ndarray) or "keypoints" not in arrays:
        raise InputError(f"{path} has no array `keypoints`; a mesh.npz written by dsr-fit works")
    if "image_size" in arrays:
        _check_said_size(path, tuple(arrays["image_size"].ravel().tolist()), image_size)
    return arrays["keypoints"]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_number_or_null(value: Any) -> bool:
    return value is None or _is_number(value)


def _is_point(value: Any) -> bool:
    if isinstance(value, dict):
        return "x" in value and "y" in value
    return isinstance(value, list) and 2 <= len(value) <= 4 and all(map(_is_number_or_null, value))
