"""What a GPU makes of it, in one command of at most six minutes: first whether it is right, then how fast it is.

    python benchmarks/gpu.py --people ../people --shared ../shared --out benchmarks/results/gpu.json
    python benchmarks/gpu.py --device cpu --quick               # a dry run, of small sizes

It may be cut off at any time: results are written after each part of each step. Steps run in a process beside this one;
where one fails, its error is recorded in one line, and the others go on in a new process, since an error of CUDA leaves
nothing to go on with. `tools/gpu_bundle.py` packs everything for a machine without a network. Without `--people`, some
are rendered and observed first, which takes longer than all the rest.
"""

from __future__ import annotations

import argparse
import importlib
import json
import multiprocessing
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
from gpu_steps.setup import Setup, prepare
from machine import describe_machine

from dsr_fit.errors import DsrFitError, one_line
from dsr_fit.io.files import replacing
from dsr_fit.render.device import gpu_backend, lacking_for_cuda

SECONDS = 360
"""Of the whole run."""

STEPS: dict[str, tuple[str, int]] = {
    "operators": ("agreement.operators", 120),
    "outline": ("agreement.outlines", 40),
    "fits": ("agreement.fits", 90),
    "iteration": ("speed.iterations", 80),
    "stages": ("speed.stages", 60),
    "perception": ("networks.perception", 40),
    "eft": ("networks.eft", 30),
    "training": ("networks.training", 30),
    "pipeline": ("networks.pipeline", 90),
}
"""Name -> function of `gpu_steps`, and the seconds that it may take."""

DRY_SECONDS = 20
"""By how much longer steps may take on a CPU: as a factor."""


@dataclass
class Report:
    """What is known so far, and the file that it is written to."""

    path: Path
    content: dict[str, Any]

    def write(self) -> None:
        with replacing(self.path) as temporary:
            temporary.write_text(json.dumps(self.content, indent=1) + "\n", encoding="utf-8")

    def add(self, step: str, results: dict[str, Any]) -> None:
        """More results of a step: rows of the same name are replaced."""
        self.content["steps"].setdefault(step, {}).update(results)
        self.write()


def card() -> dict[str, object]:
    """The GPU, and what computes and renders on it."""
    from importlib.metadata import PackageNotFoundError, version

    def installed(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    found: dict[str, object] = {"cuda": torch.version.cuda, "renders": gpu_backend()}
    found |= {name: installed(name) for name in ("triton", "nvdiffrast", "diffrp-nvdiffrast", "lightning")}
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "name": properties.name,
            "memory_gb": round(properties.total_memory / 2**30, 1),
            "capability": f"{properties.major}.{properties.minor}",
        }
    return found


def work(setup: Setup, names: list[str], connection: Connection) -> None:
    """The side of the steps: results go over the connection as they come, up to the first error."""
    for name in names:
        connection.send(("begins", name, None))
        try:
            module, function = STEPS[name][0].split(".")
            for part in getattr(importlib.import_module(f"gpu_steps.{module}"), function)(setup):
                connection.send(("found", name, part))
        except (Exception, SystemExit) as error:
            said = one_line(error) if isinstance(error, Exception) else str(error)
            known = isinstance(error, (DsrFitError, SystemExit))
            connection.send(("failed", name, said if known else f"{type(error).__name__}: {said}"))
            return
        connection.send(("ends", name, None))


def run(setup: Setup, names: list[str], seconds: float, report: Report) -> None:
    """All steps, each within its own time and all within `seconds`."""
    context = multiprocessing.get_context("spawn")
    waiting, end = list(names), time.monotonic() + seconds
    while waiting and time.monotonic() < end:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=work, args=(setup, waiting, theirs), daemon=False)
        process.start()
        theirs.close()
        waiting = _follow(setup, process, ours, waiting, end, report)
        process.kill()
        process.join()
    for name in waiting:
        report.add(name, {"error": f"not reached within {seconds:g} s"})


def _follow(
    setup: Setup, process: Any, connection: Connection, waiting: list[str], end: float, report: Report
) -> list[str]:
    """Take down what a process of steps says; the steps that are left when it ends, or has to."""
    left, began, limit = list(waiting), time.monotonic(), end
    while left:
        name = left[0]
        if not connection.poll(max(0.0, min(limit, end) - time.monotonic())):
            report.add(name, {"error": f"cut off after {time.monotonic() - began:.0f} s"})
            return left[1:]
        try:
            kind, name, content = connection.recv()
        except EOFError:
            process.join()
            report.add(name, {"error": f"its process ended with status {process.exitcode}"})
            return left[1:]
        if kind == "begins":
            began = time.monotonic()
            limit = began + STEPS[name][1] * (DRY_SECONDS if setup.device == "cpu" else 1)
        elif kind == "found":
            report.add(name, content)
            print(f"{name}: {json.dumps(content)}", flush=True)
        else:
            report.add(name, {"seconds": round(time.monotonic() - began, 1)})
            left = left[1:]
        if kind == "failed":
            report.add(name, {"error": content})
            print(f"{name} failed: {content}", flush=True)
            return left
    return left


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see whether everything runs")
    parser.add_argument("--people", type=Path, help="folder made by tools/gpu_bundle.py; default: some are rendered")
    parser.add_argument("--shared", type=Path, default=Path(os.environ.get("DSR_FIT_SHARED", "../shared")))
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS), metavar="STEP", help=", ".join(STEPS))
    parser.add_argument("--seconds", type=float, help=f"of the whole run; default: {SECONDS}, on a CPU no limit")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    arguments = parser.parse_args()
    if arguments.device == "cuda" and (lacking := lacking_for_cuda()):
        raise SystemExit(f"{lacking}; --device cpu --quick is the dry run")
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        people = arguments.people or folder / "people"
        if arguments.people is None:
            count = 2 if arguments.quick else 16
            prepare(people, folder / "cases", range(count), count)
        setup = Setup(arguments.device, arguments.quick, people.resolve(), arguments.shared.resolve(), folder)
        seconds = arguments.seconds or (SECONDS if arguments.device == "cuda" else 1e6)
        content = {"machine": describe_machine(), "card": card(), "device": setup.device, "quick": setup.quick}
        report = Report(arguments.out.resolve(), {**content, "steps": {}})
        report.write()
        run(setup, arguments.steps, seconds - (time.monotonic() - started), report)
    steps = report.content["steps"]
    report.content["seconds"] = round(time.monotonic() - started, 1)
    report.write()
    if failed := [name for name in arguments.steps if "error" in steps.get(name, {})]:
        sys.exit(f"{len(failed)} of {len(arguments.steps)} steps failed: {', '.join(failed)}; see {arguments.out}")


if __name__ == "__main__":
    main()
