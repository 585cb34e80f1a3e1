"""What a user waits for: `dsr-fit examples/person.png` as a whole process, kernels compiled.

    python benchmarks/process.py [--runs 5] [--out benchmarks/results/process.json]

Medians of several runs: seconds of the process and of its parts, and its peak memory.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import describe_machine

IMAGE = Path(__file__).resolve().parents[1] / "examples" / "person.png"


def run(folder: Path) -> dict[str, float]:
    """Seconds of one process and of its parts, and its peak memory in MB."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "dsr_fit", str(IMAGE), "--out", str(folder / "mesh.obj")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)} failed")
    whole = time.perf_counter() - started
    parts = json.loads((folder / "mesh.json").read_text())["timings_s"]
    return {"process": whole, **parts, "peak_memory_mb": usage.ru_maxrss / 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder))  # compiles the kernels, where that is still to be done
        runs = [run(Path(folder)) for _ in range(arguments.runs)]
    median = {name: round(statistics.median(one[name] for one in runs), 3) for name in runs[0]}
    for name, value in median.items():
        print(f"{name:15} {value:8.2f}")
    if arguments.out:
        report = {"machine": describe_machine(), "runs": arguments.runs, "median": median}
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
