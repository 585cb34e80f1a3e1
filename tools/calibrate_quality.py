"""Calibrate the quality gate on rendered people with known bodies; writes priors/quality/gate.json.

    PYTHONPATH=tools python tools/calibrate_quality.py --cases-dir FOLDER --work FOLDER

Every person goes through the whole pipeline (detector, parser, fit), and the gate learns to predict from the evidence
(`dsr_fit/gate/evidence.py`) whether the mean vertex error is under 80 mm. It is trained on the tuning seeds and fresh
ones, and tested on the reporting seeds, from 10000. People whom the detector misses are left out. Missing cases are
generated, half a second each; fits take as long, and are kept in --work.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track

from dsr_fit.assets import PACKAGE
from dsr_fit.dataset.settings import Settings
from dsr_fit.evaluate import REPORTING_SEED
from dsr_fit.evaluate.cached_source import case_source
from dsr_fit.evaluate.calibrate_gate import FRESH_SEED, TUNING, calibrate_gate, calibration_seeds, table_of
from dsr_fit.gate.calibration import PRECISION, Model, Table, at, auc
from dsr_fit.gate.gate import ASSET, write_gate
from dsr_fit.synthetic.dataset import write_cases


def roc(quality: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rates of every threshold, the strictest first."""
    order = np.argsort(-quality, kind="stable")
    return np.cumsum(~right[order]) / (~right).sum(), np.cumsum(right[order]) / right.sum()


def interval(quality: np.ndarray, right: np.ndarray, draws: int = 1000) -> list[float]:
    """95 % bootstrap interval of the AUC."""
    rng = np.random.default_rng(0)
    picks = (rng.integers(0, len(right), len(right)) for _ in range(draws))
    values = [auc(quality[pick], right[pick]) for pick in picks if 0 < right[pick].sum() < len(pick)]
    return [float(value) for value in np.quantile(values, (0.025, 0.975))]


def report(gate: dict[str, Any], table: Table) -> dict[str, Any]:
    """Evaluate a gate on fits that it was neither trained nor tuned on."""
    knots, rises = (np.array([cost[name] for cost in gate["costs"].values()]) for name in ("knots", "rises"))
    quality, right = Model(knots, gate["bias"], rises).quality(table.values), table.right
    false, true = roc(quality, right)
    steps = np.linspace(0, len(false) - 1, 51).astype(int)
    return {
        "fits": len(table.pve),
        "missed": table.missed,
        "right": float(right.mean()),
        "auc": auc(quality, right),
        "auc_interval": interval(quality, right),
        "at_threshold": at(quality, right, gate["threshold"]),
        "auc_at_other_limits": {
            f"{limit} mm": auc(quality, table.pve < limit)
            for limit in (60, 100, 120, 150, 200)
            if 0 < (table.pve < limit).sum() < len(table.pve)
        },
        "median_pve": float(np.median(table.pve)),
        "roc": {"false": false[steps].tolist(), "true": true[steps].tolist()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases-dir", type=Path, required=True, help="folder of the cases; missing ones are generated")
    parser.add_argument("--work", type=Path, required=True, help="folder for the fits, and the cache of perception")
    parser.add_argument("--fresh", type=int, default=1600, help=f"number of people from seed {FRESH_SEED} on")
    parser.add_argument(
        "--reported", type=int, default=300, help=f"number of test people from seed {REPORTING_SEED} on"
    )
    parser.add_argument("--out", type=Path, default=PACKAGE.parent / ASSET)
    arguments = parser.parse_args()

    learnt_from = calibration_seeds(TUNING + arguments.fresh)
    reported = range(REPORTING_SEED, REPORTING_SEED + arguments.reported)
    write_cases(arguments.cases_dir, track([*learnt_from, *reported], "generating", transient=True))
    people, others = (
        case_source(arguments.cases_dir, seeds, arguments.work / "findings") for seeds in (learnt_from, reported)
    )
    found = calibrate_gate(Settings(), people, arguments.work)
    rows = list(others.fit(Settings(), arguments.work / "reported"))
    found["report"] = report(found, table_of(Settings().fitter(), others, rows))
    write_gate(arguments.out, found)
    tested, calibration = found["report"], found["calibration"]
    right, held_out = calibration["right"], calibration["auc_held_out"]
    print(f"trained on {calibration['fits']} fits, {100 * right:.0f} % right; cross-validated AUC {held_out:.3f}")
    print(f"tested on {tested['fits']}: AUC {tested['auc']:.3f} {tested['auc_interval']}; {tested['at_threshold']}")
    if not calibration["precision_reached"]:
        print(f"no threshold reaches a precision of {PRECISION}; the most precise one was taken")


if __name__ == "__main__":
    main()
