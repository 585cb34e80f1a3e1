"""Finds people in a photo: 2D keypoints, 3D landmarks and a soft person mask."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from dsr_fit.boxes import Box, area, keypoint_box, shared_area, widened
from dsr_fit.errors import InputError
from dsr_fit.io.quiet import quiet_stderr
from dsr_fit.joints import MEDIAPIPE_33_TO_SLOT, empty_keypoints
from dsr_fit.observation import Detection

MAX_SIDE = 1920
"""A region with a longer side is shrunk to this before MediaPipe sees it; its networks look at 256 px."""

MIN_WINDOW = 96
"""Crops with a shorter side are not searched: nobody in them could be fitted."""

SAME_PERSON_OVERLAP = 0.5
"""A finding with more than this share of its box inside a larger one's is the same person."""

_SLOTS = np.array(list(MEDIAPIPE_33_TO_SLOT.values()))
_LANDMARKS = np.array(list(MEDIAPIPE_33_TO_SLOT))

_REMEDY = "install it with `pip install mediapipe==0.10.21`, or give --keypoints FILE and --labels FILE instead"


class KeypointDetector(Protocol):
    """Anything that finds people in an image."""

    def detect(self, image: np.ndarray, bbox: Box | None = None) -> list[Detection]:
        """People in the (H, W, 3) uint8 RGB image, ordered by the area of their box, largest first.

        With `bbox` only the person in that box. Nobody found is an empty list.
        """
        ...


class MediaPipeDetector:
    """MediaPipe Pose 0.10.21, the model that its wheel carries (`model_complexity=1`), on single images.

    The object can be reused for any number of images; each answer depends on its image alone.
    """

    def __init__(self) -> None:
        with _quiet():
            pose = import_pose()
            self._pose = pose.Pose(static_image_mode=True, model_complexity=1, enable_segmentation=True)
            # The graph's threads load (and log) on their own time: a first look waits for them.
            self._pose.process(np.zeros((8, 8, 3), dtype=np.uint8))

    def detect(self, image: np.ndarray, bbox: Box | None = None) -> list[Detection]:
        """See `KeypointDetector.detect`.

        MediaPipe finds one person per look. Where the whole image shows nobody, which happens when people are
        small in it, overlapping crops of half and a quarter of its longer side are searched.

        Raises: InputError where `bbox` is empty or lies outside the image.
        """
        height, width = image.shape[:2]
        if bbox is not None:
            return self._detect_in_box(image, _checked_box(bbox, width, height))
        found = self._look(image, (0, 0, width, height))
        if found is not None:
            return [found]
        people = []
        for side in (max(width, height) // 2, max(width, height) // 4):
            for window in _windows(width, height, side):
                person = self._look(image, window)
                if person is not None:
                    # A second look with the person in the middle: a window may cut through somebody.
                    centred = self._look(image, widened(keypoint_box(person.keypoints), 0.3))
                    people.append(centred or person)
        return _distinct(people)

    def _detect_in_box(self, image: np.ndarray, bbox: Box) -> list[Detection]:
        # A tight box may hide the person from MediaPipe's own detector, a wide one may show it somebody else.
        for margin in (0.15, 0.4, 0.0):
            found = self._look(image, widened(bbox, margin))
            if found is None:
                continue
            box = keypoint_box(found.keypoints)
            if shared_area(box, bbox) > 0.5 * min(area(box), area(bbox)):
                return [found]
        return []

    def _look(self, image: np.ndarray, region: Box) -> Detection | None:
        """MediaPipe's one person within a region of the image, in full-image coordinates."""
        height, width = image.shape[:2]
        left, top = max(int(region[0]), 0), max(int(region[1]), 0)
        right = min(int(np.ceil(region[0] + region[2])), width)
        bottom = min(int(np.ceil(region[1] + region[3])), height)
        crop = image[top:bottom, left:right]
        crop_height, crop_width = crop.shape[:2]
        shrink = min(1.0, MAX_SIDE / max(crop_height, crop_width))
        if shrink < 1:
            small = max(1, round(shrink * crop_width)), max(1, round(shrink * crop_height))
            crop = cv2.resize(crop, small, interpolation=cv2.INTER_AREA)
        with _quiet():
            result = self._pose.process(np.ascontiguousarray(crop))
        if result.pose_landmarks is None:
            return None

        points = _landmark_array(result.pose_landmarks)
        x, y = points[:, 0] * crop_width, points[:, 1] * crop_height
        # MediaPipe guesses what lies outside the picture; that is unknown here.
        seen = (x >= 0) & (x <= crop_width) & (y >= 0) & (y <= crop_height)
        confidence = np.where(seen, points[:, 3].clip(0, 1), 0)
        keypoints = empty_keypoints()
        keypoints[_SLOTS] = np.stack([x + left, y + top, confidence], axis=1)[_LANDMARKS]
        keypoints[keypoints[:, 2] == 0] = 0
        world = np.zeros((len(keypoints), 4), dtype=np.float32)
        world_points = _landmark_array(result.pose_world_landmarks)
        world_points[:, 3] = confidence
        world[_SLOTS] = world_points[_LANDMARKS]
        if not keypoints[:, 2].any():
            return None

        mask = np.zeros((height, width), dtype=np.float32)
        crop_mask = result.segmentation_mask
        if shrink < 1:
            crop_mask = cv2.resize(crop_mask, (crop_width, crop_height), interpolation=cv2.INTER_LINEAR)
        mask[top:bottom, left:right] = crop_mask.clip(0, 1)
        return Detection(keypoints, world, mask, "mediapipe")


def _landmark_array(landmarks: Any) -> np.ndarray:
    """(33, 4) float64 x, y, z, visibility of a MediaPipe landmark list."""
    return np.array([(point.x, point.y, point.z, point.visibility) for point in landmarks.landmark])


def _checked_box(bbox: Box, width: int, height: int) -> Box:
    text = ",".join(f"{number:g}" for number in bbox)
    x, y, box_width, box_height = bbox
    if not np.isfinite(bbox).all() or box_width < 1 or box_height < 1:
        raise InputError(f"the box {text} is empty; give x,y,width,height in pixels")
    if x >= width or y >= height or x + box_width <= 0 or y + box_height <= 0:
        raise InputError(f"the box {text} lies outside the {width} x {height} image; give x,y,width,height in it")
    return bbox


def _windows(width: int, height: int, side: int) -> Iterator[Box]:
    """Square windows, evenly spread and overlapping by half, that cover the image; none if too small."""
    if side < MIN_WINDOW:
        return
    for y in _starts(height, side):
        for x in _starts(width, side):
            yield (x, y, side, side)


def _starts(length: int, side: int) -> np.ndarray:
    steps = int(np.ceil(max(length - side, 0) / (side / 2)))
    return np.linspace(0, max(length - side, 0), steps + 1)


def _distinct(people: list[Detection]) -> list[Detection]:
    """The people without doubles, by box area, largest first."""
    kept: list[tuple[Box, Detection]] = []
    boxed = [(keypoint_box(person.keypoints), person) for person in people]
    for box, person in sorted(boxed, key=lambda pair: area(pair[0]), reverse=True):
        # Shared with the smaller box, since half a person found at a window's edge is a double too.
        if all(shared_area(box, other) <= SAME_PERSON_OVERLAP * area(box) for other, _ in kept):
            kept.append((box, person))
    return [person for _, person in kept]


def import_pose() -> types.ModuleType:
    """MediaPipe's module `mediapipe.python.solutions.pose`, alone. Raises InputError where it can't be loaded.

    `import mediapipe` runs matplotlib, sounddevice and every task API: 0.8 of its 1.0 s are for parts that are never
    used here. The pose solution needs none of them, so it is imported below hollow parent packages, which are taken
    away again: a later `import mediapipe` of the caller's gets the real one.
    """
    os.environ.setdefault("GLOG_minloglevel", "2")
    try:
        if "mediapipe" in sys.modules:
            return importlib.import_module("mediapipe.python.solutions.pose")
        spec = importlib.util.find_spec("mediapipe")
        if spec is None or not spec.submodule_search_locations:
            raise InputError(f"MediaPipe is not installed; {_REMEDY}")
        with _hollow_packages(Path(spec.submodule_search_locations[0])):
            return importlib.import_module("mediapipe.python.solutions.pose")
    except ImportError as error:
        if "libGL" in str(error) or "libEGL" in str(error) or "libgthread" in str(error):
            raise InputError(
                f"a system library of OpenCV or MediaPipe is missing ({error}); "
                "`apt-get install libgl1 libglib2.0-0` (or your system's equivalent) brings it"
            ) from None
        raise InputError(f"MediaPipe can't be loaded ({error}); {_REMEDY}") from None


@contextmanager
def _hollow_packages(root: Path) -> Iterator[None]:
    """Parent packages whose `__init__` is not run; undone afterwards, so that they can be imported fully."""
    for name in ("mediapipe", "mediapipe.python.solutions"):
        package = types.ModuleType(name)
        package.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
        sys.modules[name] = package
    try:
        yield
    finally:
        # The extension module and protobuf's descriptors can't be loaded twice: these stay.
        for name in [name for name in sys.modules if name.split(".")[0] == "mediapipe"]:
            if "_framework_bindings" not in name and not name.endswith("_pb2"):
                del sys.modules[name]


@contextmanager
def _quiet() -> Iterator[None]:
    """Neither what MediaPipe logs nor Python's warnings of its protobuf."""
    with quiet_stderr(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="google.protobuf")
        yield
