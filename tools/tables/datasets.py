"""Whole data sets, and the quality gate."""

from __future__ import annotations

import json

from tables.results import ROOT, result

_STAGES = {"detect": "detection", "parse": "parsing", "fit": "fit", "write": "writing"}
MILLION = 1_000_000


def batch() -> str:
    """A whole data set on one machine."""
    measured = result("batch")
    whole, found, scaling = measured["whole"], measured["results"], measured["scaling"]
    memory, stages = whole["memory_mb"], whole["stages_s_per_image"]
    rows = [
        f"| {measured['machine']['processor']}, {measured['machine']['cores']} cores; {whole['images']} photos | |",
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


def scale() -> str:
    """A million images, from the rate, the memory and the storage of the measured run."""
    measured = result("batch")
    whole, found, cores = measured["whole"], measured["results"], measured["machine"]["cores"]
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
