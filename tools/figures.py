"""Write the measured figures into README.md and docs/ from the committed benchmark results.

    python tools/figures.py

A table stands between `<!-- figures: NAME -->` and `<!-- end -->`; a test holds the pages to the results.
"""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGES = ("README.md", "docs/terms.md", "priors/semantic/README.md")
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
    "photos": photos,
    "clothed": clothed,
    "speed": speed,
    "semantic_labels": semantic_labels,
    "semantic_fits": semantic_fits,
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
