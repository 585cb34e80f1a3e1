"""What is Triton's alone: its two ways of drawing, its compiler, its place in the renderer.

The contract tests of `test_render_operators` and `test_render_reference_vectors` run on it too.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dsr_fit.errors import InputError
from dsr_fit.render import Renderer, device, ops_cpu, renderer
from dsr_fit.render.outline_torch import outline_torch
from tests.render_backends import NEEDS_TRITON, Backend, triton_ops
from tests.render_scenes import SCENES

pytestmark = NEEDS_TRITON
TRITON = Backend("triton")
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def silent_arithmetic() -> Any:
    """The interpreter computes with numpy, which warns of infinities as no GPU does."""
    with np.errstate(all="ignore"):
        yield


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_of_equal_depths_the_later_triangle_is_seen(order: tuple[int, ...]) -> None:
    """One over the picture, drawn in tiles, and two small ones, drawn by one lane each."""
    points = [[-4, -4], [4, -4], [0, 8], [-0.3, -0.3], [0.4, -0.3], [0, 0.4]]
    pos = torch.tensor([[[x, y, 0.0, 1.0] for x, y in points]])
    tri = torch.tensor([[0, 1, 2], [3, 4, 5], [4, 5, 3]], dtype=torch.int32)[list(order)]
    ids = TRITON.triangle_ids(pos, tri, (10, 10))
    assert torch.equal(ids, ops_cpu.triangle_ids(pos, tri, (10, 10)))
    assert set(ids.unique().tolist()) == ({3} if order[2] == 0 else {order.index(0) + 1, 3})


MAGNITUDES = st.sampled_from([0.0, 1e-30, 1e-3, 1.0, 50.0, 1e6, 1e20])


@settings(max_examples=int(os.environ.get("DSR_FIT_RENDER_EXAMPLES", "12")), deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31), faces=st.integers(1, 30), magnitude=MAGNITUDES, w=MAGNITUDES,
    size=st.tuples(st.integers(1, 20), st.integers(1, 20)), batch=st.integers(1, 2), repeated=st.booleans(),
)  # fmt: skip
def test_it_sees_what_the_cpu_sees(
    seed: int, faces: int, magnitude: float, w: float, size: tuple[int, int], batch: int, repeated: bool
) -> None:
    generator = np.random.default_rng(seed)
    points = generator.standard_normal((batch, 20, 4)) * magnitude
    points[..., 3] += w
    if repeated:
        points[:, 10:] = points[:, :1]
    pos = torch.tensor(points, dtype=torch.float32)
    tri = torch.tensor(generator.integers(0, 20, (faces, 3)), dtype=torch.int32)
    ids, theirs = TRITON.triangle_ids(pos, tri, size), ops_cpu.triangle_ids(pos, tri, size)
    assert 0 <= ids.min() <= ids.max() <= faces
    # The CPU's screen coordinates have rounding that shows on triangles of some millionths of a pixel.
    if 1e-3 <= magnitude <= 50 and w <= 1e3 * magnitude and not repeated:
        assert torch.equal(ids, theirs)


@pytest.mark.parametrize("per", ["vertex", "face"])
def test_the_renderer_on_top_of_it(per: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the dense outline that GPUs take: the same picture as the CPU's, the same gradients."""
    scene = SCENES["sphere"]()
    vertices = scene.pos[..., :3] * torch.tensor([0.5, 0.5, 0.5]) + torch.tensor([0.0, 0.0, 3.0])
    vertices = torch.cat([vertices, vertices + 0.1])
    rows = vertices.shape[1] if per == "vertex" else len(scene.tri)
    intrinsics = torch.tensor([[60.0, 60.0, 16.0, 12.0]]).repeat(2, 1)
    results = []
    for backend in ("cpu", "triton"):
        ours = Renderer(scene.tri, vertices.shape[1], device="cpu")
        if backend == "triton":
            # A CPU renderer fuses its operators, so the chain of operators is called as a GPU's calls it.
            ours.backend, ours.device = "triton", torch.device(TRITON.device)
            ours.faces, ours._own_row = ours.faces.to(ours.device), ours._own_row.to(ours.device)
            monkeypatch.setattr(renderer, "outline", outline_torch)
        generator = torch.Generator().manual_seed(0)
        attr = torch.rand((rows, 3), generator=generator, requires_grad=True)
        leaf = vertices.clone().requires_grad_()
        if backend == "cpu":
            render = ours(leaf, intrinsics, (24, 32), **{"attributes" if per == "vertex" else "face_attributes": attr})
            image, alpha, rast = render.attributes, render.alpha, render.rast
        else:
            pos = renderer.clip_positions(leaf, intrinsics, renderer._depth_range(vertices), (24, 32))
            table, corners = ours._attributes(leaf, *((attr, None) if per == "vertex" else (None, attr)))
            parts = ours._compose(pos.to(ours.device), table, corners, (24, 32))
            image, alpha, rast = (part.cpu() for part in parts)
        weights = torch.rand((*alpha.shape, 4), generator=generator)
        loss = (image * weights[..., :3]).sum() + (alpha * weights[..., 3]).sum()
        results.append((rast, image, alpha, *torch.autograd.grad(loss, [leaf, attr])))
    (rast, image, alpha, *gradients), (rast2, image2, alpha2, *gradients2) = results
    assert torch.equal(rast[..., 3], rast2[..., 3])
    assert torch.allclose(image, image2, atol=2e-4)  # positions rounded in another order
    assert torch.allclose(alpha, alpha2, atol=1e-4)
    for a, b in zip(gradients, gradients2, strict=True):
        assert float((a - b).norm() / a.norm()) < 1e-3


def test_nothing_is_made_on_another_device() -> None:
    """With `meta` as torch's default device, a tensor made without a device can't be combined with the others."""
    scene = SCENES["folded"]()
    pos, tri = scene.pos.to(TRITON.device).requires_grad_(), scene.tri.to(TRITON.device)
    topology = ops_cpu.topology_of(scene.tri)
    with torch.device("meta"):
        rast, rast_db = triton_ops().rasterize(pos, tri, scene.resolution)
        image, along = triton_ops().interpolate(pos, rast, tri, rast_db, "all")
        loss = outline_torch(image, rast, pos, tri, topology).sum() + along.sum()
        (gradient,) = torch.autograd.grad(loss, pos)
    assert gradient.device == pos.device
    assert gradient.abs().max() > 0


def test_vertices_that_are_not_there_draw_nothing() -> None:
    scene = SCENES["shared_edge"]()
    beyond = torch.cat([scene.tri, torch.tensor([[0, 1, 4], [-1, 2, 3], [7, 8, 9]], dtype=torch.int32)])
    ids = TRITON.triangle_ids(scene.pos, beyond, scene.resolution)
    assert torch.equal(ids, ops_cpu.triangle_ids(scene.pos, scene.tri, scene.resolution))


@pytest.mark.parametrize("empty", ["images", "triangles", "pixels", "channels"])
def test_nothing_to_draw(empty: str) -> None:
    pos = torch.ones((0 if empty == "images" else 1, 3, 4))
    tri = torch.tensor([[0, 1, 2]], dtype=torch.int32)[: 0 if empty == "triangles" else 1]
    size = (0, 4) if empty == "pixels" else (4, 4)
    rast, _ = TRITON.rasterize(pos, tri, size)
    out, _ = TRITON.interpolate(torch.ones((1, 3, 0 if empty == "channels" else 2)), rast, tri)
    assert out.shape == (len(pos), *size, 0 if empty == "channels" else 2)
    assert not rast.any()


def test_refusals() -> None:
    ops, scene = triton_ops(), SCENES["shared_edge"]()
    with pytest.raises(InputError, match="instanced"):
        ops.rasterize(scene.pos, scene.tri, (8, 8), ranges=torch.zeros(1, 2))
    with pytest.raises(InputError, match="clip positions"):
        ops.rasterize(scene.pos[0], scene.tri, (8, 8))
    with pytest.raises(InputError, match="int32"):
        ops.rasterize(scene.pos, scene.tri.long(), (8, 8))
    with pytest.raises(InputError, match="tri has 16777216 triangles"):
        ops.rasterize(scene.pos, scene.tri[:1].expand(2**24, 3), (8, 8))
    with pytest.raises(InputError, match="attr"):
        ops.interpolate(torch.zeros(3, 4, 1), torch.zeros(2, 8, 8, 4), scene.tri)


def test_antialias_needs_nvdiffrast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(device, "find_spec", lambda name: object() if name == "triton" else None)
    with pytest.raises(InputError, match="Triton has no antialias"):
        Renderer(np.array([[0, 1, 2]]), 3, device="cuda", outline="antialias")


@pytest.mark.parametrize("compiler", ["none", "missing", "failing"])
def test_without_a_c_compiler_one_line_says_so(compiler: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Triton's own build, as its launcher's first use calls it, behind a kernel."""
    from triton.runtime import build

    monkeypatch.setenv("PATH", "" if compiler != "failing" else os.environ["PATH"])
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("CC", {"none": "", "missing": str(tmp_path / "cc"), "failing": "false"}[compiler])
    if compiler == "none":
        monkeypatch.delenv("CC")
    for function in vars(build).values():  # newer ones remember the compiler
        getattr(function, "cache_clear", lambda: None)()
    ops = triton_ops()
    monkeypatch.setattr(ops, "triangle_ids", lambda *_: build.compile_module_from_src("int one;", "probe"))
    ops._tried.cache_clear()
    with pytest.raises(InputError) as raised:
        ops.ready(torch.device("cpu"))
    line = str(raised.value)
    assert line.startswith("rendering on a GPU by Triton: at first use it needs a C compiler and Python's headers")
    assert line.endswith("or use --device cpu")
    assert "\n" not in line


def test_ready_where_it_runs() -> None:
    triton_ops()._tried.cache_clear()
    triton_ops().ready(torch.device(TRITON.device))


COMPILE = """
import sys
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from dsr_fit.render import triton_interpolate as points, triton_outline as border, triton_raster as raster

POINTERS = dict(
    {name: "*fp32" for name in "pos rast rast_db g_rast g_db attr out g_out g_attr".split()},
    **{name: "*fp32" for name in "color g_color alpha g_alpha".split()},
    tri="*i32", ids="*i32", edges="*i32", faces="*i32", agree="*i1", keys="*i64", large="*i64", g_pos="*fp64",
)
for kernel, constants in (
    (raster.draw_small, dict(SMALL=16, BLOCK=128)), (raster.draw_large, dict(TILE=16)),
    (raster.shade, dict(WITH_DB=True, BLOCK=128)), (raster.pull_shade, dict(BLOCK=128)),
    (raster.pull_derivatives, dict(BLOCK=128)), (points.interpolate, dict(CHANNELS=16, BLOCK=32)),
    (points.pull_interpolate, dict(WITH_ATTR=True, CHANNELS=16, BLOCK=32)),
    (border.find_crossings, dict(BLOCK=128)), (border.amounts, dict(BLOCK=128)), (border.pull_amounts, dict(BLOCK=128)),
    (border.blend, dict(CHANNELS=16, BLOCK=32)), (border.pull_blend, dict(CHANNELS=16, BLOCK=32)),
):
    pointers = dict(POINTERS)
    if "large" in kernel.arg_names:  # where `faces` is a number and `count` a buffer
        pointers.update(count="*i32", faces="i32")
    signature = {
        name: "constexpr" if name in constants else pointers.get(name)
        or ("fp32" if name.startswith(("step", "first")) else "i32") for name in kernel.arg_names
    }
    target = GPUTarget("cuda", int(sys.argv[1]), 32)
    built = compile(ASTSource(kernel, signature, constants), target=target, options={"enable_fp_fusion": False})
    text = built.asm["ptx"]
    extremes = "min.s64" in text or "max.s64" in text
    print(kernel.__name__, len(built.asm["cubin"]) > 0, extremes, "fma.rn.f64" in text)
"""


@pytest.mark.parametrize("capability", ["80", "90"])
def test_the_kernels_compile_for_gpus(capability: str, tmp_path: Path) -> None:
    """To machine code, which needs no GPU: visibility and outline are 64-bit extremes, and nothing is fused."""
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    environment.pop("TRITON_INTERPRET", None)
    command = [sys.executable, "-c", COMPILE, capability]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "draw_small True True False", "draw_large True True False", "shade True False False",
        "pull_shade True False False", "pull_derivatives True False False", "interpolate True False False",
        "pull_interpolate True False False", "find_crossings True True False", "amounts True False False",
        "pull_amounts True False False", "blend True False False", "pull_blend True False False",
    ]  # fmt: skip
