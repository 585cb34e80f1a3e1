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
from dsr_fit.dataset.records import FittedBatch, PackedObservation, PersonObservation
from dsr_fit.dataset.schema import ENERGIES, METRICS, Row
from dsr_fit.dataset.settings import Settings
from dsr_fit.fitting.result import FitResult
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
        rows = []
        for people in _groups(batch):
            rows += [self._row(*pair) for pair in zip(people, self._outcomes(people), strict=True)]
        fitted = time.perf_counter()
        if self.overlays is not None:
            for row in rows:
                if row["status"] != "failed":
                    draw_overlay(self.overlays, row, self.images, self.body)
        timings = {name: sum(one.timings_s.get(name, 0.0) for one in batch) for name in ("detect", "parse")}
        return FittedBatch(rows, {**timings, "fit": fitted - started, "draw": time.perf_counter() - fitted})

    def _outcomes(self, people: list[PersonObservation]) -> list[FitResult | str]:
        """A result for each person, or the reason why there is none."""
        seen = list(self._observations(people))
        present = [one for one in seen if isinstance(one, Observation)]
        size = self.settings.batch_size
        parts = (present[start : start + size] for start in range(0, len(present), size))
        fits = iter([fit for part in parts for fit in self.fitter.fit_each(part)])
        outcomes = [next(fits) if isinstance(one, Observation) else one for one in seen]
        return [reason_of(one, self.images) if isinstance(one, Exception) else one for one in outcomes]

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
