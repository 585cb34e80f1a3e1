"""Annotated photos as observations, and a cache of their fits, so that counting can be repeated in a minute."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dsr_fit.body.body import Body
from dsr_fit.body.parameters import Parameters
from dsr_fit.camera import Crop, crop_intrinsics
from dsr_fit.config import to_dict
from dsr_fit.evaluate import ccp
from dsr_fit.fitting.fitter import Fitter
from dsr_fit.io.files import read_arrays, replacing
from dsr_fit.io.images import read_image
from dsr_fit.observation import Detection, Observation
from dsr_fit.observe.batch import crop_labels
from dsr_fit.observe.detector import KeypointDetector, PersonDetector
from dsr_fit.priors.counting import View
from dsr_fit.training.parsing.self_labelled import LEAST_CONTAINMENT, WORST_KEYPOINTS

RESOLUTION = 448
"""Pixels of the crop that labels are counted in."""

_JUDGED = ("keypoint_error_rel", "containment", "silhouette_iou")


class AnnotatedPhotos:
    """Photos of Clothing Co-Parsing: the most prominent person detected in each, with the annotation as label map."""

    def __init__(self, folder: Path, cache: Path | None = None) -> None:
        """`cache` is a folder for the detections, NNNN.npz per photo."""
        self.folder, self.cache = folder, cache
        self.detector: KeypointDetector | None = None

    def observe(self, number: str) -> Observation | None:
        """One photo, its image left blank; None where nobody is detected."""
        detection = self.detection(number)
        if detection is None:
            return None
        labels = ccp.read_annotation(self.folder, number, detection.keypoints)
        blank = np.broadcast_to(np.uint8(0), (*labels.shape, 3))  # a fit needs its size only
        return Observation(blank, detection, labels, "annotation", float(np.hypot(labels.shape[0], labels.shape[1])))

    def detection(self, number: str) -> Detection | None:
        """The cached detection, or a new one."""
        path = self.cache / f"{number}.npz" if self.cache else None
        if path is not None and path.exists():
            found = _arrays(path)
            if "missing" in found:
                return None
            return Detection(
                found["keypoints"], found["world"], found["mask"].astype(np.float32) / 255, PersonDetector().name
            )
        self.detector = self.detector or PersonDetector()
        image, _ = read_image(ccp.photo_path(self.folder, number))
        people = self.detector.detect(image, count=1)
        if path is not None:
            values: dict[str, Any] = {"missing": 1}
            if people and people[0].person_mask is not None:
                mask = np.rint(255 * people[0].person_mask).astype(np.uint8)
                values = {"keypoints": people[0].keypoints, "world": people[0].world_landmarks, "mask": mask}
            with replacing(path) as temporary:
                np.savez_compressed(temporary, **values)
        return people[0] if people else None


def fit_photos(photos: AnnotatedPhotos, numbers: Sequence[str], fitter: Fitter, folder: Path, batch: int = 16) -> Path:
    """Fit the photos that aren't cached: parameters and metrics as NNNN.npz.

    Returns: the cache, a folder in `folder` for this body, regressor, configuration and prior.
    """
    identity = [fitter.body.sha256, fitter.regressor.fingerprint, to_dict(fitter.config)]
    decided = json.dumps([*identity, fitter.semantic_prior.fingerprint()])
    folder = folder / hashlib.sha256(decided.encode()).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    missing = [number for number in numbers if not (folder / f"{number}.npz").exists()]
    for start in range(0, len(missing), batch):
        seen = {number: photos.observe(number) for number in missing[start : start + batch]}
        found = {number: item for number, item in seen.items() if item is not None}
        for number, result in zip(found, fitter.fit(list(found.values())) if found else (), strict=True):
            values = {name: tensor[0].numpy() for name, tensor in vars(result.parameters()).items()}
            values |= {name: np.array(result.metrics[name]["after"]) for name in _JUDGED}
            with replacing(folder / f"{number}.npz") as path:
                np.savez(path, **values)
    return folder


def fitted_parameters(folder: Path, number: str) -> Parameters:
    """The parameters that `fit_photos` found, a batch of 1."""
    found = _arrays(folder / f"{number}.npz")
    return Parameters(*(torch.from_numpy(found[field.name])[None] for field in fields(Parameters)))


def fitted_view(photos: AnnotatedPhotos, number: str, folder: Path, body: Body) -> View | None:
    """The crop's annotation with the body that `fit_photos` found; None if its fit is missing or rejected."""
    if not (folder / f"{number}.npz").exists():
        return None
    found = _arrays(folder / f"{number}.npz")
    if not (found["keypoint_error_rel"] <= WORST_KEYPOINTS and found["containment"] >= LEAST_CONTAINMENT):
        return None
    observation = photos.observe(number)
    if observation is None:
        return None
    crop = Crop.around(observation.detection.keypoints)
    focal = observation.focal_length
    full = torch.tensor([[focal, focal, *observation.principal_point]])
    return View(
        crop_labels(observation.labels, crop, RESOLUTION),
        fitted_parameters(folder, number).pose(body).vertices()[0],
        crop_intrinsics(full, [crop], RESOLUTION)[0],
    )


def _arrays(path: Path) -> dict[str, np.ndarray]:
    arrays = read_arrays(path)
    assert isinstance(arrays, dict)
    return arrays
