"""Write the measured figures into README.md and docs/ from the committed benchmark results.

    python tools/figures.py

A table stands between `<!-- figures: NAME -->` and `<!-- end -->`; a test holds the pages to the results.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/terms.md", "docs/parser.md", "priors/semantic/README.md")
VARIANTS = {
    "keypoints": "keypoints only",
    "silhouette": "+ silhouette",
    "mc": "+ DSR-MC",
    "c": "+ DSR-C",
    "default": "+ both (default)",
}


def _result(name: str) -> dict[str, Any]:
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())


def photos() -> str:
    """The ablation on annotated street photos."""
    result = _result("photos")
    rows = [
        "| terms | keypoint error, % of the box | containment | area | IoU with bare skin |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, title in VARIANTS.items():
        median = result["variants"][name]["median"]
        rows.append(
            f"| {title} | {100 * median['keypoint_error_rel']:.2f} | {median['containment']:.3f} "
            f"| {median['area_ratio']:.3f} | {median['mc_iou']:.3f} |"
        )
    count = result["photos"]
    return "\n".join([*rows, "", f"{count['fitted']} of {count['asked']} photos gave a mesh."])


def clothed() -> str:
    """The ablation on rendered people whose bodies are known."""
    result = _result("ablation")
    names = {**VARIANTS, "floor": "mean shape and pose", "c plain": "+ DSR-C, plain", "c released": "+ DSR-C, released"}
    rows = [
        "| terms | area inflation, mean (median) | T-pose error, scale removed | posed error (PVE) | IoU with body |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, title in names.items():
        mean = {metric: value["mean"] for metric, value in result["variants"][name]["summary"].items()}
        middle = statistics.median(result["values"][name]["area_inflation"])
        rows.append(
            f"| {title} | {mean['area_inflation']:+.1f} % ({middle:+.1f}) | {mean['t_pose_pve_sc']:.1f} mm "
            f"| {mean['pve']:.0f} mm | {mean['mask_iou']:.1f} % |"
        )
    return "\n".join([*rows, "", f"{result['cases']} people, seeds from {result['first_seed']}."])


def speed() -> str:
    """Seconds and memory of one fit, and an iteration's cost."""
    process, step = _result("process"), _result("step")
    median = process["median"]
    single, many = (
        next(row for row in step["steps"] if (row["images"], row["resolution"]) == (images, 224)) for images in (1, 16)
    )
    rows = [
        f"| {process['machine']['processor']}, {process['machine']['cores']} cores | |",
        "| --- | --- |",
        f"| `dsr-fit examples/person.png`, whole process | {median['process']:.1f} s |",
        f"| of which the fit | {median['fit']:.2f} s |",
        f"| peak memory | {median['peak_memory_mb'] / 1000:.2f} GB |",
        f"| one iteration at 224 px, all terms | {single['step_ms_per_image']:.1f} ms |",
        f"| the same in a batch of 16, per image | {many['step_ms_per_image']:.1f} ms |",
    ]
    return "\n".join(rows)


def parser() -> str:
    """The shipped parser beside the rules it replaced."""
    result = _result("parser")
    rows = ["| | rules | network |", "| --- | --- | --- |"]

    def row(title: str, value: Callable[[dict[str, Any]], float], form: str = ".3f") -> None:
        cells = (format(value(result["parsers"][name]), form) for name in ("rules", "open"))
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
    return "\n".join([*rows, "", f"{result['photos']} photos; {result['machine']['processor']}."])


def parser_labels() -> str:
    """IoU of each label and class."""
    result = _result("parser")["parsers"]
    rows = ["| | rules | network |", "| --- | --- | --- |"]
    for group in ("label_iou", "code8_by_class", "paper4_by_class"):
        for name in result["open"][group]:
            cells = (result[which][group][name] for which in ("rules", "open"))
            title = name if group == "label_iou" else f"{name} ({group.split('_')[0]})"
            rows.append(f"| {title} | {' | '.join('-' if cell is None else f'{cell:.2f}' for cell in cells)} |")
    return "\n".join(rows)


SEMANTIC = {"rules": "by rule", "average": "learned, average wardrobe", "outfits": "learned, by outfit (default)"}


def semantic_labels() -> str:
    """How well each semantic prior foretells annotated labels."""
    rows = ["| photos | prior | nats | top-1 |", "| --- | --- | --- | --- |"]
    for split, found in _result("semantic_prior")["labels"].items():
        title = {"tune": "tuning", "val": "validation"}[split]
        for name, prior in SEMANTIC.items():
            nats, top = found["priors"][name]["nats"], found["priors"][name]["top1"]
            rows.append(
                f"| {title}, {found['photos']} | {prior} "
                f"| {nats['mean']:.3f} ({nats['low']:.3f} to {nats['high']:.3f}) "
                f"| {top['mean']:.3f} ({top['low']:.3f} to {top['high']:.3f}) |"
            )
    return "\n".join(rows)


def semantic_fits() -> str:
    """Fits of the validation photos with each semantic prior."""
    rows = [
        "| prior | keypoint error, % of the box | `mc_iou` | `containment` | silhouette IoU |",
        "| --- | --- | --- | --- | --- |",
    ]
    found = _result("semantic_prior")["fits"]["val"]
    for name, prior in SEMANTIC.items():
        middle = {key: value["median"] for key, value in found[name].items() if key != "photos"}
        rows.append(
            f"| {prior} | {100 * middle['keypoint_error_rel']:.2f} | {middle['mc_iou']:.3f} "
            f"| {middle['containment']:.3f} | {middle['silhouette_iou']:.3f} |"
        )
    return "\n".join([*rows, "", f"{found['outfits']['photos']} photos."])


FIGURES = {
    table.__name__: table for table in (photos, clothed, speed, parser, parser_labels, semantic_labels, semantic_fits)
}


def filled(page: str) -> str:
    """The page with every table between its marks written anew."""

    def table(match: re.Match[str]) -> str:
        return f"<!-- figures: {match[1]} -->\n{FIGURES[match[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- figures: (\w+) -->.*?<!-- end -->", table, page, flags=re.DOTALL)


def main() -> None:
    for name in PAGES:
        path = ROOT / name
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
