"""The ablation's variants, and the report of fits of people whose bodies are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dsr_fit.config import FitConfig, Semantics, to_dict
from dsr_fit.errors import UsageError
from dsr_fit.evaluate import tables
from dsr_fit.evaluate.benchmark import METRICS, ObservedCase
from dsr_fit.fitting.saving import versions
from dsr_fit.synthetic.dataset import read_case

SILHOUETTE = 10.0
"""Weight of the baseline, strong enough to be followed."""
STIFF = 1e4
"""Weight of priors that leave nothing but orientation and place."""
TAGS = ("looseness", "occluded", "second_person", "cropped", "view")
REFERENCES = ("keypoints", "silhouette")


def variants(config: FitConfig) -> dict[str, FitConfig]:
    """Name -> configuration: the floor that any claim must beat, then one term after the other."""

    def only(**weights: float) -> FitConfig:
        off = replace(config.weights, dsr_mc=0.0, dsr_c=0.0, silhouette=0.0)
        return replace(config, weights=replace(off, **weights))

    def forms(**changes: Any) -> FitConfig:
        return replace(only(dsr_c=c), semantics=replace(config.semantics, **changes))

    mc, c = config.weights.dsr_mc, config.weights.dsr_c
    stiff = replace(only().weights, betas=STIFF, pose=STIFF)
    if config.semantics != Semantics():
        raise UsageError("an ablation compares the default forms of the terms; leave `semantics` out of the --config")
    return {
        "floor": replace(config, weights=stiff, stages=()),
        "keypoints": only(),
        "silhouette": only(silhouette=SILHOUETTE),
        "mc": only(dsr_mc=mc),
        "c": only(dsr_c=c),
        "c plain": forms(c_form="plain"),
        "c plain, detached": forms(c_form="plain", c_normaliser="detached"),
        "c released": forms(c_form="released"),
        "both": only(dsr_mc=mc, dsr_c=c),
        "default": config,
    }


def report(
    cases_dir: Path,
    about: dict[str, Any],
    configs: dict[str, FitConfig],
    seen: Sequence[ObservedCase],
    values: dict[str, dict[str, list[float]]],
) -> dict[str, Any]:
    """The whole result of a run, fit for JSON; `about` says how the cases were chosen and observed."""
    judged = [item.seed for item in seen if item.observation is not None]
    cases = (read_case(cases_dir, seed) for seed in judged)
    tags = [{"seed": case.seed, **{name: getattr(case, name) for name in TAGS}} for case in cases]
    return {
        "cases": len(seen),
        **about,
        "missed": [{"seed": item.seed, "reason": item.reason} for item in seen if item.observation is None],
        "versions": versions(),
        "variants": {
            name: {
                "config": to_dict(configs[name]),
                "summary": tables.summary(columns),
                "differences": {
                    other: tables.differences(columns, values[other])
                    for other in REFERENCES
                    if other in values and other != name
                },
            }
            for name, columns in values.items()
        },
        "splits": {name: tables.splits(columns, tags) for name, columns in values.items()},
        "tags": tags,
        "values": values,
    }


def markdown(found: dict[str, Any]) -> str:
    """The report's tables."""
    told = {
        "perfect": f"true labels and visible keypoints, noise {100 * found['noise']:.1f} % of the box an axis",
        "whole": "detector and parser on the pictures",
    }[found["perception"]]
    count = found["cases"] - len(found["missed"])
    parts = [
        f"# Clothed people: {count} of {found['cases']} fitted, seeds from {found['first_seed']}",
        f"Perception: {told}. Means and 95 % bootstrap intervals.",
        tables.table(
            ["terms", *METRICS.values()],
            [
                [name, *(tables.cell(item["summary"][metric]) for metric in METRICS)]
                for name, item in found["variants"].items()
            ],
        ),
    ]
    for other in REFERENCES:
        rows = [
            [name, *(_difference(metric, item["differences"][other][metric]) for metric in METRICS)]
            for name, item in found["variants"].items()
            if other in item["differences"]
        ]
        if rows:
            parts += [f"Difference to `{other}`, case by case:", tables.table(["terms", *METRICS.values()], rows)]
    for name in [name for name in ("keypoints", "silhouette", "default") if name in found["splits"]]:
        groups = found["splits"][name]
        titles = [f"{METRICS[metric]}" for metric in tables.SPLIT_METRICS]
        rows = [
            [group, str(values["pve"]["count"]), *(tables.cell(values[metric]) for metric in tables.SPLIT_METRICS)]
            for group, values in groups.items()
        ]
        parts += [f"`{name}` by kind of picture:", tables.table(["pictures", "people", *titles], rows)]
    if found["missed"]:
        parts.append(f"Missed, and in no mean: {len(found['missed'])} people.")
    return "\n\n".join(parts) + "\n"


def _difference(metric: str, value: dict[str, Any]) -> str:
    """With its share in what it is the difference to, of what isn't a share itself."""
    share = value["percent"]
    return tables.cell(value) + ("" if share is None or METRICS[metric].endswith("%") else f" ({share:+.0f} %)")
