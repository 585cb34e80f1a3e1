"""Second step of a run: a batch of observed people is fitted and becomes rows."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dsr_fit.dataset.names import image_path
from dsr_fit.dataset.observing import reason_of
from dsr_fit.dataset.overlays import draw_overlay
from dsr_fit.dataset.records import FittedBatch, PackedObservation, PersonObservation, pack_labels
from dsr_fit.dataset.schema import ENERGIES, METRICS, Row
from dsr_fit.dataset.settings import Settings
from dsr_fit.fitting.result import FitResult
from dsr_fit.fitting.together import fit_people
from dsr_fit.gate.gate import Gate
from dsr_fit.io.images import read_image
from dsr_fit.observation import Observation

PIXELS = 2e8
"""Of the label maps that are unpacked at once: those of sixteen people in pictures of 12 megapixels."""


class BatchFitter:
    """Fits the people of a batch of images, so many together as there are images in a batch."""

    def __init__(self, settings: Settings, images: Path, overlays: Path | None = None) -> None:
        """`overlays`: folder for a picture of each fit."""
        # One thread: the order of sums, and so the result, must not depend on the machine's cores.
        torch.set_num_threads(1)
        self.settings, self.images, self.overlays = settings, images, overlays
        self.fitter = settings.fitter()
        self.body = self.fitter.body.to("cpu")
        self.gate = Gate.of(self.fitter, settings.gate)

    def __call__(self, batch: list[PersonObservation]) -> FittedBatch:
        """One row for each person, also for those who can't be fitted."""
        started = time.perf_counter()
        rows = [self._row(*pair) for people in _groups(batch) for pair in self._fitted(people)]
        fitted = time.perf_counter()
        if self.overlays is not None:
            for row in rows:
                if row["status"] != "failed":
                    draw_overlay(self.overlays, row, self.images, self.body)
        timings = {name: sum(one.timings_s.get(name, 0.0) for one in batch) for name in ("detect", "parse")}
        return FittedBatch(rows, {**timings, "fit": fitted - started, "draw": time.perf_counter() - fitted})

    def _fitted(self, people: list[PersonObservation]) -> Iterator[tuple[PersonObservation, FitResult | str]]:
        """Each person, with the label map that the fit saw, and the fit or the reason why there is none."""
        seen = list(self._observations(people))
        pairs = zip(people, seen, strict=True)
        fits = iter(self._fits([(one.imgname, each) for one, each in pairs if isinstance(each, Observation)]))
        for one, observation in zip(people, seen, strict=True):
            outcome = next(fits) if isinstance(observation, Observation) else observation
            if isinstance(outcome, Exception):
                outcome = reason_of(outcome, self.images)
            elif isinstance(outcome, FitResult) and outcome.observation is not observation and one.found is not None:
                found = replace(one.found, labels=pack_labels(outcome.observation.labels))
                one = replace(one, found=found)
            yield one, outcome

    def _fits(self, seen: list[tuple[str, Observation]]) -> list[FitResult | Exception]:
        """The fit of each (imgname, observation), with regard to the others in the picture; or why there is none."""
        pictures = {name: number for number, name in enumerate(dict.fromkeys(name for name, _ in seen))}
        numbers = [pictures[name] for name, _ in seen]
        try:
            return fit_people(self.fitter, [each for _, each in seen], numbers, self.settings.batch_size)
        except Exception as error:  # one picture must not cost the others their fits
            if len(pictures) == 1:
                return [error] * len(seen)
            return [fit for name in pictures for fit in self._fits([pair for pair in seen if pair[0] == name])]

    def _observations(self, people: list[PersonObservation]) -> Iterator[Observation | str]:
        """Each person's observation, with the image only where the regressor needs it; or why there is none."""
        image = cache(lambda imgname: read_image(image_path(self.images, imgname))[0])  # one for all of its people
        for one in people:
            if one.found is None:
                yield one.reason
                continue
            try:
                seen = one.found.observation()
                yield replace(seen, image=image(one.imgname)) if self.fitter.regressor.needs_image else seen
            except Exception as error:  # an image that is gone
                yield reason_of(error, self.images)

    def _row(self, one: PersonObservation, outcome: FitResult | str) -> Row:
        named = one.named()
        if isinstance(outcome, str) or one.found is None:
            return {**named, "status": "failed", "reason": str(outcome)}
        verdict = self.gate.judge(outcome)
        return {
            **named,
            "status": {None: "unjudged", True: "accepted", False: "refused"}[verdict.accepted],
            "reason": "; ".join(verdict.reasons) or None,
            "quality": verdict.quality,
            **_values(outcome, one.found),
            "body": np.array([self.body.name, self.body.sha256]),
            "num_vertices": self.body.num_vertices,
        }


def _groups(batch: list[PersonObservation]) -> Iterator[list[PersonObservation]]:
    """The people of a batch in parts that fit into memory, everybody of a picture in the same."""
    group: list[PersonObservation] = []
    pixels = 0
    for _, members in groupby(batch, lambda one: one.imgname):
        people = list(members)
        more = sum(math.prod(one.found.image_size) for one in people if one.found is not None)
        if group and pixels + more > PIXELS:
            yield group
            group, pixels = [], 0
        group += people
        pixels += more
    if group:
        yield group


_OF_RESULT = (
    "joints", "global_orient", "body_pose", "betas", "cam_t", "focal_length", "crop_cam", "crop_global_orient",
    "crop_residual_px", "regressor", "spread", "expected_error_m", "change_m", "iterations", "stop_reason",
)  # fmt: skip
_OF_OBSERVATION = ("keypoints", "world_landmarks", "labels", "keypoints_source", "agreement", "labels_source")


def _values(result: FitResult, found: PackedObservation) -> dict[str, Any]:
    return {
        **{name: getattr(result, name) for name in _OF_RESULT},
        **{name: getattr(found, name) for name in _OF_OBSERVATION},
        "principal_point": np.array(result.principal_point, np.float32),
        "image_size": np.array(found.image_size, np.float32),
        "bbox_center": np.array(result.crop.center, np.float32),
        "bbox_scale": result.crop.side / 200,
        **{name: result.metrics[name]["after"] for name in METRICS},
        **{f"{name}_initial": result.metrics[name]["before"] for name in METRICS},
        **{f"energy_{name}": result.energies[name]["final"] for name in ENERGIES},
        **{f"energy_{name}_initial": result.energies[name]["initial"] for name in ENERGIES},
    }
