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

from rich.progress import track

from dsr_fit.assets import PACKAGE
from dsr_fit.dataset.settings import Settings
from dsr_fit.evaluate import REPORTING_SEED
from dsr_fit.evaluate.cached_source import case_source
from dsr_fit.evaluate.calibrate_gate import FRESH_SEED, TUNING, calibrate_gate, calibration_seeds
from dsr_fit.gate.calibration import PRECISION
from dsr_fit.gate.gate import ASSET, write_gate
from dsr_fit.synthetic.dataset import write_cases


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
    found = calibrate_gate(Settings(), people, arguments.work, reported=others)
    write_gate(arguments.out, found)
    report, calibration = found["report"], found["calibration"]
    right, auc = calibration["right"], calibration["auc_held_out"]
    print(f"trained on {calibration['fits']} fits, {100 * right:.0f} % right; cross-validated AUC {auc:.3f}")
    print(f"tested on {report['fits']}: AUC {report['auc']:.3f} {report['auc_interval']}; {report['at_threshold']}")
    if not calibration["precision_reached"]:
        print(f"no threshold reaches a precision of {PRECISION}; the most precise one was taken")


if __name__ == "__main__":
    main()
