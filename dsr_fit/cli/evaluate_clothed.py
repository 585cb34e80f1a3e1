"""`dsr-fit evaluate clothed` and `dsr-fit evaluate ablation`: the fitter on people whose bodies are known."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.progress import track

from dsr_fit.body.files import load_body
from dsr_fit.config import FitConfig, Semantics, load_config, to_dict
from dsr_fit.errors import InputError, UsageError
from dsr_fit.evaluate import tables
from dsr_fit.evaluate.benchmark import METRICS, REPORTING_SEED, ObservedCase, PerceptionKind, observe_cases, run
from dsr_fit.fitting.fitter import Fitter
from dsr_fit.fitting.saving import versions
from dsr_fit.io.files import replacing
from dsr_fit.synthetic.dataset import read_case, write_cases

SILHOUETTE = 10.0
"""Weight of the baseline, strong enough to be followed."""
STIFF = 1e4
"""Weight of priors that leave nothing but orientation and place."""
TAGS = ("looseness", "occluded", "second_person", "cropped", "view")
REFERENCES = ("keypoints", "silhouette")


@dataclass(frozen=True)
class ClothedArguments:
    """Fit rendered clothed people whose bodies are known, and say how far off the fits are."""

    out: Path
    """Report to write: .json; the table goes beside it as .md."""
    cases_dir: Path
    """Folder of the cases; missing ones are generated. Start with an empty one after an upgrade."""
    cases: int = 300
    """How many people."""
    first_seed: int = REPORTING_SEED
    """Seed of the first one; figures that settings were chosen on are from seeds near 0."""
    perception: PerceptionKind = "perfect"
    """`perfect`: true labels and visible keypoints, with noise; `whole`: detector and parser on the picture."""
    noise: float = 0.005
    """Noise of perfect keypoints: standard deviation an axis, over the keypoints' box."""
    config: str | None = None
    """A preset's name or a YAML file with the fit's configuration."""


@dataclass(frozen=True)
class AblationArguments(ClothedArguments):
    """The same people fitted with every combination of terms, compared case by case."""


def clothed(argv: list[str]) -> None:
    """Parse the words after `dsr-fit evaluate clothed` and do what they ask."""
    arguments = tyro.cli(ClothedArguments, args=argv, prog="dsr-fit evaluate clothed")
    _evaluate(arguments, {"default": load_config(arguments.config)})


def ablation(argv: list[str]) -> None:
    """Parse the words after `dsr-fit evaluate ablation` and do what they ask."""
    arguments = tyro.cli(AblationArguments, args=argv, prog="dsr-fit evaluate ablation")
    _evaluate(arguments, variants(load_config(arguments.config)))


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


def _evaluate(arguments: ClothedArguments, configs: dict[str, FitConfig]) -> None:
    _check(arguments)
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.cases)
    console = Console(stderr=True)
    shown = {"console": console, "transient": True}
    write_cases(arguments.cases_dir, track(seeds, "generating", **shown))
    observed = observe_cases(arguments.cases_dir, seeds, arguments.perception, arguments.noise)
    seen = list(track(observed, "looking", len(seeds), **shown))
    body = load_body()
    values = {}
    for name, config in configs.items():
        fitted = run(Fitter(body, config), arguments.cases_dir, seen)
        count = sum(item.observation is not None for item in seen)
        values[name] = tables.columns(list(track(fitted, name, count, **shown)))
    found = report(arguments, configs, seen, values)
    with replacing(arguments.out) as temporary:
        temporary.write_text(json.dumps(found, allow_nan=False) + "\n", encoding="utf-8")
    text = markdown(found)
    with replacing(arguments.out.with_suffix(".md")) as temporary:
        temporary.write_text(text, encoding="utf-8")
    Console(width=160, soft_wrap=True, markup=False, highlight=False).print(text, end="")


def report(
    arguments: ClothedArguments,
    configs: dict[str, FitConfig],
    seen: Sequence[ObservedCase],
    values: dict[str, dict[str, list[float]]],
) -> dict[str, Any]:
    """All that is known about a benchmark's run, fit for JSON."""
    judged = [item.seed for item in seen if item.observation is not None]
    cases = (read_case(arguments.cases_dir, seed) for seed in judged)
    tags = [{"seed": case.seed, **{name: getattr(case, name) for name in TAGS}} for case in cases]
    return {
        "cases": len(seen),
        "first_seed": arguments.first_seed,
        "perception": arguments.perception,
        "noise": arguments.noise,
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
            [name, *(_difference(item["differences"][other][metric]) for metric in METRICS)]
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


def _difference(value: dict[str, Any]) -> str:
    share = "" if value["percent"] is None else f" ({value['percent']:+.0f} %)"
    return tables.cell(value) + share


def _check(arguments: ClothedArguments) -> None:
    if arguments.cases < 1:
        raise UsageError(f"--cases {arguments.cases}: at least 1")
    if not 0 <= arguments.noise < 1:
        raise UsageError(f"--noise {arguments.noise}: a share of the keypoints' box, such as 0.005")
    if arguments.out.suffix != ".json":
        raise UsageError(f"--out {arguments.out}: the suffix must be .json")
    if not arguments.out.parent.is_dir():
        raise InputError(f"--out {arguments.out}: there is no folder {arguments.out.parent}; make it first")
