"""The command line: `dsr-fit COMMAND ...`; `dsr-fit IMAGE ...` is short for `dsr-fit fit IMAGE ...`."""

from __future__ import annotations

import atexit
import difflib
import gc
import logging
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, NoReturn

import tyro

from dsr_fit.cli.batch import BatchArguments
from dsr_fit.cli.checks import check, check_idle_settings
from dsr_fit.cli.completion import Shell, print_completion
from dsr_fit.cli.ending import ended, silenced
from dsr_fit.cli.evaluate import AblationArguments, ClothedArguments, SpinArguments
from dsr_fit.cli.export import ExportArguments
from dsr_fit.cli.fit import FitArguments
from dsr_fit.cli.info import InfoArguments
from dsr_fit.cli.prior import BuildArguments
from dsr_fit.cli.rounds import RoundsArguments
from dsr_fit.cli.train import TrainArguments
from dsr_fit.cli.train_parser import TrainParserArguments
from dsr_fit.config import load_config
from dsr_fit.errors import UsageError


@dataclass(frozen=True)
class CompletionArguments:
    """Print the script that completes commands and options in a shell."""

    shell: tyro.conf.Positional[Shell]
    """bash, zsh or fish."""

    def run(self) -> None:
        print_completion(self.shell, COMMANDS)


COMMANDS: dict[str, type] = {
    "fit": FitArguments,
    "batch": BatchArguments,
    "export": ExportArguments,
    "train": TrainArguments,
    "train parser": TrainParserArguments,
    "rounds": RoundsArguments,
    "evaluate clothed": ClothedArguments,
    "evaluate ablation": AblationArguments,
    "evaluate spin": SpinArguments,
    "prior build": BuildArguments,
    "info": InfoArguments,
    "completion": CompletionArguments,
}
"""Name -> options, and what runs with them (`run`, which may return an exit status of `dsr_fit.cli.ending`)."""

HELP = {"-h", "--help"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return the exit status (`dsr_fit.cli.ending`)."""
    words = list(sys.argv[1:] if argv is None else argv)
    # Torch's threads spin while they wait; beside other busy programs that makes a fit ten times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Starting up makes a million objects that stay; to look through them again and again takes a tenth of a fit's time.
    gc.set_threshold(100_000)
    return ended(lambda: _run(words))


def command() -> NoReturn:
    """`main`, as a process of its own that then ends at once.

    Python would first take apart all that torch and numba have made, which takes longer than to measure a person.
    """
    status = main()
    atexit._run_exitfuncs()  # temporary folders, workers, logs
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)


def _run(words: list[str]) -> int | None:
    logging.basicConfig(format="dsr-fit: %(message)s", level=logging.WARNING)
    arguments = parse(words)
    check(arguments)
    with silenced() if getattr(arguments, "quiet", False) else nullcontext():
        return arguments.run()


def parse(argv: list[str]) -> Any:
    """The options of the command that the words name.

    Raises UsageError for a command that isn't there and words too many, and SystemExit after a help text or a message
    of tyro's.
    """
    first = argv[0] if argv else "--help"
    group = [name for name in COMMANDS if name.startswith(f"{first} ")]
    if first == "--version":
        sys.stdout.write(f"dsr-fit {version('dsr-fit')}\n")
        raise SystemExit(0)
    if first in COMMANDS and " ".join(argv[:2]) not in COMMANDS:
        group = []
    if first in HELP or (group and (len(argv) == 1 or argv[1] in HELP)):
        _overview(group or list(COMMANDS))
        raise SystemExit(0 if HELP & set(argv[:2]) else 2)
    name, words = (first, argv[1:]) if first in COMMANDS else ("fit", argv)
    if group:
        name, words = " ".join(argv[:2]), argv[2:]
        if name not in COMMANDS:
            known = [name.split()[1] for name in group]
            raise UsageError(
                f"`dsr-fit {first}` has no {argv[1]!r}; {_meant(argv[1], known)}choose one of {', '.join(known)}"
            )
    elif name != first and not (first.startswith("-") or {".", os.sep} & set(first) or os.path.lexists(first)):
        meant = _meant(first, {name.split()[0] for name in COMMANDS})
        raise UsageError(f"{first}: no such command or image; {meant}`dsr-fit --help` lists the commands")
    default = default_of(COMMANDS[name], _value_of(words, "--config"))
    arguments = _parsed(name, words, default)
    if default is not None:
        check_idle_settings(arguments.fit, default.fit)
    return arguments


def _parsed(name: str, words: list[str], default: Any) -> Any:
    given: dict[str, Any] = {"args": words, "default": default, "prog": f"dsr-fit {name}"}
    arguments, unknown = tyro.cli(COMMANDS[name], return_unknown_args=True, **given)
    if not unknown:
        return arguments
    if not any(word.startswith("-") for word in unknown):
        remedy = "; to fit several images give their folder, or a list of them (.txt), to `dsr-fit batch`"
        raise UsageError(f"{' '.join(unknown)}: more than `dsr-fit {name}` takes{remedy if name == 'fit' else ''}")
    return tyro.cli(COMMANDS[name], **given)  # which says what it doesn't know, and what is like it


def _meant(word: str, known: Iterable[str]) -> str:
    """`did you mean ...? ` where a known word is much like the given one, else nothing."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"did you mean `{close[0]}`? " if close else ""


def _overview(names: list[str]) -> None:
    """List commands. Not tyro's list of subcommands, for which it first makes every command's parser."""
    usages = ("IMAGE --out mesh.obj", "COMMAND ...", "--version")
    lines = [f"{'       ' if number else 'usage: '}dsr-fit {usage}" for number, usage in enumerate(usages)]
    lines += ["", "commands:"]
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
