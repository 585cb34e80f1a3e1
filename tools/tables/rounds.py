"""What rounds of pseudo-labels make of a regressor, against control arms: `benchmarks/results/rounds.json`.

That is the `table.json` that `dsr-fit rounds` writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
        cells = [_mean(found[table].get(title)) for title, table in ESTIMATES.items()]
        rows.append(_row([_title(name, found), *cells]))
    return "\n".join(rows)


def rounds_differences() -> str:
    """Differences of estimates person by person, with their intervals: what improved, and over which arm."""
    return _differences(ESTIMATES)


def rounds_fits() -> str:
    """Differences of the fits that start from the estimates."""
    return _differences(FITS)


def _differences(figures: Mapping[str, str]) -> str:
    measured = result("rounds")
    rows = [_head("difference", figures)]
    for found in measured["differences"]:
        names = [_title(found[side], measured["regressors"][found[side]]) for side in ("of", "to")]
        cells = [_interval(found[table].get(title)) for title, table in figures.items()]
        rows.append(_row([" - ".join(names), *cells]))
    return "\n".join(rows)


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
    """In bold where 0 lies outside."""
    if value is None:
        return ""
    if value["low"] is None:
        return f"{value['mean']:+.2f}"
    text = f"{value['mean']:+.2f} [{value['low']:+.2f}, {value['high']:+.2f}]"
    return f"**{text}**" if value["low"] > 0 or value["high"] < 0 else text
