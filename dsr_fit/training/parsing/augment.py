"""What is done to an example before the parser sees it: other people and places, things in front, bad pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from dsr_fit.labels import MIRRORED_LABELS, OCCLUDER, OTHER_PERSON, UNKNOWN, shows_person
from dsr_fit.observe.blazepose import INPUT
from dsr_fit.observe.crop import warp
from dsr_fit.observe.landmarks import Region
from dsr_fit.observe.parsing_network import MIRRORED_POINTS
from dsr_fit.training.parsing.examples import Example

MOST_HIDDEN = 0.6
"""A thing that would hide more of the person than this share is left out."""


@dataclass(frozen=True)
class Chances:
    """Of what befalls a sample."""

    person: float = 0.35
    """Somebody of another picture, before or behind."""
    place: float = 0.2
    """Another picture's surroundings, people in it included."""
    thing: float = 0.4
    """Something in front."""
    cut: float = 0.15
    """The picture ends within the crop."""
    bars: float = 0.06
    """Black bars beside the picture."""
    bad: float = 0.15
    """Each of: small, blurred, grey, dark, noisy; twice for JPEG."""


@dataclass
class Sample:
    """A crop of S x S pixels."""

    picture: np.ndarray  # (S, S, 3) uint8
    labels: np.ndarray  # (S, S) uint8: 0..19, 253, 254, 255
    points: np.ndarray  # (21, 3) pixels, confidence

    def person(self) -> np.ndarray:
        """(S, S) bool: pixels with one of the person's labels."""
        return shows_person(self.labels)


def plain(example: Example, size: int = INPUT) -> Sample:
    """The crop as it is, for validation."""
    return _cut(example, example.region.matrix(size), size)


def augmented(
    examples: Sequence[Example], index: int, rng: np.random.Generator, chances: Chances | None = None, size: int = INPUT
) -> Sample:
    """One training sample; the same generator state gives the same one."""
    chances = chances or Chances()
    example = examples[index]
    region = example.region
    angle = rng.normal(0, 10) if rng.random() < 0.85 else rng.uniform(-60, 60)
    shift = rng.normal(0, 0.035, 2) * region.side
    looked = Region(
        (region.center[0] + shift[0], region.center[1] + shift[1]),
        region.side * float(np.exp(rng.uniform(-0.2, 0.25))),
        region.angle + float(np.radians(angle)),
    )
    flip = rng.random() < 0.5
    edge = _random_edge(rng) if rng.random() < chances.cut else None
    sample = _cut(example, _matrix(looked, size, flip), size, edge)
    if flip:
        sample.labels = MIRRORED_LABELS[sample.labels]
        sample.points = sample.points[MIRRORED_POINTS]

    def other() -> Example:
        return examples[int(rng.integers(len(examples)))]

    if edge is None and rng.random() < chances.place:
        _move(sample, other(), rng)
    if rng.random() < chances.person:
        paste_person(sample, other(), rng)
    if rng.random() < chances.thing:
        paste_thing(sample, other(), rng)
    if rng.random() < chances.bars:
        _bars(sample, rng)
    sample.picture = photographed(sample.picture, rng, chances.bad)
    return sample


def _matrix(region: Region, size: int, flip: bool) -> np.ndarray:
    matrix = region.matrix(size)
    if flip:
        matrix = matrix * [[-1], [1]]
        matrix[0, 2] += size
    return matrix


def _random_edge(rng: np.random.Generator) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of what is kept of an example's picture, in shares: one side is cut."""
    side = rng.choice(4, p=[0.15, 0.12, 0.15, 0.58])
    share = rng.uniform(0.3, 0.6) if side == 3 else rng.uniform(0.15, 0.42)
    kept = [0.0, 0.0, 1.0, 1.0]
    kept[side] = 1 - share if side > 1 else share
    return kept[0], kept[1], kept[2], kept[3]


def _cut(
    example: Example, matrix: np.ndarray, size: int, kept: tuple[float, float, float, float] | None = None
) -> Sample:
    """What the landmark network would be shown: beyond the picture's edge the edge goes on."""
    left, top, right, bottom = _bounds(example, kept)
    part = example.image[top:bottom, left:right]
    moved = matrix.copy()
    moved[:, 2] += moved[:, :2] @ (left, top)
    labels = np.full_like(example.labels, UNKNOWN)
    labels[top:bottom, left:right] = example.labels[top:bottom, left:right]
    points = example.points.copy()
    outside = ((points[:, :2] < (left, top)) | (points[:, :2] > (right, bottom))).any(1)
    points[:, :2] = points[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    points[outside, 2] = 0
    return Sample(
        warp(np.ascontiguousarray(part), moved, size, None),
        warp(labels, matrix, size, UNKNOWN, nearest=True),
        points,
    )


def _bounds(example: Example, kept: tuple[float, float, float, float] | None) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the picture in the example."""
    rows, columns = np.flatnonzero(example.inside.any(1)), np.flatnonzero(example.inside.any(0))
    left, top, right, bottom = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    if kept is not None:
        height, width = example.labels.shape
        cut = [round(share * length) for share, length in zip(kept, (width, height, width, height), strict=True)]
        new = max(left, cut[0]), max(top, cut[1]), min(right, cut[2]), min(bottom, cut[3])
        if new[2] - new[0] > 20 and new[3] - new[1] > 20:
            return new
    return left, top, right, bottom


def _other_labels(labels: np.ndarray) -> np.ndarray:
    """Another example's labels as the main person's parser should see them; unknown stays unknown."""
    seen = shows_person(labels) | (labels == OTHER_PERSON)
    return np.where(labels == UNKNOWN, np.uint8(UNKNOWN), np.where(seen, np.uint8(OTHER_PERSON), np.uint8(0)))


def _placed(sample: Sample, other: Example, scale: float, offset: np.ndarray, rng: np.random.Generator) -> Sample:
    """Another example, so much larger than the crop would show it, moved by so many pixels."""
    size = len(sample.picture)
    region = Region(other.region.center, other.region.side / scale, other.region.angle + np.radians(rng.normal(0, 6)))
    matrix = _matrix(region, size, rng.random() < 0.5)
    matrix[:, 2] += offset
    return _cut(other, matrix, size)


def paste_person(sample: Sample, other: Example, rng: np.random.Generator) -> np.ndarray:
    """Somebody of another picture, beside, behind or before the person; returns their pixels (S, S) bool."""
    size = len(sample.picture)
    offset = np.array([rng.uniform(0.06, 0.4) * rng.choice([-1, 1]), rng.normal(0, 0.08)]) * size
    pasted = _placed(sample, other, rng.uniform(0.6, 1.3), offset, rng)
    figure, person = pasted.person(), sample.person()
    in_front = rng.random() < 0.5 and (figure & person).sum() < MOST_HIDDEN * person.sum()
    if not in_front:
        figure &= (sample.labels == 0) | (sample.labels == UNKNOWN)
    _blend(sample, pasted.picture, figure, in_front, OTHER_PERSON)
    return figure


def _move(sample: Sample, other: Example, rng: np.random.Generator) -> None:
    """Put the person, and what is in front of it, into another picture."""
    size = len(sample.picture)
    place = _placed(sample, other, float(np.exp(rng.uniform(-0.7, 0.5))), rng.normal(0, 0.15, 2) * size, rng)
    labels = _other_labels(place.labels)
    figure = sample.person() | (sample.labels == OCCLUDER)
    soft = cv2.GaussianBlur(figure.astype(np.float32), (3, 3), 0)[..., None]
    sample.picture = (sample.picture * soft + place.picture * (1 - soft)).astype(np.uint8)
    # Skin without a label, as of a bare belly, lies within the figure's outline.
    near = cv2.dilate(figure.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    sample.labels = np.where(figure, sample.labels, np.where((sample.labels == UNKNOWN) & near, UNKNOWN, labels))
    sample.labels = sample.labels.astype(np.uint8)


def paste_thing(sample: Sample, other: Example, rng: np.random.Generator) -> np.ndarray:
    """A bag or a limb-sized piece of another picture, or a shape with some texture, before the person; its pixels."""
    size = len(sample.picture)
    person = sample.person()
    figure = np.zeros((size, size), bool)
    if not person.any():
        return figure
    rows, columns = np.nonzero(person)
    pick = rng.integers(len(rows))
    centre = np.array([columns[pick], rows[pick]]) + rng.normal(0, 0.03, 2) * size
    bag = other.labels == OCCLUDER
    if bag.sum() > 150 and rng.random() < 0.7:
        y, x = np.nonzero(bag)
        middle = np.array([x.mean(), y.mean()])
        scale = rng.uniform(0.7, 1.8)
        region = Region(
            (float(middle[0]), float(middle[1])), other.region.side / scale, np.radians(rng.uniform(-30, 30))
        )
        matrix = _matrix(region, size, rng.random() < 0.5)
        matrix[:, 2] += centre - size / 2
        cut = _cut(other, matrix, size)
        figure, picture = cut.labels == OCCLUDER, cut.picture
    else:
        figure, picture = _shape(size, centre, rng), _texture(size, other, rng)
    if (figure & person).sum() >= MOST_HIDDEN * person.sum():
        return np.zeros((size, size), bool)
    _blend(sample, picture, figure, True, OCCLUDER)
    return figure


def _shape(size: int, centre: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(S, S) bool: an ellipse, a polygon, a box, a bar, or all below a line, as a table or a wall."""
    canvas = np.zeros((size, size), np.uint8)
    extent = size * rng.uniform(0.04, 0.18, 2)
    kind = rng.integers(5)
    turn = rng.uniform(0, 180)
    middle = (float(centre[0]), float(centre[1]))
    if kind == 0:
        cv2.ellipse(canvas, (middle, (2 * extent[0], 2 * extent[1]), turn), (1,), -1)
    elif kind == 1:
        angles = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(4, 9)))
        reach = rng.uniform(0.5, 1, len(angles))[:, None] * extent
        corners = centre + reach * np.stack([np.cos(angles), np.sin(angles)], 1)
        cv2.fillPoly(canvas, [np.rint(corners).astype(np.int32)], (1,))
    elif kind == 4:
        slope, start = rng.normal(0, 0.08), rng.uniform(0.5, 0.75) * size
        top = start + slope * (np.arange(size) - size / 2)
        thick = rng.uniform(0.08, 1.0) * size
        rows = np.arange(size)[:, None]
        canvas[(rows > top) & (rows < top + thick)] = 1
    else:
        sides = (2 * extent[0], 2 * extent[1]) if kind == 2 else (float(size), size * rng.uniform(0.015, 0.1))
        cv2.fillPoly(canvas, [np.rint(cv2.boxPoints((middle, sides, turn))).astype(np.int32)], (1,))
    return canvas > 0


def _texture(size: int, other: Example, rng: np.random.Generator) -> np.ndarray:
    """(S, S, 3) uint8: a piece of another picture, one colour, or stripes, with a little shading."""
    kind = rng.integers(3)
    if kind == 0:
        left, top, right, bottom = _bounds(other, None)
        cut = int(rng.integers(40, 160))
        y, x = (int(rng.integers(low, max(low + 1, high - cut))) for low, high in ((top, bottom), (left, right)))
        piece = other.image[y : min(y + cut, bottom), x : min(x + cut, right)]
        picture = cv2.resize(piece, (size, size)).astype(np.float32)
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


def _blend(sample: Sample, picture: np.ndarray, figure: np.ndarray, in_front: bool, label: int) -> None:
    """Put the figure's pixels into the sample. Things that hide nothing are background; people are people."""
    alpha = cv2.GaussianBlur(figure.astype(np.float32), (3, 3), 0)[..., None]
    if not in_front:
        alpha = alpha * figure[..., None]
    sample.picture = (sample.picture * (1 - alpha) + picture * alpha).astype(np.uint8)
    hides = in_front and (figure & sample.person()).sum() >= 10
    sample.labels[figure] = label if hides or label == OTHER_PERSON else 0
    size = len(sample.labels)
    if in_front:
        cells = np.clip(sample.points[:, :2].astype(int), 0, size - 1)
        sample.points[figure[cells[:, 1], cells[:, 0]], 2] = 0


def _bars(sample: Sample, rng: np.random.Generator) -> None:
    """Black, white or grey bars at two sides, as films and scans have them."""
    size = len(sample.picture)
    first, second = (round(size * share) for share in rng.uniform(0.0, 0.2, 2))
    bars = np.zeros((size, size), bool)
    bars[:first], bars[size - second :] = True, True
    if rng.random() < 0.6:
        bars = bars.T
    sample.picture[bars] = rng.choice([0, 0, 255, 127])
    sample.labels[bars] = 0


def photographed(picture: np.ndarray, rng: np.random.Generator, bad: float) -> np.ndarray:
    """Colour, light, blur, small pictures, noise and JPEG; `bad`: the chance of each that makes a picture worse."""
    height, width = picture.shape[:2]
    if rng.random() < bad:
        share = max(24 / min(height, width), rng.uniform(0.15, 0.6))
        small = round(width * share), round(height * share)
        picture = cv2.resize(picture, small, interpolation=cv2.INTER_AREA)
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)
    if rng.random() < bad:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.5, 2.0))
    colours = picture.astype(np.float32)
    if rng.random() < 0.8:
        colours = colours * (rng.uniform(0.75, 1.25) * rng.uniform(0.88, 1.12, 3)).astype(np.float32)
        grey = colours.mean(2, keepdims=True)
        colours = grey + (colours - grey) * np.float32(rng.uniform(0.5, 1.4))
        middle = colours.mean()
        colours = middle + (colours - middle) * np.float32(rng.uniform(0.7, 1.3))
    if rng.random() < 0.7 * bad:
        colours[:] = colours.mean(2, keepdims=True)
    if rng.random() < 0.7 * bad:  # low light
        colours = (
            255 * (colours.clip(0, 255) / 255) ** np.float32(rng.uniform(1.3, 2.5)) * np.float32(rng.uniform(0.3, 0.8))
        )
    if rng.random() < bad:
        colours += rng.normal(0, rng.uniform(2, 12), (height, width, 1)).astype(np.float32)
        colours += rng.normal(0, 3, colours.shape).astype(np.float32)
    if rng.random() < bad:  # light from one side
        ramp = np.linspace(rng.uniform(0.4, 1), rng.uniform(1, 1.5), width, dtype=np.float32)
        colours *= (ramp if rng.random() < 0.5 else ramp[::-1])[None, :, None]
    picture = colours.clip(0, 255).astype(np.uint8)
    if rng.random() < 2 * bad:
        quality = int(rng.integers(20, 85))
        packed = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        picture = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR))
    return picture
