"""First stage of a run: from a listed image to what was seen of each person, small enough to be passed around."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from dsr_fit.dataset.entries import Entry, Person
from dsr_fit.dataset.records import Found, Seen
from dsr_fit.dataset.settings import Settings
from dsr_fit.errors import DsrFitError
from dsr_fit.io.images import read_image
from dsr_fit.io.keypoint_files import read_keypoints
from dsr_fit.observation import Detection
from dsr_fit.observe.parser import load_parser
from dsr_fit.observe.perception import Inputs, Perception


class Perceiver:
    """Looks at one image after the other."""

    def __init__(self, settings: Settings, images: Path, perception: Perception | None = None) -> None:
        self.focal, self.images = settings.focal, images
        self.perception = perception or Perception(parser=load_parser(settings.parser, settings.parsing_protocol))
        cv2.setNumThreads(1)

    def __call__(self, entry: Entry) -> list[Seen]:
        """Never raises for what an image holds: that is a finding with its reason."""
        try:
            people = self._people(entry)
        except Exception as error:
            return [Seen(entry.imgname, 0, reason=reason_of(error, self.images))]
        return [self._look(entry, person) for person in people]

    def _people(self, entry: Entry) -> tuple[Person, ...]:
        if entry.people is not None:
            return entry.people
        if entry.keypoint_file is None:
            return (Person(0),)
        people = read_keypoints(entry.keypoint_file, _size(self.images / entry.imgname), Path(entry.imgname).name)
        if not people:
            raise ValueError(f"{entry.keypoint_file.name} holds nobody")
        return tuple(Person(number, one.keypoints, origin=one.source) for number, one in enumerate(people))

    def _look(self, entry: Entry, person: Person) -> Seen:
        path = self.images / entry.imgname
        try:
            observation = self.perception.observe(path, self._inputs(path, person))
            found = Found.of(observation)
        except Exception as error:  # one image must never end the run, whatever its file does to a decoder
            return Seen(entry.imgname, person.number, person.source_id, reason=reason_of(error, self.images))
        return Seen(entry.imgname, person.number, person.source_id, found, timings_s=observation.timings_s)

    def _inputs(self, path: Path, person: Person) -> Inputs:
        if person.keypoints is None:
            return Inputs(bbox=person.bbox, focal=self.focal)
        mask = None
        if person.outline:
            mask = fill(person.outline, _size(path))
        return Inputs(Detection(person.keypoints, None, mask, person.origin), focal=self.focal)


def _size(path: Path) -> tuple[int, int]:
    """Width and height of an image as it is seen, upright."""
    height, width = read_image(path)[0].shape[:2]
    return width, height


def reason_of(error: Exception, images: Path) -> str:
    """One line without the machine's paths; a fault of ours says that it is one."""
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
