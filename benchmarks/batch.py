"""A data set from files to shards: images and people a second, what each stage costs, memory, scaling to 2 workers.

    python benchmarks/batch.py --photos ../shared/data/ccp/photos --out benchmarks/results/batch.json

Runs `dsr-fit batch` as a user would, as a process of its own, once over all photos with the default workers, and twice
over the first `--scaling` of them, with one fitting process and with two. Memory is sampled every second over the whole
process tree (proportional set size, so that shared pages count once).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe_machine

from dsr_fit.cli.ending import PARTLY
from dsr_fit.dataset.run import read_results
from dsr_fit.dataset.schema import STATUSES


def tree(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    for parent in found:
        try:
            for thread in Path(f"/proc/{parent}/task").iterdir():
                found += [int(child) for child in (thread / "children").read_text().split()]
        except OSError:
            continue
    return found


def memory_mb(pid: int) -> float:
    """Proportional set size of a process and its descendants."""
    total = 0
    for one in tree(pid):
        try:
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def measure(source: Path, out: Path, *options: str) -> dict[str, Any]:
    """One run of the command: its last line, and memory and processor time from outside."""
    command = [sys.executable, "-m", "dsr_fit", "batch", str(source), "--out", str(out), *options]
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    samples = []
    while process.poll() is None:
        samples.append(memory_mb(process.pid))
        time.sleep(1.0)
    wall = time.perf_counter() - started
    assert process.stdout is not None
    lines = process.stdout.read().splitlines()
    if process.returncode not in (0, PARTLY):
        raise SystemExit(f"{' '.join(command)} failed")
    last = json.loads(lines[-1])
    people = sum(last[status] for status in STATUSES)
    working = np.array(samples[len(samples) // 10 :] or samples)
    quarter = max(len(working) // 4, 1)
    return {
        "options": list(options),
        **{name: last[name] for name in ("images", *STATUSES, "utilisation")},
        "people": people,
        "images_per_s": round(last["images"] / wall, 3),
        "people_per_s": round(people / wall, 3),
        "images_per_s_once_started": last["rate"],
        "wall_s": round(wall, 1),
        "stages_s_per_image": last["stages_s_per_image"],
        "memory_mb": {
            "peak": round(max(samples)),
            "first_quarter": round(float(np.median(working[:quarter]))),
            "last_quarter": round(float(np.median(working[-quarter:]))),
        },
        "load_before": round(os.getloadavg()[0], 2),
    }


def described(out: Path) -> dict[str, Any]:
    """What the shards hold, and how large they are."""
    rows = list(read_results(out))
    size = sum(path.stat().st_size for path in out.glob("**/*.parquet"))
    fits = [row for row in rows if row["status"] != "failed"]
    qualities = [row["quality"] for row in fits if row["quality"] is not None]
    return {
        "rows": len(rows),
        "fitted": len(fits),
        "bytes_per_row": round(size / len(rows)),
        "failed_reasons": dict(Counter(_kind(row["reason"]) for row in rows if row["status"] == "failed")),
        "stop_reasons": dict(Counter(row["stop_reason"] for row in fits)),
        "median_keypoint_error_rel": float(np.median([row["keypoint_error_rel"] for row in fits])),
        "median_quality": float(np.median(qualities)) if qualities else None,
    }


def _kind(reason: str) -> str:
    """A reason without the image's name."""
    return reason.split(": ", 1)[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder of images")
    parser.add_argument("--limit", type=int, help="only so many of them")
    parser.add_argument("--scaling", type=int, default=128, help="images of the two runs that compare workers")
    parser.add_argument("--people", choices=("all", "one"), default="all", help="whom to fit in each image")
    parser.add_argument("--work", type=Path, help="folder for the results, kept; default: a temporary one")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "batch.json")
    arguments = parser.parse_args()
    photos = sorted(arguments.photos.glob("*.jpg"))[: arguments.limit]
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        lists = {"all": photos, "some": photos[: arguments.scaling]}
        for name, chosen in lists.items():
            (work / f"{name}.txt").write_text("\n".join(photo.name for photo in chosen) + "\n")
        shared = ("--images", str(arguments.photos), "--people", arguments.people)
        measure(work / "some.txt", work / "warm", *shared, "--stages.0.iterations", "1")  # compiles the kernels
        runs = {}
        for fitters in (1, 2):
            options = (*shared, "--perceivers", "1", "--fitters", str(fitters))
            runs[fitters] = measure(work / "some.txt", work / f"scaling-{fitters}", *options)
            print(fitters, json.dumps(runs[fitters]), flush=True)
        whole = measure(work / "all.txt", work / "whole", *shared)
        print(json.dumps(whole), flush=True)
        report = {
            "machine": describe_machine(),
            "photos": "Clothing Co-Parsing",
            "people": arguments.people,
            "whole": {**whole, "options": []},
            "results": described(work / "whole"),
            "scaling": {
                **{f"fitters_{n}": {**run, "options": run["options"][len(shared) :]} for n, run in runs.items()},
                "speedup": round(runs[2]["images_per_s_once_started"] / runs[1]["images_per_s_once_started"], 2),
            },
        }
    arguments.out.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")


if __name__ == "__main__":
    main()
