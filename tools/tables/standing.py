"""Do people stand who stand?"""

from __future__ import annotations

from tables.results import result

SEEN = ("with 3D", "keypoints alone")


def standing() -> str:
    """Knees of bodies seen by their own exact points, and how people in photos stand."""
    measured = result("upright")
    bins = [measured[how]["as shipped"]["knee"]["bins"] for how in SEEN]
    lines = [
        f"| the knee's true flexion | {' | '.join(f'{how}: median error | bias' for how in SEEN)} |",
        "| --- " * 5 + "|",
    ]
    for name in bins[0]:
        cells = [f"{one[name]['median_error']:.1f} | {one[name]['bias']:+.1f}" for one in bins]
        lines.append(f"| {name.replace('-', ' to ')} degrees | {' | '.join(cells)} |")
    slopes = " and ".join(f"{measured[how]['as shipped']['knee']['slope']:.2f}" for how in SEEN)
    photos = result("photos")
    street = photos["variants"]["default"]["uprightness"]
    note = (
        f"{measured['people']} bodies, half of them standing; slope of fitted against true flexion {slopes}. Of "
        f"{photos['photos']['fitted']} people in validation photos the straighter knee is bent by "
        f"{street['straighter_knee']:.1f} degrees (median), trunk and legs lean towards the camera by "
        f"{street['trunk_lean']:.1f} and {street['legs_lean']:.1f} on average."
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
