"""How fast is the renderer, against its readable twins and against PyTorch3D's CPU rasteriser?

    python benchmarks/render.py [--out benchmarks/results/render.json] [--check]

The open body, 9 channels, rasterise + interpolate + dense outline. Figures are minima of many repeats, since
other work on the machine only ever adds; `cpu` is the process' own time, all threads. `--check` measures
again and compares with the committed file by ratio to a yardstick timed beside it (a fixed numba loop), so
that another machine's speed cancels; it says what got slower and ends with status 1.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import describe_machine
from numba import njit
from torch import Tensor

from dsr_fit.body.files import load_body
from dsr_fit.io.files import replacing
from dsr_fit.render import Renderer, reference
from dsr_fit.render.outline_torch import outline_torch
from dsr_fit.render.renderer import clip_positions

CHANNELS = 9
SIZES = (56, 112, 224)
TOLERANCE = 1.25  # slower than the committed ratio by more than this is reported
STATUS = Path("/proc/self/status")
COMMITTED = Path(__file__).parent / "results" / "render.json"
BODY = load_body("open")


def scene(batch: int, size: int) -> tuple[Tensor, Tensor]:
    """Vertices (B, V, 3) of random poses facing the camera, five sixths of the picture high, and intrinsics
    (B, 4)."""
    generator = torch.Generator().manual_seed(7)
    vertices = (
        BODY(
            global_orient=torch.tensor([[np.pi, 0.0, 0.0]], dtype=torch.float32).repeat(batch, 1),
            body_pose=0.25 * torch.randn(batch, 69, generator=generator),
            betas=torch.zeros(batch, 10),
            cam_t=torch.tensor([[0.0, 0.0, 5.0]]).repeat(batch, 1),
        )
        .vertices()
        .detach()
    )
    return vertices, torch.tensor([[540.0, 540.0, 112.0, 104.0]]).repeat(batch, 1) * size / 224


def upstream(batch: int, size: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(batch, size, size, CHANNELS, generator=generator), torch.randn(
        batch, size, size, generator=generator
    )


def fused_step(batch: int, size: int, learned: bool = False) -> Callable[[], float]:
    """One forward and backward pass; it returns the forward pass' seconds. `learned` attributes get gradients
    too."""
    renderer = Renderer(BODY.faces, BODY.num_vertices, device="cpu")
    vertices, intrinsics = scene(batch, size)
    leaf = vertices.clone().requires_grad_()
    attributes = torch.rand(BODY.num_vertices, CHANNELS, requires_grad=learned)
    g_image, g_alpha = upstream(batch, size)
    leaves = [leaf, attributes] if learned else [leaf]

    def step() -> float:
        begin = time.perf_counter()
        render = renderer(leaf, intrinsics, size, attributes)
        middle = time.perf_counter()
        torch.autograd.grad([render.attributes, render.alpha], leaves, [g_image, g_alpha])
        return middle - begin

    return step


def twin_step(size: int) -> Callable[[], float]:
    """The same by the plain torch twins, with the visible triangles given: finding them takes pixels x
    triangles."""
    vertices, intrinsics = scene(1, size)
    renderer = Renderer(BODY.faces, BODY.num_vertices, device="cpu")
    ids = renderer(vertices, intrinsics, size).rast[..., 3].int()
    leaf = vertices.clone().requires_grad_()
    attributes = torch.rand(1, BODY.num_vertices, CHANNELS)
    g_image, g_alpha = upstream(1, size)
    weights = torch.cat([g_image, g_alpha[..., None]], -1)

    def step() -> float:
        begin = time.perf_counter()
        pos = clip_positions(leaf, intrinsics, torch.tensor([[3.0, 8.0]]).double(), (size, size))
        rast, _ = reference.rasterize(pos, BODY.faces, (size, size), ids)
        image = reference.interpolate(attributes, rast, BODY.faces)
        image = torch.cat([image, (ids[..., None] > 0).to(image.dtype)], -1)
        image = outline_torch(image, rast, pos, BODY.faces, renderer.topology)
        middle = time.perf_counter()
        torch.autograd.grad((image * weights).sum(), leaf)
        return middle - begin

    return step


def pytorch3d_step(size: int, soft: bool) -> Callable[[], float]:
    """PyTorch3D's rasteriser alone: hard, or with its usual 50 faces a pixel and sigma 1e-4 blur."""
    from pytorch3d.renderer.mesh.rasterize_meshes import rasterize_meshes
    from pytorch3d.structures import Meshes

    vertices, intrinsics = scene(1, size)
    fx, fy, cx, cy = intrinsics[0]
    leaf = vertices.clone().requires_grad_()

    def step() -> float:
        begin = time.perf_counter()
        x, y, z = leaf.unbind(-1)
        screen = torch.stack([1 - 2 * (fx * x / z + cx) / size, 1 - 2 * (fy * y / z + cy) / size, z], -1)
        meshes = Meshes(screen, BODY.faces[None].long())
        blur, faces = (float(np.log(1e4 - 1)) * 1e-4, 50) if soft else (0.0, 1)
        _, depth, _, distance = rasterize_meshes(meshes, size, blur, faces)
        middle = time.perf_counter()
        torch.autograd.grad(depth.sum() + distance.sum(), leaf)
        return middle - begin

    return step


def fastest(step: Callable[[], float], seconds: float) -> dict[str, float]:
    """Milliseconds: forward, backward, both, and processor time; each the minimum over `seconds` of
    repeats."""
    step()
    times, end = [], time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        begin, cpu = time.perf_counter(), time.process_time()
        forward = step()
        both = time.perf_counter() - begin
        times.append((forward, both - forward, both, time.process_time() - cpu))
    return dict(zip(("forward", "backward", "both", "cpu"), (1e3 * np.min(times, axis=0)).round(3), strict=True))


@njit(nogil=True)
def _yardstick(table, order):
    total = 0.0
    for n in range(len(order)):
        value = table[order[n]]
        total += value * value if value > 0.5 else -value
    return total


def yardstick() -> float:
    """Milliseconds of a fixed loop of loads, branches and sums: the machine's own speed."""
    generator = np.random.default_rng(0)
    table, order = generator.random(50_000), generator.integers(0, 50_000, 400_000)
    _yardstick(table, order)

    def step() -> float:
        _yardstick(table, order)
        return 0.0

    return fastest(step, 1.0)["both"]


def peak_megabytes(batch: int, size: int) -> float:
    """Growth of a fresh process' peak memory by rendering `batch` images, forward and backward."""
    code = f"import render; render.memory_probe({batch}, {size})"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    )
    return round(float(done.stdout.split()[-1]), 1)


def memory_probe(batch: int, size: int) -> None:
    """Print that growth; a first small image loads the code."""
    torch.set_num_threads(1)
    fused_step(1, 32)()
    step = fused_step(batch, size)
    Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts again from here
    before = _status_kilobytes("VmRSS")
    step()
    print((_status_kilobytes("VmHWM") - before) / 1024)


def _status_kilobytes(name: str) -> int:
    return next(int(line.split()[1]) for line in STATUS.read_text().splitlines() if line.startswith(name))


def measure(seconds: float, others: bool) -> dict[str, Any]:
    torch.set_num_threads(1)
    results: dict[str, Any] = {"yardstick_ms": yardstick()}
    results["one_image_ms"] = {str(size): fastest(fused_step(1, size), seconds) for size in SIZES}
    results["learned_attributes_ms"] = {str(size): fastest(fused_step(1, size, True), seconds) for size in SIZES}
    results["batch_of_16_ms"] = {str(size): by_threads(size, seconds) for size in SIZES[1:]}
    results["megabytes_of_images_at_224"] = {str(n): peak_megabytes(n, 224) for n in (1, 8, 16, 32)}
    if others:
        results["twin_ms"] = {str(size): fastest(twin_step(size), seconds) for size in SIZES}
        results["times_faster_than_twin"] = {
            size: round(results["twin_ms"][size]["both"] / results["one_image_ms"][size]["both"], 1)
            for size in results["twin_ms"]
        }
        if find_spec("pytorch3d"):
            results["pytorch3d_at_224_ms"] = {
                "hard": fastest(pytorch3d_step(224, soft=False), seconds),
                "soft, 50 faces": fastest(pytorch3d_step(224, soft=True), seconds),
            }
    return results


def by_threads(size: int, seconds: float) -> dict[str, Any]:
    """A batch of 16 on one thread and on two, in turns, so that other load meets both alike."""
    step, times = fused_step(16, size), {1: [], 2: []}
    for _ in range(8):
        for threads, found in times.items():
            torch.set_num_threads(threads)
            found.append(fastest(step, seconds / 4)["both"])
    torch.set_num_threads(1)
    one, two = min(times[1]), min(times[2])
    return {"one_thread": one, "two_threads": two, "speed_up": round(one / two, 2)}


def slower(now: dict[str, Any], before: dict[str, Any]) -> list[str]:
    """What got worse than the committed results, beyond the tolerances, as lines to print."""
    found = []
    for table in ("one_image_ms", "learned_attributes_ms"):
        for size, times in before[table].items():
            old = times["cpu"] / before["yardstick_ms"]
            new = now[table][size]["cpu"] / now["yardstick_ms"]
            if new > TOLERANCE * old:
                found.append(f"{table} at {size} px: {new:.2f} yardsticks, was {old:.2f}")
    for size, times in before["batch_of_16_ms"].items():
        new = now["batch_of_16_ms"][size]["speed_up"]
        if new < times["speed_up"] / TOLERANCE:
            found.append(f"two threads at {size} px: {new} times faster, was {times['speed_up']}")
    old, new = (float(r["megabytes_of_images_at_224"]["32"]) for r in (before, now))
    if new > 1.1 * old:
        found.append(f"memory of 32 images: {new:.0f} MB, was {old:.0f}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where to write the results")
    parser.add_argument("--check", action="store_true", help="compare with the committed results")
    parser.add_argument("--seconds", type=float, default=3.0, help="of repeats for each figure")
    arguments = parser.parse_args()
    results = measure(arguments.seconds, others=not arguments.check)
    print(json.dumps(results, indent=1))
    if arguments.out:
        with replacing(arguments.out) as path:
            path.write_text(json.dumps({"machine": describe_machine(), **results}, indent=1) + "\n")
    if arguments.check:
        worse = slower(results, json.loads(COMMITTED.read_text()))
        print("\n".join(worse) or "no slower than the committed results")
        sys.exit(1 if worse else 0)


if __name__ == "__main__":
    main()
