"""What the dense outline is worth to a fit: photos fitted with it and with plain `antialias`, judged by one energy.

    PYTHONPATH=benchmarks python experiments/outline_fits.py --photos ../shared/data/ccp \\
        --out benchmarks/results/outline_fits.json

Both fits of a photo start alike; what is compared is the weighted sum of all terms of their final bodies, rendered
by supersampling: plain `antialias` at four times the resolution, so that neither outline judges itself.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

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
from dsr_fit.observe.batch import Batch
from dsr_fit.optimise.anchor import Anchor
from dsr_fit.optimise.objective import Objective

JUDGE_RESOLUTION = 4 * 224


def judged(fitter: Fitter, results: list[FitResult]) -> np.ndarray:
    """(N,) weighted energy of the final bodies."""
    totals = []
    for result in results:
        batch = Batch([result.observation], crop_camera=False, keypoint_valid=fitter.body.skeleton.keypoint_valid)
        parameters = result.parameters()
        objective = Objective.of(
            fitter.body, batch, fitter.renderer, fitter.semantic_prior, fitter.pose_prior, fitter.config,
            JUDGE_RESOLUTION, Anchor.of(parameters, fitter.body.skeleton),
        )  # fmt: skip
        with torch.no_grad():
            totals.append(float(objective.total(objective(parameters))))
    return np.array(totals)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder of Clothing Co-Parsing")
    parser.add_argument("--limit", type=int, default=50)
    parser.add_argument("--cache", type=Path, help="folder for what perception finds")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    numbers = ccp.photo_numbers(arguments.photos, "val")[: arguments.limit]
    seen = observe_all(arguments.photos, numbers, arguments.cache)
    found = [item for item in seen.values() if isinstance(item, Observation)]

    body = load_body()
    judge = Fitter(body, replace(FitConfig(), outline="antialias"))
    energies: dict[str, np.ndarray] = {}
    table: dict[str, dict[str, float]] = {}
    for outline in ("dense", "antialias"):
        results = list(fit_all(Fitter(body, replace(FitConfig(), outline=outline)), found))
        energies[outline] = judged(judge, results)
        table[outline] = {
            "median_energy": float(np.median(energies[outline])),
            "mean_iterations": float(np.mean([result.iterations for result in results])),
            "median_containment": float(np.median([result.metrics["containment"]["after"] for result in results])),
        }
        print(outline, table[outline])
    ratio = energies["dense"] / energies["antialias"]
    compared = {"median_ratio": float(np.median(ratio)), "share_lower": float((ratio < 1).mean())}
    print("dense over antialias", compared)
    if arguments.out:
        report = {"machine": describe_machine(), "photos": len(found), "fits": table, "dense_over_antialias": compared}
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
