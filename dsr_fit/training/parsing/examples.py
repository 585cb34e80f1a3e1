"""One labelled person, as the parser's training keeps it: the picture about the person, at little more than the
network's resolution."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from dsr_fit.io.files import read_arrays, replacing
from dsr_fit.joints import coco_keypoints
from dsr_fit.labels import UNKNOWN
from dsr_fit.observe.blazepose import INPUT
from dsr_fit.observe.crop import warp
from dsr_fit.observe.landmarks import Region
from dsr_fit.observe.parsing_network import point_array

KEPT_SIDE = 400
"""Pixels of an example's picture."""

KEPT_WIDE = 1.4
"""Side of an example's picture over the person's region, for samples that are turned, shifted or smaller."""


@dataclass(frozen=True)
class Example:
    """One person; S is `KEPT_SIDE`."""

    name: str
    """Of the photo, or the seed; the same for people of one picture."""
    image: np.ndarray
    """(S, S, 3) uint8 RGB, black outside the picture."""
    labels: np.ndarray
    """(S, S) uint8: 0..19, 253 another person, 254 occluder, 255 unknown, and outside the picture."""
    inside: np.ndarray
    """(S, S) bool: within the picture."""
    points: np.ndarray
    """(21, 3) float32 pixels and confidence, in the order of `parsing_network.POINTS`."""
    region: Region
    """The person's, in pixels of this image."""


def example_of(name: str, image: np.ndarray, labels: np.ndarray, keypoints: np.ndarray, region: Region) -> Example:
    """Cut a person out of an (H, W, 3) picture; `keypoints` (49, 3) and `region` in its pixels."""
    side = KEPT_WIDE * region.side
    window = Region(region.center, side, 0.0).matrix(KEPT_SIDE)
    points = point_array(keypoints)
    points[:, :2] = points[:, :2] @ window[:, :2].T + window[:, 2]
    points[points[:, 2] <= 0] = 0
    inside = np.full(labels.shape, 1, np.uint8)
    return Example(
        name,
        warp(image, window, KEPT_SIDE, 0),
        warp(labels, window, KEPT_SIDE, UNKNOWN, nearest=True),
        warp(inside, window, KEPT_SIDE, 0, nearest=True) > 0,
        points.astype(np.float32),
        Region((KEPT_SIDE / 2, KEPT_SIDE / 2), KEPT_SIDE / KEPT_WIDE, region.angle),
    )


def region_of(keypoints: np.ndarray) -> Region:
    """About the region in which the landmark network would look at a person of (49, 3) keypoints."""
    body = coco_keypoints(keypoints)
    low, high = body[:, :2].min(0), body[:, :2].max(0)
    return Region.of_keypoints(body, (*low, *(high - low)))


def write_examples(path: Path, examples: list[Example]) -> None:
    """Several examples in one `.npz`, pictures as JPEG and labels as PNG; replaced at once or not at all."""
    arrays: dict[str, np.ndarray] = {"names": np.array([one.name for one in examples])}
    for number, one in enumerate(examples):
        arrays[f"image{number}"] = cv2.imencode(".jpg", one.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1]
        arrays[f"labels{number}"] = cv2.imencode(".png", one.labels)[1]
        arrays[f"inside{number}"] = np.packbits(one.inside)
        arrays[f"points{number}"] = one.points
        arrays[f"region{number}"] = np.array([*one.region.center, one.region.side, one.region.angle])
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def read_examples(path: Path) -> list[Example]:
    """The examples of a file."""
    arrays = read_arrays(path)
    assert isinstance(arrays, dict)
    examples = []
    for number, name in enumerate(arrays["names"]):
        image = cv2.imdecode(arrays[f"image{number}"], cv2.IMREAD_COLOR)
        labels = cv2.imdecode(arrays[f"labels{number}"], cv2.IMREAD_UNCHANGED)
        assert image is not None
        assert labels is not None
        inside = np.unpackbits(arrays[f"inside{number}"], count=labels.size).reshape(labels.shape) > 0
        x, y, side, angle = (float(value) for value in arrays[f"region{number}"])
        points = arrays[f"points{number}"]
        image = np.ascontiguousarray(image[..., ::-1])
        examples.append(Example(str(name), image, np.asarray(labels), inside, points, Region((x, y), side, angle)))
    return examples


assert INPUT <= KEPT_SIDE
