"""Rounds with control arms: the same rounds, each differing in one thing, to see what it is that helps.

    python experiments/rounds/control_arms.py PHOTOS --rounds 3 --arms all --arm-rounds 3 --out DIR [...]

Takes all options of `dsr-fit rounds`, and runs those rounds first; DIR may be a folder of theirs. Each arm starts from
the same regressor and takes as many steps, with the same seeds, on the same photos and synthetic people.

    DIR/arms/NAME/round-K/                    as DIR/round-K; fits that an arm shares with the rounds lie there
    DIR/comparison.json, DIR/comparison.md    all regressors, and differences between them person by person
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import tyro
from comparison import Regressor, write_comparison

from dsr_fit.cli.main import default_of
from dsr_fit.cli.rounds import RoundsArguments, check, rounds_of
from dsr_fit.config import FitConfig
from dsr_fit.errors import DsrFitError, UsageError
from dsr_fit.training.rounds import START, Rounds, Train, round_folder
from dsr_fit.training.settings import TrainSettings

DSR_TERMS = ("dsr_mc", "dsr_c", "silhouette")
"""A fit's terms on the label map."""


@dataclass(frozen=True)
class Arm:
    """One way from a regressor to the next."""

    description: str
    """For the table."""
    fit_without: tuple[str, ...] = ()
    """Weights of the fit that are 0."""
    uses_fits: bool = True
    """Else trained on the photos' keypoints alone: all other losses on photos are 0."""
    gated: bool = True
    """Trained on accepted fits only, weighted by quality; else on all alike."""

    def fit(self, config: FitConfig) -> FitConfig:
        """The configuration of its fits."""
        return replace(config, weights=replace(config.weights, **dict.fromkeys(self.fit_without, 0.0)))

    def train(self, settings: TrainSettings) -> TrainSettings:
        """The settings of its training."""
        if not self.gated:
            settings = replace(settings, gate="all", by_quality=False)
        if self.uses_fits:
            return settings
        others = [field.name for field in fields(settings.weights) if field.name != "keypoints"]
        return replace(settings, weights=replace(settings.weights, **dict.fromkeys(others, 0.0)))

    def shares_fits(self, number: int) -> bool:
        """Whether it takes the fits of the rounds' first round: there all arms have the same regressor, and training on
        keypoints needs no newer fits later."""
        return not self.fit_without and (number == 1 or not self.uses_fits)


ROUNDS = Arm("pseudo-labels of DSR fits, the best accepted")

ARMS: dict[str, Arm] = {
    "keypoints": Arm("the photos' keypoints, no pseudo-labels", uses_fits=False, gated=False),
    "keypoint-fits": Arm("pseudo-labels of fits to keypoints alone, the best accepted", fit_without=DSR_TERMS),
    "ungated": Arm("pseudo-labels of all DSR fits alike", gated=False),
}


@dataclass(frozen=True, kw_only=True)
class ControlArmsArguments(RoundsArguments):
    """Rounds as `dsr-fit rounds` runs them, control arms, and a comparison; the same command resumes."""

    arms: str = "all"
    """Control arms, separated by commas: keypoints, keypoint-fits, ungated; or all, or none."""
    arm_rounds: int = 1
    """Rounds of each arm."""

    def run(self) -> None:
        run_control_arms(self)


def run_control_arms(arguments: ControlArmsArguments, train: Train | None = None) -> None:
    """The work behind the command; `train` replaces `dsr_fit.training.train.train`."""
    check(arguments)
    arms = arms_of(arguments.arms)
    if arguments.arm_rounds < 1:
        raise UsageError(f"--arm-rounds {arguments.arm_rounds}: at least 1")
    if arguments.arm_rounds > arguments.rounds:
        raise UsageError(f"--arm-rounds {arguments.arm_rounds}: no more than --rounds, {arguments.rounds}")
    with rounds_of(arguments, train) as rounds:
        compare(rounds, arms, arguments.arm_rounds)
    sys.stdout.write((arguments.out / "comparison.md").read_text(encoding="utf-8"))


def compare(rounds: Rounds, arms: Sequence[str], arm_rounds: int) -> dict[str, Any]:
    """Run the rounds and so many rounds of each arm, and return the comparison."""
    rounds.run()
    with rounds.opened():
        regressors = dict.fromkeys(arms, rounds.plan.fit.regressor_name())
        for number in range(1, arm_rounds + 1):
            for name, regressor in regressors.items():
                regressors[name] = _arm_round(rounds, name, number, regressor)
        return write_comparison(rounds.out, {"rounds": ROUNDS.description, **_descriptions()}, trained(rounds.out))


def _arm_round(rounds: Rounds, name: str, number: int, regressor: str | None) -> str:
    """One round of an arm from a regressor; returns the path of the next."""
    arm, plan = ARMS[name], rounds.plan
    return rounds.round(
        f"{name}, round {number}",
        arm_folder(rounds.out, name, number),
        number,
        regressor,
        replace(plan.fit, config=arm.fit(plan.fit.config)),
        arm.train(plan.train),
        round_folder(rounds.out, 1) if arm.shares_fits(number) else None,
    )


def arm_folder(out: Path, name: str, number: int) -> Path:
    """The folder of an arm's round."""
    return round_folder(out / "arms" / name, number)


def trained(out: Path) -> list[Regressor]:
    """The regressors of a folder, those of the rounds first."""
    found = [Regressor(START, out / START, 0)]
    for arm in ("", *ARMS):
        parent = out / "arms" / arm if arm else out
        numbers = sorted(int(path.name.removeprefix("round-")) for path in parent.glob("round-*"))
        title = f"{arm}, round" if arm else "round"
        found += [Regressor(f"{title} {number}", round_folder(parent, number), number, arm) for number in numbers]
    return found


def arms_of(text: str) -> tuple[str, ...]:
    """Names separated by commas, `all` or `none`. Raises UsageError for others."""
    if text in ("all", "none"):
        return tuple(ARMS) if text == "all" else ()
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    unknown = [name for name in names if name not in ARMS]
    if unknown:
        raise UsageError(f"--arms: no arm is called {unknown[0]!r}; there are {', '.join(ARMS)}, or all, or none")
    return names


def _descriptions() -> dict[str, str]:
    return {name: arm.description for name, arm in ARMS.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Run, and return the exit status, as `dsr-fit` does."""
    argv = list(sys.argv[1:] if argv is None else argv)
    config = argv[argv.index("--config") + 1] if "--config" in argv[:-1] else None
    try:
        tyro.cli(ControlArmsArguments, args=argv, default=default_of(ControlArmsArguments, config)).run()
    except DsrFitError as error:
        sys.stderr.write(f"control_arms: {error}\n")
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
