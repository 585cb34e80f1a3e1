"""What the regressor's estimates are worth, and what each mode makes of them."""

from __future__ import annotations

from tables.results import result

MODES = {
    "initial": "the regressor's estimate",
    "smplify": "`smplify` (default)",
    "eft": "`eft`",
    "eft+smplify": "`eft+smplify`",
    "kinematic initial": "kinematic estimate",
    "kinematic, smplify": "`smplify` from it",
    "smplify, pose ranges": "`smplify`, pose prior written by hand",
    "smplify, one outfit": "`smplify`, one semantic prior for all outfits",
}


def regressor() -> str:
    """Estimates on unseen rendered people, by what the network is told."""
    measured = result("regressor")
    rows = [
        "| told | MPJPE | PA-MPJPE, mean (median) | T-pose error, scale removed | orientation |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name, found in measured["told"].items():
        rows.append(
            f"| {name} | {found['mpjpe']['mean']:.0f} mm | {found['pa_mpjpe']['mean']:.0f} mm "
            f"({found['pa_mpjpe_median']:.0f}) | {found['t_pose_pve_sc']['mean']:.1f} mm "
            f"| {found['orientation_deg']['mean']:.0f} deg |"
        )
    everything = measured["told"]["all that the detector says"]
    spread, times = everything["spread"], measured["milliseconds"]
    expected = everything["expected_error"]
    rows += [
        "",
        f"{measured['cases']} people, {measured['found']} of whom the detector found; `betas` = 0 has a T-pose error "
        f"of {everything['t_pose_pve_sc_mean_shape']['mean']:.1f} mm. Expected and found rotation errors rank alike: "
        f"Spearman's ρ {spread['rank_correlation_joints']:.2f} over joints, "
        f"{spread['rank_correlation_people']:.2f} over people, {spread['rank_correlation_orientation']:.2f} for the "
        f"orientation; {expected['rank_correlation']:.2f} for the joints' expected and found error. "
        f"An estimate takes {times['batch of 16']:.1f} ms a person in batches of 16, "
        f"{times['batch of 1']:.1f} ms alone.",
    ]
    return "\n".join(rows)


def modes() -> str:
    """Photos and rendered people through the whole pipeline, mode by mode."""
    measured = result("modes")
    rows = [
        "| photos | keypoint error, % of the box | IoU with bare skin | containment | implausible joints | a person |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, title in MODES.items():
        found = measured["variants"][name]["photos"]
        rows.append(
            f"| {title} | {100 * found['keypoint_error_rel']:.2f} | {found['mc_iou']:.3f} | {found['containment']:.3f} "
            f"| {100 * found['implausible_joints']:.1f} % | {found['seconds']:.2f} s |"
        )
    rows += [
        "",
        "| rendered people | MPJPE | PA-MPJPE | PVE, mean (median) | T-pose error, scale removed | PVE under 80 mm |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, title in MODES.items():
        found = measured["variants"][name]["cases"]
        mean = {metric: value["mean"] for metric, value in found["mean"].items()}
        rows.append(
            f"| {title} | {mean['mpjpe']:.0f} mm | {mean['pa_mpjpe']:.0f} mm | {mean['pve']:.0f} mm "
            f"({found['median_pve']:.0f}) | {mean['t_pose_pve_sc']:.1f} mm | {100 * found['right']:.0f} % |"
        )
    photos, cases = measured["photos"], measured["cases"]
    return "\n".join(
        [
            *rows,
            "",
            f"{photos['fitted']} validation photos, judged against their annotation (medians); {cases['fitted']} "
            f"rendered people that the detector found among {cases['asked']}, seeds from {cases['first_seed']}.",
        ]
    )


def eft() -> str:
    """How far and how fast EFT goes on photos."""
    measured = result("eft")
    found = measured["choices"]["default"]
    batches, alone = found["in batches"], found["alone"]
    error = batches["keypoint_error_rel"]
    return (
        f"On {batches['people']} validation photos the energy of all terms falls to "
        f"{100 * batches['energy_ratio_median']:.0f} % (median) in {batches['iterations']:.0f} iterations on average, "
        "of at most 40, "
        f"the keypoint error from {100 * error['before']:.2f} to {100 * error['after']:.2f} % of the box; "
        f"{batches['seconds']:.2f} s a person in batches of 16, {alone['seconds']:.2f} s alone, on "
        f"{measured['threads']} {'thread' if measured['threads'] == 1 else 'threads'}. "
        "`smplify`, which is bound to no network, takes the energy to "
        f"{100 * measured['smplify']['energy_ratio_median']:.0f} %."
    )
