"""The human parser."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tables.results import result

PARSERS = {"before": "the parser before", "open": "ships", "paper": "ships, the paper's protocol"}
"""Those without a result have no column."""


def parser() -> str:
    """The shipped parser beside the one it replaced."""
    measured = result("parser")
    names, lines = _columns(measured)

    def cell(name: str, value: Callable[[dict[str, Any]], float], form: str) -> str:
        try:
            return format(value(measured[name]), form)
        except KeyError:  # measured on photos alone
            return "-"

    def row(title: str, value: Callable[[dict[str, Any]], float], form: str = ".3f") -> None:
        cells = (cell(name, value, form) for name in names)
        lines.append(f"| {title} | {' | '.join(cells)} |")

    for group, title in (("photos", "photos"), ("rendered", "rendered people")):
        for score, words in (
            ("person_iou", "person, IoU"),
            ("paper4_iou", "DSR-C's 4 classes, mean IoU"),
            ("code8_iou", "DSR-C's 8 classes, mean IoU"),
            ("mc_iou", "DSR-MC's 5 labels, mean IoU"),
        ):
            row(f"{title}: {words}", lambda figures, group=group, score=score: figures[group][score])
    row("pasted second person: share with a label", lambda figures: figures["photos"]["second_person_leak"], ".1%")
    row("pasted occluder: recall", lambda figures: figures["photos"]["pasted_occluder"]["recall"], ".2f")
    row("pasted occluder: precision", lambda figures: figures["photos"]["pasted_occluder"]["precision"], ".2f")
    row("annotated bags: recall", lambda figures: figures["photos"]["occluder_recall"], ".2f")
    row("CPU milliseconds a person beyond the detector", lambda figures: figures["photos"]["median_ms"], ".0f")
    one = measured["open"]
    people = f"{one['photos']['people']} photos; {one['rendered']['people']} rendered people, {one['missed']} not found"
    return "\n".join([*lines, "", f"{people}; {one['machine']['processor']}."])


def parser_labels() -> str:
    """IoU of each label and class, on photos and on rendered people."""
    measured = result("parser")
    names, lines = _columns(measured, ("photos", "rendered"))
    for group in ("label_iou", "code8_by_class", "paper4_by_class"):
        for name in measured["open"]["photos"][group]:
            pairs = ((which, data) for data in ("photos", "rendered") for which in names if data in measured[which])
            cells = (measured[which][data][group].get(name) for which, data in pairs)
            title = name if group == "label_iou" else f"{name} ({group.split('_')[0]})"
            lines.append(f"| {title} | {' | '.join('-' if cell is None else f'{cell:.2f}' for cell in cells)} |")
    return "\n".join(lines)


def parser_groups() -> str:
    """Rendered people by what may be hard about them."""
    measured = result("parser")
    lines = ["| rendered people | person, IoU | 4 classes, mean IoU |", "| --- | --- | --- |"]
    for name, scores in measured["open"]["rendered"]["groups"].items():
        lines.append(f"| {name} | {scores['person_iou']:.3f} | {scores['paper4_iou']:.3f} |")
    return "\n".join(lines)


def parser_sources() -> str:
    """Short trainings with other data or another encoder."""
    measured = result("parser_sources")
    columns = ("person_iou", "paper4_iou", "code8_iou", "mc_iou")
    lines = [
        "| | photos: person | 4 classes | 8 classes | MC labels | rendered: person | 4 classes | MC labels |",
        "| --- " * 8 + "|",
    ]
    for name, scores in measured["arms"].items():
        cells = [scores["photos"][column] for column in columns]
        cells += [scores["rendered"][column] for column in columns if column != "code8_iou"]
        lines.append(f"| {name} | {' | '.join(f'{cell:.3f}' for cell in cells)} |")
    held_out = measured["people"]["held out"]
    note = (
        f"{measured['steps']} steps of {measured['batch']} people each, from nothing; "
        f"{held_out['photos']} tuning photos, {held_out['rendered']} rendered people."
    )
    return "\n".join([*lines, "", note])


def _columns(measured: dict[str, Any], data: tuple[str, ...] = ("",)) -> tuple[list[str], list[str]]:
    """The parsers that were measured, and the head of a table with a column for each, on each set of data."""
    names = [name for name in PARSERS if name in measured]
    pairs = ((name, each) for each in data for name in names if not each or each in measured[name])
    titles = [f"{PARSERS[name]}{', ' * bool(each)}{each}" for name, each in pairs]
    return names, [f"| | {' | '.join(titles)} |", "| --- " * (len(titles) + 1) + "|"]
