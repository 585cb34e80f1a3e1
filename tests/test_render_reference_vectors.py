"""The operators of every backend against numbers that nvdiffrast's own kernels computed."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dsr_fit.render import ops_cpu
from tests.render_backends import ON_EVERY_ANTIALIASING_BACKEND, ON_EVERY_BACKEND, ON_OUR_BACKENDS, Backend

NAMES = (
    "01_tri_8x8", "01_tri_16x16", "01_tri_w_12x20", "02_two_tris_24x24", "03_folded_mesh_32x32",
    "04_icosphere_48x48", "04_icosphere_48x48_crids", "04_icosphere1_48x48", "04_icosphere_near_40x56",
    "05_offscreen_32x32", "05_behind_camera_24x24", "07_soup_32x32_attrB2", "07_soup_32x32_attr1",
    "07_soup_48x48_crids", "06_body_112x112", "06_body_112x112_crids", "06_body_224x224",
)  # fmt: skip
# What recomputing with FMA and another order of sums changes, by the README: the small scenes, the body
# scenes.
TOLERANCE = {
    "uv": (6e-6, 5e-4), "rast_db": (4e-5, 4e-5), "interp_out": (1.2e-7, 1.2e-7), "g_attr": (9e-7, 5e-7),
    "g_rast": (1.1e-7, 1.1e-7), "aa_out": (1.6e-6, 3.6e-6), "g_color": (1.6e-6, 3.6e-6),
    "g_pos_aa": (1e-6, 2.4e-6),
    "g_pos": (6.4e-5, 1.4e-3), "g_pos_db": (8.4e-5, 6.1e-5), "chain_g_attr": (9e-7, 5e-7),
    "chain_g_pos": (6.1e-5, 7.2e-5), "interp_da": (4e-5, 4e-5), "g_attr_da": (4e-5, 4e-5),
    "g_rast_db": (4e-5, 4e-5),
}  # fmt: skip


class Case:
    """One file, and the comparison with twice its tolerance."""

    def __init__(self, path: Path) -> None:
        with np.load(path) as data:
            self.data = {key: torch.from_numpy(data[key]) for key in data.files}
        self.body = path.name.startswith("06")

    def __getitem__(self, key: str) -> Tensor:
        return self.data[key]

    def check(self, key: str, value: Tensor, quantity: str | None = None) -> None:
        scale = 1.0 if quantity == "uv" else float(self[key].abs().max())
        truth = self[key][..., :2] if quantity == "uv" else self[key]
        error = float((value.detach() - truth).abs().max()) / scale
        assert error <= 2 * TOLERANCE[quantity or key][self.body], f"{key} is off by {error:.2e}"


@pytest.fixture(params=NAMES, scope="module")
def case(request: pytest.FixtureRequest, shared_dir: Path) -> Case:
    return Case(shared_dir / "data" / "nvdiffrast_reference" / f"{request.param}.npz")


@pytest.fixture(autouse=True)
def no_bodies_for_the_interpreter(request: pytest.FixtureRequest) -> None:
    slow = request.getfixturevalue("backend").interpreted and request.getfixturevalue("case").body
    if slow and "DSR_FIT_INTERPRET_BODIES" not in os.environ:
        pytest.skip("Triton's interpreter takes minutes for a body: DSR_FIT_INTERPRET_BODIES=1 lets it")


@ON_OUR_BACKENDS
def test_ids(backend: Backend, case: Case) -> None:
    height, width = case["resolution"].tolist()
    ids = backend.triangle_ids(case["pos"], case["tri"], (height, width))
    differs = (ids != case["tri_id"]).nonzero()
    if not torch.equal(case["tri_id"], case["tri_id_cudaraster"]):
        assert len(differs) == 0  # these ids were decided on exact positions, as ours are
        return
    # These were decided on positions rounded to 1/16 pixel; the other tests feed them in.
    assert len(differs) < 0.02 * ids.numel()


@ON_OUR_BACKENDS
def test_rasterize(backend: Backend, case: Case) -> None:
    pos = case["pos"].requires_grad_()
    rast, rast_db = backend.barycentrics(pos, case["tri"], case["tri_id"])
    case.check("rast", rast[..., :2], "uv")
    case.check("rast_db", rast_db)
    assert torch.allclose(rast[..., 2], case["rast"][..., 2], atol=1e-6)
    (g_pos,) = torch.autograd.grad(rast, pos, case["dy_rast"], retain_graph=True)
    case.check("g_pos", g_pos)
    if "ddb" in case.data:
        (g_pos,) = torch.autograd.grad([rast, rast_db], pos, [case["dy_rast"], case["ddb"]])
        case.check("g_pos_db", g_pos)


@ON_EVERY_BACKEND
def test_rasterize_with_its_own_ids(backend: Backend, case: Case) -> None:
    """Where a backend sees the file's triangle, it sees the same point of it."""
    height, width = case["resolution"].tolist()
    rast, rast_db = backend.rasterize(case["pos"].detach(), case["tri"], (height, width))
    same = rast[..., 3] == case["tri_id"]
    assert float(same.float().mean()) > 0.98
    error = (rast[..., :2] - case["rast"].detach()[..., :2])[same].abs().max()
    assert float(error) <= 2 * TOLERANCE["uv"][case.body]
    error = (rast_db - case["rast_db"].detach())[same].abs().max() / case["rast_db"].detach().abs().max()
    assert float(error) <= 2 * TOLERANCE["rast_db"][case.body]


@ON_EVERY_BACKEND
def test_interpolate(backend: Backend, case: Case) -> None:
    attr, rast = case["attr"].requires_grad_(), case["rast"].requires_grad_()
    out, _ = backend.interpolate(attr, rast, case["tri"])
    case.check("interp_out", out)
    g_attr, g_rast = torch.autograd.grad(out, [attr, rast], case["dy_interp"])
    case.check("g_attr", g_attr)
    case.check("g_rast", g_rast)
    if "dda" in case.data:
        rast_db = case["rast_db"].requires_grad_()
        out, out_da = backend.interpolate(attr, rast, case["tri"], rast_db, "all")
        case.check("interp_da", out_da)
        g_attr, g_db = torch.autograd.grad([out, out_da], [attr, rast_db], [case["dy_interp"], case["dda"]])
        case.check("g_attr_da", g_attr)
        case.check("g_rast_db", g_db)


@ON_EVERY_ANTIALIASING_BACKEND
def test_antialias(backend: Backend, case: Case) -> None:
    pos, color = case["pos"].requires_grad_(), case["color"].clone().requires_grad_()
    out = backend.antialias(color, case["rast"].detach(), pos, case["tri"])
    case.check("aa_out", out)
    g_color, g_pos = torch.autograd.grad(out, [color, pos], case["dy_aa"])
    case.check("g_color", g_color)
    case.check("g_pos_aa", g_pos)


@ON_OUR_BACKENDS
def test_chain(backend: Backend, case: Case) -> None:
    pos, attr = case["pos"].requires_grad_(), case["attr"].requires_grad_()
    rast, _ = backend.barycentrics(pos, case["tri"], case["tri_id"])
    image, _ = backend.interpolate(attr, rast, case["tri"])
    image = torch.where(case["tri_id"][..., None] > 0, image, case["color"])
    image = ops_cpu.antialias(image, rast.detach(), pos, case["tri"])
    g_attr, g_pos = torch.autograd.grad(image, [attr, pos], case["dy_aa"])
    case.check("chain_g_attr", g_attr)
    case.check("chain_g_pos", g_pos)
