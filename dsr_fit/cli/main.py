"""The command line: one function per command. `dsr-fit IMAGE ...` is short for `dsr-fit fit IMAGE ...`."""

from __future__ import annotations

import logging
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import tyro

from dsr_fit.cli.batch import BatchArguments, run_batch
from dsr_fit.cli.options import NO_GATE, FitterArguments
from dsr_fit.config import FitConfig, load_config
from dsr_fit.errors import DsrFitError, InputError, UsageError
from dsr_fit.io.files import BESIDE_MESH, MESH_SUFFIXES


@dataclass(frozen=True, kw_only=True)
class FitArguments(FitterArguments):
    """Fit a body to one person of one image; writes a mesh, and its .npz, .json and .png beside it."""

    image: tyro.conf.Positional[Path]
    """The photo."""
    out: Path
    """Mesh to write: .obj, .ply, .stl or .glb."""
    keypoints: Path | None = None
    """Keypoints instead of the detector's: OpenPose, COCO or MediaPipe .json, or an earlier mesh.npz."""
    labels: Path | None = None
    """Label map instead of the parser's: Graphonomy colours or indices, .png or .npy, of the image's size."""
    label_scheme: Literal["lip", "atr"] = "lip"
    """What the indices in --labels mean: LIP's 20 labels (Graphonomy, SCHP), or ATR's 18."""
    bbox: str | None = None
    """Look for the person in this box only: x,y,w,h in pixels."""
    person: int = 0
    """Which person, from 0: by size for detections, in the file's order for keypoint files."""
    obj_frame: Literal["upright", "camera"] = "upright"
    """Mesh frame: y up and the pelvis at the origin, or the image's camera frame."""


def fit(argv: list[str]) -> None:
    """Fit a body to one person of one image."""
    preset = _value_of(argv, "--config")
    default = FitConfig() if preset is None else load_config(preset)
    arguments = tyro.cli(FitArguments, args=argv, default=_with_default(default), prog="dsr-fit fit")
    run_fit(arguments)


def run_fit(arguments: FitArguments) -> None:
    """The work behind `dsr-fit fit`; heavy imports happen here, so that `--help` stays quick."""
    _check_out(arguments.out, [arguments.image, arguments.keypoints, arguments.labels])
    _check_labels(arguments)
    bbox = _parse_bbox(arguments.bbox)
    arguments.check_focal()

    from dsr_fit.gate.gate import Gate
    from dsr_fit.observe.parser import load_parser
    from dsr_fit.observe.perception import Inputs, Perception

    fitter = arguments.settings().fitter()
    gate = Gate.of(fitter, arguments.gate)
    parser = None if arguments.labels else load_parser(arguments.parser, arguments.parsing_protocol)
    perception = Perception(parser=parser)
    inputs = Inputs(
        arguments.keypoints, arguments.labels, arguments.label_scheme, bbox, arguments.person, arguments.focal
    )
    observation = perception.observe(arguments.image, inputs)
    result = fitter.fit([observation])[0]
    result = replace(result, verdict=gate.judge(result))
    result.save(arguments.out, arguments.obj_frame)
    _summarise(arguments.out, result.metrics, result.stop_reason, result.verdict.quality)


def batch(argv: list[str]) -> None:
    """Fit every person of a data set, and go on where an earlier run was stopped."""
    preset = _value_of(argv, "--config")
    default = FitConfig() if preset is None else load_config(preset)
    start = BatchArguments(source=tyro.MISSING, out=tyro.MISSING, fit=default)
    run_batch(tyro.cli(BatchArguments, args=argv, default=start, prog="dsr-fit batch"))


def export(argv: list[str]) -> None:
    """Write the results of `dsr-fit batch` in a trainer's format: SPIN, EFT, WebDataset, COCO, Graphonomy."""
    from dsr_fit.cli.export import export as run_export

    run_export(argv)


def train(argv: list[str]) -> None:
    """Train a regressor on fitted people in photos, on synthetic people, or on both."""
    from dsr_fit.cli.train import train_from

    train_from(argv)


def rounds(argv: list[str]) -> None:
    """Improve a regressor by its own fits, round by round, and compare it with control arms."""
    from dsr_fit.cli.rounds import RoundsArguments, run_rounds

    preset = _value_of(argv, "--config")
    default = FitConfig() if preset is None else load_config(preset)
    start = RoundsArguments(source=tyro.MISSING, out=tyro.MISSING, fit=default)
    run_rounds(tyro.cli(RoundsArguments, args=argv, default=start, prog="dsr-fit rounds"))


def info(argv: list[str]) -> None:
    """Show versions, backends, and which assets are found and how to set the missing ones."""
    tyro.cli(_nothing, args=argv, prog="dsr-fit info", description=info.__doc__)
    from dsr_fit.cli.info import print_info

    print_info()


def evaluate(argv: list[str]) -> None:
    """Measure fits against known truth."""
    from dsr_fit.evaluate.commands import EVALUATIONS

    _second_word("evaluate", "nothing to evaluate", EVALUATIONS, argv)


def prior(argv: list[str]) -> None:
    """Make priors from your own data."""
    from dsr_fit.priors.commands import PRIORS

    _second_word("prior", "nothing to do with priors", PRIORS, argv)


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "fit": fit,
    "batch": batch,
    "export": export,
    "train": train,
    "rounds": rounds,
    "evaluate": evaluate,
    "prior": prior,
    "info": info,
}


def _second_word(command: str, nothing: str, choices: dict[str, Callable[[list[str]], None]], argv: list[str]) -> None:
    """Run what the word after a command names, or list what can be named."""
    if not argv or argv[0] in ("-h", "--help"):
        lines = [f"usage: dsr-fit {command} WHAT ...", "", "what:"]
        lines += [f"  {name:8} {(run.__doc__ or '').splitlines()[0]}" for name, run in choices.items()]
        sys.stdout.write("\n".join(lines) + "\n")
        raise SystemExit(0 if argv else 2)
    if argv[0] not in choices:
        raise UsageError(f"{nothing} is called {argv[0]!r}; choose one of {', '.join(choices)}")
    choices[argv[0]](argv[1:])


def main(argv: list[str] | None = None) -> int:
    """Run a command and return the exit status: 0, 1 (input or fit failed) or 2 (wrong usage)."""
    argv = sys.argv[1:] if argv is None else argv
    # Torch's threads spin while they wait; beside other busy programs that makes a fit ten times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logging.basicConfig(format="dsr-fit: %(message)s", level=logging.WARNING)
    try:
        if not argv or argv[0] in ("-h", "--help"):
            _overview()
            return 0 if argv else 2
        command, rest = (argv[0], argv[1:]) if argv[0] in COMMANDS else ("fit", argv)
        COMMANDS[command](rest)
    except DsrFitError as error:
        sys.stderr.write(f"dsr-fit: {error}\n")
        return error.exit_status
    except SystemExit as finished:  # tyro ends the process itself, after --help and on unknown options
        return int(finished.code or 0)
    except KeyboardInterrupt:
        sys.stderr.write("dsr-fit: interrupted\n")
        return 130
    return 0


def _overview() -> None:
    lines = ["usage: dsr-fit IMAGE --out mesh.obj", "       dsr-fit COMMAND ...", "", "commands:"]
    lines += [f"  {name:8} {(command.__doc__ or '').splitlines()[0]}" for name, command in COMMANDS.items()]
    lines += [
        "",
        "`dsr-fit COMMAND --help` lists a command's options. The first word may be left out for `fit`.",
    ]
    sys.stdout.write("\n".join(lines) + "\n")


def _summarise(out: Path, metrics: dict[str, dict[str, float]], stop_reason: str, quality: float | None) -> None:
    after = {name: values["after"] for name, values in metrics.items()}
    judged = f"no quality: {NO_GATE}" if quality is None else f"quality {quality:.2f}"
    sys.stdout.write(
        f"{out}: keypoint error {after['keypoint_error_px']:.1f} px "
        f"({100 * after['keypoint_error_rel']:.2f} % of the person), "
        f"containment {after['containment']:.3f}, {stop_reason}; {judged}\n"
    )


def _nothing() -> None:
    pass


def _with_default(config: FitConfig) -> FitArguments:
    """Arguments whose configuration starts from `config`; the positional ones stay required."""
    return FitArguments(image=tyro.MISSING, out=tyro.MISSING, fit=config)


def _value_of(argv: list[str], option: str) -> str | None:
    """The value of an option that decides the defaults of the others."""
    for index, word in enumerate(argv):
        if word == option and index + 1 < len(argv):
            return argv[index + 1]
        if word.startswith(option + "="):
            return word.split("=", 1)[1]
    return None


def _parse_bbox(text: str | None) -> tuple[float, float, float, float] | None:
    if text is None:
        return None
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--bbox {text}: expected x,y,w,h in pixels, such as 120,40,200,480") from None
    if not (width > 0 and height > 0):
        raise UsageError(f"--bbox {text}: width and height must be positive")
    return x, y, width, height


def _check_labels(arguments: FitArguments) -> None:
    """A label map's file and a parser's options exclude each other."""
    if arguments.labels is None and arguments.label_scheme != "lip":
        raise UsageError(f"--label-scheme {arguments.label_scheme} says what --labels holds; give that too")
    if arguments.labels is not None and (arguments.parser != "open" or arguments.parsing_protocol != "fast"):
        raise UsageError("--labels takes the place of a parser; leave --parser and --parsing-protocol out")


def _check_out(out: Path, inputs: Sequence[Path | None] = ()) -> None:
    """Find out before the work that its four files can be written, and that none replaces an input."""
    if out.suffix not in MESH_SUFFIXES:
        raise UsageError(f"--out {out}: the suffix must be one of {', '.join(MESH_SUFFIXES)}")
    folder = out.parent
    if not folder.is_dir():
        raise InputError(f"--out {out}: there is no folder {folder}; make it first")
    for path in (out.with_suffix(suffix) for suffix in (out.suffix, *BESIDE_MESH)):
        if path.is_dir():
            raise InputError(f"--out {out}: {path} is a folder; choose another name")
        if path.exists() and any(given is not None and given.exists() and path.samefile(given) for given in inputs):
            raise UsageError(f"--out {out}: would overwrite the input {path}; choose another name")
    try:
        # Root, read-only mounts and virtual file systems: only trying tells.
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"--out {out}: the folder {folder} can't be written ({reason}); choose another") from None
