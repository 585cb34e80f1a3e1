"""What rounds of pseudo-labels make of a regressor, against control arms: `benchmarks/results/rounds.json`.

That is the `comparison.json` of `experiments/rounds/control_arms.py`. Priors and parser made anew with the last fits:
`from_fits.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dsr_fit.evaluate.tables import is_significant
from tables.results import result

PHOTOS, PEOPLE = "estimates on photos", "estimates of rendered people"
FITS_ON_PHOTOS, FITS_OF_PEOPLE = "fits on photos", "fits of rendered people"

ESTIMATES = {
    "keypoint error, % of the box": PHOTOS,
    "IoU with bare skin, %": PHOTOS,
    "containment, %": PHOTOS,
    "implausible joints, %": PHOTOS,
    "area over the clothed person's, %": PHOTOS,
    "PA-MPJPE, mm": PEOPLE,
    "PVE, mm": PEOPLE,
    "T-pose PVE, scale removed, mm": PEOPLE,
    "orientation, deg": PEOPLE,
}
"""Figure -> the table that it is from."""

FITS = {
    "iterations": FITS_ON_PHOTOS,
    "energy": FITS_ON_PHOTOS,
    "keypoint error, % of the box": FITS_ON_PHOTOS,
    "IoU with bare skin, %": FITS_ON_PHOTOS,
    "area over the clothed person's, %": FITS_ON_PHOTOS,
    "PVE, mm": FITS_OF_PEOPLE,
    "T-pose PVE, scale removed, mm": FITS_OF_PEOPLE,
}
FROM_FITS = {
    "keypoint_error_rel": ("photos", "keypoint error, % of the box"),
    "mc_iou": ("photos", "IoU with bare skin, %"),
    "containment": ("photos", "containment, %"),
    "pa_mpjpe": ("cases", "PA-MPJPE, mm"),
    "pve": ("cases", "PVE, mm"),
    "t_pose_pve_sc": ("cases", "T-pose PVE, scale removed, mm"),
}
ANEW = {
    "semantic prior": "semantic prior, counted on fits made anew",
    "pose prior": "pose prior, learned from the fits' poses",
    "parser, annotated photos": "parser, further on annotated photos",
    "parser, fits besides": "parser, on fitted photos besides",
}
ARMS = {
    "keypoints": "keypoints alone",
    "keypoint-fits": "fits to keypoints",
    "ungated": "all DSR fits",
}


def rounds() -> str:
    """Each regressor's own estimates: means, medians in brackets."""
    measured = result("rounds")["regressors"]
    rows = [_head("regressor", ESTIMATES)]
    for name, found in measured.items():
        if name not in _shown():
            continue
        cells = [_mean(found[table].get(title)) for title, table in ESTIMATES.items()]
        rows.append(_row([_title(name, found), *cells]))
    return "\n".join(rows)


def rounds_differences() -> str:
    """Differences of estimates person by person, with their intervals: what improved, and over which arm."""
    return _differences(ESTIMATES)


def rounds_fits() -> str:
    """Differences of the fits that start from the estimates."""
    return _differences(FITS)


def from_fits() -> str:
    """Fits with one piece made anew after the last round: differences to what ships, person by person."""
    measured = result("from_fits")["variants"]
    titles = [title for _, title in FROM_FITS.values()]
    head = ["piece", *titles, "labels: DSR-C's 8 classes, mean IoU"]
    rows = [_row(head), _row(["---"] * len(head))]
    ships = measured["ships"]
    means = [_mean(ships[kind][name]) for name, (kind, _) in FROM_FITS.items()]
    rows.append(_row(["what ships, mean (median)", *means, f"{ships['parser']['code8_iou']:.3f}"]))
    for name, title in ANEW.items():
        if name not in measured:
            continue
        found = measured[name]
        cells = [_interval(found[kind][metric]["difference"]) for metric, (kind, _) in FROM_FITS.items()]
        rows.append(_row([title, *cells, f"{found['parser']['code8_iou']:.3f}"]))
    return "\n".join(rows)


def _differences(figures: Mapping[str, str]) -> str:
    measured = result("rounds")
    rows = [_head("difference", figures)]
    for found in measured["differences"]:
        if not {found["of"], found["to"]} <= _shown():
            continue
        names = [_title(found[side], measured["regressors"][found[side]]) for side in ("of", "to")]
        cells = [_interval(found[table].get(title)) for title, table in figures.items()]
        rows.append(_row([" - ".join(names), *cells]))
    return "\n".join(rows)


def _shown() -> set[str]:
    """The rounds, and each arm's last one."""
    last: dict[str, tuple[int, str]] = {}
    for name, found in result("rounds")["regressors"].items():
        arm = name if found["arm"] == "rounds" else found["arm"]
        last[arm] = max(last.get(arm, (-1, "")), (found["round"], name))
    return {name for _, name in last.values()}


def _title(name: str, found: Mapping[str, Any]) -> str:
    """What a regressor is called."""
    if found["arm"] == "rounds":
        return name
    return f"{ARMS[found['arm']]}, round {found['round']}"


def _head(first: str, figures: Mapping[str, str]) -> str:
    return "\n".join([_row([first, *figures]), _row(["---"] * (1 + len(figures)))])


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _mean(value: Mapping[str, Any] | None) -> str:
    return "" if value is None else f"{value['mean']:.2f} ({value['median']:.2f})"


def _interval(value: Mapping[str, Any] | None) -> str:
    """In bold where it is significant."""
    if value is None:
        return ""
    if value["low"] is None:
        return f"{value['mean']:+.2f}"
    text = f"{value['mean']:+.2f} [{value['low']:+.2f}, {value['high']:+.2f}]"
    return f"**{text}**" if is_significant(value) else text
