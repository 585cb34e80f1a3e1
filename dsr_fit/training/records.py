"""JSON files beside a training or its rounds: the settings that it was begun with, and what is finished."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from dsr_fit.dataset.manifest import differences
from dsr_fit.errors import InputError, UsageError, one_line
from dsr_fit.io.files import replacing


def read_record(path: Path) -> dict[str, Any] | None:
    """The content, or None without the file. Raises InputError for a damaged one."""
    if not path.exists():
        return None
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}: can't be read ({one_line(error)}); choose another --out") from None


def write_record(path: Path, content: dict[str, Any]) -> None:
    """The whole file or none. Raises InputError if it can't be written."""
    with replacing(path, durable=True) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def check_record(path: Path, settings: dict[str, Any]) -> bool:
    """Whether the file exists. Raises UsageError where it holds other settings, which can't be resumed with these."""
    try:
        known = read_record(path)
    except InputError:
        logging.getLogger("dsr_fit").warning("%s is damaged; it is written again with the settings given now", path)
        return False
    if known is not None and known != settings:
        changed = "; ".join(differences(known, settings))
        raise UsageError(f"--out {path.parent}: was begun with other settings ({changed}); choose another --out")
    return known is not None
