"""The human parser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tables.results import result

PARSERS = {"rules": "the earlier rule-based parser", "open": "network"}
"""Those without a result have no column."""


def parser() -> str:
    """The shipped parser beside the one it replaced."""
    measured = result("parser")
    names, rows = _columns(measured["parsers"])

    def row(title: str, value: Callable[[dict[str, Any]], float], form: str = ".3f") -> None:
        cells = (format(value(measured["parsers"][name]), form) for name in names)
        rows.append(f"| {title} | {' | '.join(cells)} |")

    row("person, IoU", lambda figures: figures["person_iou"])
    row("DSR-C's 4 classes, mean IoU", lambda figures: figures["paper4_iou"])
    row("DSR-C's 8 classes, mean IoU", lambda figures: figures["code8_iou"])
    row("DSR-MC's 5 labels, mean IoU", lambda figures: figures["mc_iou"])
    row("pasted second person: share with a label", lambda figures: figures["second_person_leak"], ".1%")
    row("pasted occluder: recall", lambda figures: figures["pasted_occluder"]["recall"], ".2f")
    row("pasted occluder: precision", lambda figures: figures["pasted_occluder"]["precision"], ".2f")
    row("annotated bags: recall", lambda figures: figures["occluder_recall"], ".2f")
    row("milliseconds an image, 2 threads", lambda figures: figures["median_ms"], ".0f")
    return "\n".join([*rows, "", f"{measured['photos']} photos; {measured['machine']['processor']}."])


def parser_labels() -> str:
    """IoU of each label and class."""
    measured = result("parser")["parsers"]
    names, rows = _columns(measured)
    for group in ("label_iou", "code8_by_class", "paper4_by_class"):
        for name in measured["open"][group]:
            cells = (measured[which][group][name] for which in names)
            title = name if group == "label_iou" else f"{name} ({group.split('_')[0]})"
            rows.append(f"| {title} | {' | '.join('-' if cell is None else f'{cell:.2f}' for cell in cells)} |")
    return "\n".join(rows)


def _columns(measured: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The parsers that were measured, and the head of a table with a column for each."""
    names = [name for name in PARSERS if name in measured]
    return names, [f"| | {' | '.join(PARSERS[name] for name in names)} |", "| --- " * (len(names) + 1) + "|"]
