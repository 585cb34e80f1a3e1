"""Whether the device computes what the CPU does: the operators' tests, the outline, whole fits."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import render as renders
import torch
from clock import finish
from torch import Tensor

from dsr_fit.body.files import load_body
from dsr_fit.config import FitConfig, Stage
from dsr_fit.errors import InputError
from dsr_fit.fitting.fitter import Fitter
from dsr_fit.fitting.result import FitResult
from dsr_fit.render.renderer import Renderer
from gpu_steps.setup import Results, Setup, regressor_of

ROOT = Path(__file__).resolve().parents[2]
CONTRACT = ("test_render_operators", "test_render_renderer", "test_render_triton")
VECTORS = ("test_render_reference_vectors",)
FEW = "one_triangle or shared_edge or 01_tri_8x8 or later_triangle"
"""The tests of a dry run: Triton's interpreter takes minutes for all."""


def operators(setup: Setup) -> Results:
    """The renderer's tests, run by pytest: counts by backend, and what failed."""
    missing = [name for name in ("pytest", "hypothesis", "trimesh") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"the tests need {' and '.join(missing)}, which are not installed")
    yield {"nvdiffrast": "installed" if importlib.util.find_spec("nvdiffrast") else "not installed: not tested"}
    vectors = setup.shared / "data" / "nvdiffrast_reference"
    yield {"contract tests": _tested(setup, CONTRACT)}
    there = vectors.is_dir()
    yield {"reference vectors": _tested(setup, VECTORS) if there else f"not here: {vectors.name} of --shared"}


def _tested(setup: Setup, modules: tuple[str, ...]) -> dict[str, Any]:
    report = setup.work / f"{modules[0]}.xml"
    command = [
        sys.executable, "-m", "pytest", "-o", "addopts=", "-o", "filterwarnings=default",
        "-q", "-p", "no:cacheprovider", f"--junitxml={report}",
        *(["-k", FEW] if setup.quick else []), *(str(ROOT / "tests" / f"{name}.py") for name in modules),
    ]  # fmt: skip
    paths = os.pathsep.join((str(ROOT), str(ROOT / "tools"), os.environ.get("PYTHONPATH", "")))
    environment = {**os.environ, "DSR_FIT_SHARED": str(setup.shared), "PYTHONPATH": paths}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if not report.exists():
        raise InputError(f"pytest ended with status {done.returncode}: {(done.stdout + done.stderr)[-300:]}")
    counts: Counter[str] = Counter()
    failed = []
    for case in ElementTree.parse(report).getroot().iter("testcase"):
        name = case.get("name", "")
        kinds = ("nvdiffrast", "triton", "cpu")
        own = "triton" if "triton" in (case.get("classname") or "") else "renderer"
        backend = next((kind for kind in kinds if f"[{kind}" in name or f"-{kind}" in name), own)
        wrong = [each for each in case if each.tag in ("failure", "error")]
        outcome = "failed" if wrong else "skipped" if case.find("skipped") is not None else "passed"
        counts[f"{backend}: {outcome}"] += 1
        failed += [f"{name}: {(each.get('message') or '').splitlines()[0][:160]}" for each in wrong]
    return {**dict(sorted(counts.items())), "failures": failed[:40]}


def backends(setup: Setup) -> list[str]:
    """What can render there; a CPU has one."""
    if setup.device == "cpu":
        return ["cpu"]
    return [name for name in ("nvdiffrast", "triton") if importlib.util.find_spec(name) is not None]


def renderer_of(setup: Setup, backend: str) -> Renderer:
    """A renderer of the open body by that backend, also where another one would be taken."""
    renderer = Renderer(renders.BODY.faces, renders.BODY.num_vertices, device=setup.device)
    renderer.backend = backend  # type: ignore[assignment]
    return renderer


def outlines(setup: Setup) -> Results:
    """Pictures, coverage and gradients of a few bodies on the device against the CPU.

    `same pixels` see the same triangle; differences are of these alone. `gradient` is the relative L2 error of the
    vertices' gradient of a fixed random loss. `pairs`: of those of a covered and an empty pixel, the share in which one
    is blended, on the CPU and on the device.
    """
    for backend in backends(setup):
        for size in (56,) if setup.quick else (56, 112, 224):
            ours = _drawn(Renderer(renders.BODY.faces, renders.BODY.num_vertices, device="cpu"), size)
            theirs = _drawn(renderer_of(setup, backend), size)
            same = ours["rast"][..., 3] == theirs["rast"][..., 3]
            off = (ours["alpha"] - theirs["alpha"]).abs()[same]
            yield {
                f"{backend}, {size} px": {
                    "same pixels": float(same.float().mean()),
                    "coverage, largest difference": float(off.max()),
                    "coverage, mean difference": float(off.mean()),
                    "attributes, largest difference": float((ours["image"] - theirs["image"]).abs()[same].max()),
                    "gradient": float((ours["gradient"] - theirs["gradient"]).norm() / ours["gradient"].norm()),
                    "pairs": [_blended(ours), _blended(theirs)],
                }
            }


def _drawn(renderer: Renderer, size: int) -> dict[str, Tensor]:
    """Four bodies and the gradient of their vertices, back on the CPU."""
    vertices, intrinsics = renders.scene(4, size)
    leaf = vertices.to(renderer.device).requires_grad_()
    attributes = torch.rand(renders.BODY.num_vertices, renders.CHANNELS, generator=torch.Generator().manual_seed(0))
    drawn = renderer(leaf, intrinsics.to(renderer.device), size, attributes.to(renderer.device))
    weights = [each.to(renderer.device) for each in renders.upstream(4, size)]
    (gradient,) = torch.autograd.grad([drawn.attributes, drawn.alpha], leaf, weights)
    kept = {"rast": drawn.rast, "image": drawn.attributes, "alpha": drawn.alpha, "gradient": gradient}
    return {name: tensor.detach().cpu() for name, tensor in kept.items()}


def _blended(drawn: dict[str, Tensor]) -> float:
    """Share of the pairs of a covered and an empty neighbour of which one is blended."""
    mask = drawn["rast"][..., 3] > 0
    touched = (drawn["alpha"] - mask.float()).abs() > 1e-6
    pairs = reached = 0
    for axis in (1, 2):
        length = mask.shape[axis] - 1
        border = mask.narrow(axis, 0, length) != mask.narrow(axis, 1, length)
        pairs += int(border.sum())
        reached += int((border & (touched.narrow(axis, 0, length) | touched.narrow(axis, 1, length))).sum())
    return round(reached / pairs, 4)


def fits(setup: Setup) -> Results:
    """The same people fitted on the CPU and on the device: energies, vertices, seconds."""
    people = setup.observations()[: 2 if setup.quick else None]
    config = FitConfig(stages=(Stage(56, 10),)) if setup.quick else FitConfig()
    body = load_body()
    on_cpu = Fitter(body, config, regressor=regressor_of(body, config))
    on_cpu.fit(people[:1])  # compiles what is compiled
    ours, seconds = _fitted(on_cpu, people)
    yield {"people": len(people), "cpu": {"seconds": seconds}}
    for backend in backends(setup):
        moved = body.to(setup.device)
        fitter = Fitter(body, config, regressor=regressor_of(moved, config), device=setup.device)
        fitter.renderer.backend = backend  # type: ignore[assignment]
        fitter.fit(people[:1])
        theirs, seconds = _fitted(fitter, people)
        yield {backend: {"seconds": seconds, **_compared(ours, theirs, config)}}


def _fitted(fitter: Fitter, people: list[Any]) -> tuple[list[FitResult], float]:
    started = time.perf_counter()
    results = fitter.fit(people)
    finish(fitter.device)
    return results, round(time.perf_counter() - started, 3)


def _compared(ours: list[FitResult], theirs: list[FitResult], config: FitConfig) -> dict[str, float]:
    apart = np.array(
        [np.linalg.norm(a.vertices - b.vertices, axis=1).mean() for a, b in zip(ours, theirs, strict=True)]
    )
    energy = [np.array([_energy(one, config) for one in results]) for results in (ours, theirs)]
    return {
        "vertices apart, mean mm": 1000 * float(apart.mean()),
        "vertices apart, median mm": 1000 * float(np.median(apart)),
        "vertices apart, worst mm": 1000 * float(apart.max()),
        "energy, mean on the cpu": float(energy[0].mean()),
        "energy, mean on the device": float(energy[1].mean()),
        "energy, largest relative difference": float((np.abs(energy[1] - energy[0]) / energy[0]).max()),
        "iterations, mean on the cpu": float(np.mean([one.iterations for one in ours])),
        "iterations, mean on the device": float(np.mean([one.iterations for one in theirs])),
    }


def _energy(result: FitResult, config: FitConfig) -> float:
    """The weighted sum of a fit's final energies."""
    return sum(weight * result.energies[name]["final"] for name, weight in vars(config.weights).items() if weight)
