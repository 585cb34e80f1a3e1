"""The script that completes commands and options in a shell."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Mapping
from typing import Literal

Shell = Literal["bash", "zsh", "fish"]

OURS = {
    # Any other word than an option or a command is a file's name, such as an image.
    "for completion in completions:": "for completion in completions or ['__TYRO_COMPLETE_FILES__']:",
    # bash: of the word itself, which tyro joins to those before it; folders get their slash.
    'compgen -f -- "$cur"': 'compgen -f -- "${COMP_WORDS[COMP_CWORD]}"',
    "complete -F": "complete -o filenames -F",
    # fish: files beside options.
    "complete --no-files": "complete",
}
"""Changes of tyro's scripts."""


def print_completion(shell: Shell, commands: Mapping[str, type]) -> None:
    """Print tyro's script for `dsr-fit`; a command of two words, such as `prior build`, is one of a group."""
    from tyro.extras import SubcommandApp

    app, groups = SubcommandApp(), {}
    for name, kind in commands.items():
        group, _, rest = name.rpartition(" ")
        if group and group not in groups:
            groups[group] = SubcommandApp()
            app.command(groups[group], name=group)
        groups.get(group, app).command(kind, name=rest)
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):  # tyro's way to end
        app.cli(prog="dsr-fit", args=["--tyro-print-completion", shell])
    script = printed.getvalue()
    for tyros, ours in OURS.items():
        script = script.replace(tyros, ours)
    sys.stdout.write(script)
