"""Annotated photos as examples: the people whom the detector finds where the annotation shows somebody."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dsr_fit.errors import InputError
from dsr_fit.evaluate import ccp
from dsr_fit.io.images import is_image, read_image
from dsr_fit.io.label_files import read_labels
from dsr_fit.labels import OTHER_PERSON, shows_person
from dsr_fit.observation import Detection, Look
from dsr_fit.observe.detector import PersonDetector
from dsr_fit.observe.landmarks import Region
from dsr_fit.training.parsing.examples import Example, example_of, read_examples, write_examples
from dsr_fit.training.parsing.settings import AnnotationScheme

ON_LABELS = 0.6
"""Share of a person's seen keypoints that lie on the annotation's people, from which on the annotation is of it."""


def photo_examples(photos: Path, labels: Path, scheme: AnnotationScheme, cache: Path) -> list[Example]:
    """People of the photos that have a label map of the same name; found once, and kept in the folder `cache`.

    Raises InputError where there are none, or a file can't be read.
    """
    cache.mkdir(parents=True, exist_ok=True)
    maps = {path.stem: path for path in sorted(labels.iterdir()) if path.suffix.lower() in (".png", ".npy")}
    pairs = [(path, maps[path.stem]) for path in _images(photos) if path.stem in maps]
    if not pairs:
        raise InputError(f"{labels}: holds no label map (.png, .npy) of the same name as a photo in {photos}")
    detector = PersonDetector()
    examples = []
    for photo, label_map in pairs:
        kept = cache / f"{photo.stem}.npz"
        if not kept.exists():
            write_examples(kept, _people(photo, label_map, scheme, detector))
        examples += read_examples(kept)
    return examples


def _images(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.iterdir()) if is_image(path.name)]


def _people(photo: Path, label_map: Path, scheme: AnnotationScheme, detector: PersonDetector) -> list[Example]:
    image, _ = read_image(photo)
    most = 1 if scheme == "ccp" else None  # its photos show one person
    people = []
    for found in detector.detect(image, count=most):
        labels = _labels(label_map, scheme, (image.shape[1], image.shape[0]), found)
        if found.look is not None and _annotated(found, labels):
            if found.others is not None and scheme != "ccp":
                labels = np.where(found.others & shows_person(labels), np.uint8(OTHER_PERSON), labels)
            people.append(example_of(photo.stem, image, labels, found.keypoints, region_of_look(found.look)))
    return people


def _labels(path: Path, scheme: AnnotationScheme, size: tuple[int, int], found: Detection) -> np.ndarray:
    if scheme == "ccp":
        return ccp.read_annotation(path.parent.parent, path.stem, found.keypoints)
    return read_labels(path, size, scheme)


def _annotated(found: Detection, labels: np.ndarray) -> bool:
    points = found.keypoints[found.keypoints[:, 2] > 0.5, :2]
    if len(points) < 4:
        return False
    height, width = labels.shape
    columns, rows = points.astype(int).clip(0, (width - 1, height - 1)).T
    return bool(shows_person(labels)[rows, columns].mean() > ON_LABELS)


def region_of_look(look: Look) -> Region:
    """The square that a look was at."""
    turn = look.matrix[:, :2]
    size = len(look.mask)
    center = np.linalg.solve(turn, size / 2 - look.matrix[:, 2])
    side, angle = size / np.hypot(*turn[:, 0]), np.arctan2(turn[1, 0], turn[0, 0])
    return Region((float(center[0]), float(center[1])), float(side), float(angle))


def class_counts(examples: Sequence[Example]) -> np.ndarray:
    """(256,) pixels of each label."""
    return np.sum([np.bincount(one.labels.ravel(), minlength=256) for one in examples], 0)
