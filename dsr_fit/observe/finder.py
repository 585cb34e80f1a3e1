"""Finds everybody in a picture: a box, 17 keypoints and a score each, by MoveNet MultiPose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dsr_fit.assets import shipped
from dsr_fit.boxes import Box, area, shared_area
from dsr_fit.observe.device_batches import batched
from dsr_fit.observe.layers import with_weights
from dsr_fit.observe.movenet import KEYPOINTS, MULTIPLE, STRIDE, Maps, MoveNet
from dsr_fit.observe.oks import similarity
from dsr_fit.threads import one_torch_thread

LOOK = 256
"""Pixels of the longer side of what the network sees at a time."""

WIDE_LOOK, FINE_LOOK = 160, 512
"""The same for second looks: for large people, since the network knows people up to 250 pixels, and for small ones."""

MIN_CENTER = 0.05
"""Probability of a cell to be a person's centre from which on it is looked at."""

MIN_SCORE = 0.15
"""A person's score from which on it may be one."""

CLEAR = 0.4
"""A person's score from which on no second look is needed."""

MIN_KEYPOINT = 0.127
"""Keypoints below it don't count in a person's score (the released model's constant)."""

REACH = 0.3
"""A keypoint is looked for about its regressed place: variance over the map's shorter side (the released model's)."""

LARGE, SMALL = 0.7, 0.35
"""Weak candidates whose box is longer than this share of the look are looked at from farther away; all that are
shorter than the other, closer."""

CLOSER = 2.5
"""Side of the closer look over the longer side of the smallest person in it."""

MAX_WINDOWS = 16
"""Closer looks a picture."""

SAME_PERSON = 0.5
"""OKS from which on two findings are one person."""

INSIDE = 0.8
"""A finding whose keypoints lie on another's at this share is a part of it."""


@dataclass(frozen=True)
class Found:
    """A person that the finder sees; pixels of the image."""

    keypoints: np.ndarray  # (17, 3) x, y, confidence, in COCO's order
    box: Box
    score: float

    def moved(self, scale: float, x: float, y: float) -> Found:
        """From a look's pixels to the image's."""
        keypoints = self.keypoints.copy()
        keypoints[:, :2] = keypoints[:, :2] * scale + (x, y)
        left, top, width, height = (scale * number for number in self.box)
        return replace(self, keypoints=keypoints, box=(left + x, top + y, width, height))


_NOBODY = Found(np.zeros((KEYPOINTS, 3)), (0.0, 0.0, 0.0, 0.0), 0.0)


class PersonFinder:
    """MoveNet with a decoding of our own: no limit of six people, and closer looks at small ones."""

    def __init__(self, weights: Path | None = None, device: str = "cpu", batch: int | None = None) -> None:
        """`weights`: a safetensors file, by default the one that ships; `batch`: see `device_batches.batched`.

        Raises InputError where the weights can't be used.
        """
        self.network = with_weights(MoveNet, weights or shipped("priors/detector/finder.safetensors")).to(device)
        self._maps = batched(self._seen, device, batch)

    def find(self, image: np.ndarray, *, closely: bool = True) -> list[Found]:
        """People of the (H, W, 3) uint8 RGB image, most certain first, nobody twice; weak candidates included.

        The whole picture is looked at, from farther away where people may be large; with `closely`, or where nobody is
        certain, from nearer too. Then, with `closely` or where nobody is found, follow windows around small candidates;
        where nobody is found and there is no such candidate, windows all over the picture.
        """
        height, width = image.shape[:2]
        whole = (0.0, 0.0, float(width), float(height))
        longer = max(whole)
        seen = self.look(image, [whole])
        best = max((one.score for one in seen), default=0.0)
        if best < CLEAR or any(one.score < CLEAR and max(one.box[2:]) > LARGE * longer for one in seen):
            seen += self.look(image, [whole], WIDE_LOOK)
            best = max(one.score for one in (*seen, _NOBODY))
        if closely or best < CLEAR:
            seen += self.look(image, [whole], FINE_LOOK)
        if closely or best < MIN_SCORE:
            windows = list(_windows_around(seen, longer))
            if not windows and not any(one.score > MIN_SCORE for one in seen):
                windows = list(_grid(width, height, longer / 2))
            seen += self.look(image, windows)
        return distinct([one for one in seen if one.score > MIN_SCORE])

    def find_in(self, image: np.ndarray, window: Box) -> list[Found]:
        """The same within a window of the image."""
        seen = [*self.look(image, [window]), *self.look(image, [window], WIDE_LOOK)]
        return distinct([one for one in seen if one.score > MIN_SCORE])

    def look(self, image: np.ndarray, windows: Sequence[Box], size: int = LOOK) -> list[Found]:
        """Everybody in windows of the image, the least candidates and doubles included; beyond it is nobody."""
        found: list[Found] = []
        looks = [look for window in windows if (look := _shrunk(image, window, size)) is not None]
        # Looks of one size make one batch.
        for shape in dict.fromkeys(picture.shape for picture, *_ in looks):
            same = [look for look in looks if look[0].shape == shape]
            for (_, scale, x, y), people in zip(same, self._decoded([look[0] for look in same]), strict=True):
                found += [person.moved(scale, x, y) for person in people]
        return found

    @one_torch_thread()
    @torch.inference_mode()
    def _decoded(self, pictures: list[np.ndarray]) -> list[list[Found]]:
        return decode(Maps(*self._maps(torch.from_numpy(np.stack(pictures)))))

    def _seen(self, pictures: Tensor) -> Maps:
        """The network's word on (B, H, W, 3) uint8 pictures."""
        dtype = next(self.network.parameters()).dtype
        batch = pictures.permute(0, 3, 1, 2).to(dtype) / 127.5 - 1
        maps = self.network(batch.contiguous(memory_format=torch.channels_last))
        return Maps(*(each.float() for each in maps))


def decode(maps: Maps) -> list[list[Found]]:
    """The people of each of B pictures, in pixels of the network's input."""
    centers = maps.centers
    peaks = (F.max_pool2d(centers[:, None], 5, 1, 2)[:, 0] == centers) & (centers > MIN_CENTER)
    picture, row, column = peaks.nonzero(as_tuple=True)
    height, width = centers.shape[1:]
    cell = torch.stack([row, column], 1)
    middle = cell + maps.box_offset[picture, :, row, column]  # (P, 2) y, x
    half = maps.box_scale[picture, :, row, column].clamp(min=0) / 2
    limit = cell.new_tensor([height, width])
    low, high = (middle - half).clamp(min=0), torch.minimum(middle + half, limit)
    places, scores = _keypoints(maps, picture, cell, low, high)
    counted = scores > MIN_KEYPOINT
    mean = (scores * counted).sum(1) / counted.sum(1).clamp(min=1)
    certain = centers[picture, row, column] * mean
    boxes = torch.cat([low.flip(1), (high - low).flip(1)], 1) * STRIDE  # x, y, width, height
    keypoints = torch.cat([places.flip(2) * STRIDE, scores[..., None]], 2).cpu().numpy()
    people: list[list[Found]] = [[] for _ in range(len(centers))]
    listed = zip(picture.tolist(), keypoints, boxes.tolist(), certain.tolist(), strict=True)
    for number, points, box, score in listed:
        people[number].append(Found(points, tuple(box), score))
    return people


def _keypoints(maps: Maps, picture: Tensor, cell: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """(P, 17, 2) y, x in cells and (P, 17) scores: each heat map's best cell in the box, near the regressed place."""
    height, width = maps.heatmaps.shape[2:]
    rows = torch.arange(height, device=cell.device, dtype=torch.float32)
    columns = torch.arange(width, device=cell.device, dtype=torch.float32)
    guess = cell[:, None] + maps.regressed[picture, :, :, cell[:, 0], cell[:, 1]]  # (P, 17, 2)
    variance = REACH * min(height, width)
    # The bell and the box are products of a factor for rows and one for columns.
    near_row = torch.exp(-(rows - guess[..., :1]).square() / variance)
    near_column = torch.exp(-(columns - guess[..., 1:]).square() / variance)
    near_row = near_row * ((rows >= low[:, :1]) & (rows < high[:, :1]))[:, None]
    near_column = near_column * ((columns >= low[:, 1:]) & (columns < high[:, 1:]))[:, None]
    weighted = maps.heatmaps[picture] * near_row[..., :, None] * near_column[..., None, :]
    score, best = weighted.flatten(2).max(2)
    row, column = best // width, best % width
    person = picture[:, None].expand(-1, KEYPOINTS)
    slot = torch.arange(KEYPOINTS, device=cell.device).expand(len(picture), -1)
    offset = maps.offsets[person, slot, :, row, column]
    return torch.stack([row, column], 2) + offset, score


def distinct(people: Sequence[Found]) -> list[Found]:
    """Most certain first, without those who are one with, or a part of, somebody more certain."""
    kept: list[Found] = []
    for person in sorted(people, key=lambda one: -one.score):
        if not any(_same(person, other) for other in kept):
            kept.append(person)
    return kept


def _same(one: Found, other: Found) -> bool:
    larger = max(area(one.box), area(other.box))
    if similarity(one.keypoints, other.keypoints, 0.5 * larger) > SAME_PERSON:
        return True
    # A part of a person, found at a window's edge, has few keypoints; they lie on the whole person's.
    smaller = min(one, other, key=lambda each: area(each.box))
    if shared_area(one.box, other.box) < INSIDE * area(smaller.box):
        return False
    seen = (one.keypoints[:, 2] > 0.2) & (other.keypoints[:, 2] > 0.2)
    gap = np.linalg.norm(one.keypoints[seen, :2] - other.keypoints[seen, :2], axis=1)
    return bool(seen.any()) and float(np.median(gap)) < 0.1 * np.sqrt(larger)


def _shrunk(image: np.ndarray, window: Box, size: int) -> tuple[np.ndarray, float, float, float] | None:
    """A window at the network's size, black beyond it; the scale and the corner that lead back to the image. None where
    it shows nothing of the image."""
    height, width = image.shape[:2]
    left, top = max(int(window[0]), 0), max(int(window[1]), 0)
    right = min(int(np.ceil(window[0] + window[2])), width)
    bottom = min(int(np.ceil(window[1] + window[3])), height)
    if right <= left or bottom <= top:
        return None
    part = image[top:bottom, left:right]
    scale = max(right - left, bottom - top) / size
    inner = max(1, round((right - left) / scale)), max(1, round((bottom - top) / scale))
    method = cv2.INTER_AREA if scale > 1 else cv2.INTER_LINEAR
    picture = np.zeros((*(-(-side // MULTIPLE) * MULTIPLE for side in inner[::-1]), 3), np.uint8)
    picture[: inner[1], : inner[0]] = cv2.resize(part, inner, interpolation=method)
    return picture, scale, left, top


def _windows_around(candidates: Sequence[Found], longer: float) -> Iterator[Box]:
    """Squares that show small candidates larger, the surest first; a candidate in an earlier one needs no other."""
    waiting = [one for one in candidates if 0 < max(one.box[2:]) < SMALL * longer]
    waiting.sort(key=lambda one: -one.score)
    for _ in range(MAX_WINDOWS):
        if not waiting:
            return
        x, y, width, height = waiting[0].box
        side = CLOSER * max(width, height)
        window = (x + (width - side) / 2, y + (height - side) / 2, side, side)
        yield window
        waiting = [
            one
            for one in waiting[1:]
            if shared_area(one.box, window) < 0.95 * area(one.box) or max(one.box[2:]) < 0.2 * side
        ]


def _grid(width: int, height: int, side: float) -> Iterator[Box]:
    """Square windows, evenly spread and overlapping by half, that cover the image."""
    for y in _starts(height, side):
        for x in _starts(width, side):
            yield (x, y, side, side)


def _starts(length: float, side: float) -> list[float]:
    steps = int(np.ceil(max(length - side, 0) / (side / 2)))
    return np.linspace(0, max(length - side, 0), steps + 1).tolist()
