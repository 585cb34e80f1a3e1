"""Which stages of a folder are finished: `stages.json`, written so that a kill leaves the old one or the new one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dsr_fit.errors import InputError
from dsr_fit.io.files import replacing

NAME = "stages.json"

Marks = dict[str, dict[str, Any]]
"""Stage -> what it told, `seconds` among it."""


def read_marks(folder: Path) -> Marks:
    """The finished stages of a folder, and what each told. Raises InputError for a damaged file."""
    path = folder / NAME
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}: can't be read ({' '.join(str(error).split())}); use another --out") from None


def write_marks(folder: Path, marks: Marks) -> None:
    """Keep what is finished."""
    write_json(folder / NAME, marks)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """The whole file or none. Raises InputError when the disk doesn't take it."""
    with replacing(path, durable=True) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
