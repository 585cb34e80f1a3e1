"""Do people stand who stand, and what becomes of what is not in the picture?"""

from __future__ import annotations

from typing import Any

from dsr_fit.evaluate.tables import cell, is_significant, table
from tables.results import result

SEEN = ("with 3D", "keypoints alone")


TAKEN = "taken for a detector's"
WAYS = (("with 3D", "as shipped"), (f"with 3D, {TAKEN}", TAKEN), ("keypoints alone", "as shipped"))
"""Title, and link of the chain; the first word of the title is what was seen."""


def standing() -> str:
    """Knees and elbows of bodies seen by their own exact points, and how people in photos stand."""
    measured = result("upright")
    ways = {title: measured[title.split(",")[0]][link] for title, link in WAYS}
    lines = [f"| true flexion, degrees | {' | '.join(ways)} |", "| --- " * (1 + len(ways)) + "|"]
    for limb in ("knee", "elbow"):
        for name in measured[SEEN[0]]["as shipped"][limb]["bins"]:
            cells = []
            for found in ways.values():
                one = found[limb]["bins"][name]
                cells.append(f"{one['median_error']:.1f} ({one['bias']:+.1f})")
            lines.append(f"| {limb}, {name.replace('-', ' to ')} | {' | '.join(cells)} |")
        slopes = [f"{found[limb]['slope']:.2f}" for found in ways.values()]
        lines.append(f"| {limb}, slope | {' | '.join(slopes)} |")
    trunks = [f"{found['standing']['trunk_error_median']:.1f}" for found in ways.values()]
    lines.append(f"| trunk of who stands, median error | {' | '.join(trunks)} |")
    photos = result("photos")
    street = photos["variants"]["default"]["uprightness"]
    note = (
        f"{measured['people']} bodies, half of them standing: median error (bias), and slope of fitted against true "
        f"flexion. Of {photos['photos']['fitted']} people in validation photos the straighter knee is bent by "
        f"{street['straighter_knee']:.1f} degrees (median), trunk and legs lean towards the camera by "
        f"{street['trunk_lean']:.1f} and {street['legs_lean']:.1f} on average. In {street['with_horizon']} of them "
        f"bystanders show the horizon: the cameras look down by {street['camera_pitch']:.1f} degrees on average, and "
        f"against gravity trunk and legs lean by {street['trunk_upright']:.1f} and {street['legs_upright']:.1f}."
    )
    return "\n".join([*lines, "", note])


def standing_links() -> str:
    """What each link of the chain, set right or left out by itself, does to the knees of those who stand."""
    measured = result("upright")
    lines = [
        f"| | {' | '.join(f'{how}: knees of those who stand, bias | slope of all knees' for how in SEEN)} |",
        "| --- " * 5 + "|",
    ]
    for name, found in measured[SEEN[0]].items():
        if "standing" in found:
            both = [measured[how][name] for how in SEEN]
            cells = [f"{one['standing']['knee_bias']:+.1f} | {one['knee']['slope']:.2f}" for one in both]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


WHO = ("estimate", "fit")
ERRORS = {"pve": "PVE, mm", "pa_mpjpe": "PA-MPJPE, mm", "t_pose_pve_sc": "T-pose PVE, scale removed, mm"}
KINDS = {
    "whole": "whole",
    "knees": "cut at the knees",
    "thighs": "cut at the thighs",
    "waist": "cut at the waist",
    "counter": "behind a counter",
}


def change(difference: dict[str, Any]) -> str:
    """A paired difference, bold where its interval excludes 0."""
    text = cell(difference)
    return f"**{text}**" if is_significant(difference) else text


def standing_whole() -> str:
    """Errors of standing and of ordinary people through the whole pipeline, estimate and fit."""
    groups = result("standing")["groups"]
    rows, bends = [], []
    for group, found in groups.items():
        for name, title in ERRORS.items():
            one = found["errors"][name]
            rows.append([group, title, *(cell(one[who]) for who in WHO), change(one["difference"])])
        leans = [found["trunk"][who] for who in WHO]
        for key, title in (("error", "trunk, error"), ("tilt_bias", "trunk's angle to gravity, bias")):
            rows.append([group, f"{title}, deg", *(f"{one[key]:.1f}" for one in leans), ""])
        for limb in ("knee", "elbow"):
            slopes = [found[limb][who]["slope"] for who in WHO]
            rows.append([group, f"slope of found against true flexion, {limb}s", *(f"{one:.2f}" for one in slopes), ""])
            for name, one in found[limb]["fit"]["bins"].items():
                if one["count"]:
                    both = [found[limb][who]["bins"][name] for who in WHO]
                    cells = [f"{each['bias']:+.1f}, {each['error']:.1f}" for each in both]
                    bends.append([group, f"{limb}, {name.replace('-', ' to ')}", str(one["count"]), *cells])
    counts = "; ".join(f"{group}: {found['found']} found, {found['missed']} not" for group, found in groups.items())
    return "\n".join([
        table(["people", "", *WHO, "difference"], rows),
        "",
        table(["people", "true flexion, degrees", "joints", *(f"{who}: bias, mean error" for who in WHO)], bends),
        "",
        f"{counts[0].upper()}{counts[1:]}.",
    ])  # fmt: skip


def cropped() -> str:
    """What is seen of cropped people, against the whole picture."""
    rows, bones = [], []
    for group, kinds in result("cropped")["groups"].items():
        for kind, title in KINDS.items():
            found = kinds[kind]
            shown = found["joints that every cut shows"]
            differences = ["" if kind == "whole" else change(shown[who]["difference_mm"]) for who in WHO]
            means = [f"{shown[who]['error_mm']['mean']:.1f}" for who in WHO]
            rows.append([
                group, title, f"{found['found']} of {found['found'] + found['missed']}", str(shown["people"]),
                means[0], differences[0], means[1], differences[1],
            ])  # fmt: skip
            for bone, states in found["segments"].items():
                for state, one in states.items():
                    if state == "unseen" or kind == "whole":
                        cells = [f"{one[who]['error']:.1f} ({one[who]['tilt_bias']:+.1f})" for who in WHO]
                        bones.append([group, title, f"{bone}, {state}", str(one["count"]), *cells])
    return "\n".join([
        table(
            ["people", "picture", "found", "compared", "estimate, mm", "to the whole picture", "fit, mm",
             "to the whole picture"],
            rows,
        ),
        "",
        table(["people", "picture", "", "count", *(f"{who}: error (bias of tilt), deg" for who in WHO)], bones),
    ])  # fmt: skip


def cropped_rotations() -> str:
    """Expected against true errors of rotations that are seen and of those that are not."""
    rows = []
    for group, kinds in result("cropped")["groups"].items():
        for kind, title in KINDS.items():
            for state, found in kinds[kind].get("rotations", {}).items():
                cells = [f"{found[who]['error_deg']:.1f}, x{found[who]['ratio']:.2f}" for who in WHO]
                within = f"{100 * found['fit']['within_twice']:.0f} %"
                rows.append([group, title, state, f"{found['fit']['expected_deg']:.1f}", *cells, within])
    head = ["people", "picture", "joints", "expected, deg", *(f"{who}: true, over expected" for who in WHO),
            "fits within twice the expected"]  # fmt: skip
    return table(head, rows)
