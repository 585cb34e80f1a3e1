"""Who of the people in a picture was found, and how far off their keypoints are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from dsr_fit.boxes import Box, area
from dsr_fit.joints import BODY_25_OF_COCO
from dsr_fit.observation import Detection
from dsr_fit.observe.oks import SIGMAS

FOUND = 0.5
"""Keypoint similarity (OKS) from which on a detection is that person."""

EXCUSED = 0.3
"""The same, over hidden keypoints too, from which on a detection is somebody who does not count."""

COCO_SLOTS = list(BODY_25_OF_COCO)
"""Where detectors write COCO's 17 keypoints."""


@dataclass(frozen=True)
class Truth:
    """A person in the picture."""

    places: np.ndarray
    """(17, 2) pixels in COCO's order."""
    seen: np.ndarray
    """(17,) bool, the keypoints that count."""
    box: Box
    counts: bool = True
    """Whether the person should be found; finding one who doesn't count is neither right nor wrong."""
    height: float = 1.0
    """Share of the picture's."""
    hidden: float = 0.0
    """Share of the person."""


@dataclass(frozen=True)
class Matched:
    """One picture's people and detections."""

    found: list[int | None]
    """Each person's detection."""
    false_alarms: int
    """Detections of nobody, and second ones of those who count."""


def oks(found: np.ndarray, truth: Truth, seen: np.ndarray | None = None) -> float:
    """Keypoint similarity (COCO's) of (17, 3) x, y, confidence, over the truth's keypoints; a missing one counts 0."""
    seen = truth.seen if seen is None else seen
    if not seen.any():
        return 0.0
    squared = np.square(found[seen, :2] - truth.places[seen]).sum(1)
    each = np.exp(-squared / (2 * 0.5 * area(truth.box) * SIGMAS[seen] ** 2))
    return float((each * (found[seen, 2] > 0)).mean())


def matched(detections: Sequence[Detection], people: Sequence[Truth]) -> Matched:
    """Pairs by falling similarity, as COCO's evaluation does without scores."""
    points = [one.keypoints[COCO_SLOTS] for one in detections]
    table = np.array([[oks(each, one) for each in points] for one in people]).reshape(len(people), len(points))
    found: list[int | None] = [None] * len(people)
    free = set(range(len(points)))
    for index in np.argsort(-table, axis=None):
        person, number = divmod(int(index), len(points))
        if table[person, number] > FOUND and found[person] is None and number in free:
            found[person] = number
            free.remove(number)
    everywhere = np.ones(17, bool)
    excused = [one for one in people if not one.counts]
    alarms = sum(all(oks(points[number], one, everywhere) < EXCUSED for one in excused) for number in free)
    return Matched(found, alarms)


def errors(detection: Detection, truth: Truth) -> np.ndarray:
    """Distances of the truth's keypoints in shares of the box's longer side; infinity for those not seen."""
    found = detection.keypoints[COCO_SLOTS]
    off = np.linalg.norm(found[:, :2] - truth.places, axis=1) / max(truth.box[2:])
    return np.where(found[:, 2] > 0, off, np.inf)[truth.seen]


class Tally:
    """Figures of many pictures."""

    def __init__(self) -> None:
        self.people: list[tuple[Truth, bool]] = []
        self.false_alarms = 0
        self.errors: list[np.ndarray] = []
        self.missed_keypoints = 0

    def add(self, detections: Sequence[Detection], people: Sequence[Truth]) -> Matched:
        """One picture's people and detections."""
        pairs = matched(detections, people)
        self.false_alarms += pairs.false_alarms
        for one, number in zip(people, pairs.found, strict=True):
            self.people.append((one, number is not None))
            if one.counts and number is not None:
                self.errors.append(errors(detections[number], one))
            elif one.counts:
                self.missed_keypoints += int(one.seen.sum())
        return pairs

    def recall(self, chosen: Callable[[Truth], bool] = lambda one: one.counts) -> dict[str, float | int]:
        """Of those chosen: how many, and the share found."""
        found = [hit for one, hit in self.people if chosen(one)]
        return {"people": len(found), **({"recall": round(float(np.mean(found)), 4)} if found else {})}

    def precision(self) -> float:
        """Share of the detections that are people, leaving out detections of those who don't count."""
        right = sum(hit for one, hit in self.people if one.counts)
        return round(right / max(right + self.false_alarms, 1), 4)

    def keypoints(self) -> dict[str, float]:
        """Median error in shares of the box's longer side; PCK of the people found, and of all (missed ones too)."""
        off = np.concatenate([*self.errors, np.zeros(0)])
        if not len(off):
            return {}
        figures = {"median_error": round(float(np.median(off)), 4)}
        for limit in (0.05, 0.1, 0.2):
            figures[f"pck_{limit}"] = round(float((off < limit).mean()), 4)
            figures[f"pck_{limit}_of_all"] = round(float((off < limit).sum() / (len(off) + self.missed_keypoints)), 4)
        return figures
