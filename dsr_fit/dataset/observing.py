"""First step of a run: the people in each image, found by the detector or given, and packed small enough to send."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from dsr_fit.dataset.fingerprints import fingerprint
from dsr_fit.dataset.names import file_name, image_path, path_of_own
from dsr_fit.dataset.records import PackedObservation, PersonObservation
from dsr_fit.dataset.settings import Settings
from dsr_fit.dataset.sources import Entry, Person
from dsr_fit.dataset.worker import Work
from dsr_fit.errors import DsrFitError, InputError, one_line
from dsr_fit.io.files import read_arrays, replacing
from dsr_fit.io.images import image_size
from dsr_fit.io.keypoint_files import read_keypoints
from dsr_fit.observation import Detection, Observation
from dsr_fit.observe.perception import Inputs, Perception
from dsr_fit.threads import made_once


class Observer:
    """Runs detector and parser on an image; several threads may call one observer."""

    def __init__(self, settings: Settings, images: Path, perception: Perception | None = None) -> None:
        self.settings, self.images = settings, images
        self.perception = perception or settings.perception()
        cv2.setNumThreads(1)

    def __call__(self, entry: Entry) -> list[PersonObservation]:
        """The people of an image: those whom the source names, else those found, the most prominent first.

        Never raises: an error becomes a person that was not found, with the reason.
        """
        path = image_path(self.images, entry.imgname)
        # Before they are read: files that are replaced in between count as replaced at the next run.
        files = fingerprint([path, *filter(None, [entry.keypoint_file])])
        try:
            people = self._named(entry, path)
        except Exception as error:
            reason, people = reason_of(error, self.images), entry.people or (Person(0),)
            seen = [PersonObservation(entry.imgname, one.number, one.source_id, reason=reason) for one in people]
        else:
            seen = self._find(entry, path) if people is None else [self._observe(entry, path, one) for one in people]
        return [replace(one, files=files) for one in seen]

    def _named(self, entry: Entry, path: Path) -> Sequence[Person] | None:
        """Whom the source names in an image; None where the detector has to look."""
        if entry.people is not None:
            if entry.size is not None and (size := image_size(path)) != entry.size:
                said, has = (f"{width} x {height}" for width, height in (entry.size, size))
                raise ValueError(f"{entry.imgname} is {has} pixels, its annotation says {said}; is it another image?")
            return entry.people
        if entry.keypoint_file is None:
            return None
        people = read_keypoints(entry.keypoint_file, image_size(path), path.name)
        if not people:
            raise ValueError(f"{entry.keypoint_file.name} holds nobody")
        return [Person(number, one.keypoints, origin=one.source) for number, one in enumerate(people)]

    def _find(self, entry: Entry, path: Path) -> list[PersonObservation]:
        """Whoever is in the picture, found in one look at it; each is packed before the next is parsed."""
        settings = self.settings
        looks = self.perception.observe_each(
            path, Inputs(focal=settings.focal), most=settings.max_people, min_height=settings.min_height
        )
        people: list[PersonObservation] = []
        try:
            for seen in looks:
                people.append(self._packed(entry.imgname, len(people), seen))
                del seen
        except Exception as error:  # whatever a damaged file does to a decoder, it must not end the run
            people.append(PersonObservation(entry.imgname, len(people), reason=reason_of(error, self.images)))
        return people

    def _packed(self, imgname: str, number: int, seen: Observation | InputError) -> PersonObservation:
        if isinstance(seen, InputError):
            return PersonObservation(imgname, number, reason=reason_of(seen, self.images))
        return PersonObservation(imgname, number, found=PackedObservation.of(seen), timings_s=seen.timings_s)

    def _observe(self, entry: Entry, path: Path, person: Person) -> PersonObservation:
        named = (entry.imgname, person.number, person.source_id)
        try:
            observation = self.perception.observe(path, self._inputs(path, person))
            found = PackedObservation.of(observation)
        except Exception as error:  # whatever a damaged file does to a decoder, it must not end the run
            return PersonObservation(*named, reason=reason_of(error, self.images))
        return PersonObservation(*named, found, timings_s=observation.timings_s)

    def _inputs(self, path: Path, person: Person) -> Inputs:
        if person.keypoints is None:
            return Inputs(bbox=person.bbox, focal=self.settings.focal)
        mask = fill(person.outline, image_size(path)) if person.outline else None
        return Inputs(Detection(person.keypoints, None, mask, person.origin), focal=self.settings.focal)


def reason_of(error: Exception, images: Path) -> str:
    """One line without the folder of images; an unexpected error is named as one."""
    text = " ".join(str(error).replace(f"{images}/", "").split())
    if isinstance(error, (DsrFitError, ValueError)) and text:
        return text
    return f"unexpected {type(error).__name__}: {text}" if text else f"unexpected {type(error).__name__}"


def fill(outline: tuple[np.ndarray, ...], size: tuple[int, int]) -> np.ndarray:
    """(H, W) float32 mask of polygons in pixels, for an image of `size` = (width, height)."""
    mask = np.zeros(size[::-1], np.uint8)
    # Pixel (0, 0) is centred at (0.5, 0.5) here and at (0, 0) in OpenCV; 4 bits of fraction.
    polygons = [np.round((polygon - 0.5) * 16).astype(np.int32) for polygon in outline]
    for polygon in polygons:
        cv2.fillPoly(mask, [polygon], (1,), shift=4)
    return mask.astype(np.float32)


# --- Cache ----------------------------------------------------------------------------------------

_ARRAYS = ("keypoints", "world_landmarks", "features")
_VALUES = ("labels_source", "keypoints_source", "agreement", "focal_length", "image_size")


class CachedObserver:
    """Observes an image once; afterwards its people are read from a folder, unless the image is newer."""

    def __init__(self, folder: Path, images: Path, make: Callable[[], Work]) -> None:
        """`make` builds the observer when the first image needs it; `images` is the source's folder."""
        self.folder, self.images, self.make = folder, images, make

    @made_once
    def work(self) -> Work:
        return self.make()

    def __call__(self, entry: Entry) -> list[PersonObservation]:
        path, image = cache_path(self.folder, entry.imgname), image_path(self.images, entry.imgname)
        newer = image.exists() and path.exists() and image.stat().st_mtime_ns > path.stat().st_mtime_ns
        if path.exists() and not newer:
            return read_observations(path, entry.imgname)
        people = self.work(entry)
        write_observations(path, people)
        return people


def cache_path(folder: Path, imgname: str) -> Path:
    """`FOLDER/IMGNAME.npz`."""
    return path_of_own(folder, file_name(imgname), ".npz")


def write_observations(path: Path, people: list[PersonObservation]) -> None:
    """Write the people of one image, found or not."""
    arrays: dict[str, np.ndarray] = {}
    listed = []
    for number, one in enumerate(people):
        item: dict[str, Any] = {"person": one.person, "source_id": one.source_id, "reason": one.reason}
        if one.found is not None:
            item["found"] = {name: getattr(one.found, name) for name in _VALUES}
            arrays[f"labels_{number}"] = np.frombuffer(one.found.labels, np.uint8)
            given = {name: getattr(one.found, name) for name in _ARRAYS}
            arrays |= {f"{name}_{number}": array for name, array in given.items() if array is not None}
        listed.append(item)
    with replacing(path) as temporary:
        np.savez(temporary, people=np.array(json.dumps(listed)), **arrays)  # type: ignore[arg-type]


def read_observations(path: Path, imgname: str) -> list[PersonObservation]:
    """What `write_observations` wrote, without the timings. Raises InputError for a damaged or foreign file."""
    people = []
    try:
        arrays = read_arrays(path)
        if not isinstance(arrays, dict):
            raise ValueError("one array alone")
        for number, item in enumerate(json.loads(str(arrays["people"]))):
            found = None
            if "found" in item:
                values = {**item["found"], "image_size": tuple(item["found"]["image_size"])}
                values |= {name: arrays.get(f"{name}_{number}") for name in _ARRAYS}
                found = PackedObservation(labels=arrays[f"labels_{number}"].tobytes(), **values)
            people.append(PersonObservation(imgname, item["person"], item["source_id"], found, item["reason"]))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not the observations of an image ({one_line(error)}); remove it") from None
    return people
