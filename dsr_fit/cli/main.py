"""The command line: `dsr-fit COMMAND ...`; `dsr-fit IMAGE ...` is short for `dsr-fit fit IMAGE ...`."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from typing import Any

import tyro

from dsr_fit.cli.batch import BatchArguments
from dsr_fit.cli.evaluate import AblationArguments, ClothedArguments, SpinArguments
from dsr_fit.cli.export import ExportArguments
from dsr_fit.cli.fit import FitArguments
from dsr_fit.cli.info import InfoArguments
from dsr_fit.cli.prior import BuildArguments
from dsr_fit.cli.rounds import RoundsArguments
from dsr_fit.cli.train import TrainArguments
from dsr_fit.config import load_config
from dsr_fit.errors import DsrFitError, UsageError

COMMANDS: dict[str, type] = {
    "fit": FitArguments,
    "batch": BatchArguments,
    "export": ExportArguments,
    "train": TrainArguments,
    "rounds": RoundsArguments,
    "evaluate clothed": ClothedArguments,
    "evaluate ablation": AblationArguments,
    "evaluate spin": SpinArguments,
    "prior build": BuildArguments,
    "info": InfoArguments,
}
"""Name -> options, and what runs with them (`run`)."""

HELP = {"-h", "--help"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status: 0, 1 (input or fit failed) or 2 (wrong usage)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    # Torch's threads spin while they wait; beside other busy programs that makes a fit ten times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logging.basicConfig(format="dsr-fit: %(message)s", level=logging.WARNING)
    try:
        return parse(argv).run() or 0
    except DsrFitError as error:
        sys.stderr.write(f"dsr-fit: {error}\n")
        return error.exit_status
    except SystemExit as finished:  # tyro ends the process itself, after --help and on unknown options
        return int(finished.code or 0)
    except KeyboardInterrupt:
        sys.stderr.write("dsr-fit: interrupted\n")
        return 130


def parse(argv: list[str]) -> Any:
    """The options of the command that the words name.

    Raises UsageError for a command that isn't there, and SystemExit after a help text or a message of tyro's.
    """
    first = argv[0] if argv else "--help"
    group = [name for name in COMMANDS if name.startswith(f"{first} ")]
    if first in HELP or (group and (len(argv) == 1 or argv[1] in HELP)):
        _overview(group or list(COMMANDS))
        raise SystemExit(0 if HELP & set(argv[:2]) else 2)
    name, words = (first, argv[1:]) if first in COMMANDS else ("fit", argv)
    if group:
        name, words = " ".join(argv[:2]), argv[2:]
        if name not in COMMANDS:
            known = ", ".join(name.split()[1] for name in group)
            raise UsageError(f"`dsr-fit {first}` has no {argv[1]!r}; choose one of {known}")
    default = default_of(COMMANDS[name], _value_of(words, "--config"))
    return tyro.cli(COMMANDS[name], args=words, default=default, prog=f"dsr-fit {name}")


def _overview(names: list[str]) -> None:
    """List commands. Not tyro's list of subcommands, for which it first makes every command's parser."""
    lines = ["usage: dsr-fit IMAGE --out mesh.obj", "       dsr-fit COMMAND ...", "", "commands:"]
    lines += [f"  {name:17}  {(COMMANDS[name].__doc__ or '').splitlines()[0]}" for name in names]
    lines += ["", "`dsr-fit COMMAND --help` lists a command's options; without a command, `fit` is meant."]
    sys.stdout.write("\n".join(lines) + "\n")


def default_of(kind: type, config: str | None = None) -> Any:
    """Where a command's options start from: for one that takes a fit's settings, those of a preset or a file."""
    with_config = getattr(kind, "with_config", None)
    return None if with_config is None else with_config(load_config(config))


def _value_of(argv: list[str], option: str) -> str | None:
    """The value of an option that decides the defaults of the others."""
    for index, word in enumerate(argv):
        if word == option and index + 1 < len(argv):
            return argv[index + 1]
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return None
