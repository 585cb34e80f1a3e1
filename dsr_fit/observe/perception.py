"""From a photo to an observation: detector, parser, or the user's files in their place."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from dsr_fit.camera import FOCAL_RANGE, Crop, possible_focal
from dsr_fit.errors import InputError, UsageError
from dsr_fit.io.images import ImageSource, image_of
from dsr_fit.io.keypoint_files import Keypoints, read_keypoints
from dsr_fit.io.label_files import LabelScheme, keep_own_labels, read_labels
from dsr_fit.observation import Detection, Observation, check_height
from dsr_fit.observe.checks import check_person
from dsr_fit.observe.detector import KeypointDetector, PersonDetector
from dsr_fit.observe.parser import HumanParser, load_parser

UNNAMED = "the image"
"""What messages call an image that is no file."""


@dataclass(frozen=True)
class Inputs:
    """What the user says about one image, besides the image. Raises UsageError for values of another type, and for a
    height that nobody has."""

    keypoints: str | Path | Keypoints | Detection | None = None
    """A keypoint file, one person's keypoints, or a person whom another detector has found."""
    labels: str | Path | np.ndarray | None = None
    """A label map's file, or (H, W) indices."""
    label_scheme: LabelScheme = "lip"
    """What the indices of a label map mean."""
    bbox: tuple[float, float, float, float] | None = None
    """x, y, width, height in pixels."""
    person: int = 0
    """0-based, by prominence for detections, in the file's order for keypoint files."""
    focal: float | None = None
    """Pixels; 0.1 to 100 times the image's diagonal."""
    height: float | None = None
    """The person's, metres from sole to crown; 0.4 to 2.6."""

    def __post_init__(self) -> None:
        for name, fits, works in (
            ("keypoints", isinstance(self.keypoints, str | Path | Keypoints | Detection | None),
             "a file, or `Keypoints(array, layout)`"),
            ("labels", isinstance(self.labels, str | Path | np.ndarray | None), "a file, or an array of indices"),
            ("bbox", self.bbox is None or _is_box(self.bbox), "x, y, width, height in pixels"),
            ("person", _is_number(self.person) and isinstance(self.person, int | np.integer), "a whole number from 0"),
            ("focal", self.focal is None or _is_number(self.focal), "a number of pixels"),
            ("height", self.height is None or _is_number(self.height), "a number of metres"),
        ):  # fmt: skip
            if not fits:
                value = getattr(self, name)
                shown = f"of type {type(value).__name__}" if isinstance(value, np.ndarray) else f"{value!r}"
                raise UsageError(f"{name} is {shown}; {works} works")
        check_height(self.height)


@dataclass
class Perception:
    """Detector and parser, made when first needed and reused from image to image."""

    detector: KeypointDetector | None = None
    parser: HumanParser | None = None

    def observe(self, source: ImageSource, inputs: Inputs | None = None) -> Observation:
        """Detect and parse one person of an image: a file, an RGB array or a Pillow image.

        Raises InputError when the image, or an input that goes with it, can't be used; UsageError for options that
        don't work together, and for a focal length that no camera has.
        """
        scene = _Scene.of(source, inputs or Inputs())
        person = scene.inputs.person
        started = time.perf_counter()
        people = self._people(scene, count=max(person, 0) + 1)
        if not 0 <= person < len(people):
            count = "1 person" if len(people) == 1 else f"{len(people)} people"
            raise UsageError(f"--person {person}: {scene.people_from} shows {count}, numbered from 0")
        return self._observation(scene, person, people, time.perf_counter() - started)

    def observe_all(
        self, source: ImageSource, inputs: Inputs | None = None, *, most: int | None = None, min_height: float = 0.0
    ) -> list[Observation | InputError]:
        """The same of everybody, the most prominent first; an InputError in the place of who can't be fitted.

        Detections come without masks, which the parser alone needs: those of a crowd in a large picture are gigabytes.
        """
        seen = self.observe_each(source, inputs, most=most, min_height=min_height)
        return [one if isinstance(one, InputError) else _without_masks(one) for one in seen]

    def observe_each(
        self, source: ImageSource, inputs: Inputs | None = None, *, most: int | None = None, min_height: float = 0.0
    ) -> Iterator[Observation | InputError]:
        """The same one by one, with masks; they need not be in memory together.

        Args:
            most: no more people than so many.
            min_height: of people whom the detector finds, standing or lying, as a share of the image's height.
        """
        scene = _Scene.of(source, inputs or Inputs())
        if scene.inputs.person != 0:
            raise UsageError("--person chooses one person; leave it out to fit several")
        if scene.inputs.bbox is not None:
            raise UsageError("--bbox is around one person; leave it out to fit several")
        if scene.inputs.labels is not None:
            raise UsageError("--labels is the label map of one person; choose one by --person")
        if scene.inputs.height is not None:
            raise UsageError("--height is one person's; choose whose by --person")
        started = time.perf_counter()
        people = self._people(scene, most, min_height)
        numbers = range(len(people))[:most]
        seconds = (time.perf_counter() - started) / len(numbers)
        for number in numbers:
            try:
                answer = self._observation(scene, number, people, seconds)
            except InputError as error:
                answer = error
            yield answer
            del answer

    def _observation(self, scene: _Scene, number: int, people: Sequence[Detection], seconds: float) -> Observation:
        """`seconds`: what finding this person took so far."""
        started = time.perf_counter()
        person = people[number]
        inputs, image = scene.inputs, scene.image
        one_given = isinstance(inputs.keypoints, Keypoints | Detection)
        who = f"the person given for {scene.name}" if one_given else f"person {number} of {scene.people_from}"
        check_person(who, person, scene.size)
        if inputs.keypoints is not None and (person.person_mask is None or person.world_landmarks is None):
            person = self._detector().complete(image, person)
        keypoints = person.keypoints.astype(np.float32)
        keypoints[:, 2] = keypoints[:, 2].clip(max=1)  # maxima of heat maps
        person = replace(person, keypoints=keypoints)
        detected = time.perf_counter()
        labels = scene.labels
        if labels is None:
            self.parser = self.parser or load_parser()
            labels, labels_source = self.parser.parse(image, person), self.parser.name
        else:
            labels_source = "array" if isinstance(inputs.labels, np.ndarray) else Path(str(inputs.labels)).name
        labels = keep_own_labels(labels, person.keypoints, Crop.around(person.keypoints).side)
        if inputs.labels is not None and not labels.any():
            raise InputError(
                f"the label map {labels_source} shows background alone where the keypoints are; "
                "255 stands for pixels of which nothing is known"
            )
        timings = {"detect": seconds + detected - started, "parse": time.perf_counter() - detected}
        height = None if inputs.height is None else float(inputs.height)
        return Observation(image, person, labels, labels_source, scene.focal, timings, height)

    def _people(self, scene: _Scene, count: int | None, min_height: float = 0.0) -> Sequence[Detection]:
        """The people to choose from; raises InputError where there is nobody."""
        inputs, keypoints = scene.inputs, scene.inputs.keypoints
        if keypoints is None:
            people = self._detector().detect(scene.image, inputs.bbox, count, min_height)
            if not people:
                where, other = ("in the given --bbox", "another") if inputs.bbox is not None else ("in the image", "a")
                who = f" who takes up {min_height:g} of its height (--min-height)" if min_height else ""
                raise InputError(
                    f"{scene.name}: nobody was found {where}{who}; try {other} --bbox, or give --keypoints"
                )
            return people
        if inputs.bbox is not None:
            raise UsageError("--bbox tells the detector where to look; with --keypoints choose by --person")
        if not isinstance(keypoints, str | Path):
            return [keypoints.detection(scene.size) if isinstance(keypoints, Keypoints) else keypoints]
        people = read_keypoints(keypoints, scene.size, Path(scene.name).name if scene.name != UNNAMED else None)
        if not people:
            raise InputError(
                f"{keypoints}: holds nobody's keypoints; without --keypoints the detector looks for people"
            )
        return people

    def _detector(self) -> KeypointDetector:
        self.detector = self.detector or PersonDetector()
        return self.detector


def _without_masks(seen: Observation) -> Observation:
    return replace(seen, detection=replace(seen.detection, person_mask=None, others=None, look=None))


@dataclass(frozen=True)
class _Scene:
    """An image, and what the user says about it."""

    image: np.ndarray
    name: str
    focal: float
    labels: np.ndarray | None
    """The user's label map."""
    inputs: Inputs

    @classmethod
    def of(cls, source: ImageSource, inputs: Inputs) -> _Scene:
        image, exif_focal = image_of(source)
        name = str(source) if isinstance(source, (str, Path)) else UNNAMED
        size = (image.shape[1], image.shape[0])
        labels = None if inputs.labels is None else read_labels(inputs.labels, size, inputs.label_scheme)
        return cls(image, name, _focal_length(name, size, inputs.focal, exif_focal), labels, inputs)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.image.shape[1], self.image.shape[0]

    @property
    def people_from(self) -> str:
        """The file that the people are in."""
        given = self.inputs.keypoints
        return str(given) if isinstance(given, str | Path) else self.name


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)


def _is_box(value: object) -> bool:
    row = isinstance(value, Sequence) or (isinstance(value, np.ndarray) and value.ndim == 1)
    return row and len(value) == 4 and all(map(_is_number, value))  # type: ignore[arg-type]


def _focal_length(name: str, size: tuple[int, int], given: float | None, exif: float | None) -> float:
    """The user's, else EXIF's, else the image's diagonal; pixels. Raises UsageError for one that no camera has."""
    diagonal = float(np.hypot(*size))
    low, high = (f"{share * diagonal:.0f}" for share in FOCAL_RANGE)
    if given is not None:
        if not possible_focal(given, size):
            raise UsageError(
                f"--focal {given:g}: for a {size[0]} x {size[1]} image {low} to {high} pixels are possible"
            )
        return float(given)
    if exif is not None and not possible_focal(exif, size):
        logging.getLogger("dsr_fit").warning(
            "%s: its EXIF tells a focal length of %.3g pixels, which no camera has; the image's diagonal is taken",
            name,
            exif,
        )
        return diagonal
    return exif or diagonal
