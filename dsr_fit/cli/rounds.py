"""`dsr-fit rounds`: fit, choose, train, judge, and again; with control arms, and a table of all."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dsr_fit.cli.options import DatasetArguments
from dsr_fit.errors import InputError, UsageError
from dsr_fit.training.arms import arms_of
from dsr_fit.training.settings import LossWeights, TrainSettings

if TYPE_CHECKING:
    from dsr_fit.dataset.settings import Settings
    from dsr_fit.dataset.sources import Source
    from dsr_fit.training.rounds import Plan, Train


@dataclass(frozen=True, kw_only=True)
class RoundsArguments(DatasetArguments):
    """Improve a regressor by its own fits, round by round; run the same command again after any interruption."""

    rounds: int = 1
    """How many; more can be asked for later."""
    arms: str = "none"
    """Control arms, separated by commas: keypoints, keypoint-fits, ungated; or all, or none."""
    arm_rounds: int = 1
    """How many rounds of each arm."""
    accept: float = 0.5
    """Share of the fits to learn from, the best by the gate; 0: those that reach the gate's own threshold."""
    photos: Path | None = None
    """Folder of Clothing Co-Parsing, whose annotated validation photos every regressor is judged on."""
    photo_limit: int | None = None
    """Only so many of them."""
    cases_dir: Path | None = None
    """Folder of rendered people, missing ones are generated; default: OUT/cases."""
    cases: int = 300
    """How many rendered people every regressor is judged on; 0: none."""
    first_seed: int = 10_000
    """Seed of the first one."""
    calibration: int = 464
    """How many other rendered people each regressor's quality gate is calibrated on; 0: no gate, all fits are
    learnt from alike."""
    findings: Path | None = None
    """Folder of what detector and parser find in images, which other runs can share; default: OUT/findings."""
    steps: int = 2000
    """Batches that each training learns from."""
    train_batch: int | None = None
    """People a batch of the training; default: the regressor's own."""
    learning_rate: float | None = None
    """Highest step of the training's optimiser; default: the regressor's own."""
    schedule: Literal["one-cycle", "constant"] = "one-cycle"
    """Learning rate up and down again in one cycle; or warmed up and then kept."""
    synthetic: Path | None = None
    """Folder of synthetic people (HMR: of rendered cases); default: bare bodies, drawn on the fly (HMR: nobody)."""
    synthetic_share: float = 0.75
    """Share of synthetic people in each batch of a training, where there are both these and photos."""
    losses: LossWeights = field(default_factory=LossWeights)
    """What counts how much in the training on photos."""
    dsr_after: float = 0.2
    """Share of the steps before the rendered losses begin."""
    precision: Literal["bf16-mixed", "32"] = "bf16-mixed"
    """Of the network's layers in training."""
    threads: int | None = None
    """Of torch in training, on the CPU; default: torch's own choice."""

    def training(self) -> TrainSettings:
        """What every training has in common. Raises UsageError for numbers that can't work."""
        return TrainSettings(
            out=self.out,
            regressor=self.regressor,
            smpl_mean_params=self.smpl_mean_params,
            body=self.body,
            joint_regressor_extra=self.joint_regressor_extra,
            semantic_prior=self.semantic_prior,
            synthetic=self.synthetic,
            synthetic_share=self.synthetic_share,
            steps=self.steps,
            batch=self.train_batch,
            learning_rate=self.learning_rate,
            schedule=self.schedule,
            weights=self.losses,
            semantics=self.fit.semantics,
            dsr_after=self.dsr_after,
            seed=self.fit.seed,
            precision=self.precision,
            device=self.device,
            threads=self.threads,
        )

    def run(self) -> None:
        run_rounds(self)


def run_rounds(arguments: RoundsArguments, train: Train | None = None) -> None:
    """The work behind `dsr-fit rounds`; `train` another training than `dsr_fit.training.train`."""
    check(arguments)
    from dsr_fit.dataset.progress import reporting
    from dsr_fit.dataset.run import Resources
    from dsr_fit.training.rounds import Course

    plan = plan_of(arguments)
    if train is None:
        from dsr_fit.training.train import train as train_regressor

        train = partial(train_regressor, report=_say)
    resources = Resources(observers=arguments.perceivers, fitters=arguments.fitters)
    with reporting() as report:
        Course(plan, arguments.out.absolute(), train, resources, _say, report).run()
    sys.stdout.write((arguments.out / "table.md").read_text(encoding="utf-8"))


def plan_of(arguments: RoundsArguments) -> Plan:
    """What the options ask for; missing rendered people are generated. Raises InputError and UsageError."""
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
            "give --calibration 0, which learns from all fits alike"
        )
    rendered = _rendered_people(settings, arguments)
    findings = arguments.findings or arguments.out / "findings"
    folder = arguments.cases_dir or arguments.out / "cases"
    judged_on = range(arguments.first_seed, arguments.first_seed + arguments.cases)
    learnt_from = calibration_seeds(arguments.calibration)
    if set(judged_on) & set(learnt_from):
        raise UsageError(
            f"--first-seed {arguments.first_seed}: some of these people are among those of --calibration; "
            "choose seeds from 10000 on"
        )
    if judged_on and judged_on[-1] >= PAINTED_SEED:
        raise UsageError(
            f"--first-seed {arguments.first_seed}: people from {PAINTED_SEED} on are those that regressors learn from; "
            "choose seeds below"
        )
    photos = None
    if arguments.photos is not None:
        numbers = ccp.photo_numbers(arguments.photos, "val")[: arguments.photo_limit]
        photos = photo_source(arguments.photos, findings / "photos", numbers)
        _check_apart(source, photos.source)
    if rendered:
        write_cases(folder, [*judged_on, *learnt_from])
    return Plan(
        photos=CachedSource(source, findings / "source"),
        fit=settings,
        train=training,
        rounds=arguments.rounds,
        arms=arms_of(arguments.arms),
        arm_rounds=arguments.arm_rounds,
        sets=EvaluationSets(photos, case_source(folder, judged_on, findings / "cases") if judged_on else None),
        calibration=case_source(folder, learnt_from, findings / "cases") if learnt_from else None,
        accept=arguments.accept or None,
    )


def _check_apart(learnt_from: Source, judged_on: Source) -> None:
    """Raises UsageError where photos are to be learnt from that regressors are judged on."""
    theirs, ours = ({each.images / entry.imgname for entry in each.entries} for each in (judged_on, learnt_from))
    common = {path.resolve() for path in theirs} & {path.resolve() for path in ours}
    if common:
        raise UsageError(
            f"{len(common)} photos of SOURCE are among those that are judged on, {min(common).name} for one; "
            "leave out the photos whose numbers end in 6"
        )


def _rendered_people(settings: Settings, arguments: RoundsArguments) -> bool:
    """Whether rendered people take part. Raises UsageError where the body is another than theirs, or can't be trained.

    Their truth is the open body's.
    """
    from dsr_fit.regressor.kinematic import KinematicRegressor

    wanted = arguments.cases > 0 or arguments.calibration > 0
    if wanted and settings.body_path() is not None:
        raise UsageError("rendered people have the open body; with another --body give --cases 0 --calibration 0")
    if isinstance(settings.fitter().regressor, KinematicRegressor):
        raise UsageError("the kinematic regressor has no weights to train; name another with --regressor")
    return wanted


def check(arguments: RoundsArguments) -> None:
    """What can be refused before anything is read."""
    arguments.check_focal()
    arms_of(arguments.arms)
    for name in ("rounds", "arm_rounds", "photo_limit", "perceivers", "fitters"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} {value}: at least 1")
    for name in ("cases", "calibration", "first_seed"):
        if getattr(arguments, name) < 0:
            raise UsageError(f"--{name.replace('_', '-')} {getattr(arguments, name)}: 0 or more")
    if not (0 <= arguments.accept <= 1 and math.isfinite(arguments.accept)):
        raise UsageError(f"--accept {arguments.accept:g}: a share of the fits, between 0 and 1")
    if arguments.arm_rounds > arguments.rounds:
        raise UsageError(f"--arm-rounds {arguments.arm_rounds}: no more than --rounds, {arguments.rounds}")
    if arguments.camera != "full":
        raise UsageError("--camera: rounds are fitted and judged in the image's own camera; leave the option out")
    if arguments.gate is not None:
        raise UsageError("--gate: each round calibrates its own; leave the option out")
    if arguments.photos is None and arguments.cases == 0:
        raise UsageError("nothing to judge a regressor on: give --photos, or --cases above 0")
    if arguments.out.exists() and not arguments.out.is_dir():
        raise UsageError(f"--out {arguments.out}: is a file; name a folder")
    arguments.training()
    if find_spec("lightning") is None:
        raise InputError("training needs Lightning: pip install 'dsr-fit[train]'")
    for option, path in (("photos", arguments.photos), ("synthetic", arguments.synthetic)):
        if path is not None and not path.is_dir():
            raise InputError(f"--{option} {path}: no such folder")


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
