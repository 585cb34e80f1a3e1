"""`dsr-fit evaluate`: fits measured against known truth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dsr_fit.cli.checks import Folder, check_out
from dsr_fit.cli.progress import tracked
from dsr_fit.errors import UsageError
from dsr_fit.evaluate import REPORTING_SEED, PerceptionKind
from dsr_fit.model_files import ModelFiles

if TYPE_CHECKING:
    from dsr_fit.config import FitConfig


@dataclass(frozen=True)
class ClothedArguments:
    """Fit rendered clothed people whose bodies are known, and say how far off the fits are."""

    out: Path
    """Report to write: .json; the table goes beside it as .md."""
    cases_dir: Path
    """Folder of the cases; missing ones are generated. Start with an empty one after an upgrade."""
    cases: int = 300
    """How many people."""
    first_seed: int = REPORTING_SEED
    """Seed of the first one; figures that settings were chosen on are from seeds near 0."""
    perception: PerceptionKind = "perfect"
    """`perfect`: true labels and visible keypoints, with noise; `whole`: detector and parser on the picture."""
    noise: float = 0.005
    """Noise of perfect keypoints: standard deviation an axis, over the keypoints' box."""
    config: str | None = None
    """A preset's name or a YAML file with the fit's configuration."""
    quiet: bool = False
    """Print nothing but errors."""

    def run(self) -> None:
        from dsr_fit.config import load_config

        _evaluate(self, {"default": load_config(self.config)})


@dataclass(frozen=True)
class AblationArguments(ClothedArguments):
    """The same people fitted with every combination of terms, compared case by case."""

    def run(self) -> None:
        from dsr_fit.config import load_config
        from dsr_fit.evaluate.clothed_report import variants

        _evaluate(self, variants(load_config(self.config)))


@dataclass(frozen=True)
class SpinArguments(ModelFiles):
    """Fit the people of a dataset in SPIN's .npz format and compare them with its ground truth."""

    data: Path
    """The dataset: SPIN's .npz."""
    images: Folder
    """Folder that the dataset's image names are relative to."""
    out: Path
    """Report to write: .json; the table goes beside it as .md."""
    protocol: Literal[14, 17] = 14
    """Joints compared: the 14 common ones (Human3.6M, 3DPW), or 17 (MPI-INF-3DHP)."""
    truth: Literal["auto", "joints", "bodies"] = "auto"
    """True joints: `S` as stored, or SMPL posed by pose, shape and gender; auto: bodies where there are genders."""
    keypoints: Literal["part", "detector"] = "part"
    """2D keypoints: the dataset's `part` where it has them, or always the detector's in the row's box."""
    every: int = 1
    """Evaluate only every so many rows."""
    focal: float | None = None
    """Focal length of all images in pixels; default: from EXIF, else each image's diagonal."""
    body_male: Path | None = None
    """Official male SMPL, for ground truth with genders."""
    body_female: Path | None = None
    """Official female SMPL, for ground truth with genders."""
    joint_regressor_h36m: Path | None = None
    """J_regressor_h36m.npy, which gives the protocol's joints of SMPL's vertices."""
    config: str | None = None
    """A preset's name or a YAML file with the fit's configuration."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the fit runs; `auto` is the best that works."""
    quiet: bool = False
    """Print nothing but errors."""

    def run(self) -> None:
        from dsr_fit.cli.evaluate_spin import evaluate_spin

        evaluate_spin(self)


def _evaluate(arguments: ClothedArguments, configs: dict[str, FitConfig]) -> None:
    """Fit the same people with each configuration, and report the errors."""
    _check(arguments)
    from rich.console import Console

    from dsr_fit.body.files import load_body
    from dsr_fit.evaluate import tables
    from dsr_fit.evaluate.benchmark import observe_cases, run
    from dsr_fit.evaluate.clothed_report import markdown, report
    from dsr_fit.fitting.fitter import Fitter
    from dsr_fit.synthetic.dataset import write_cases

    seeds = range(arguments.first_seed, arguments.first_seed + arguments.cases)
    write_cases(arguments.cases_dir, tracked(seeds, "generating"))
    observed = observe_cases(arguments.cases_dir, seeds, arguments.perception, arguments.noise)
    seen = list(tracked(observed, "looking", len(seeds)))
    body = load_body()
    values = {}
    for name, config in configs.items():
        fitted = run(Fitter(body, config), arguments.cases_dir, seen)
        count = sum(item.observation is not None for item in seen)
        values[name] = tables.columns(list(tracked(fitted, name, count)))
    about = {name: getattr(arguments, name) for name in ("first_seed", "perception", "noise")}
    found = report(arguments.cases_dir, about, configs, seen, values)
    text = markdown(found)
    tables.write_report(arguments.out, found, text)
    Console(width=160, soft_wrap=True, markup=False, highlight=False).print(text, end="")


def _check(arguments: ClothedArguments) -> None:
    if arguments.cases < 1:
        raise UsageError(f"--cases {arguments.cases}: at least 1")
    if not 0 <= arguments.noise < 1:
        raise UsageError(f"--noise {arguments.noise}: a share of the keypoints' box, such as 0.005")
    check_out(arguments, [".json"], beside=[arguments.out.with_suffix(".md")])
