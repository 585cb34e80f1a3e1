"""The dense outline: against its torch twin, exact areas, and finite differences of supersampled coverage."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dsr_fit.render import Renderer, ops_cpu
from dsr_fit.render.outline import outline
from dsr_fit.render.outline_torch import outline_torch
from dsr_fit.render.renderer import clip_positions
from dsr_fit.render.topology import Topology, mesh_topology
from tests.render_backends import NEEDS_TRITON, TRITON_DEVICE, triton_ops
from tests.render_scenes import SCENES, Scene

CAMERA = torch.tensor([[60.0, 60.0, 32.0, 32.0]])


Blend = Callable[[Tensor, Tensor, Tensor, Tensor, Topology], Tensor]


def _by_triton(color: Tensor, rast: Tensor, pos: Tensor, tri: Tensor, topology: Topology) -> Tensor:
    """On a GPU, or by the interpreter."""
    inputs = (each.to(TRITON_DEVICE) for each in (color, rast, pos, tri))
    return triton_ops().outline(*inputs, topology).cpu()


ON_BOTH = pytest.mark.parametrize(
    "blended", [pytest.param(outline, id="cpu"), pytest.param(_by_triton, id="triton", marks=NEEDS_TRITON)]
)


def _compare_with_twin(scene: Scene, blended: Blend) -> None:
    topology = mesh_topology(scene.tri.numpy())
    rast = ops_cpu.rasterize(scene.pos, scene.tri, scene.resolution)[0]
    generator = torch.Generator().manual_seed(0)
    color = torch.rand((*rast.shape[:3], 2), generator=generator).requires_grad_()
    weight = torch.randn(color.shape, generator=generator)
    results = []
    for blend in (blended, outline_torch):
        pos = scene.pos.clone().requires_grad_()
        out = blend(color, rast, pos, scene.tri, topology)
        grads = torch.autograd.grad((out * weight).sum(), [color, pos], allow_unused=True)
        results.append((out.detach(), *grads))
    (out, g_color, g_pos), (twin, twin_color, twin_pos) = results
    assert torch.allclose(out, twin, atol=2e-6)
    assert torch.allclose(g_color, twin_color, atol=2e-6)
    assert torch.allclose(g_pos, twin_pos, rtol=1e-3, atol=1e-4 * float(twin_pos.abs().max()) + 1e-9)


@ON_BOTH
@pytest.mark.parametrize("name", SCENES)
def test_twin(name: str, blended: Blend) -> None:
    _compare_with_twin(SCENES[name](), blended)


def _random_triangles(seed: int, faces: int) -> Scene:
    generator = np.random.default_rng(seed)
    vertices = max(4, faces // 2)
    w = generator.uniform(0.5, 3.0, (1, vertices, 1))
    pos = np.concatenate([generator.uniform(-1.5, 1.5, (1, vertices, 3)) * w, w], -1)
    tri = np.stack([generator.permutation(vertices)[:3] for _ in range(faces)])
    return Scene(torch.from_numpy(pos).float(), torch.from_numpy(tri).int(), (17, 23))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), faces=st.integers(1, 40))
def test_twin_on_random_triangles(seed: int, faces: int) -> None:
    _compare_with_twin(_random_triangles(seed, faces), outline)


@NEEDS_TRITON
@settings(max_examples=6, deadline=None, derandomize=True)  # the interpreter takes a second for each
@given(seed=st.integers(0, 10**6), faces=st.integers(1, 40))
def test_triton_on_random_triangles(seed: int, faces: int) -> None:
    _compare_with_twin(_random_triangles(seed, faces), _by_triton)


def _box(low: tuple[float, float], high: tuple[float, float], z: float) -> Tensor:
    (x0, y0), (x1, y1) = low, high
    return torch.tensor([[x0, y0, z], [x1, y0, z], [x1, y1, z], [x0, y1, z]])


def test_a_rectangle_has_its_area_and_its_sides() -> None:
    # One pixel is 1/60 m at 1 m. Sides along the axes: the sum of coverage is the area, its gradient the
    # sides.
    low, high = (10.3, 12.8), (40.6, 33.1)
    vertices = _box(low, high, 1.0)
    vertices[:, :2] = (vertices[:, :2] - 32) / 60
    vertices = vertices[None].requires_grad_()
    renderer = Renderer(np.array([[0, 1, 2], [0, 2, 3]]), 4, device="cpu")
    area = renderer(vertices, CAMERA, 64).alpha.sum()
    exact = (40.6 - 10.3) * (33.1 - 12.8)
    assert float(area.detach()) == pytest.approx(exact, rel=2e-3)  # corners by centres
    (gradient,) = torch.autograd.grad(area, vertices)
    right = gradient[0, [1, 2], 0].sum() / 60
    below = gradient[0, [2, 3], 1].sum() / 60
    assert float(right) == pytest.approx(33.1 - 12.8, abs=0.9)  # rows whose centre lies inside
    assert float(below) == pytest.approx(40.6 - 10.3, abs=0.9)


def test_an_occluder_moves_its_edge_over_the_surface_behind() -> None:
    near, far = _box((-0.1, -0.1), (0.1037, 0.1), 1.0), _box((-0.8, -0.8), (0.8, 0.8), 2.0)
    vertices = torch.cat([near, far])[None].requires_grad_()
    faces = np.array([[0, 1, 2], [0, 2, 3], [4, 5, 6], [4, 6, 7]])
    colour = torch.tensor([1.0] * 4 + [0.0] * 4)[:, None]
    render = Renderer(faces, 8, device="cpu")(vertices, CAMERA, 64, colour)
    seen = render.attributes.sum()
    assert float(seen.detach()) == pytest.approx(0.2037 * 0.2 * 60**2, rel=0.02)
    (gradient,) = torch.autograd.grad(seen, vertices)
    assert float(gradient[0, [1, 2], 0].sum()) == pytest.approx(0.2 * 60**2, rel=0.02)
    assert gradient[0, 4:, :2].abs().max() == 0  # what is hidden stays as it is


def _coverage(vertices: Tensor, faces: Tensor, size: int, factor: int = 16) -> Tensor:
    pos = clip_positions(vertices, CAMERA * size / 64, torch.tensor([[1.0, 10.0]]).double(), (size, size))
    mask = ops_cpu.triangle_ids(pos, faces, (size * factor, size * factor)) > 0
    return torch.nn.functional.avg_pool2d(mask.float()[:, None], factor)[:, 0]


@pytest.mark.parametrize("subdivisions", [1, 4])  # triangles far larger and far smaller than a pixel
def test_gradients_are_those_of_the_true_coverage(subdivisions: int) -> None:
    """Against central differences of 16 x 16 supersampled coverage, for moving, scaling and shearing a
    blob."""
    mesh = trimesh.creation.icosphere(subdivisions=subdivisions, radius=1.0)
    faces = torch.tensor(np.asarray(mesh.faces), dtype=torch.int32)
    shape = torch.tensor(np.asarray(mesh.vertices), dtype=torch.float32) * torch.tensor([0.9, 1.3, 0.7])
    vertices = (shape + torch.tensor([0.05, -0.02, 4.0]))[None]
    size = 96
    x = torch.linspace(-3, 3, size)
    weight = 1 + 0.5 * torch.sin(x)[:, None] * torch.cos(0.7 * x)
    leaf = vertices.clone().requires_grad_()
    alpha = Renderer(faces, len(shape), device="cpu")(leaf, CAMERA * size / 64, size).alpha
    assert float((alpha.detach() - _coverage(vertices, faces, size)).abs().mean()) < 2e-3
    (gradient,) = torch.autograd.grad((alpha * weight).sum(), leaf)
    zero = torch.zeros_like(shape[:, 0])
    moves = {
        "right": torch.stack([zero + 1, zero, zero], -1),
        "nearer": torch.stack([zero, zero, zero - 1], -1),
        "wider": shape * torch.tensor([1.0, 0, 0]),
        "sheared": torch.stack([shape[:, 1], zero, zero], -1),
    }
    for name, move in moves.items():
        step = 0.02
        ends = [(_coverage(vertices + s * step * move, faces, size) * weight).sum() for s in (1, -1)]
        truth = float(ends[0] - ends[1]) / (2 * step)
        # The outline is sampled once a pixel: within 1 % of what crosses either side (58 px high, 22.5 px a
        # metre).
        assert float((gradient * move).sum()) == pytest.approx(truth, abs=0.01 * 2 * 58 * 22.5), name


def test_every_outline_pair_of_a_dense_mesh_has_a_gradient() -> None:
    mesh = trimesh.creation.icosphere(subdivisions=5, radius=1.0)
    renderer = Renderer(np.asarray(mesh.faces), len(mesh.vertices), device="cpu")
    vertices = torch.tensor(np.asarray(mesh.vertices)[None] + [0, 0, 4], dtype=torch.float32)
    hard = renderer(vertices, CAMERA, 64).mask[0]
    # Blending moves a pixel's value off 0 or 1 on one side of each pair.
    alpha = renderer(vertices, CAMERA, 64).alpha[0]
    blended = alpha != hard
    across = hard[:, 1:] != hard[:, :-1]
    assert float((blended[:, 1:] | blended[:, :-1])[across].float().mean()) > 0.97
