"""Fits of photos and of rendered people, and what a fit costs."""

from __future__ import annotations

import statistics

from dsr_fit.evaluate.tables import cell, table
from tables.results import result

VARIANTS = {
    "keypoints": "keypoints only",
    "silhouette": "+ silhouette",
    "mc": "+ DSR-MC",
    "c": "+ DSR-C",
    "both": "+ both",
    "default": "+ both and a weak silhouette (default)",
}


def photos() -> str:
    """The ablation on annotated street photos."""
    measured = result("photos")
    rows = [
        "| terms | keypoint error, % of the box | containment | area | IoU with bare skin |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, title in VARIANTS.items():
        median = measured["variants"][name]["median"]
        rows.append(
            f"| {title} | {100 * median['keypoint_error_rel']:.2f} | {median['containment']:.3f} "
            f"| {median['area_ratio']:.3f} | {median['mc_iou']:.3f} |"
        )
    count = measured["photos"]
    return "\n".join([*rows, "", f"{count['fitted']} of {count['asked']} photos gave a mesh."])


LEARNED = {
    "default": "as shipped",
    "first semantic prior": "the semantic prior by rule",
    "first pose prior": "hand-written ranges of joints",
}


def learned() -> str:
    """The same photos without what was learned."""
    measured = result("photos")["variants"]
    rows = [
        "| with | keypoint error, % of the box | containment | IoU with bare skin | area | implausible joints |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, title in LEARNED.items():
        median, implausible = measured[name]["median"], measured[name]["implausible_joints"]
        rows.append(
            f"| {title} | {100 * median['keypoint_error_rel']:.2f} | {median['containment']:.3f} "
            f"| {median['mc_iou']:.3f} | {median['area_ratio']:.3f} | {100 * implausible:.1f} % |"
        )
    return "\n".join(rows)


def clothed() -> str:
    """The ablation on rendered people whose bodies are known."""
    measured = result("ablation")
    names = {**VARIANTS, "floor": "mean shape and pose", "c plain": "+ DSR-C, plain", "c released": "+ DSR-C, released"}
    rows = [
        "| terms | area inflation, mean (median) | T-pose error, scale removed | posed error (PVE) | IoU with body |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, title in names.items():
        mean = {metric: value["mean"] for metric, value in measured["variants"][name]["summary"].items()}
        middle = statistics.median(measured["values"][name]["area_inflation"])
        rows.append(
            f"| {title} | {mean['area_inflation']:+.1f} % ({middle:+.1f}) | {mean['t_pose_pve_sc']:.1f} mm "
            f"| {mean['pve']:.0f} mm | {mean['mask_iou']:.1f} % |"
        )
    return "\n".join([*rows, "", f"{measured['cases']} people, seeds from {measured['first_seed']}."])


def speed() -> str:
    """Seconds and memory of one fit, and an iteration's cost."""
    process, step = result("process"), result("step")
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


STARTS = {"under the same objective": "the same objective", "close to themselves": "each held to itself"}


def starts() -> str:
    """What the best of several starts of least squares would bring, by what picks it."""
    groups = result("starts")["groups"]
    head = ["picked by", *(f"{group['people']} people: {title}" for group in groups for title in STARTS.values())]
    rows = [
        [
            "the error itself" if pick.endswith("pa_mpjpe") else pick.removeprefix("picked by "),
            *(cell(group[kind][pick]["pa_mpjpe"]) for group in groups for kind in STARTS),
        ]
        for pick in groups[0]["close to themselves"]
        if pick.startswith("picked by")
    ]
    found = " and ".join(f"{group['one start']['pa_mpjpe']:.1f}" for group in groups)
    return f"{table(head, rows)}\n\nDifferences of PA-MPJPE in mm to one start, {found} mm."


def joint_scales() -> str:
    """What scales of each joint bring in least squares."""
    groups = result("joint_scales")["groups"]
    head = ["", *(f"{name}, mm" for _ in groups for name in ("PA-MPJPE", "PVE"))]
    rows = [
        [name, *(cell(group[kind][name][metric]) for group in groups for metric in ("pa_mpjpe", "pve"))]
        for kind in ("detector", "estimate")
        for name, change in groups[0][kind].items()
        if isinstance(change["pve"], dict)
    ]
    return table(head, rows)
