"""Calibrate the quality gate on rendered people whose bodies are known; writes priors/quality/gate.json.

    PYTHONPATH=tools python tools/calibrate_quality.py --cases-dir FOLDER --work FOLDER

Every person goes through the whole pipeline (detector, parser, fit), and the gate learns to tell from the evidence
(`dsr_fit/gate/gate.py`) whether the mean vertex error is under 80 mm. Learnt from seeds that are used for tuning; the
ROC is measured on the reporting seeds, from 10000, which nothing here is chosen on. People who are missed by the
detector have no fit and take no part. Missing cases are generated, about half a second each; fits take as long, and are
kept in --work.
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
    parser.add_argument("--work", type=Path, required=True, help="folder of the fits, and of what perception finds")
    parser.add_argument("--fresh", type=int, default=1600, help=f"how many people from seed {FRESH_SEED} on")
    parser.add_argument("--reported", type=int, default=300, help=f"how many people from seed {REPORTING_SEED} on")
    parser.add_argument("--out", type=Path, default=PACKAGE.parent / ASSET)
    arguments = parser.parse_args()

    learnt_from = calibration_seeds(TUNING + arguments.fresh)
    reported = range(REPORTING_SEED, REPORTING_SEED + arguments.reported)
    write_cases(arguments.cases_dir, track([*learnt_from, *reported], "generating", transient=True))
    people, others = (
        case_source(arguments.cases_dir, seeds, arguments.work / "findings") for seeds in (learnt_from, reported)
    )
    found = calibrate_gate(Settings(), people, arguments.work, reported=others)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_gate(arguments.out, found)
    report, told = found["report"], found["calibration"]
    print(
        f"learnt from {told['fits']} fits, {100 * told['right']:.0f} % right; held-out AUC {told['auc_held_out']:.3f}"
    )
    print(f"reported on {report['fits']}: AUC {report['auc']:.3f} {report['auc_interval']}; {report['at_threshold']}")
    if not told["precision_reached"]:
        print(f"a precision of {PRECISION} was NOT reached at any threshold; the most precise one was taken")


if __name__ == "__main__":
    main()
