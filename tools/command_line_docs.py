"""Write the tables of options in docs/command_line.md from the code: run it after a change of any option.

    python tools/command_line_docs.py

A table stands between `<!-- options: NAME -->` and `<!-- end -->`; NAME is a command, or `configuration` for the
settings that every command that fits has in common.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import tyro

from dsr_fit.cli.main import COMMANDS, default_of
from dsr_fit.cli.options import FitterArguments
from dsr_fit.config import FitConfig

PAGE = Path(__file__).resolve().parents[1] / "docs" / "command_line.md"
KINDS: dict[str, type] = {
    "configuration": FitConfig,
    **{name: kind for name, kind in COMMANDS.items() if name not in ("evaluate ablation", "completion")},
}
"""`evaluate ablation` takes what `evaluate clothed` does, `completion` no options."""


def options(kind: type) -> dict[str, tuple[str, str]]:
    """Option -> what it takes, and its help with its default."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tyro builds argparse's parser for those who ask, and says that it is slow
        parser: Any = tyro.extras.get_parser(kind, default=FitConfig() if kind is FitConfig else default_of(kind))
    actions = [action for action in parser._actions if action.option_strings and action.dest != "help"]
    return {action.option_strings[0]: (_takes(action), _help(action)) for action in actions}


def table(name: str) -> str:
    """The rows of one command; the configuration's, for commands that fit, are in a table of their own."""
    shared = set(options(FitConfig)) if issubclass(KINDS[name], FitterArguments) else set()
    lines = ["| option | what |", "| --- | --- |"]
    for option, (takes, text) in options(KINDS[name]).items():
        if option not in shared:
            shown = f"{option} {takes}".strip().replace("|", "\\|")
            lines.append(f"| `{shown}` | {text.replace('|', chr(92) + '|')} |")
    return "\n".join(lines)


def rewritten(page: str) -> str:
    """The page with every table made anew."""
    pattern = re.compile(r"(<!-- options: ([a-z ]+) -->\n).*?(\n<!-- end -->)", re.DOTALL)
    return pattern.sub(lambda found: found[1] + table(found[2]) + found[3], page)


def _help(action: Any) -> str:
    """The option's docstring with its default, if that is a value."""
    return re.sub(r" *\(default: (None)?\)", "", " ".join((action.help or "").split()))


def _takes(action: Any) -> str:
    if action.nargs == 0:
        return f"| {action.option_strings[-1]}"
    if action.choices:
        return "|".join(map(str, action.choices))
    return str(action.metavar or "").replace("{None}|", "")


if __name__ == "__main__":
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
