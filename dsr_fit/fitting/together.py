"""The people of one picture, fitted with regard to each other.

Everybody is fitted alone first; pixels of other people (253) count for nothing then. These fits say who stands before
whom, and that says what such pixels are: a nearer person hides what is behind, and who stands behind is background.
Those to whom that makes a difference are fitted once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch

from dsr_fit.camera import crop_intrinsics
from dsr_fit.fitting.fitter import Fitter
from dsr_fit.fitting.metrics import RESOLUTION
from dsr_fit.fitting.result import FitResult
from dsr_fit.labels import OCCLUDER, OTHER_PERSON, UNKNOWN, shows_person
from dsr_fit.observation import Observation
from dsr_fit.observe.batch import crop_labels
from dsr_fit.observe.crop import put_back
from dsr_fit.render.renderer import Renderer

BATCH_SIZE = 16
"""People fitted together; memory grows with it, results do not depend on it."""

CLOTHES = 3
"""Pixels of the 224 px crop by which a body is drawn thicker, for what it wears."""

SURE = 0.1
"""Fits whose distances differ by more, as a share, tell who is nearer: stature leaves each open by a twentieth."""

CHANGED = 0.4
"""Another fit follows where a label map changes by more than this share of the person's pixels; by less, it doesn't get
better on composites with known bodies."""


def fit_people(
    fitter: Fitter, observations: Sequence[Observation], pictures: Sequence[int], batch_size: int = BATCH_SIZE
) -> list[FitResult | Exception]:
    """Fit people of one or several pictures, at most `batch_size` at once, wherever they come from.

    `pictures[n]` is any number for the picture that `observations[n]` is of; a fit depends on nobody in another one.
    The exception takes the place of the result of who can't be fitted, as in `Fitter.fit_each`. The label map of a
    result's observation is the one that its fit saw.
    """
    outcomes = _fit_each(fitter, observations, batch_size)
    again: dict[int, Observation] = {}
    for picture in dict.fromkeys(pictures):
        members = [number for number, of in enumerate(pictures) if of == picture]
        fits = {number: fit for number in members if isinstance(fit := outcomes[number], FitResult)}
        if len(fits) > 1:
            seen = zip(fits, observed_anew(list(fits.values()), fitter.renderer), strict=True)
            again |= {number: observation for number, observation in seen if observation is not None}
    for number, second in zip(again, _fit_each(fitter, list(again.values()), batch_size), strict=True):
        first = outcomes[number]
        if isinstance(first, FitResult) and isinstance(second, FitResult):
            spent = {name: first.timings_s[name] + second.timings_s[name] for name in ("regress", "fit")}
            outcomes[number] = replace(second, timings_s={**second.timings_s, **spent})
    return outcomes


def fit_pictures(
    fitter: Fitter, pictures: Sequence[Sequence[Observation | Exception]], batch_size: int = BATCH_SIZE
) -> list[list[FitResult | Exception]]:
    """`fit_people` of everybody observed in each picture; exceptions stay where they are."""
    seen = [(number, one) for number, people in enumerate(pictures) for one in people if isinstance(one, Observation)]
    fits = iter(fit_people(fitter, [one for _, one in seen], [number for number, _ in seen], batch_size))
    return [[next(fits) if isinstance(one, Observation) else one for one in people] for people in pictures]


def _fit_each(fitter: Fitter, observations: Sequence[Observation], batch_size: int) -> list[FitResult | Exception]:
    return [
        outcome
        for start in range(0, len(observations), batch_size)
        for outcome in fitter.fit_each(list(observations[start : start + batch_size]))
    ]


def observed_anew(people: Sequence[FitResult], renderer: Renderer) -> list[Observation | None]:
    """Each person's observation with the label map that follows from everybody's place in the picture; None where it
    is hardly another one."""
    views = [_View.of(number, people, renderer) for number in range(len(people))]

    def before(one: int, other: int) -> bool:
        """The same answer, the other way round, when asked the other way round."""
        return views[one].before(other) if one < other else not views[other].before(one)

    answers: list[Observation | None] = []
    for number, (person, view) in enumerate(zip(people, views, strict=True)):
        nearer = {other: before(other, number) for other in view.others}
        labels = view.labels(nearer)
        answers.append(replace(person.observation, labels=labels) if _differs(person, labels) else None)
    return answers


@dataclass(frozen=True)
class _View:
    """What one person's crop shows of everybody who may be seen in it; S is the crop's resolution."""

    person: FitResult
    number: int
    """The person's place in the list of people."""
    bodies: dict[int, np.ndarray]
    """(S, S) bool, each one's fitted body, by number."""
    seen: dict[int, np.ndarray]
    """(S, S) bool, where each one's own label map shows it."""
    distances: dict[int, float]
    """Of each pelvis, over the focal length of the fit's camera."""

    @classmethod
    @torch.no_grad()
    def of(cls, number: int, people: Sequence[FitResult], renderer: Renderer) -> _View:
        person = people[number]
        near = [other for other, one in enumerate(people) if other == number or _meet(one, person)]
        cameras = torch.tensor([[*[people[one].focal_length] * 2, *people[one].principal_point] for one in near])
        window = crop_intrinsics(cameras, [person.crop] * len(near), RESOLUTION)
        vertices = torch.from_numpy(np.stack([people[one].vertices for one in near]))
        masks = renderer(vertices, window.to(renderer.device), RESOLUTION).mask.cpu().numpy()
        return cls(
            person,
            number,
            dict(zip(near, masks, strict=True)),
            {one: shows_person(crop_labels(people[one].observation.labels, person.crop, RESOLUTION)) for one in near},
            {one: float(people[one].pelvis[2]) / people[one].focal_length for one in near},
        )

    @property
    def others(self) -> list[int]:
        return [one for one in self.bodies if one != self.number]

    def before(self, other: int) -> bool:
        """Whether the person stands before another: by the fits where they leave no doubt, else by which of the two is
        seen where their bodies meet."""
        ours, theirs = (self.distances[one] for one in (self.number, other))
        if max(ours, theirs) < (1 + SURE) * min(ours, theirs):
            both = self.bodies[self.number] & self.bodies[other]
            own, others = ((self.seen[one] & both).sum() for one in (self.number, other))
            if own != others:
                return bool(own > others)
        return ours < theirs

    def labels(self, nearer: dict[int, bool]) -> np.ndarray:
        """The (H, W) label map of the person: 254 where somebody `nearer` hides it, 0 where others stand behind."""
        hidden, claimed, behind = np.zeros((3, RESOLUTION, RESOLUTION), bool)
        for other, first in nearer.items():
            there = _thicker(self.bodies[other]) | self.seen[other]
            if first:
                hidden |= there
                claimed |= self.seen[other]
            else:
                behind |= there
        labels = self.person.observation.labels.copy()
        size = (labels.shape[0], labels.shape[1])
        hidden, claimed, behind = (
            put_back(mask.astype(np.uint8), self.person.crop.matrix(RESOLUTION), size) > 0
            for mask in (hidden, claimed, behind)
        )
        known = (shows_person(labels) & ~claimed) | (labels == UNKNOWN)
        labels[behind & (labels == OTHER_PERSON)] = 0
        labels[hidden & ~known] = OCCLUDER
        return labels


def _meet(one: FitResult, other: FitResult) -> bool:
    """Whether two crops overlap."""
    apart = np.abs(np.subtract(one.crop.center, other.crop.center)).max()
    return bool(apart < (one.crop.side + other.crop.side) / 2)


def _thicker(body: np.ndarray) -> np.ndarray:
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * CLOTHES + 1, 2 * CLOTHES + 1))
    return cv2.dilate(body.astype(np.uint8), disc) > 0


def _differs(person: FitResult, labels: np.ndarray) -> bool:
    """Whether a label map says enough else in the person's crop for another fit; what has no weight is all one."""
    before, after = (
        np.minimum(crop_labels(each, person.crop, RESOLUTION), OTHER_PERSON)
        for each in (person.observation.labels, labels)
    )
    return bool((before != after).sum() > CHANGED * shows_person(before).sum())
