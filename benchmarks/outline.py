"""How right are the gradients of the coverage? Every way to render an outline against finite differences.

    python benchmarks/outline.py [--sizes 56 112 224] [--poses 12] [--out benchmarks/results/outline.json]

The open body in a dozen poses; L = sum(W * coverage) with W a fixed smooth random image. The truth is the
central difference of L over 16 x 16 supersampled coverage, along named directions: image translation, depth,
each limb's rotation, betas. The figure is the relative L2 error over a group's directions and all poses.
"arms" is the same for the visible area of arms held in front of the torso, where one surface hides another.
"hands left out" has W = 0 around the hands.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from machine import describe_machine
from scipy.ndimage import gaussian_filter
from torch import Tensor

from dsr_fit.body.body import Body
from dsr_fit.body.files import load_body
from dsr_fit.io.files import replacing
from dsr_fit.render import Renderer, ops_cpu
from dsr_fit.render.batch_kernels import blend_outline
from dsr_fit.render.ops_cpu import NO_EDGES
from dsr_fit.render.renderer import clip_positions

SUPERSAMPLES = 16
STEP_PIXELS = 0.25  # the largest displacement of a vertex by a finite-difference step
DEPTH_RANGE = torch.tensor([[3.0, 8.0]], dtype=torch.float64)
LIMBS = (1, 2, 4, 5, 16, 17, 18, 19)  # hips, knees, shoulders, elbows
Parameters = dict[str, Tensor]


def poses(count: int) -> list[Parameters]:
    """Random poses from all sides."""
    generator = torch.Generator().manual_seed(7)
    made = []
    for k in range(count):
        body_pose = 0.25 * torch.randn(1, 69, generator=generator)
        body_pose[0, 15 * 3 + 2] -= 0.8 * torch.rand((), generator=generator)
        body_pose[0, 16 * 3 + 2] += 0.8 * torch.rand((), generator=generator)
        betas = 0.7 * torch.randn(1, 10, generator=generator)
        made.append(_parameters(body_pose, betas, 2 * np.pi * k / count))
    return made


def arms_in_front(count: int) -> list[Parameters]:
    """Upper arms down, forearms before the belly or the chest."""
    generator = torch.Generator().manual_seed(11)
    made = []
    for k in range(count):
        body_pose = 0.1 * torch.randn(1, 69, generator=generator)
        for joint, sign in ((16, -1.0), (17, 1.0)):
            body_pose[0, 3 * (joint - 1) + 2] += sign * 1.1
            body_pose[0, 3 * (joint - 1) + 1] += sign * 0.4
            body_pose[0, 3 * (joint + 1) + 1 : 3 * (joint + 1) + 2] += sign * (1.2 + 0.1 * k)
        betas = 0.7 * torch.randn(1, 10, generator=generator)
        made.append(_parameters(body_pose, betas, 0.1 * (k - count / 2)))
    return made


def _parameters(body_pose: Tensor, betas: Tensor, yaw: float) -> Parameters:
    # Facing the camera with y down is half a turn about x; the yaw comes first, in the body's own frame.
    upright = torch.tensor([[np.pi * np.cos(yaw / 2), 0.0, -np.pi * np.sin(yaw / 2)]], dtype=torch.float32)
    cam_t = torch.tensor([[0.0, 0.0, 5.0]])
    return {"global_orient": upright, "body_pose": body_pose, "betas": betas, "cam_t": cam_t}


def directions() -> list[tuple[str, str, int]]:
    """(group, parameter, index) of every direction."""
    named = [("translation", "cam_t", 0), ("translation", "cam_t", 1), ("depth", "cam_t", 2)]
    named += [("limbs", "body_pose", 3 * (joint - 1) + axis) for joint in LIMBS for axis in range(3)]
    return named + [("betas", "betas", k) for k in range(10)]


def arm_directions() -> list[tuple[str, str, int]]:
    return [("arms", "body_pose", 3 * (joint - 1) + axis) for joint in (16, 17, 18, 19) for axis in range(3)]


def camera(size: int) -> Tensor:
    return torch.tensor([[540.0, 540.0, 112.0, 104.0]]) * size / 224


def smooth_image(size: int) -> Tensor:
    """A fixed random image, smooth at a sixteenth of its side."""
    noise = np.random.default_rng(3).normal(size=(32, 32))
    image = torch.from_numpy(gaussian_filter(noise, 2.0, mode="wrap"))[None, None]
    image = torch.nn.functional.interpolate(image, (size, size), mode="bicubic", align_corners=False)[0, 0]
    return (image / image.std()).float()


def away_from_hands(body: Body, case: Parameters, size: int) -> Tensor:
    """(size, size) 0 within 13 pixels (at 224) of the hands' joints, 1 beyond 19: fingers are thinner than
    pixels."""
    hands = body(**case).joints().detach()[0, [22, 23]]
    pixels = clip_positions(hands[None], camera(size), DEPTH_RANGE, (size, size))[0]
    x, y = ((pixels[:, :2] / pixels[:, 3:] + 1) * size / 2).T[..., None, None]
    centres = torch.arange(size) + 0.5
    distance = ((centres - x) ** 2 + (centres[:, None] - y) ** 2).sqrt().amin(0) * 224 / size
    return ((distance - 13) / 6).clamp(0, 1)


def supersampled(vertices: Tensor, faces: Tensor, size: int, values: Tensor | None) -> Tensor:
    """True coverage (size, size), or the mean of per-vertex values over each pixel."""
    fine = size * SUPERSAMPLES
    pos = clip_positions(vertices, camera(size), DEPTH_RANGE, (size, size))
    if values is None:
        image = (ops_cpu.triangle_ids(pos, faces, (fine, fine)) > 0).float()
    else:
        rast, _ = ops_cpu.rasterize(pos, faces, (fine, fine), grad_db=False)
        image = ops_cpu.interpolate(values[None], rast, faces)[0][..., 0]
    return torch.nn.functional.avg_pool2d(image[:, None], SUPERSAMPLES)[0, 0]


Coverage = Callable[[Tensor, int, Tensor | None], Tensor]


def rendered(renderer: Renderer, factor: int = 1) -> Coverage:
    """Coverage (or values) by our renderer at `factor` times the resolution, averaged."""

    def coverage(vertices: Tensor, size: int, values: Tensor | None) -> Tensor:
        render = renderer(vertices, camera(size * factor), size * factor, values)
        image = render.alpha if values is None else render.attributes[..., 0]
        return torch.nn.functional.avg_pool2d(image[:, None], factor)[0, 0]

    return coverage


def soft_rasteriser(faces: Tensor, sigma: float) -> Coverage:
    """Coverage as in SoftRas: 1 - prod(1 - sigmoid(+-d^2 / sigma)), d the distance to a triangle.

    d is in units of half the image; triangles whose sigmoid falls below 1e-4 are left out, as there.
    """
    reach = float(np.sqrt(sigma * np.log(1e4)))

    def coverage(vertices: Tensor, size: int, _: Tensor | None) -> Tensor:
        pos = clip_positions(vertices, camera(size), DEPTH_RANGE, (size, size))[0]
        corners = (pos[:, :2] / pos[:, 3:]).double()[faces.long()]  # (F, 3, 2)
        low = ((corners.detach().amin(1) - reach + 1) * size / 2 - 0.5).ceil().clamp(0, size).long()
        high = ((corners.detach().amax(1) + reach + 1) * size / 2 - 0.5).floor().clamp(-1, size - 1).long()
        extent = (high - low + 1).clamp(min=0)
        count = extent.prod(1)
        face = torch.repeat_interleave(torch.arange(len(faces)), count)
        k = torch.arange(len(face)) - (count.cumsum(0) - count)[face]
        x, y = low[face, 0] + k % extent[face, 0], low[face, 1] + k // extent[face, 0]
        point = torch.stack([(2 * x + 1) / size - 1, (2 * y + 1) / size - 1], -1)
        a, b = corners[face], corners[face].roll(-1, dims=1)  # (N, 3, 2)
        ab, ap = b - a, point[:, None] - a
        along = ((ap * ab).sum(-1) / (ab * ab).sum(-1).clamp(min=1e-20)).clamp(0, 1)
        distance2 = (ap - along[..., None] * ab).square().sum(-1).amin(1)
        side = ab[..., 0] * ap[..., 1] - ab[..., 1] * ap[..., 0]
        inside = (side >= 0).all(1) | (side <= 0).all(1)
        near = inside | (distance2 < reach**2)
        log_empty = -torch.nn.functional.softplus(torch.where(inside, distance2, -distance2) / sigma)[near]
        pixel = (y * size + x)[near]
        empty = torch.zeros(size * size, dtype=torch.float64).index_add(0, pixel, log_empty).exp()
        return 1 - empty.view(size, size)

    return coverage


class Errors:
    """Squared differences and squared truth, by (method, group)."""

    def __init__(self) -> None:
        self.sums: dict[tuple[str, str], np.ndarray] = {}

    def add(self, method: str, group: str, value: float, truth: float) -> None:
        entry = self.sums.setdefault((method, group), np.zeros(2))
        entry += (value - truth) ** 2, truth**2

    def relative(self) -> dict[str, dict[str, float]]:
        table: dict[str, dict[str, float]] = {}
        for (method, group), (difference, truth) in self.sums.items():
            table.setdefault(method, {})[group] = round(float(np.sqrt(difference / truth)), 4)
        for method in table:
            entries = [s for (m, group), s in self.sums.items() if m == method and group != "arms"]
            if entries:
                difference, truth = np.sum(entries, axis=0)
                table[method]["all"] = round(float(np.sqrt(difference / truth)), 4)
        return table


def measure(
    body: Body,
    case: Parameters,
    size: int,
    methods: dict[str, Coverage],
    named: list[tuple[str, str, int]],
    values: Tensor | None,
    weight: Tensor,
    errors: Errors,
) -> None:
    """Add one pose's gradient errors along the named directions."""
    vertices = body(**case).vertices().detach()
    gradients = {}
    for name, coverage in methods.items():
        leaf = vertices.clone().requires_grad_()
        (gradients[name],) = torch.autograd.grad((coverage(leaf, size, values) * weight).sum(), leaf)
    for group, parameter, index in named:
        probe = [_moved(body, case, parameter, index, h) for h in (1e-3, -1e-3)]
        clip = [clip_positions(v, camera(size), DEPTH_RANGE, (size, size)) for v in probe]
        one, other = (pos[..., :2] / pos[..., 3:] * size / 2 for pos in clip)
        step = STEP_PIXELS * 2e-3 / float((one - other).norm(dim=-1).max())
        ends = [_moved(body, case, parameter, index, h) for h in (step, -step)]
        fine = [float((supersampled(v, body.faces, size, values) * weight).double().sum()) for v in ends]
        truth = (fine[0] - fine[1]) / (2 * step)
        for name, gradient in gradients.items():
            along = float((gradient * (ends[0] - ends[1])).double().sum()) / (2 * step)
            errors.add(name, group, along, truth)


def _moved(body: Body, case: Parameters, parameter: str, index: int, step: float) -> Tensor:
    moved = dict(case)
    moved[parameter] = case[parameter].clone()
    moved[parameter][0, index] += step
    return body(**moved).vertices().detach()


def pairs_with_gradient(body: Body, cases: list[Parameters], size: int, dense: bool) -> float:
    """Share of the pairs of a covered and an empty pixel that pass a gradient to a vertex."""
    renderer = Renderer(body.faces, body.num_vertices, device="cpu")
    topology = renderer.topology
    edges = (topology.edges, topology.faces, topology.agree) if dense else NO_EDGES
    found = outline = 0
    for case in cases:
        pos = clip_positions(body(**case).vertices().detach(), camera(size), DEPTH_RANGE, (size, size))
        rast, _ = ops_cpu.rasterize(pos, body.faces, (size, size), grad_db=False)
        mask = rast[0, ..., 3] > 0
        out = torch.zeros(1, size * size, 1).numpy()
        items, blend, _, _ = blend_outline(
            0, 1, pos.numpy(), body.faces.numpy(), topology.opposite, *edges, rast.numpy(), out
        )
        flat = mask.flatten().numpy()
        other = items[:, 0] + np.where(items[:, 1] == 0, 1, size)
        live = (blend[:, 0] > 0) & (blend[:, 0] < 1)
        found += int((live & (flat[items[:, 0]] != flat[other])).sum())
        outline += int((mask[1:] != mask[:-1]).sum() + (mask[:, 1:] != mask[:, :-1]).sum())
    return round(found / outline, 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[56, 112, 224])
    parser.add_argument("--poses", type=int, default=12)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/outline.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    body = load_body("open")
    mesh = body.faces, body.num_vertices
    dense = Renderer(*mesh, device="cpu")
    plain = Renderer(*mesh, device="cpu", outline="antialias")
    methods = {
        "dense": rendered(dense),
        "antialias": rendered(plain),
        "antialias at 4x": rendered(plain, 4),
        "soft, sigma 1e-5": soft_rasteriser(body.faces, 1e-5),
        "soft, sigma 1e-4": soft_rasteriser(body.faces, 1e-4),
    }
    occluding = {name: methods[name] for name in ("dense", "antialias", "antialias at 4x")}
    on_arms = body.weights.dense()[:, [16, 17, 18, 19, 20, 21, 22, 23]].sum(1, keepdim=True)
    cases, crossed = poses(arguments.poses), arms_in_front(max(arguments.poses // 2, 1))

    results: dict[str, dict] = {"pairs_with_gradient": {}, "gradient_error": {}}
    for size in (56, 112, 224, 448):
        results["pairs_with_gradient"][str(size)] = {
            name: pairs_with_gradient(body, cases, size, name == "dense") for name in ("dense", "antialias")
        }
    print(json.dumps(results["pairs_with_gradient"], indent=1))
    for size in arguments.sizes:
        errors, without_hands, image = Errors(), Errors(), smooth_image(size)
        for case in cases:
            measure(body, case, size, methods, directions(), None, image, errors)
            no_hands = image * away_from_hands(body, case, size)
            measure(body, case, size, {"dense": methods["dense"]}, directions(), None, no_hands, without_hands)
        for case in crossed:
            measure(body, case, size, occluding, arm_directions(), on_arms, image, errors)
        table = errors.relative()
        table["dense, hands left out"] = without_hands.relative()["dense"]
        results["gradient_error"][str(size)] = table
        print(size, json.dumps(table, indent=1), flush=True)
    report = {"machine": describe_machine(), "poses": len(cases), "poses_with_crossed_arms": len(crossed)}
    with replacing(arguments.out) as path:
        path.write_text(json.dumps({**report, **results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
