"""EFT of the regressor that ships: how far the energy falls, how fast, and which weights should move.

    python benchmarks/eft.py --photos ../shared/data/ccp --split val --out benchmarks/results/eft.json

Energies are all terms at 224 px, as the configuration weighs them, of the estimate and of the fit.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from machine import describe_machine
from photos import observe_all

from dsr_fit.body.files import load_body
from dsr_fit.config import FitConfig
from dsr_fit.evaluate import ccp
from dsr_fit.evaluate.benchmark import fit_all
from dsr_fit.fitting.fitter import Fitter
from dsr_fit.fitting.result import FitResult
from dsr_fit.observation import Observation

CHOICES: dict[str, tuple[tuple[str, ...], float | None]] = {
    "default": ((), None),
    "last step, 3e-5": (("refinements.1.",), 3e-5),
    "last step, 1e-4": (("refinements.1.",), 1e-4),
    "last step, 3e-4": (("refinements.1.",), 3e-4),
    "last step's heads, 3e-4": (
        ("refinements.1.pose", "refinements.1.shape", "refinements.1.camera"), 3e-4,
    ),
    "both refinements, 1e-4": (("refinements.",), 1e-4),
    "every step, 1e-4": (("first.", "refinements."), 1e-4),
}  # fmt: skip


def totals(result: FitResult, config: FitConfig, when: str) -> float:
    """The weighted sum of a result's energies; closeness to the estimate is left out, for it starts at nothing."""
    weights = {name: weight for name, weight in vars(config.weights).items() if name != "initial"}
    return sum(weight * result.energies[name][when] for name, weight in weights.items())


def measure(fitter: Fitter, people: list[Observation], batch: int) -> dict:
    """Medians over the people; seconds a person."""
    started = time.perf_counter()
    results = list(fit_all(fitter, people, batch))
    seconds = (time.perf_counter() - started) / len(people)
    before, after = (np.array([totals(one, fitter.config, when) for one in results]) for when in ("initial", "final"))
    change = [np.median([one.metrics["keypoint_error_rel"][when] for one in results]) for when in ("before", "after")]
    return {
        "people": len(people),
        "batch": batch,
        "energy_ratio_median": float(np.median(after / before)),
        "energy_halved": float((after < before / 2).mean()),
        "keypoint_error_rel": {"before": float(change[0]), "after": float(change[1])},
        "iterations": float(np.mean([one.iterations for one in results])),
        "stopped": dict(Counter(one.stop_reason for one in results)),
        "seconds": round(seconds, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder of Clothing Co-Parsing")
    parser.add_argument("--split", choices=ccp.SPLITS, default="val")
    parser.add_argument("--limit", type=int, help="only so many photos")
    parser.add_argument("--choices", default="default", help="separated by semicolons, or `all`")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cache", type=Path, help="folder for what perception finds")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    numbers = ccp.photo_numbers(arguments.photos, arguments.split)[: arguments.limit]
    seen = observe_all(arguments.photos, numbers, arguments.cache).values()
    people = [item for item in seen if isinstance(item, Observation)]
    body, found = load_body(), {}
    for name in CHOICES if arguments.choices == "all" else arguments.choices.split(";"):
        layers, rate = CHOICES[name]
        config = FitConfig(mode="eft")
        fitter = Fitter(body, replace(config, eft=replace(config.eft, layers=layers, learning_rate=rate)))
        found[name] = {"in batches": measure(fitter, people, 16)}
        if name == "default":
            found[name]["alone"] = measure(fitter, people[:12], 1)
        for how, figures in found[name].items():
            print(f"{name:26} {how:10} {figures}", flush=True)
    free = measure(Fitter(body, FitConfig(mode="smplify")), people, 16)
    print(f"{'smplify':26} {'in batches':10} {free}", flush=True)
    if arguments.out:
        report = {"machine": describe_machine(), "threads": arguments.threads, "choices": found, "smplify": free}
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
