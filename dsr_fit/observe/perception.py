"""From a photo to an observation: detector, parser, or the user's files in their place."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dsr_fit.boxes import joint_area, keypoint_box, shared_area
from dsr_fit.camera import Crop
from dsr_fit.errors import InputError, UsageError
from dsr_fit.io.images import ImageSource, image_of
from dsr_fit.io.keypoint_files import Keypoints, read_keypoints
from dsr_fit.io.label_files import LabelScheme, keep_own_labels, read_labels
from dsr_fit.observation import Detection, Observation
from dsr_fit.observe.detector import KeypointDetector, MediaPipeDetector
from dsr_fit.observe.parser import HumanParser, load_parser

SAME_PERSON = 0.6
"""Overlap (IoU) of the boxes of given and detected keypoints that makes them one person."""

MIN_KEYPOINTS = 4
"""A person with fewer observed keypoints can't be fitted."""


@dataclass(frozen=True)
class Inputs:
    """What the user says about one image, besides the image."""

    keypoints: Path | Keypoints | Detection | None = None
    """A keypoint file, one person's keypoints, or a person whom another detector has found."""
    labels: Path | np.ndarray | None = None
    """A label map's file, or (H, W) indices."""
    label_scheme: LabelScheme = "lip"
    """What the indices of a label map mean."""
    bbox: tuple[float, float, float, float] | None = None
    """x, y, width, height in pixels."""
    person: int = 0
    """0-based, by box area for detections, in the file's order for keypoint files."""
    focal: float | None = None
    """Pixels."""


@dataclass
class Perception:
    """Detector and parser, made when first needed and reused from image to image."""

    detector: KeypointDetector | None = None
    parser: HumanParser | None = None

    def observe(self, source: ImageSource, inputs: Inputs | None = None) -> Observation:
        """Detect and parse one person of an image: a file, an RGB array or a Pillow image.

        Raises InputError when the image, or an input that goes with it, can't be used.
        """
        inputs = inputs or Inputs()
        image, exif_focal = image_of(source)
        name = str(source) if isinstance(source, (str, Path)) else "the image"
        size = (image.shape[1], image.shape[0])
        started = time.perf_counter()
        detection = self._detect(name, image, inputs)
        detected = time.perf_counter()
        if inputs.labels is None:
            self.parser = self.parser or load_parser()
            labels, labels_source = self.parser.parse(image, detection), self.parser.name
        else:
            labels = read_labels(inputs.labels, size, inputs.label_scheme)
            labels_source = "array" if isinstance(inputs.labels, np.ndarray) else inputs.labels.name
        labels = keep_own_labels(labels, detection.keypoints, Crop.around(detection.keypoints).side)
        timings = {"detect": detected - started, "parse": time.perf_counter() - detected}
        focal = inputs.focal or exif_focal or float(np.hypot(*size))
        return Observation(image, detection, labels, labels_source, focal, timings)

    def _detect(self, name: str, image: np.ndarray, inputs: Inputs) -> Detection:
        size = (image.shape[1], image.shape[0])
        if inputs.keypoints is not None:
            if inputs.bbox is not None:
                raise UsageError("--bbox tells the detector where to look; with --keypoints choose by --person")
            source = name
            if isinstance(inputs.keypoints, Detection):
                people = [inputs.keypoints]
            elif isinstance(inputs.keypoints, Keypoints):
                people = [inputs.keypoints.detection(size)]
            else:
                people, source = read_keypoints(inputs.keypoints, size, Path(name).name), str(inputs.keypoints)
        else:
            self.detector = self.detector or MediaPipeDetector()
            people, source = self.detector.detect(image, inputs.bbox), name
        if not people and inputs.keypoints is not None:
            raise InputError(f"{source}: holds nobody's keypoints; without --keypoints the detector looks for people")
        if not people:
            where, other = ("in the given --bbox", "another") if inputs.bbox else ("in the image", "a")
            raise InputError(f"{source}: nobody was found {where}; try {other} --bbox, or give --keypoints")
        if not 0 <= inputs.person < len(people):
            count = "1 person" if len(people) == 1 else f"{len(people)} people"
            raise UsageError(f"--person {inputs.person}: {source} shows {count}, numbered from 0")
        detection = people[inputs.person]
        if inputs.keypoints is not None:
            detection = self._completed(image, detection)
        usable = int((detection.keypoints[:, 2] > 0.2).sum())
        if usable < MIN_KEYPOINTS:
            raise InputError(
                f"{source}: person {inputs.person} has {usable} usable keypoints, a fit needs {MIN_KEYPOINTS}"
            )
        return replace(detection, keypoints=detection.keypoints.astype(np.float32))

    def _completed(self, image: np.ndarray, given: Detection) -> Detection:
        """The user's keypoints with the detector's mask and 3D landmarks, where it sees the same person."""
        box = keypoint_box(given.keypoints)
        if min(box[2:]) <= 0:
            return given
        self.detector = self.detector or MediaPipeDetector()
        for found in self.detector.detect(image, box):
            seen = keypoint_box(found.keypoints)
            if shared_area(box, seen) > SAME_PERSON * joint_area(box, seen):
                return replace(
                    given,
                    person_mask=given.person_mask if given.person_mask is not None else found.person_mask,
                    world_landmarks=given.world_landmarks
                    if given.world_landmarks is not None
                    else found.world_landmarks,
                )
        return given
