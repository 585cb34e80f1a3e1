"""Annotated photos as observations, and their fits, kept in a folder so that counting can be repeated in a minute."""

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
from dsr_fit.observe.detector import KeypointDetector, MediaPipeDetector
from dsr_fit.priors.counting import View

RESOLUTION = 448
"""Pixels of the crop that labels are counted and judged in."""

WORST_KEYPOINTS, LEAST_CONTAINMENT = 0.02, 0.85
"""A fit that misses the keypoints by more (share of the box), or lies less inside the person, is not used."""

_JUDGED = ("keypoint_error_rel", "containment", "silhouette_iou")


class AnnotatedPhotos:
    """Photos of Clothing Co-Parsing, the largest detected person of each, and the annotation as its label map."""

    def __init__(self, folder: Path, findings: Path | None = None) -> None:
        """`findings` keeps what the detector finds, NNNN.npz a photo."""
        self.folder, self.findings = folder, findings
        self.detector: KeypointDetector | None = None

    def observe(self, number: str) -> Observation | None:
        """One photo, its picture left blank; None where the detector finds nobody."""
        detection = self.detection(number)
        if detection is None:
            return None
        labels = ccp.read_annotation(self.folder, number, detection.keypoints)
        blank = np.broadcast_to(np.uint8(0), (*labels.shape, 3))  # a fit needs its size only
        return Observation(blank, detection, labels, "annotation", float(np.hypot(labels.shape[0], labels.shape[1])))

    def detection(self, number: str) -> Detection | None:
        """What the detector finds, as it was kept or anew."""
        kept = self.findings / f"{number}.npz" if self.findings else None
        if kept is not None and kept.exists():
            found = _arrays(kept)
            if "missing" in found:
                return None
            return Detection(found["keypoints"], found["world"], found["mask"].astype(np.float32) / 255, "mediapipe")
        self.detector = self.detector or MediaPipeDetector()
        image, _ = read_image(ccp.photo_path(self.folder, number))
        people = self.detector.detect(image)
        if kept is not None:
            kept.parent.mkdir(parents=True, exist_ok=True)
            values: dict[str, Any] = {"missing": 1}
            if people and people[0].person_mask is not None:
                mask = np.rint(255 * people[0].person_mask).astype(np.uint8)
                values = {"keypoints": people[0].keypoints, "world": people[0].world_landmarks, "mask": mask}
            with replacing(kept) as path:
                np.savez_compressed(path, **values)
        return people[0] if people else None


def fit_photos(photos: AnnotatedPhotos, numbers: Sequence[str], fitter: Fitter, folder: Path, batch: int = 16) -> Path:
    """Fits of the photos as NNNN.npz, parameters and metrics; those that lie there already are kept.

    Returns: where they are, a folder in `folder` for this body, configuration and prior alone.
    """
    folder = folder / _mark(fitter)
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


def _mark(fitter: Fitter) -> str:
    """Short hash of what decides a fit, apart from the photo."""
    prior = fitter.semantic_prior
    hashed = hashlib.sha256(
        json.dumps([fitter.body.sha256, fitter.regressor.fingerprint, to_dict(fitter.config)]).encode()
    )
    for tensor in (prior.probabilities, *(vars(prior.outfits).values() if prior.outfits else ())):
        hashed.update(tensor.cpu().numpy().tobytes())
    return hashed.hexdigest()[:12]


def fitted_parameters(folder: Path, number: str) -> Parameters:
    """The body that `fit_photos` found, a batch of 1."""
    found = _arrays(folder / f"{number}.npz")
    return Parameters(*(torch.from_numpy(found[field.name])[None] for field in fields(Parameters)))


def fitted_view(photos: AnnotatedPhotos, number: str, folder: Path, body: Body) -> View | None:
    """The crop's annotation and the body that `fit_photos` found; None without a fit that can be trusted."""
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
