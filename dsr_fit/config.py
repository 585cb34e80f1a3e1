"""Every setting of a fit and its default. Presets (`configs/*.yaml`) override, then the command line.

All configuration is frozen; an unknown key is an error that lists the known ones. The resolved one is saved
beside each result.
"""

from __future__ import annotations

import dataclasses
import json
import math
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from dsr_fit.assets import shipped
from dsr_fit.errors import UsageError, one_line

T = TypeVar("T")

SCALE_RANGE = (1e-6, 1e6)
"""Of settings that others are divided by."""

MAX_RESOLUTION = 2048
"""Pixels of a render: 84 times as many as at 224."""

Mode = Literal["smplify", "eft", "eft+smplify"]


def _at_least(least: float, where: str, settings: Any, *names: str) -> None:
    """Raises UsageError for settings below `least` and those that are no finite number."""
    for name in names:
        value = getattr(settings, name)
        if not least <= value < math.inf:
            raise UsageError(f"{where}{name} is {value:g}; it must be at least {least:g}")


def _between(low: float, high: float, where: str, settings: Any, *names: str, unit: str = "") -> None:
    """Raises UsageError for settings beyond these bounds and those that are no number; None is none."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and not low <= value <= high:
            raise UsageError(f"{where}{name} is {value:g}; it must be from {low:g} to {high:g}{unit}")


def _within(most: float, where: str, settings: Any, *names: str) -> None:
    """The same for degrees, either way."""
    _between(-most, most, where, settings, *names, unit=" degrees")


@dataclass(frozen=True)
class Weights:
    """Weight of each energy term; 0 switches a term off. Energies are averages, see `docs/terms.md`."""

    keypoints: float = 1.5
    """Reprojection of the observed keypoints."""
    world_landmarks: float = 0.1
    """Agreement with the detector's 3D landmarks."""
    dsr_mc: float = 4.0
    """DSR-MC: the rendered body matches the minimally clothed regions tightly."""
    dsr_c: float = 3.0
    """DSR-C: the body stays inside its clothing."""
    silhouette: float = 1.0
    """The baseline that the paper improves on, match of body and clothed person: a little of it, against shrinking."""
    betas: float = 0.1
    """Shape prior."""
    stature: float = 1.0
    """Nobody is shorter or taller than adults are, and a known height is met."""
    pose: float = 0.2
    """Pose prior."""
    bending: float = 1.0
    """Elbows and knees do not bend backwards."""
    straight: float = 0.05
    """Knees and elbows that the picture can't tell from straight ones are straight."""
    tilt: float = 0.05
    """How a body in this pose is held against gravity."""
    initial: float = 1.0
    """Closeness to the regressor's estimate, joint by joint the closer the surer it is."""
    initial_points: float = 2.0
    """Closeness of the keypoints in space to the estimate's."""

    def __post_init__(self) -> None:
        for name, weight in vars(self).items():
            if not 0 <= weight < math.inf:
                raise UsageError(f"weights.{name} is {weight:g}; a weight is 0 or more")


@dataclass(frozen=True)
class Scales:
    """Units of the terms on observed points."""

    unit: float = 0.02
    """Error, over the longer side of the keypoints' box, that costs 1 a keypoint."""
    robust: float = 0.1
    """Geman-McClure's scale, over the longer side of the box: errors beyond it stop pulling."""
    world_unit: float = 0.1
    """Metres of a 3D landmark's error that cost 1."""
    agreement: float = 0.04
    """Disagreement of keypoints and 3D landmarks, over the landmarks' spread, below which they weigh more: our detector
    never agrees with itself so well, measured points do. 0, for points that agree and may be wrong: they never do."""

    def __post_init__(self) -> None:
        _between(*SCALE_RANGE, "scales.", self, "unit", "robust", "world_unit")
        _between(0, 1, "scales.", self, "agreement")


@dataclass(frozen=True)
class CameraTilt:
    """How cameras are held, degrees: Gaussians where `pitch` and `roll` are not known."""

    pitch: float = 4.0
    """By which a camera looks down on average."""
    pitch_spread: float = 8.0
    """Standard deviation of the pitch."""
    roll_spread: float = 3.0
    """Standard deviation of the roll."""
    known_spread: float = 1.5
    """Standard deviation of a pitch or roll that is known."""

    def __post_init__(self) -> None:
        _between(*SCALE_RANGE, "camera_tilt.", self, "pitch_spread", "roll_spread", "known_spread")
        _within(90, "camera_tilt.", self, "pitch")


@dataclass(frozen=True)
class Semantics:
    """Forms of the two DSR terms."""

    mc_form: Literal["niou", "dist"] = "niou"
    """DSR-MC by 1 - IoU, or by the distance to the mask (pull from far away)."""
    c_form: Literal["excess", "plain", "released"] = "excess"
    """DSR-C: cost in excess of the point's most likely label, plain negative log, or the released loss."""
    c_normaliser: Literal["live", "detached"] = "live"
    """Whether the covered area that DSR-C is divided by carries gradient."""
    label_set: Literal["paper4", "code8"] = "code8"
    """Merge of the 20 labels: the paper's 4 classes, or the released code's 8."""
    outfits: bool = True
    """Prior clothing by the outfit that the label map shows, where the prior knows outfits; else the average."""
    class_weights: bool = False
    """The released code's balance of classes by their area."""


@dataclass(frozen=True)
class LeastSquares:
    """The first stage: Levenberg-Marquardt on keypoints, 3D landmarks and priors."""

    pose_steps: int = 8
    """Steps on pose alone, against the 3D landmarks."""
    steps: int = 20
    """Steps on pose, betas and translation, against everything but the rendered terms."""
    damping: float = 1e-3
    """First damping, relative to the normal matrix's diagonal."""
    headings: int = 4
    """Headings tried where no 3D landmarks say which way the body faces."""
    pose: float = 0.2
    """Weight of the hand-written ranges, which lead a start that nothing vouches for."""

    def __post_init__(self) -> None:
        _at_least(0, "least_squares.", self, "pose_steps", "steps", "damping", "pose")
        _at_least(1, "least_squares.", self, "headings")


@dataclass(frozen=True)
class Stage:
    """One stage on all terms."""

    resolution: int
    """Pixels of the crop's render."""
    iterations: int
    """At most this many; each renders once."""

    def __post_init__(self) -> None:
        _between(1, MAX_RESOLUTION, "a stage's ", self, "resolution")
        _at_least(1, "a stage's ", self, "iterations")


@dataclass(frozen=True)
class Eft:
    """Fitting the regressor's weights (Exemplar Fine-Tuning, Joo et al. 2021)."""

    layers: tuple[str, ...] = ()
    """Beginnings of the names of the weights that move; none: the regressor's own choice."""
    learning_rate: float | None = None
    """Adam's step; null: the regressor's own."""
    iterations: int = 40
    """At most this many."""
    resolution: int = 112
    """Pixels of the crop's render."""
    keypoint_px: float = 1.0
    """A person is done when the observed keypoints are missed by this little on average, pixels of a 224 px crop."""
    refinement: tuple[Stage, ...] = (Stage(224, 15),)
    """In mode `eft+smplify`: the stages on the parameters that follow."""

    def __post_init__(self) -> None:
        _at_least(1, "eft.", self, "iterations")
        _between(1, MAX_RESOLUTION, "eft.", self, "resolution")
        _at_least(0, "eft.", self, "keypoint_px")
        _between(1e-12, 1, "eft.", self, "learning_rate")


@dataclass(frozen=True)
class FitConfig:
    """Everything that decides a fit, apart from its inputs."""

    mode: Mode = "smplify"
    """What moves: the body's parameters (`smplify`), the regressor's weights (`eft`), or these and then those."""
    weights: Weights = field(default_factory=Weights)
    scales: Scales = field(default_factory=Scales)
    semantics: Semantics = field(default_factory=Semantics)
    least_squares: LeastSquares = field(default_factory=LeastSquares)
    stages: tuple[Stage, ...] = (Stage(112, 15), Stage(224, 15))
    """The stages of `smplify` after least squares, coarse to fine."""
    eft: Eft = field(default_factory=Eft)
    pose_prior: Literal["learned", "ranges"] = "learned"
    """How joints bend: learned from motion capture and photos, or ranges written by hand."""
    pitch: float | None = None
    """Degrees by which the camera looks down, where it is known; default: as cameras are held."""
    roll: float | None = None
    """Degrees by which upright things lean to the right in the picture, where it is known; default: likewise."""
    camera_tilt: CameraTilt = field(default_factory=CameraTilt)
    outline: Literal["dense", "antialias"] = "dense"
    """The renderer's outline: every silhouette edge, or nvdiffrast's operator."""
    stop_improvement: float = 1e-3
    """A person has converged when one more step is expected to lower the energy by less than this fraction ..."""
    stop_window: int = 10
    """... or, where weights move, so many iterations have."""
    seed: int = 0
    """Of random numbers, where there are any: trainings draw some, a fit draws none and is the same for every seed."""

    def __post_init__(self) -> None:
        _within(90, "", self, "pitch")
        _within(180, "", self, "roll")
        _at_least(1, "", self, "stop_window")
        _at_least(0, "", self, "stop_improvement")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"seed is {self.seed}; a whole number from 0 to {2**32 - 1} works")


def to_dict(config: Any) -> dict[str, Any]:
    """Plain nested dictionaries and lists, fit for YAML and JSON."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(kind: type[T], values: Any, base: T | None = None, where: str = "") -> T:
    """A configuration of class `kind` from nested dictionaries, over `base` (default: the defaults).

    Raises UsageError naming the key that is unknown, missing, or of the wrong type; `where` is the dotted name so far.
    """
    if not isinstance(values, dict):
        raise UsageError(f"configuration `{where or 'file'}`: expected `key: value` lines, got {values!r}")
    hints, changes = typing.get_type_hints(kind), {}
    for key, value in values.items():
        name = f"{where}.{key}" if where else key
        if key not in hints:
            raise UsageError(f"unknown configuration key `{name}`; known here: {', '.join(sorted(hints))}")
        changes[key] = _convert(hints[key], value, getattr(base, key, None), name)
    if base is not None:
        return dataclasses.replace(base, **changes)  # type: ignore[type-var]
    try:
        return kind(**changes)
    except TypeError as error:  # names the keys without a default
        raise UsageError(f"configuration `{where}`: {error}") from None


def _convert(hint: Any, value: Any, current: Any, name: str) -> Any:
    origin, choices = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type, hint), value, current, name)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise UsageError(f"configuration `{name}`: expected a list, got {value!r}")
        return tuple(_convert(choices[0], item, None, f"{name}.{number}") for number, item in enumerate(value))
    if origin is Literal:
        if value not in choices:
            raise UsageError(f"configuration `{name}`: {value!r} is not one of {', '.join(map(str, choices))}")
        return value
    if origin in (typing.Union, types.UnionType):  # `X | None`
        return None if value is None else _convert(choices[0], value, current, name)
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is not hint:
        raise UsageError(f"configuration `{name}`: expected {hint.__name__}, got {value!r}")
    return value


def load_config(name: str | Path | None = None, base: FitConfig | None = None) -> FitConfig:
    """The defaults, changed by a YAML file or by the preset of that name in `configs/`."""
    base = base or FitConfig()
    if name is None:
        return base
    path = Path(name)
    if not path.suffix:
        presets = sorted(file.stem for file in shipped("configs").glob("*.yaml"))
        if str(name) not in presets:
            raise UsageError(f"no preset is called {str(name)!r}; presets: {', '.join(presets)}; or give a .yaml file")
        path = shipped(f"configs/{name}.yaml")
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except OSError:
        raise UsageError(f"{path}: the configuration file can't be read") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # bad UTF-8 and dates are ValueErrors
        raise UsageError(f"{path}: not valid YAML ({one_line(error)})") from None
    return from_dict(FitConfig, values or {}, base)
