"""Finds people in a photo and measures them: 2D keypoints, 3D landmarks and a soft mask of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, overload

import numpy as np

from dsr_fit.boxes import Box, area, joint_area, keypoint_box, shared_area, widened
from dsr_fit.errors import InputError
from dsr_fit.joints import MEDIAPIPE_33_TO_SLOT, coco_keypoints, empty_keypoints
from dsr_fit.observation import Detection, Look
from dsr_fit.observe.crop import warp
from dsr_fit.observe.finder import Found, PersonFinder
from dsr_fit.observe.landmarks import LandmarkNetwork, Measured, Region
from dsr_fit.observe.oks import COCO_IN_BLAZEPOSE, similarity
from dsr_fit.observe.ownership import covered, in_image, own_pixels
from dsr_fit.threads import made_once

DetectorName = Literal["accurate", "fast"]
"""The landmark network: BlazePose heavy, or full."""

CERTAIN = 0.3
"""A person's score from which on the finder's word is enough; below, the landmark network must see the same person."""

DISAGREE = 0.15
"""OKS of the two below which nobody is there, whatever the finder says."""

PART = 0.7
"""Share of a person's mask on a larger one's from which on it is a part of that person."""

SAME = 0.5
"""OKS from which on the finder and the landmark network, or two measured people, are one person."""

NEIGHBOURS = 5
"""People whose box reaches into a person's are measured with it, to tell their pixels apart; at most so many."""

IN_BOX = 0.5
"""Share of the smaller of a person's box and the user's that they have in common, at least."""

_SLOTS = np.array(list(MEDIAPIPE_33_TO_SLOT.values()))
_LANDMARKS = np.array(list(MEDIAPIPE_33_TO_SLOT))


class KeypointDetector(Protocol):
    """Anything that finds people in an image."""

    def detect(
        self, image: np.ndarray, bbox: Box | None = None, count: int | None = None, min_height: float = 0.0
    ) -> Sequence[Detection]:
        """People in the (H, W, 3) uint8 RGB image, the most prominent first; nobody found is an empty list.

        With `bbox` only the person in that box; with `count` no more than so many; with `min_height` nobody the longer
        side of whose box, so that lying down changes nothing, is less than this share of the image's height.
        """
        ...

    def complete(self, image: np.ndarray, given: Detection) -> Detection:
        """Keypoints from elsewhere, with 3D landmarks and a mask where they are missing and the person is seen."""
        ...


@dataclass(frozen=True)
class _Person:
    """A person found, and measured."""

    measured: Measured
    keypoints: np.ndarray  # (17, 3)
    agreement: float

    @classmethod
    def of(cls, measured: Measured, found: Found) -> _Person:
        points = measured.points[COCO_IN_BLAZEPOSE]
        return cls(measured, points, similarity(found.keypoints, points, 0.5 * area(found.box)))


class PersonDetector:
    """MoveNet finds everybody, BlazePose measures each; each answer depends on its image alone."""

    def __init__(self, name: DetectorName = "accurate", device: str = "cpu", batch: int | None = None) -> None:
        """`batch`: see `device_batches.batched`; several threads may use one detector."""
        self.size: Literal["heavy", "full"] = "heavy" if name == "accurate" else "full"
        self.name = f"blazepose-{self.size}"
        self.device, self.batch = device, batch

    @made_once
    def finder(self) -> PersonFinder:
        return PersonFinder(device=self.device, batch=self.batch)

    @made_once
    def network(self) -> LandmarkNetwork:
        return LandmarkNetwork(self.size, device=self.device, batch=self.batch)

    def detect(
        self, image: np.ndarray, bbox: Box | None = None, count: int | None = None, min_height: float = 0.0
    ) -> Sequence[Detection]:
        """See `KeypointDetector.detect`. Raises InputError where `bbox` is empty or lies outside the image."""
        height, width = image.shape[:2]
        if min(height, width) < 2:
            return []
        if bbox is not None:
            return self._detect_in_box(image, checked_box(bbox, width, height))
        found = self.finder.find(image, closely=count != 1)
        found = [one for one in found if max(one.box[2:]) >= min_height * height]
        found.sort(key=lambda one: -prominence(one, (width, height)))
        people: list[_Person] = []
        waiting = list(found)
        while waiting and (count is None or len(people) < count):
            part = waiting if count is None else waiting[: count - len(people)]
            people = _distinct([*people, *self._measure(image, part)])
            waiting = waiting[len(part) :]
        if count is not None and people:
            near = [one for one in waiting if any(_reaches(one.box, person) for person in people)]
            others = _distinct([*people, *self._measure(image, near[:NEIGHBOURS])])[len(people) :]
        else:
            others = []
        return self._detections(image, people, others)

    def complete(self, image: np.ndarray, given: Detection) -> Detection:
        """See `KeypointDetector.complete`."""
        keypoints = coco_keypoints(given.keypoints)
        box = keypoint_box(given.keypoints)
        if min(box[2:]) < 1:  # too narrow to look for anybody in
            return given
        found = Found(keypoints, box, 1.0)
        people = [one for one in self._measure(image, [found]) if one.agreement > SAME]
        for seen in self._detections(image, people, []):
            landmarks, mask, look = given.world_landmarks, given.person_mask, seen.look
            if mask is not None and look is not None:
                look = replace(look, mask=warp(mask, look.matrix, len(look.mask), 0))
            return Detection(
                given.keypoints,
                landmarks if landmarks is not None else seen.world_landmarks,
                mask if mask is not None else seen.person_mask,
                given.source,
                look=look,
                features=seen.features,
            )
        return given

    def _detect_in_box(self, image: np.ndarray, bbox: Box) -> Sequence[Detection]:
        found = self.finder.find_in(image, widened(bbox, 0.4))
        inside = [one for one in found if shared_area(one.box, bbox) > IN_BOX * min(area(one.box), area(bbox))]
        inside.sort(key=lambda one: -shared_area(one.box, bbox) / joint_area(one.box, bbox))
        people = self._measure(image, inside[:1])
        others = [one for one in found if not any(one is each for each in inside[:1])]
        if not people:
            # The user says that there is somebody: the landmark network looks for itself.
            (looks,) = self.network.measure([(image, Region.of_keypoints(np.zeros((17, 3)), bbox))])
            seen = looks[-1] if looks[-1].presence > 0.5 else looks[0]
            box = keypoint_box(seen.points)
            if seen.presence > 0.5 and shared_area(box, bbox) > IN_BOX * min(area(box), area(bbox)):
                people = [_Person(seen, seen.points[COCO_IN_BLAZEPOSE], 0.0)]
        rest = _distinct([*people, *self._measure(image, others[:NEIGHBOURS])])[len(people) :] if people else []
        return self._detections(image, people, rest)

    def _measure(self, image: np.ndarray, found: Sequence[Found]) -> list[_Person]:
        """Those of the found who are people, measured."""
        looks = self.network.measure([(image, Region.of_keypoints(one.keypoints, one.box)) for one in found])
        people = []
        for one, seen in zip(found, looks, strict=True):
            best = max((_Person.of(look, one) for look in seen), key=lambda each: each.agreement)
            if best.measured.presence > 0.5 and best.agreement > (DISAGREE if one.score > CERTAIN else SAME):
                people.append(best)
        return people

    def _detections(
        self, image: np.ndarray, people: Sequence[_Person], others: Sequence[_Person]
    ) -> Sequence[Detection]:
        """What leaves the detector."""
        height, width = image.shape[:2]
        return _Detections(people, others, (height, width), self.name) if people else []


@dataclass(frozen=True, eq=False)
class _Detections(Sequence[Detection]):
    """People, each with the pixels of all others. Masks are drawn when a person is taken: those of a crowd in a large
    picture, all at once, would fill the memory."""

    people: Sequence[_Person]
    others: Sequence[_Person]
    """Those who only take pixels."""
    shape: tuple[int, int]
    source: str

    def __len__(self) -> int:
        return len(self.people)

    @overload
    def __getitem__(self, index: int) -> Detection: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Detection]: ...
    def __getitem__(self, index: int | slice) -> Detection | Sequence[Detection]:
        numbers = range(len(self))[index]
        return self._drawn(numbers) if isinstance(numbers, int) else [self._drawn(number) for number in numbers]

    def _drawn(self, number: int) -> Detection:
        height, width = self.shape
        person = self.people[number]
        measured = person.measured
        own, taken = own_pixels(number, [one.measured for one in (*self.people, *self.others)])
        mask, elsewhere = in_image(own, measured, self.shape), None
        if taken is not None:
            elsewhere = in_image(taken, measured, self.shape) > 0.5
            mask[elsewhere] = 0
        look = None
        if measured.features is not None:
            look = Look(measured.region.matrix(), measured.features, own, taken)
        points = measured.points
        # What lies outside the picture is a guess; that is unknown here.
        seen = ((points[:, :2] >= 0) & (points[:, :2] <= (width, height))).all(1)
        confidence = np.where(seen, points[:, 2], 0)
        keypoints = empty_keypoints()
        keypoints[_SLOTS] = np.column_stack([points[:, :2], confidence])[_LANDMARKS]
        keypoints[keypoints[:, 2] == 0] = 0
        world = np.zeros((len(keypoints), 4), dtype=np.float32)
        world[_SLOTS] = np.column_stack([person.measured.world, confidence])[_LANDMARKS]
        return Detection(keypoints, world, mask, self.source, person.agreement, elsewhere, look, measured.pose_features)


def prominence(found: Found, size: tuple[int, int]) -> float:
    """What orders people: the square root of the box's area, halved at the corners of the (width, height) image."""
    x, y, width, height = found.box
    away = np.hypot(x + width / 2 - size[0] / 2, y + height / 2 - size[1] / 2) / (np.hypot(*size) / 2)
    return float(np.sqrt(area(found.box)) * (1 - 0.5 * min(away, 1.0)))


def _reaches(box: Box, person: _Person) -> bool:
    return shared_area(box, widened(keypoint_box(person.measured.points), 0.1)) > 0


def _distinct(people: Sequence[_Person]) -> list[_Person]:
    """Without doubles: of two that are one person, the one that agrees better with the finder; without parts of people.

    Earlier ones are more prominent, or kept already.
    """
    kept: list[_Person] = []
    for person in people:
        box = keypoint_box(person.measured.points)
        for number, other in enumerate(kept):
            theirs = keypoint_box(other.measured.points)
            if similarity(person.keypoints, other.keypoints, 0.5 * max(area(box), area(theirs))) > SAME:
                kept[number] = max(other, person, key=lambda one: one.agreement)
                break
            inside = area(box) < area(theirs) and shared_area(box, theirs) > PART * area(box)
            if inside and person.agreement < other.agreement and covered(person.measured, other.measured) > PART:
                break
        else:
            kept.append(person)
    return kept


def checked_box(bbox: Box, width: int, height: int) -> Box:
    """Raises InputError where the box is empty or lies outside the image."""
    text = ",".join(f"{number:g}" for number in bbox)
    x, y, box_width, box_height = bbox
    if not np.isfinite(bbox).all() or box_width < 1 or box_height < 1:
        raise InputError(f"the box {text} is empty; give x,y,width,height in pixels")
    if x >= width or y >= height or x + box_width <= 0 or y + box_height <= 0:
        raise InputError(f"the box {text} lies outside the {width} x {height} image; give x,y,width,height in it")
    return bbox
