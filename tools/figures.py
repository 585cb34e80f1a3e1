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
PAGES = ("README.md", "docs/terms.md", "docs/scale.md", "priors/quality/README.md")
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


def batch() -> str:
    """A whole data set on one machine."""
    result = _result("batch")
    whole, found, scaling = result["whole"], result["results"], result["scaling"]
    memory, stages = whole["memory_mb"], whole["stages_s_per_image"]
    rows = [
        f"| {result['machine']['processor']}, {result['machine']['cores']} cores; {whole['images']} photos | |",
        "| --- | --- |",
        f"| images a second, from file to written row | {whole['images_per_s']:.2f} |",
        f"| fitted | {found['fitted']} of {found['rows']} ({100 * found['fitted'] / found['rows']:.1f} %) |",
        f"| accepted by the quality gate | {whole['accepted']} |",
        f"| cores busy | {100 * whole['utilisation']:.0f} % |",
        f"| memory of all processes: first quarter, last quarter, peak | {memory['first_quarter'] / 1000:.2f}, "
        f"{memory['last_quarter'] / 1000:.2f}, {memory['peak'] / 1000:.2f} GB |",
        *(f"| {_STAGES[name]} | {1000 * stages[name]:.0f} ms an image |" for name in _STAGES),
        f"| two fitting processes instead of one | {scaling['speedup']:.2f} times as fast |",
        f"| storage | {found['bytes_per_row'] / 1000:.1f} kB a row |",
    ]
    return "\n".join(rows)


_STAGES = {"detect": "detection", "parse": "parsing", "fit": "fit", "write": "writing"}
MILLION = 1_000_000


def scale() -> str:
    """A million images, from the rate, the memory and the storage of the measured run."""
    result = _result("batch")
    whole, found, cores = result["whole"], result["results"], result["machine"]["cores"]
    hours = MILLION / whole["images_per_s_once_started"] / 3600
    stages = whole["stages_s_per_image"]
    seen = stages["detect"] + stages["parse"]
    rows = [
        "| a million images | |",
        "| --- | --- |",
        f"| this machine, {cores} cores | {hours:.0f} hours ({hours / 24:.1f} days) |",
        f"| 64 cores, if they are as fast | {hours * cores / 64:.1f} hours |",
        f"| 512 cores on a cluster | {hours * cores / 512:.1f} hours |",
        f"| storage | {MILLION * found['bytes_per_row'] / 1e9:.0f} GB in {-(-MILLION // 1024)} shards |",
        f"| memory of a machine of 64 cores | {whole['memory_mb']['peak'] / cores * 64 / 1000:.0f} GB, "
        "and 0.2 GB of names |",
        f"| rate at which the one process that writes is the limit | {1 / stages['write']:.0f} images a second |",
        f"| batches lost by a kill, 64 fitting processes | at most {2 * 64 + 2} of {-(-MILLION // 16)} |",
        f"| cores that look at images for one GPU that fits 50 a second | {50 * seen:.0f} |",
    ]
    return "\n".join(rows)


def gate() -> str:
    """How well the quality gate tells right fits from wrong ones."""
    found = json.loads((ROOT / "priors" / "quality" / "gate.json").read_text())
    told, learnt = found["report"], found["calibration"]
    at = told["at_threshold"]
    low, high = told["auc_interval"]
    rows = [
        "| | |",
        "| --- | --- |",
        f"| fits that it was learnt from, and share under {found['limit_mm']:.0f} mm | {learnt['fits']}, "
        f"{100 * learnt['right']:.0f} % |",
        f"| area under the ROC, held out in cross-validation | {learnt['auc_held_out']:.3f} |",
        f"| reported: fits, and share under {found['limit_mm']:.0f} mm | {told['fits']}, {100 * told['right']:.0f} % |",
        f"| reported: area under the ROC (95 %) | {told['auc']:.3f} ({low:.3f} to {high:.3f}) |",
        *(
            f"| the same order judged by {limit} | {value:.3f} |"
            for limit, value in told["auc_at_other_limits"].items()
        ),
        f"| threshold | {found['threshold']:.2f} |",
        f"| precision of {learnt['precision_asked']} reached in cross-validation | "
        f"{'yes' if learnt['precision_reached'] else 'no: the most precise threshold was taken'} |",
        f"| reported: accepted, precision, recall | {100 * at['accepted']:.0f} %, {_share(at['precision'])}, "
        f"{_share(at['recall'])} |",
    ]
    return "\n".join(rows)


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


FIGURES = {"photos": photos, "clothed": clothed, "speed": speed, "batch": batch, "scale": scale, "gate": gate}


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
