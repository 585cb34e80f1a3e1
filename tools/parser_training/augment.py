"""What is done to a photo before the parser sees it: other people, things in front, bad pictures, missing hints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from dsr_fit.camera import Crop
from dsr_fit.labels import MIRRORED_LABELS, UNKNOWN
from dsr_fit.observe.crop import warp
from dsr_fit.observe.network_parser import CLASSES, MIRRORED_POINTS, OUTSIDE
from parser_training.photos import Photo

OCCLUDER_CLASS = CLASSES - 1
MOST_HIDDEN = 0.6
"""A thing that would hide more of the person than this share is left out."""


@dataclass
class Sample:
    """A window of S x S pixels."""

    picture: np.ndarray  # (S, S, 3) uint8
    classes: np.ndarray  # (S, S) uint8
    mask: np.ndarray  # (S, S) uint8
    mask_seen: bool
    points: np.ndarray  # (21, 3) x, y over the window's side, confidence

    def person(self) -> np.ndarray:
        """(S, S) bool: pixels with one of the person's labels."""
        return (self.classes > 0) & (self.classes < OCCLUDER_CLASS)


def plain(photo: Photo, size: int) -> Sample:
    """The window as it is, for validation."""
    return _cut(photo, Crop(photo.center, photo.side).matrix(size), size)


def augmented(photos: Sequence[Photo], index: int, size: int, rng: np.random.Generator) -> Sample:
    """One training sample: a photo, turned, flipped, disturbed; the same generator state gives the same one."""
    photo = photos[index]
    zoom = np.exp(rng.uniform(-0.25, 0.3))
    angle = rng.normal(0, 12) if rng.random() < 0.85 else rng.uniform(-70, 70)
    x, y = np.array(photo.center) + rng.normal(0, 0.05, 2) * photo.side
    flip = rng.random() < 0.5
    sample = _cut(photo, Crop((x, y), photo.side / zoom).matrix(size, np.radians(angle), flip), size)
    if flip:
        sample.classes = MIRRORED_LABELS[sample.classes]
        sample.points = sample.points[MIRRORED_POINTS]
    if rng.random() < 0.35:
        paste_person(sample, photos[int(rng.integers(len(photos)))], rng)
    if rng.random() < 0.5:
        paste_thing(sample, photos[int(rng.integers(len(photos)))], rng)
    if rng.random() < 0.15:
        _cut_by_frame(sample, rng)
    _disturb_hints(sample, rng)
    sample.picture = _photographed(sample.picture, rng)
    return sample


def _cut(photo: Photo, matrix: np.ndarray, size: int) -> Sample:
    points = photo.points.copy()
    points[:, :2] = (points[:, :2] @ matrix[:, :2].T + matrix[:, 2]) / size
    return Sample(
        warp(photo.image, matrix, size, OUTSIDE),
        warp(photo.classes, matrix, size, UNKNOWN, nearest=True),
        warp(photo.mask, matrix, size, 0),
        True,
        points,
    )


def paste_person(sample: Sample, other: Photo, rng: np.random.Generator) -> np.ndarray:
    """Somebody from another photo, beside, behind or before the person; returns their pixels (S, S) bool."""
    size = len(sample.picture)
    scale = rng.uniform(0.6, 1.25) * size / other.side
    offset = rng.uniform(0.08, 0.45) * rng.choice([-1, 1]) * size, rng.normal(0, 0.08) * size
    matrix = Crop(other.center, size / scale).matrix(size, np.radians(rng.normal(0, 6)), rng.random() < 0.5)
    matrix[:, 2] += offset
    classes = warp(other.classes, matrix, size, 0, nearest=True)
    figure = (classes > 0) & (classes < UNKNOWN)
    picture = warp(other.image, matrix, size, OUTSIDE)
    person = sample.person()
    in_front = rng.random() < 0.5 and (figure & person).sum() < MOST_HIDDEN * person.sum()
    if not in_front:
        figure &= (sample.classes == 0) | (sample.classes == UNKNOWN)
    _blend(sample, picture, figure, in_front, rng)
    if rng.random() < 0.35:  # the detector's mask may take in somebody else
        leak = figure & (cv2.blur(rng.random((size, size), np.float32), (31, 31)) > rng.uniform(0.4, 0.55))
        sample.mask[leak] = np.maximum(sample.mask[leak], np.uint8(rng.uniform(80, 255)))
    return figure


def paste_thing(sample: Sample, other: Photo, rng: np.random.Generator) -> None:
    """A bag from another photo, or a shape with some texture, before the person."""
    size = len(sample.picture)
    person = sample.person()
    if not person.any():
        return
    rows, columns = np.nonzero(person)
    pick = rng.integers(len(rows))
    centre = np.array([columns[pick], rows[pick]]) + rng.normal(0, 0.03, 2) * size
    bag = other.classes == OCCLUDER_CLASS
    if bag.sum() > 200 and rng.random() < 0.7:
        y, x = np.nonzero(bag)
        scale = rng.uniform(0.7, 1.8) * size / other.side
        around = Crop((float(x.mean()), float(y.mean())), size / scale)
        matrix = around.matrix(size, np.radians(rng.uniform(-30, 30)), rng.random() < 0.5)
        matrix[:, 2] += centre - size / 2
        figure = warp(bag.astype(np.uint8), matrix, size, 0, nearest=True) > 0
        picture = warp(other.image, matrix, size, OUTSIDE)
    else:
        figure = _shape(size, centre, rng)
        picture = _texture(size, other, rng)
    if (figure & person).sum() < MOST_HIDDEN * person.sum():
        _blend(sample, picture, figure, True, rng)


def _shape(size: int, centre: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(S, S) bool: an ellipse, a polygon, a box or a bar."""
    canvas = np.zeros((size, size), np.uint8)
    extent = size * rng.uniform(0.05, 0.22, 2)
    kind = rng.integers(4)
    turn = rng.uniform(0, 180)
    middle = (float(centre[0]), float(centre[1]))
    if kind == 0:
        cv2.ellipse(canvas, (middle, (2 * extent[0], 2 * extent[1]), turn), (1,), -1)
    elif kind == 1:
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(4, 9)))
        reach = rng.uniform(0.5, 1, len(angles))[:, None] * extent
        corners = centre + reach * np.stack([np.cos(angles), np.sin(angles)], 1)
        cv2.fillPoly(canvas, [np.rint(corners).astype(np.int32)], (1,))
    else:
        sides = (2 * extent[0], 2 * extent[1]) if kind == 2 else (float(size), size * rng.uniform(0.02, 0.12))
        cv2.fillPoly(canvas, [np.rint(cv2.boxPoints((middle, sides, turn))).astype(np.int32)], (1,))
    return canvas > 0


def _texture(size: int, other: Photo, rng: np.random.Generator) -> np.ndarray:
    """(S, S, 3) uint8: a piece of another photo, one colour, or stripes, with a little shading."""
    kind = rng.integers(3)
    if kind == 0:
        height, width = other.image.shape[:2]
        cut = rng.integers(40, 160)
        top, left = rng.integers(max(1, height - cut)), rng.integers(max(1, width - cut))
        picture = cv2.resize(other.image[top : top + cut, left : left + cut], (size, size)).astype(np.float32)
    else:
        first, second = rng.uniform(0, 255, (2, 3))
        share = np.zeros((size, size, 1), np.float32)
        if kind == 2:
            y, x = np.mgrid[:size, :size]
            turn, period = rng.uniform(0, np.pi), rng.uniform(4, 40)
            share = (np.sin((x * np.cos(turn) + y * np.sin(turn)) * 2 * np.pi / period) > 0)[..., None]
        picture = first * (1 - share) + second * share
    shading = cv2.resize(rng.uniform(0.6, 1.3, (3, 3)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    return (picture * shading[..., None]).clip(0, 255).astype(np.uint8)


def _blend(sample: Sample, picture: np.ndarray, figure: np.ndarray, in_front: bool, rng: np.random.Generator) -> None:
    """Put the figure's pixels into the sample, and settle what it is to the person and to the hints."""
    alpha = cv2.GaussianBlur(figure.astype(np.float32), (3, 3), 0)[..., None]
    if not in_front:
        alpha = alpha * figure[..., None]
    sample.picture = (sample.picture * (1 - alpha) + picture * alpha).astype(np.uint8)
    hides = in_front and (figure & sample.person()).sum() >= 10
    sample.classes[figure] = OCCLUDER_CLASS if hides else 0
    if hides:
        size = len(sample.picture)
        kept = rng.uniform(0, 1) if rng.random() < 0.4 else 0.0  # detectors' masks often take things in
        sample.mask[figure] = (sample.mask[figure] * kept).astype(np.uint8)
        cells = np.clip((sample.points[:, :2] * size).astype(int), 0, size - 1)
        hidden = figure[cells[:, 1], cells[:, 0]]
        sample.points[hidden, 2] *= rng.uniform(0, 1, hidden.sum()).astype(np.float32)


def _cut_by_frame(sample: Sample, rng: np.random.Generator) -> None:
    """The picture ends somewhere within the window."""
    size = len(sample.picture)
    share = rng.uniform(0.1, 0.5)
    outside = np.zeros((size, size), bool)
    side = rng.choice(4, p=[0.55, 0.15, 0.15, 0.15])
    stop = round(share * size)
    if side == 0:
        outside[size - stop :] = True
    elif side == 1:
        outside[: stop // 2] = True
    elif side == 2:
        outside[:, : stop // 2] = True
    else:
        outside[:, size - stop // 2 :] = True
    sample.picture[outside] = OUTSIDE
    sample.classes[outside] = UNKNOWN
    sample.mask[outside] = 0
    cells = np.clip((sample.points[:, :2] * size).astype(int), 0, size - 1)
    sample.points[outside[cells[:, 1], cells[:, 0]], 2] = 0


def _disturb_hints(sample: Sample, rng: np.random.Generator) -> None:
    """Keypoints and mask as bad as they come, or missing."""
    points = sample.points
    points[:, :2] += rng.normal(0, rng.choice([0.003, 0.01]), points[:, :2].shape)
    points[rng.random(len(points)) < rng.choice([0.02, 0.2]), 2] = 0
    if rng.random() < 0.1:
        points[:, 2] = 0
    outside = (points[:, :2] < 0) | (points[:, :2] > 1)
    points[outside.any(1), 2] = 0
    points[points[:, 2] <= 0] = 0
    if rng.random() < 0.15:
        sample.mask_seen = False
    elif rng.random() < 0.4:
        reach = int(rng.integers(2, 6)) * 2 + 1
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (reach, reach))
        change = (cv2.erode, cv2.dilate, lambda mask, _: cv2.blur(mask, (reach, reach)))[rng.integers(3)]
        sample.mask = np.asarray(change(sample.mask, kernel))


def _photographed(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Colour, light, blur, small pictures, noise and JPEG."""
    size = len(picture)
    if rng.random() < 0.15:
        small = max(24, round(size * rng.uniform(0.12, 0.6)))
        picture = cv2.resize(picture, (small, small), interpolation=cv2.INTER_AREA)
        picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.15:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.5, 2.5))
    colours = picture.astype(np.float32)
    if rng.random() < 0.8:
        colours = colours * rng.uniform(0.75, 1.25) * rng.uniform(0.88, 1.12, 3)
        grey = colours.mean(2, keepdims=True)
        colours = grey + (colours - grey) * rng.uniform(0.5, 1.4)
        middle = colours.mean()
        colours = middle + (colours - middle) * rng.uniform(0.7, 1.3)
    if rng.random() < 0.1:
        colours[:] = colours.mean(2, keepdims=True)
    if rng.random() < 0.1:  # low light
        colours = 255 * (colours.clip(0, 255) / 255) ** rng.uniform(1.3, 2.5) * rng.uniform(0.3, 0.8)
        colours += rng.normal(0, rng.uniform(2, 12), colours.shape)
    picture = colours.clip(0, 255).astype(np.uint8)
    if rng.random() < 0.25:
        quality = int(rng.integers(20, 85))
        packed = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        picture = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR))
    return picture
