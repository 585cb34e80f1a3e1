"""The front door for Python: `dsr_fit.fit`, from an image to a body."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from dsr_fit.body.body import Body
from dsr_fit.body.files import load_body
from dsr_fit.config import FitConfig, Mode, from_dict, load_config
from dsr_fit.errors import DsrFitError, UsageError
from dsr_fit.fitting.fitter import Fitter
from dsr_fit.fitting.result import FitResult
from dsr_fit.gate.gate import Gate
from dsr_fit.io.images import ImageSource
from dsr_fit.io.keypoint_files import Keypoints
from dsr_fit.observation import Observation
from dsr_fit.observe.perception import Inputs, Perception
from dsr_fit.render.device import choose_device

BATCH_SIZE = 16
"""People fitted together; memory grows with it, results do not depend on it."""


@dataclass(frozen=True)
class FitFailure:
    """What stands in a list of results for an image that can't be used."""

    reason: str
    error: Exception


@overload
def fit(image: ImageSource, **options: Any) -> FitResult: ...
@overload
def fit(image: Sequence[ImageSource], **options: Any) -> list[FitResult | FitFailure]: ...
def fit(  # pyright: ignore[reportInconsistentOverload]  the overloads leave the options to this one
    image: ImageSource | Sequence[ImageSource],
    *,
    keypoints: str | Path | Keypoints | Sequence[str | Path | Keypoints | None] | None = None,
    labels: str | Path | np.ndarray | Sequence[str | Path | np.ndarray | None] | None = None,
    bbox: tuple[float, float, float, float] | Sequence[tuple[float, float, float, float] | None] | None = None,
    person: int | Sequence[int] = 0,
    body: str | Path | Body = "open",
    mode: Mode | None = None,
    config: FitConfig | dict[str, Any] | str | Path | None = None,
    focal: float | Sequence[float | None] | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    raise_on_error: bool = False,
) -> FitResult | list[FitResult | FitFailure]:
    """Fit a body to one person of an image, or of each image of a list, which are one batch.

    Args:
        image: a file's path, an (H, W, 3) uint8 RGB array or a Pillow image; or a list of them.
        keypoints: a file (OpenPose, COCO, MediaPipe, mesh.npz) or `Keypoints`, instead of the detector's.
        labels: a label map's file or (H, W) array of indices, instead of the parser's.
        bbox: x, y, width, height in pixels, in which to look for the person.
        person: which person, from 0: by prominence for detections, in the file's order for keypoint files.
        body: `open`, the path of an SMPL file, or a `Body`.
        mode: `smplify`, `eft` or `eft+smplify`; None is the configuration's.
        config: a `FitConfig`, a preset's name, a YAML file, or changes of the defaults as nested dictionaries.
        focal: focal length in pixels; None is EXIF's, else the image's diagonal.
        device: `auto` is the best that works.
        raise_on_error: in a list, raise for an image that can't be used instead of returning its `FitFailure`.
            With a list of images, `keypoints`, `labels`, `bbox`, `person` and `focal` may be lists of the same length.

    Returns: a `FitResult`, with the quality gate's verdict; for a list of images a list, in their order.
    Raises:
        InputError: an image, keypoints, labels or a body file can't be used.
        UsageError: options that don't work together, unknown presets or settings.
    """
    fitter, gate = _fitter(body, _config(config, mode), choose_device(device))
    single = isinstance(image, (str, Path, np.ndarray)) or not isinstance(image, Sequence)
    images: list[ImageSource] = [image] if single else list(image)  # type: ignore[list-item]
    given = zip(
        images,
        *(
            _for_each(name, value, len(images), alone=single)
            for name, value in {
                "keypoints": keypoints, "labels": labels, "bbox": bbox, "person": person, "focal": focal,
            }.items()
        ),
        strict=True,
    )  # fmt: skip
    outcomes: list[FitResult | Exception] = []
    waiting: list[Observation | Exception] = []
    for one, *about in given:
        waiting.append(_observed(one, *about))
        if len(waiting) == BATCH_SIZE:
            outcomes += _fitted(fitter, waiting)
            waiting = []
    outcomes += _fitted(fitter, waiting)
    results: list[FitResult | FitFailure] = []
    for outcome in outcomes:
        if isinstance(outcome, FitResult):
            results.append(replace(outcome, verdict=gate.judge(outcome)))
        elif single or raise_on_error:
            raise outcome
        else:
            results.append(FitFailure(" ".join(str(outcome).split()) or type(outcome).__name__, outcome))
    return results[0] if single else results  # type: ignore[return-value]


@cache
def _perception() -> Perception:
    """One detector and parser for all calls."""
    return Perception()


def _observed(image: ImageSource, keypoints: Any, labels: Any, bbox: Any, person: int, focal: Any) -> Any:
    """The observation, or why there is none."""
    keypoints, labels = (Path(value) if isinstance(value, str) else value for value in (keypoints, labels))
    try:
        return _perception().observe(image, Inputs(keypoints, labels, bbox=bbox, person=person, focal=focal))
    except (DsrFitError, OSError, ValueError) as error:
        return error


def _fitted(fitter: Fitter, waiting: list[Observation | Exception]) -> list[FitResult | Exception]:
    """Fits in the places of the observations, one loop for all of them."""
    observations = [item for item in waiting if isinstance(item, Observation)]
    fits = iter(fitter.fit_each(observations) if observations else ())
    return [next(fits) if isinstance(item, Observation) else item for item in waiting]


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
