"""The renderer: conventions, equality with the chain of operators, batches, refusals, and that nothing breaks
it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
import trimesh
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dsr_fit.errors import InputError
from dsr_fit.render import Renderer, device, ops_cuda, renderer
from tests.render_backends import HAS_GPU

ROOT = Path(__file__).resolve().parents[1]
INTRINSICS = torch.tensor([[70.0, 64.0, 25.0, 19.0]])
SIZE = (40, 48)


def _blob(batch: int = 1) -> tuple[np.ndarray, Tensor]:
    """A bumpy closed surface with a fold, at about 3 m."""
    mesh = trimesh.creation.icosphere(subdivisions=3, radius=0.6)
    points = torch.tensor(np.asarray(mesh.vertices), dtype=torch.float32)
    points = points * (1 + 0.3 * torch.sin(5 * points[:, :1]) * torch.cos(4 * points[:, 1:2]))
    shifts = torch.linspace(-0.2, 0.2, batch)[:, None, None] * torch.tensor([1.0, 0.5, 1.0])
    return np.asarray(mesh.faces), points + torch.tensor([0.0, 0.1, 3.0]) + (shifts if batch > 1 else 0)


def _gradients(render: renderer.Render, leaves: list[Tensor]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(x.shape, generator=generator) for x in (render.attributes, render.alpha)]
    return list(torch.autograd.grad([render.attributes, render.alpha], leaves, weights))


def test_camera_convention() -> None:
    """A vertex at (X, Y, Z) is seen at pixel fx X / Z + cx, fy Y / Z + cy; row 0 is the top."""
    point = torch.tensor([0.31, -0.22, 2.5])
    small = torch.tensor([[-0.02, -0.02, 0], [0.02, -0.02, 0], [0.0, 0.03, 0]])
    render = Renderer(np.array([[0, 1, 2]]), 3, device="cpu")((point + small)[None], INTRINSICS, SIZE)
    x, y = 70 * 0.31 / 2.5 + 25, 64 * -0.22 / 2.5 + 19
    assert render.mask[0].nonzero().tolist() == [[int(y), int(x)]]
    assert float(render.depth[0, int(y), int(x)]) == pytest.approx(2.5, rel=1e-5)
    assert render.depth[0, 0, 0] == 0


@pytest.mark.parametrize("per", ["vertex", "face"])
@pytest.mark.parametrize("attr_batch", ["one set", "one an image"])
def test_fused_path_equals_the_operators(per: str, attr_batch: str) -> None:
    faces, vertices = _blob(3)
    vertices, intrinsics = vertices.requires_grad_(), INTRINSICS.repeat(3, 1).requires_grad_()
    rows = vertices.shape[1] if per == "vertex" else len(faces)
    attr = torch.rand((rows, 5) if attr_batch == "one set" else (3, rows, 5), requires_grad=True)
    named = {"attributes" if per == "vertex" else "face_attributes": attr}
    ours = Renderer(faces, vertices.shape[1], device="cpu")
    fused = ours(vertices, intrinsics, SIZE, **named)
    table, corners = ours._attributes(vertices, named.get("attributes"), named.get("face_attributes"))
    pos = renderer.clip_positions(vertices, intrinsics, fused.depth_range, SIZE)
    chain = renderer.Render(*ours._compose(pos, table, corners, SIZE), fused.depth_range)
    assert torch.equal(fused.mask, chain.mask)
    assert torch.allclose(fused.attributes, chain.attributes, atol=2e-4)  # positions rounded in another order
    assert torch.allclose(fused.alpha, chain.alpha, atol=1e-4)
    leaves = [vertices, intrinsics, attr]
    for a, b in zip(_gradients(fused, leaves), _gradients(chain, leaves), strict=True):
        assert float((a - b).norm() / b.norm()) < 1e-3


def test_intrinsics_gradient_moves_the_image() -> None:
    """Moving the principal point by one pixel moves the image by one: the mean column follows."""
    faces, vertices = _blob()
    intrinsics = INTRINSICS.clone().requires_grad_()
    alpha = Renderer(faces, len(vertices), device="cpu")(vertices[None], intrinsics, SIZE).alpha
    column = torch.arange(SIZE[1]) + 0.5
    mean = (alpha * column).sum() / alpha.detach().sum()
    (gradient,) = torch.autograd.grad(mean, intrinsics)
    # The outline is sampled once a pixel: a few per cent on a blob of 30 pixels.
    assert float(gradient[0, 2]) == pytest.approx(1.0, abs=0.05)
    assert float(gradient[0, 3]) == pytest.approx(0.0, abs=0.05)


def test_a_batch_is_its_images_whatever_the_threads() -> None:
    faces, vertices = _blob(5)
    ours = Renderer(faces, vertices.shape[1], device="cpu")
    attr = torch.rand(vertices.shape[1], 3)
    results = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            leaf = vertices.clone().requires_grad_()
            render = ours(leaf, INTRINSICS.repeat(5, 1), SIZE, attr)
            results.append((render, _gradients(render, [leaf])[0]))
    finally:
        torch.set_num_threads(threads)
    (one, g_one), (two, g_two) = results
    assert torch.equal(one.attributes, two.attributes)
    assert torch.equal(one.alpha, two.alpha)
    assert torch.equal(g_one, g_two)
    single = ours(vertices[3:4], INTRINSICS, SIZE, attr)
    # Another depth range rounds z differently.
    assert torch.allclose(single.alpha[0], one.alpha[3], atol=1e-5)


def test_without_attributes_and_without_blending() -> None:
    faces, vertices = _blob()
    for blend in ("dense", "antialias", "none"):
        render = Renderer(faces, len(vertices), device="cpu", outline=blend)(vertices[None], INTRINSICS, SIZE)
        assert render.attributes.shape == (1, *SIZE, 0)
        assert (blend == "none") == torch.equal(render.alpha, render.mask.float())


def test_refusals() -> None:
    faces, vertices = _blob()
    ours = Renderer(faces, len(vertices), device="cpu")
    nan = vertices[None].clone()
    nan[0, 17, 1] = torch.nan
    with pytest.raises(InputError, match="vertices .* not finite"):
        ours(nan, INTRINSICS, SIZE)
    with pytest.raises(InputError, match="intrinsics .* not finite"):
        ours(vertices[None], INTRINSICS * torch.inf, SIZE)
    with pytest.raises(InputError, match="attributes .* not finite"):
        ours(vertices[None], INTRINSICS, SIZE, torch.full((len(vertices), 1), torch.nan))
    with pytest.raises(InputError, match="vertices must have shape"):
        ours(vertices, INTRINSICS, SIZE)
    with pytest.raises(InputError, match="intrinsics must have shape"):
        ours(vertices[None], INTRINSICS[0], SIZE)
    with pytest.raises(InputError, match="face_attributes must have shape"):
        ours(vertices[None], INTRINSICS, SIZE, face_attributes=torch.zeros(3, 2))
    with pytest.raises(InputError, match="not both"):
        ours(vertices[None], INTRINSICS, SIZE, vertices, vertices)
    with pytest.raises(InputError, match="faces must be integers"):
        Renderer(faces.astype(float), len(vertices))
    with pytest.raises(InputError, match="index vertices"):
        Renderer(faces, 5)


@pytest.mark.skipif(HAS_GPU, reason="there is a GPU")
def test_a_missing_gpu_is_named() -> None:
    with pytest.raises(InputError, match="GPU"):
        ops_cuda.rasterize(torch.zeros(1, 3, 4), torch.zeros(1, 3, dtype=torch.int32), (8, 8))
    with pytest.raises(InputError, match="GPU"):
        Renderer(np.array([[0, 1, 2]]), 3, device="cuda")
    assert Renderer(np.array([[0, 1, 2]]), 3, device="auto").device.type == "cpu"


class Nvdiffrast:
    """Stands in for nvdiffrast.torch where its extension can't be built."""

    @staticmethod
    def RasterizeCudaContext(device: torch.device) -> None:
        raise RuntimeError("Error building extension\n 'nvdiffrast_plugin'")


def test_an_nvdiffrast_that_cannot_be_built_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(device, "find_spec", lambda name: name == "nvdiffrast")
    monkeypatch.setattr(ops_cuda, "nvdiffrast_module", lambda: Nvdiffrast)
    with pytest.raises(InputError, match="uninstall it, and Triton renders instead; or use --device cpu") as raised:
        Renderer(np.array([[0, 1, 2]]), 3, device="cuda")
    assert "can't be built (Error building extension 'nvdiffrast_plugin')" in str(raised.value)


@pytest.mark.skipif(not HAS_GPU or device.gpu_backend() is None, reason="needs a GPU, and nvdiffrast or Triton")
@pytest.mark.parametrize("blend", ["dense", "antialias", "none"])
def test_a_gpu_renders_the_same(blend: Literal["dense", "antialias", "none"]) -> None:
    if blend == "antialias" and device.gpu_backend() == "triton":
        pytest.skip("Triton has no antialias")
    faces, vertices = _blob(2)
    attr = torch.rand(vertices.shape[1], 3)
    results = []
    for name in ("cpu", "cuda"):
        leaf = vertices.clone().requires_grad_()
        render = Renderer(faces, vertices.shape[1], device=name, outline=blend)(
            leaf, INTRINSICS.repeat(2, 1), SIZE, attr
        )
        loss = render.alpha.square().sum() + render.attributes.square().sum()
        results.append((render.alpha.detach().cpu(), *torch.autograd.grad(loss, leaf)))
    (alpha, gradient), (other, other_gradient) = results
    # nvdiffrast rounds positions to 1/16 pixel before it decides what a pixel sees: some pixels differ.
    assert float((alpha - other).abs().mean()) < 2e-3
    assert float((gradient - other_gradient).norm() / gradient.norm()) < 0.1


MAGNITUDES = st.sampled_from([0.0, 1e-30, 1e-3, 1.0, 50.0, 1e6, 1e20, 3e38])


@settings(max_examples=int(os.environ.get("DSR_FIT_RENDER_EXAMPLES", "1000")), deadline=None)
@given(
    seed=st.integers(0, 2**31), vertices=st.integers(3, 30), faces=st.integers(1, 60), magnitude=MAGNITUDES,
    distance=MAGNITUDES, size=st.tuples(st.integers(1, 33), st.integers(1, 33)), channels=st.integers(0, 3),
    repeated=st.booleans(), behind=st.booleans(), batch=st.integers(1, 2),
    blend=st.sampled_from(["dense", "antialias", "none"]),
)  # fmt: skip
def test_nothing_breaks_it(
    seed: int, vertices: int, faces: int, magnitude: float, distance: float, size: tuple[int, int],
    channels: int, repeated: bool, behind: bool, batch: int,
    blend: Literal["dense", "antialias", "none"],
) -> None:  # fmt: skip
    """Degenerate, intersecting, huge, tiny, behind the camera, non-manifold: buffers stay whole, values in
    range."""
    generator = np.random.default_rng(seed)
    points = generator.standard_normal((batch, vertices, 3)) * min(magnitude, 1e37)
    points[..., 2] += -distance if behind else distance
    points = np.clip(points, -3e38, 3e38)
    if repeated:
        points[:, vertices // 2 :] = points[:, :1]
    tri = generator.integers(0, vertices, (faces, 3))
    leaf = torch.tensor(points, dtype=torch.float32, requires_grad=True)
    intrinsics = torch.tensor([[50.0, 50.0, size[1] / 2, size[0] / 2]]).repeat(batch, 1)
    attr = torch.rand(vertices, channels, requires_grad=True)
    render = Renderer(tri, vertices, device="cpu", outline=blend)(leaf, intrinsics, size, attr)
    assert render.alpha.shape == (batch, *size)
    ids = render.rast[..., 3]
    assert torch.equal(ids, ids.round())
    assert 0 <= ids.min() <= ids.max() <= faces
    # Rows and columns may each take a share from a pixel with several outlines, so 0..1 holds up to that.
    assert -2.0 < float(render.alpha.detach().min()) <= float(render.alpha.detach().max()) < 3.0
    if blend != "none":
        torch.autograd.backward([render.alpha.sum() + render.attributes.sum()])
        assert leaf.grad is not None
        assert leaf.grad.shape == leaf.shape
