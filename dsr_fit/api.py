"""The front door for Python: `dsr_fit.fit`, from an image to a body."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from dsr_fit.body.body import Body
from dsr_fit.body.files import load_body
from dsr_fit.config import FitConfig, Mode, from_dict, load_config
from dsr_fit.errors import DsrFitError, InputError, UsageError, one_line
from dsr_fit.fitting.fitter import Fitter
from dsr_fit.fitting.result import FitResult
from dsr_fit.fitting.together import BATCH_SIZE, fit_pictures
from dsr_fit.gate.gate import Gate
from dsr_fit.io.images import ImageSource
from dsr_fit.io.keypoint_files import Keypoints
from dsr_fit.observation import Observation, check_held
from dsr_fit.observe.detector import DetectorName, PersonDetector
from dsr_fit.observe.parser import load_parser
from dsr_fit.observe.perception import Inputs, Perception
from dsr_fit.render.device import choose_device

People = Literal["one", "all"] | int | None
"""Who is fitted: the one that `person` chooses, everybody, or at most so many."""


@dataclass(frozen=True)
class FitFailure:
    """What stands in a list of results for an image that can't be used, or a person who can't be fitted."""

    reason: str
    error: Exception


@overload
def fit(image: ImageSource, *, people: Literal["one"] | None = None, **options: Any) -> FitResult: ...
@overload
def fit(image: ImageSource, *, people: Literal["all"] | int, **options: Any) -> list[FitResult | FitFailure]: ...
@overload
def fit(
    image: Sequence[ImageSource], *, people: Literal["one"] | None = None, **options: Any
) -> list[FitResult | FitFailure]: ...
@overload
def fit(
    image: Sequence[ImageSource], *, people: Literal["all"] | int, **options: Any
) -> list[list[FitResult | FitFailure]]: ...
def fit(  # pyright: ignore[reportInconsistentOverload]  the overloads leave the options to this one
    image: ImageSource | Sequence[ImageSource],
    *,
    keypoints: str | Path | Keypoints | Sequence[str | Path | Keypoints | None] | None = None,
    labels: str | Path | np.ndarray | Sequence[str | Path | np.ndarray | None] | None = None,
    bbox: tuple[float, float, float, float] | Sequence[tuple[float, float, float, float] | None] | None = None,
    person: int | Sequence[int] = 0,
    people: People = None,
    body: str | Path | Body = "open",
    mode: Mode | None = None,
    config: FitConfig | dict[str, Any] | str | Path | None = None,
    focal: float | Sequence[float | None] | None = None,
    height: float | Sequence[float | None] | None = None,
    detector: DetectorName = "accurate",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    raise_on_error: bool = False,
) -> FitResult | list[FitResult | FitFailure] | list[list[FitResult | FitFailure]]:
    """Fit a body to one person of an image or to several, or of each image of a list, which are one batch.

    Args:
        image: a file's path, an (H, W, 3) uint8 RGB array or a Pillow image; or a list of them.
        keypoints: a file (OpenPose, COCO, MediaPipe, mesh.npz) or `Keypoints`, instead of the detector's.
        labels: a label map's file or (H, W) array of indices, instead of the parser's.
        bbox: x, y, width, height in pixels, in which to look for the person.
        person: which person, from 0: by prominence for detections, in the file's order for keypoint files.
        people: `one` (also None), the person that `person` chooses; `all`; or a number, of the most prominent.
        body: `open`, the path of an SMPL file, or a `Body`.
        mode: `smplify`, `eft` or `eft+smplify`; None is the configuration's.
        config: a `FitConfig`, a preset's name, a YAML file, or changes of the defaults as nested dictionaries.
        focal: focal length in pixels; None is EXIF's, else the image's diagonal.
        height: the person's height in metres, which fixes the scale; None is unknown.
        detector: `accurate`, or `fast`.
        device: `auto` is the best that works.
        raise_on_error: in a list, raise for an image that can't be used instead of returning its `FitFailure`.
            With a list of images, `keypoints`, `labels`, `bbox`, `person`, `focal` and `height` may be lists of
            the same length.

    Returns: a `FitResult`, with the quality gate's verdict; with `people` a list, the most prominent first, with a
        `FitFailure` in the place of who can't be fitted; for a list of images a list of these, in their order.
    Raises:
        InputError: an image, keypoints, labels or a body file can't be used.
        UsageError: options that don't work together, unknown presets or settings.
    """
    _check(people, detector)
    chosen = choose_device(device)
    perception = _perception(detector, chosen)
    fitter, gate = _fitter(body, _config(config, mode), chosen)
    known: list[float | None] = list(height) if isinstance(height, list | tuple) else [height]  # type: ignore[list-item]
    for one in known:
        check_held(one, fitter.config.weights.stature)
    single = isinstance(image, (str, Path, np.ndarray)) or not isinstance(image, Sequence)
    images: list[ImageSource] = [image] if single else list(image)  # type: ignore[list-item]
    given = zip(
        images,
        *(
            _for_each(name, value, len(images), alone=single)
            for name, value in {
                "keypoints": keypoints, "labels": labels, "bbox": bbox, "person": person, "focal": focal,
                "height": height,
            }.items()
        ),
        strict=True,
    )  # fmt: skip
    several = people not in (None, "one")
    outcomes: list[list[FitResult | Exception]] = []
    waiting: list[Sequence[Observation | Exception]] = []
    for one, *about in given:
        try:
            waiting.append(_observed(perception, one, people, *about))
        except (DsrFitError, OSError, ValueError) as error:
            if single or raise_on_error:
                raise
            waiting.append([error])
        if sum(map(len, waiting)) >= BATCH_SIZE:
            outcomes += fit_pictures(fitter, waiting)
            waiting = []
    outcomes += fit_pictures(fitter, waiting)

    def answer(outcome: FitResult | Exception) -> FitResult | FitFailure:
        if isinstance(outcome, FitResult):
            return replace(outcome, verdict=gate.judge(outcome))
        if raise_on_error or (single and not several):
            raise outcome
        return FitFailure(one_line(outcome), outcome)

    answers = [[answer(outcome) for outcome in everybody] for everybody in outcomes]
    results = answers if several else [one for (one,) in answers]
    return results[0] if single else results  # type: ignore[return-value]


@lru_cache(maxsize=1)
def _perception(detector: DetectorName, device: str) -> Perception:
    """One detector and parser for all calls with the same ones."""
    return Perception(PersonDetector(detector, device), load_parser(device=device))


def _observed(
    perception: Perception, image: ImageSource, people: People, keypoints: Any, labels: Any, bbox: Any, person: int,
    focal: Any, height: Any,
) -> Sequence[Observation | InputError]:  # fmt: skip
    keypoints, labels = (Path(value) if isinstance(value, str) else value for value in (keypoints, labels))
    inputs = Inputs(keypoints, labels, bbox=bbox, person=person, focal=focal, height=height)
    if people is None or people == "one":
        return [perception.observe(image, inputs)]
    return perception.observe_all(image, inputs, most=None if people == "all" else people)


def _check(people: People, detector: str) -> None:
    """Raises UsageError for values of another kind."""
    number = isinstance(people, int | np.integer) and not isinstance(people, bool) and people > 0
    if people not in (None, "one", "all") and not number:
        raise UsageError(f"people is {people!r}; `one`, `all` or a number from 1 works")
    if detector not in ("accurate", "fast"):
        raise UsageError(f"no detector is called {detector!r}; accurate and fast are")


def _for_each(name: str, value: Any, count: int, alone: bool) -> list[Any]:
    """An option's value for each image."""
    one_box = name == "bbox" and isinstance(value, list | tuple) and not any(map(_may_be_box, value))
    if one_box or not isinstance(value, list | tuple):
        return [value] * count
    if alone or len(value) != count:
        raise UsageError(f"{name}: a list of {len(value)} for {count} image(s); give one value, or one an image")
    return list(value)


def _may_be_box(value: Any) -> bool:
    return value is None or isinstance(value, list | tuple | np.ndarray)


def _config(config: FitConfig | dict[str, Any] | str | Path | None, mode: Mode | None) -> FitConfig:
    if isinstance(config, dict):
        config = from_dict(FitConfig, config, FitConfig())
    if not isinstance(config, FitConfig | str | Path | None):
        raise UsageError(f"config is {config!r}; a FitConfig, a preset's name, a YAML file or a dictionary works")
    if not isinstance(config, FitConfig):
        config = load_config(config)
    return config if mode is None else from_dict(FitConfig, {"mode": mode}, config)


_FITTERS: dict[Any, tuple[Fitter, Gate]] = {}


def _fitter(body: str | Path | Body, config: FitConfig, device: Literal["cpu", "cuda"]) -> tuple[Fitter, Gate]:
    """The fitter of these settings and its gate; the last one is kept for the next call."""
    if not isinstance(body, str | Path | Body):
        raise UsageError(f"body is {body!r}; `open`, the path of an SMPL file or a `Body` works")
    key = (body.sha256 if isinstance(body, Body) else str(body), config, device)
    if key not in _FITTERS:
        loaded = body if isinstance(body, Body) else load_body(body if body == "open" else Path(body).expanduser())
        fitter = Fitter(loaded, config, device=device)
        _FITTERS.clear()
        _FITTERS[key] = (fitter, Gate.of(fitter))
    return _FITTERS[key]
