"""`dsr-fit rounds`: fit, accept the best fits, train on them, evaluate, and again."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from dsr_fit.cli.checks import Folder, check_folder
from dsr_fit.cli.options import DatasetArguments
from dsr_fit.errors import InputError, UsageError
from dsr_fit.training.settings import LossWeights, TrainOptions, TrainSettings

if TYPE_CHECKING:
    from dsr_fit.dataset.settings import Settings
    from dsr_fit.dataset.sources import Source
    from dsr_fit.training.rounds import Plan, Rounds, Train


LEAST_CALIBRATION = 30
"""About one fit of ten is right, so that fewer people may well hold none."""


@dataclass(frozen=True, kw_only=True)
class RoundsArguments(DatasetArguments, TrainOptions):
    """Improve a regressor by training it on its own fits, round by round; the same command resumes."""

    rounds: int = 1
    """Number of rounds; more can be added later."""
    accept: float = 0.5
    """Share of the fits to train on, the best by the gate; 0: those above the gate's own threshold."""
    photos: Folder | None = None
    """Folder of Clothing Co-Parsing; every regressor is evaluated on its annotated validation photos."""
    photo_limit: int | None = None
    """Evaluate on the first so many of them only."""
    cases_dir: Path | None = None
    """Folder of rendered people; missing ones are generated; default: OUT/cases."""
    cases: int = 300
    """Number of rendered people every regressor is evaluated on; 0: none."""
    first_seed: int = 10_000
    """Seed of the first of them."""
    calibration: int = 464
    """Number of other rendered people each regressor's quality gate is calibrated on; 0: no gate, all fits are
    trained on alike."""
    cache: Path | None = None
    """Folder of detector and parser results, which several runs can share; default: OUT/cache."""
    train_batch: int | None = None
    """People per batch of the training; default: the regressor's own."""
    losses: LossWeights = field(default_factory=LossWeights)
    """Weights of the losses on photos."""

    def training(self) -> TrainSettings:
        """The settings of every training. Raises UsageError for values out of range."""
        ours, theirs = ({entry.name for entry in fields(each)} for each in (self, TrainSettings))
        shared = {name: getattr(self, name) for name in (ours & theirs) - {"images", "gate"}}
        return TrainSettings(
            **shared, batch=self.train_batch, weights=self.losses, semantics=self.fit.semantics, seed=self.fit.seed
        )

    def run(self) -> None:
        run_rounds(self)


def run_rounds(arguments: RoundsArguments) -> None:
    """The work behind `dsr-fit rounds`."""
    with rounds_of(arguments) as rounds:
        rounds.run()
    sys.stdout.write((arguments.out / "table.md").read_text(encoding="utf-8"))


@contextmanager
def rounds_of(arguments: RoundsArguments, train: Train | None = None) -> Iterator[Rounds]:
    """The rounds that the options ask for, with progress on standard error; `train` replaces our training."""
    check(arguments)
    from dsr_fit.dataset.progress import reporting
    from dsr_fit.dataset.run import Resources
    from dsr_fit.training.rounds import Rounds

    plan = plan_of(arguments)
    if train is None:
        from dsr_fit.training.train import train as train_regressor

        train = partial(train_regressor, report=_say)
    resources = Resources(observers=arguments.perceivers, fitters=arguments.fitters)
    with reporting() as report:
        yield Rounds(plan, arguments.out.absolute(), train, resources, _say, report)


def plan_of(arguments: RoundsArguments) -> Plan:
    """The options as a plan; missing rendered people are generated. Raises InputError and UsageError."""
    from dsr_fit.evaluate import ccp
    from dsr_fit.evaluate.cached_source import CachedSource, case_source, photo_source
    from dsr_fit.evaluate.calibrate_gate import calibration_seeds
    from dsr_fit.evaluate.regressor import EvaluationSets
    from dsr_fit.synthetic.dataset import write_cases
    from dsr_fit.training.rounds import Plan
    from dsr_fit.training.synthetic.people import PAINTED_SEED

    source = arguments.open_source()
    training, settings = arguments.training(), arguments.settings()
    if arguments.calibration > 0 and source.brings_keypoints():
        raise UsageError(
            f"{arguments.source} brings its own keypoints, and quality gates are calibrated on the detector's; "
            "give --calibration 0, which trains on all fits alike"
        )
    rendered = _rendered_people(settings, arguments)
    cache = arguments.cache or arguments.out / "cache"
    folder = arguments.cases_dir or arguments.out / "cases"
    evaluated = range(arguments.first_seed, arguments.first_seed + arguments.cases)
    calibrated = calibration_seeds(arguments.calibration)
    if set(evaluated) & set(calibrated):
        raise UsageError(
            f"--first-seed {arguments.first_seed}: some of these people are among those of --calibration; "
            "choose seeds from 10000 on"
        )
    if evaluated and evaluated[-1] >= PAINTED_SEED:
        raise UsageError(
            f"--first-seed {arguments.first_seed}: people from {PAINTED_SEED} on are trained on; choose seeds below"
        )
    photos = None
    if arguments.photos is not None:
        numbers = ccp.photo_numbers(arguments.photos, "val")[: arguments.photo_limit]
        photos = photo_source(arguments.photos, cache / "photos", numbers)
        _check_apart(source, photos.source)
    if rendered:
        write_cases(folder, [*evaluated, *calibrated])
    return Plan(
        photos=CachedSource(source, cache / "source"),
        fit=settings,
        train=training,
        rounds=arguments.rounds,
        sets=EvaluationSets(photos, case_source(folder, evaluated, cache / "cases") if evaluated else None),
        calibration=case_source(folder, calibrated, cache / "cases") if calibrated else None,
        accept=arguments.accept or None,
    )


def _check_apart(trained: Source, evaluated: Source) -> None:
    """Raises UsageError if photos to train on are among those for evaluation."""
    theirs, ours = ({each.images / entry.imgname for entry in each.entries} for each in (evaluated, trained))
    common = {path.resolve() for path in theirs} & {path.resolve() for path in ours}
    if common:
        raise UsageError(
            f"{len(common)} photos of SOURCE are among those for evaluation, {min(common).name} for one; "
            "leave out the photos whose numbers end in 6"
        )


def _rendered_people(settings: Settings, arguments: RoundsArguments) -> bool:
    """Whether rendered people are used. Raises UsageError for another body than theirs, the open one, and for a
    regressor that can't be trained."""
    from dsr_fit.regressor.kinematic import KinematicRegressor

    wanted = arguments.cases > 0 or arguments.calibration > 0
    if wanted and settings.body_path() is not None:
        raise UsageError("rendered people have the open body; with another --body give --cases 0 --calibration 0")
    if isinstance(settings.fitter().regressor, KinematicRegressor):
        raise UsageError("the kinematic regressor has no weights to train; name another with --regressor")
    return wanted


def check(arguments: RoundsArguments) -> None:
    """What can be rejected before anything is read. Raises InputError and UsageError."""
    arguments.check_focal()
    for name in ("rounds", "photo_limit", "perceivers", "fitters"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} {value}: at least 1")
    for name in ("cases", "calibration", "first_seed"):
        if getattr(arguments, name) < 0:
            raise UsageError(f"--{name.replace('_', '-')} {getattr(arguments, name)}: 0 or more")
    if 0 < arguments.calibration < LEAST_CALIBRATION:
        raise UsageError(
            f"--calibration {arguments.calibration}: a gate is calibrated on right and wrong fits, of at least "
            f"{LEAST_CALIBRATION} people; 0 leaves the gate out"
        )
    if not (0 <= arguments.accept <= 1 and math.isfinite(arguments.accept)):
        raise UsageError(f"--accept {arguments.accept:g}: a share of the fits, between 0 and 1")
    if arguments.camera != "full":
        raise UsageError("--camera: rounds fit and evaluate in the image's own camera; leave the option out")
    if arguments.gate is not None:
        raise UsageError("--gate: each round calibrates its own; leave the option out")
    if arguments.photos is None and arguments.cases == 0:
        raise UsageError("nothing to evaluate a regressor on: give --photos, or --cases above 0")
    check_folder("--out", arguments.out)
    arguments.training()
    if find_spec("lightning") is None:
        raise InputError("training needs Lightning: pip install 'dsr-fit[train]'")
    for option, path in (("photos", arguments.photos), ("synthetic", arguments.synthetic)):
        if path is not None and not path.is_dir():
            raise InputError(f"--{option} {path}: {'is a file; name a folder' if path.exists() else 'no such folder'}")


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
