"""The operators of every backend against their readable twins, in double, and against closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dsr_fit.errors import InputError
from dsr_fit.render import ops_cpu, reference
from tests.render_backends import ON_EVERY_ANTIALIASING_BACKEND, ON_EVERY_BACKEND, ON_OUR_BACKENDS, Backend
from tests.render_scenes import OFF_THE_CAMERA_PLANE, SCENES, shared_edge

# The kernels work in float32 with up to some hundred operations a value; a sliver's barycentrics lose more.
RTOL, ATOL = 2e-4, 2e-5


def _relative(value: Tensor, truth: Tensor) -> float:
    value, truth = value.detach(), truth.detach()
    return float((value - truth).abs().max() / truth.abs().max().clamp(min=1e-12))


@pytest.mark.parametrize("name", SCENES)
@ON_OUR_BACKENDS
def test_ids_are_the_nearest_triangles(backend: Backend, name: str) -> None:
    scene = SCENES[name]()
    ids = backend.triangle_ids(scene.pos, scene.tri, scene.resolution)
    assert (ids > 0).any()
    assert torch.equal(ids, reference.triangle_ids(scene.pos, scene.tri, scene.resolution))


@ON_OUR_BACKENDS
def test_a_triangle_around_the_camera_is_seen_beyond_its_edges(backend: Backend) -> None:
    # Inside it lies a point with z = w = 0, which every depth range begins at.
    corners = [[-2.71, -1.89, -0.175, -0.422], [0.905, 0.446, -0.537, 0.581], [-1.65, 0.254, 1.22, -0.298]]
    pos, tri = torch.tensor([corners]), torch.tensor([[0, 1, 2]], dtype=torch.int32)
    ids = backend.triangle_ids(pos, tri, (1, 21))
    assert torch.equal(ids, reference.triangle_ids(pos, tri, (1, 21)))
    assert int(ids.sum()) == 11


@pytest.mark.parametrize("name", SCENES)
@ON_EVERY_BACKEND
def test_rasterize_and_its_gradients(backend: Backend, name: str) -> None:
    scene = SCENES[name]()
    pos = scene.pos.clone().requires_grad_()
    rast, rast_db = backend.rasterize(pos, scene.tri, scene.resolution)
    twin, twin_db = reference.rasterize(pos, scene.tri, scene.resolution, rast[..., 3].detach().int())
    assert torch.allclose(rast.double(), twin, rtol=RTOL, atol=ATOL)
    assert _relative(rast_db, twin_db) < 1e-3  # float32 u and v of nearly edge-on triangles
    generator = torch.Generator().manual_seed(0)
    g, g_db = torch.randn(rast.shape, generator=generator), torch.randn(rast.shape, generator=generator)
    for with_db in (False, True):
        ours, theirs = (
            torch.autograd.grad((a[..., :2] * g[..., :2]).sum() + with_db * (b * g_db).sum(), pos)[0]
            for a, b in (
                backend.rasterize(pos, scene.tri, scene.resolution),
                reference.rasterize(pos, scene.tri, scene.resolution, rast[..., 3].detach().int()),
            )
        )
        assert ours.abs().max() > 0
        assert _relative(ours, theirs) < 5e-4


@pytest.mark.parametrize("attr_batch", ["one set", "one an image"])
@ON_EVERY_BACKEND
def test_interpolate_and_its_gradients(backend: Backend, attr_batch: str) -> None:
    scene = SCENES["depth_order"]()
    rast = backend.rasterize(scene.pos, scene.tri, scene.resolution)[0].requires_grad_()
    attr = torch.rand(1 if attr_batch == "one set" else 2, scene.pos.shape[1], 4, requires_grad=True)
    out, none = backend.interpolate(attr, rast, scene.tri)
    twin = reference.interpolate(attr, rast, scene.tri)
    assert none.shape[-1] == 0
    assert torch.allclose(out.double(), twin, atol=1e-6)
    weight = torch.randn_like(out)
    grads = torch.autograd.grad(out, [attr, rast], weight)
    for ours, theirs in zip(grads, torch.autograd.grad(twin, [attr, rast], weight.double()), strict=True):
        assert _relative(ours, theirs) < 1e-5


@ON_EVERY_BACKEND
def test_attribute_derivatives_are_those_of_neighbouring_pixels(backend: Backend) -> None:
    # Where w is constant an attribute is linear in the image, so its derivative is the difference of two
    # pixels.
    pos = torch.tensor([[[-0.9, -0.9, 0.0, 1.0], [0.95, -0.8, 0.0, 1.0], [0.0, 0.9, 0.0, 1.0]]])
    tri = torch.tensor([[0, 1, 2]], dtype=torch.int32)
    rast, rast_db = backend.rasterize(pos, tri, (16, 16))
    attr = torch.tensor([[[1.0, 0.0], [3.0, 5.0], [-2.0, 1.0]]])
    out, out_da = backend.interpolate(attr, rast, tri, rast_db, "all")
    across = out[0, 4, 8] - out[0, 4, 7]
    down = out[0, 5, 7] - out[0, 4, 7]
    assert torch.allclose(out_da[0, 4, 7], torch.stack([across, down], -1).flatten(), atol=1e-5)
    second, _ = backend.interpolate(attr, rast, tri, rast_db, [1])
    assert torch.equal(second, out)


@pytest.mark.parametrize("name", OFF_THE_CAMERA_PLANE)
@ON_EVERY_ANTIALIASING_BACKEND
def test_antialias_and_its_gradients(backend: Backend, name: str) -> None:
    scene = SCENES[name]()
    pos = scene.pos.clone().requires_grad_()
    rast = backend.rasterize(scene.pos, scene.tri, scene.resolution)[0]
    color = torch.rand((*rast.shape[:3], 3), requires_grad=True)
    out = backend.antialias(color, rast, pos, scene.tri)
    twin = reference.antialias(color, rast, pos, scene.tri)
    assert (out - color).abs().max() > 0.01
    assert torch.allclose(out.double(), twin, atol=1e-5)
    weight = torch.randn_like(out)
    grads = torch.autograd.grad(out, [color, pos], weight)
    for ours, theirs in zip(grads, torch.autograd.grad(twin, [color, pos], weight.double()), strict=True):
        assert _relative(ours, theirs) < 5e-4


@ON_OUR_BACKENDS
def test_shared_edges_leave_no_gap_and_no_double(backend: Backend) -> None:
    scene = shared_edge()
    both = backend.triangle_ids(scene.pos, scene.tri, scene.resolution) > 0
    one, other = (backend.triangle_ids(scene.pos, scene.tri[k : k + 1], scene.resolution) > 0 for k in (0, 1))
    assert torch.equal(both, one | other)
    assert not (one & other).any()


@ON_OUR_BACKENDS
def test_centres_on_an_edge_are_covered(backend: Backend) -> None:
    # A square over exactly 8 x 8 pixel centres' outer lines: its border passes through centres on all four
    # sides.
    low, high = (2 * 4.5) / 16 - 1, (2 * 11.5) / 16 - 1
    pos = torch.tensor([[[low, low, 0, 1], [high, low, 0, 1], [high, high, 0, 1], [low, high, 0, 1]]])
    tri = torch.tensor([[0, 1, 2], [0, 2, 3]], dtype=torch.int32)
    ids = backend.triangle_ids(pos, tri, (16, 16))[0]
    assert int((ids > 0).sum()) == 64
    assert (ids[4:12, 4:12] > 0).all()
    assert (ids.diagonal()[4:12] == 2).all()  # the exact tie on the diagonal goes to the later triangle


@ON_EVERY_BACKEND
def test_perspective_is_correct(backend: Backend) -> None:
    """Half-way in the image between depths 1 and 3, one sees a quarter of the way along the edge."""
    pos = torch.tensor([[[-1.0, -1, 0, 1.0], [3.0, -3, 0, 3.0], [3.0, 3, 0, 3.0], [-1.0, 1, 0, 1.0]]])
    tri = torch.tensor([[0, 1, 2], [0, 2, 3]], dtype=torch.int32)
    rast, _ = backend.rasterize(pos, tri, (9, 9))
    depth, _ = backend.interpolate(pos[..., 3:], rast, tri)
    column = torch.arange(9)
    exact = 1 / (1 + (1 / 3 - 1) * (column + 0.5) / 9)
    assert torch.allclose(depth[0, :, :, 0], exact.expand(9, 9), rtol=1e-5)


def test_refusals() -> None:
    scene = shared_edge()
    with pytest.raises(InputError, match="instanced"):
        ops_cpu.rasterize(scene.pos, scene.tri, (8, 8), ranges=torch.zeros(1, 2))
    with pytest.raises(InputError, match="clip positions"):
        ops_cpu.rasterize(scene.pos[0], scene.tri, (8, 8))
    with pytest.raises(InputError, match="int32"):
        ops_cpu.rasterize(scene.pos, scene.tri.long(), (8, 8))
    with pytest.raises(InputError, match="outside"):
        ops_cpu.rasterize(scene.pos[:, :3], scene.tri, (8, 8))
    rast, _ = ops_cpu.rasterize(scene.pos, scene.tri, (8, 8))
    with pytest.raises(InputError, match="rast_db"):
        ops_cpu.interpolate(scene.pos, rast, scene.tri, diff_attrs="all")
    with pytest.raises(InputError, match="attr"):
        ops_cpu.interpolate(torch.zeros(3, 4, 1), rast, scene.tri)
