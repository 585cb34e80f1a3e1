"""The script that completes commands and options in a shell."""

from __future__ import annotations

import contextlib
import io
import sys
from collections.abc import Mapping
from typing import Literal

Shell = Literal["bash", "zsh", "fish"]


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
    if shell == "bash":  # `dsr-fit photo.jpg` is short for `dsr-fit fit photo.jpg`: files after no command
        script = script.replace("complete -F", "complete -o default -F")
    sys.stdout.write(script)
