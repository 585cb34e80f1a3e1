"""What the outline's gradient is worth."""

from __future__ import annotations

from tables.results import result

METHODS = ("dense, dist", "dense, niou", "antialias, dist", "antialias, niou")


def outline_fits() -> str:
    """Fits of validation photos with either outline."""
    rows = ["| outline | median energy | iterations | containment, median |", "| --- | --- | --- | --- |"]
    found = result("outline_fits")
    for name, fit in found["fits"].items():
        energy, containment = fit["median_energy"], fit["median_containment"]
        rows.append(f"| {name} | {energy:.2f} | {fit['mean_iterations']:.0f} | {containment:.3f} |")
    lower, ratio = found["dense_over_antialias"]["share_lower"], found["dense_over_antialias"]["median_ratio"]
    told = f"The dense outline ends lower on {lower:.0%} of {found['photos']} photos, by {1 - ratio:.0%} in the median."
    return "\n".join([*rows, "", told.replace("%", " %")])


def coarse_to_fine() -> str:
    """Bodies that start beside their masks: median and worst of each method."""
    rows = [f"| | start | {' | '.join(METHODS)} |", "| --- " * (len(METHODS) + 2) + "|"]
    for start, by_method in result("coarse_to_fine")["results"].items():
        found = [by_method[name] for name in ("start", *METHODS)]
        rows.append(_row(f"{start}: joints, px", [one["joints_px"] for one in found], 1))
        rows.append(_row("mask IoU", [one["mask_iou"] for one in found], 2))
    return "\n".join(rows)


def _row(title: str, pairs: list[tuple[float, float]], digits: int) -> str:
    cells = [f"{middle:.{digits}f} ({worst:.{digits}f})" for middle, worst in pairs]
    return f"| {title} | {' | '.join(cells)} |"
