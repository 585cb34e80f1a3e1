"""nvdiffrast's operators on the CPU: `rasterize`, `interpolate`, `antialias`, with its semantics and layouts.

Instanced mode only: positions (B, V, 4) in clip space, one triangle list for all images. Everything is
float32; docs/rendering.md holds the conventions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dsr_fit.errors import InputError
from dsr_fit.render import batch_kernels as kernels
from dsr_fit.render.contract import check_attributes, check_instanced, check_mesh, interpolated
from dsr_fit.render.outline_kernels import ANTIALIAS_GUARD
from dsr_fit.render.topology import Topology, topology_of
from dsr_fit.threads import chunks_of, in_threads, over_images

NO_IMAGES = np.zeros((0, 0, 0, 4), np.float32)
NO_EDGES = (np.zeros((0, 2), np.int32), np.zeros((0, 2), np.int32), np.zeros(0, np.bool_))


def attribute_gradient(
    pull: Callable[[int, int, int, np.ndarray], None],
    shape: Sequence[int],
    chunks: Sequence[tuple[int, int]],
    wanted: bool,
) -> Tensor | None:
    """Run pull(chunk, start, stop, g_attr) for each chunk of images: the gradient of attr (B or 1, V, C).

    A set shared by all images gets one buffer a thread, summed in the order of the images: no race, no luck.
    """
    if not wanted:
        nothing = np.zeros((shape[0], 0, shape[2]), np.float32)
        buffers = [nothing] * len(chunks)
    elif shape[0] == 1:
        buffers = [np.zeros(shape, np.float32) for _ in chunks]
    else:
        buffers = [np.zeros(shape, np.float32)] * len(chunks)
    in_threads(pull, range(len(chunks)), *zip(*chunks, strict=True), buffers)
    if not wanted:
        return None
    return torch.from_numpy(sum(buffers[1:], buffers[0]) if shape[0] == 1 else buffers[0])


def array(tensor: Tensor) -> np.ndarray:
    """The tensor's own memory, contiguous."""
    return tensor.detach().contiguous().numpy()


def pixels(image: Tensor) -> np.ndarray:
    """An image's own memory (B, H, W, C) as (B, H * W, C)."""
    return array(image).reshape(image.shape[0], image.shape[1] * image.shape[2], image.shape[3])


def _check(pos: Tensor, tri: Tensor) -> None:
    check_mesh(pos, tri)
    if tri.numel() and (int(tri.min()) < 0 or int(tri.max()) >= pos.shape[1]):
        raise InputError(f"tri indexes vertices outside 0..{pos.shape[1] - 1}")


def triangle_ids(pos: Tensor, tri: Tensor, resolution: Sequence[int]) -> Tensor:
    """Index + 1 of the nearest triangle at each pixel's centre, 0 where there is none: (B, H, W) int32."""
    _check(pos, tri)
    ids = torch.empty((len(pos), *resolution), dtype=torch.int32)
    pos_, tri_, ids_ = array(pos), array(tri), ids.numpy()
    over_images(lambda start, stop: kernels.triangle_ids(start, stop, pos_, tri_, ids_), len(pos))
    return ids


class Barycentrics(torch.autograd.Function):
    """(u, v, z/w, id) and the pixel derivatives of u and v, of given triangle ids (B, H, W)."""

    @staticmethod
    def forward(ctx: Any, pos: Tensor, tri: Tensor, ids: Tensor, grad_db: bool) -> tuple[Tensor, Tensor]:
        rast = torch.zeros((*ids.shape, 4))
        rast_db = torch.zeros_like(rast) if grad_db else torch.zeros((0, 0, 0, 4))
        pos_, tri_, ids_, rast_, db_ = array(pos), array(tri), array(ids), rast.numpy(), rast_db.numpy()
        over_images(lambda a, b: kernels.barycentrics(a, b, pos_, tri_, ids_, rast_, db_), len(pos))
        ctx.save_for_backward(pos, tri, rast)
        ctx.set_materialize_grads(False)
        return rast, rast_db

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        pos, tri, rast = ctx.saved_tensors
        g_rast, g_db = grads
        g_rast_ = array(torch.zeros_like(rast) if g_rast is None else g_rast)
        g_db_ = NO_IMAGES if g_db is None else array(g_db)
        pos_, tri_, rast_, g_pos = array(pos), array(tri), array(rast), np.zeros(pos.shape)
        over_images(lambda a, b: kernels.pull_barycentrics(a, b, pos_, tri_, rast_, g_rast_, g_db_, g_pos), len(pos))
        return torch.from_numpy(g_pos.astype(np.float32)), None, None, None


def rasterize(
    pos: Tensor,  # (B, V, 4) float32 clip space
    tri: Tensor,  # (F, 3) int32
    resolution: Sequence[int],  # (H, W)
    ranges: Tensor | None = None,
    grad_db: bool = True,
) -> tuple[Tensor, Tensor]:
    """rast (B, H, W, 4) = (u, v, z/w, id + 1) and rast_db (B, H, W, 4) = (du/dX, du/dY, dv/dX, dv/dY).

    rast_db is empty without `grad_db`. Gradients reach x, y and w of the vertices seen, through u, v and
    rast_db. Raises InputError for wrong shapes, and for `ranges` (nvdiffrast's other input mode).
    """
    check_instanced(ranges, "on the CPU")
    ids = triangle_ids(pos, tri, resolution)
    return Barycentrics.apply(pos, tri, ids, grad_db)  # type: ignore[no-any-return]


class Interpolation(torch.autograd.Function):
    """Attributes of the covered pixels."""

    @staticmethod
    def forward(ctx: Any, attr: Tensor, rast: Tensor, tri: Tensor) -> Tensor:
        out = torch.zeros((*rast.shape[:3], attr.shape[2]))
        attr_, rast_, tri_, out_ = array(attr), pixels(rast), array(tri), pixels(out)
        over_images(lambda a, b: kernels.interpolate(a, b, attr_, tri_, rast_, out_), len(rast))
        ctx.save_for_backward(attr, rast, tri)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        attr, rast, tri = ctx.saved_tensors
        attr_, rast_, tri_, g_out = array(attr), pixels(rast), array(tri), pixels(grads[0])
        g_rast = torch.zeros_like(rast)
        g_rast_ = pixels(g_rast)

        def pull(_: int, start: int, stop: int, g_attr: np.ndarray) -> None:
            kernels.pull_interpolate(start, stop, attr_, tri_, rast_, g_out, g_attr, g_rast_)

        g_attr = attribute_gradient(pull, attr.shape, chunks_of(len(rast)), ctx.needs_input_grad[0])
        return g_attr, g_rast, None


def interpolate(
    attr: Tensor,  # (B or 1, V, C) float32
    rast: Tensor,  # (B, H, W, 4)
    tri: Tensor,  # (F, 3) int32, rows of attr at each triangle's corners
    rast_db: Tensor | None = None,
    diff_attrs: Literal["all"] | Sequence[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Attributes (B, H, W, C), zero on empty pixels, and their pixel derivatives (B, H, W, 2 D).

    The latter are (dA/dX, dA/dY) of each attribute named by `diff_attrs` in turn, empty without it.
    Raises InputError for wrong shapes, and for `diff_attrs` without `rast_db`.
    """
    check_attributes(attr, rast)
    if tri.numel() and int(tri.max()) >= attr.shape[1]:
        raise InputError(f"tri indexes attribute {int(tri.max())} of {attr.shape[1]}")
    out: Tensor = Interpolation.apply(attr, rast, tri)  # type: ignore[assignment]
    return interpolated(out, attr, rast, tri, rast_db, diff_attrs)


class OutlineBlend(torch.autograd.Function):
    """Blending across an outline: nvdiffrast's antialias, or the dense outline where the topology's edges go
    in."""

    @staticmethod
    def forward(
        ctx: Any, color: Tensor, rast: Tensor, pos: Tensor, tri: Tensor, topology: Topology, dense: bool
    ) -> Tensor:
        batch = len(color)
        out = color.detach().clone(memory_format=torch.contiguous_format)
        edges = (topology.edges, topology.faces, topology.agree) if dense else NO_EDGES
        mesh = array(pos), array(tri), topology.opposite, *edges
        rast_, out_ = array(rast), pixels(out)
        ctx.items = over_images(lambda a, b: kernels.blend_outline(a, b, *mesh, rast_, out_), batch)
        ctx.chunks = chunks_of(batch)
        ctx.guard = 0.0 if dense else ANTIALIAS_GUARD
        ctx.save_for_backward(pos)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (pos,) = ctx.saved_tensors
        _, height, width, _ = grads[0].shape
        g_out = pixels(grads[0])
        pos_, g_color, g_pos = array(pos), g_out.copy(), np.zeros(pos.shape)

        def pull(bounds: tuple[int, int], saved: tuple[np.ndarray, ...]) -> None:
            kernels.pull_blend(*bounds, pos_, *saved, height, width, ctx.guard, g_out, g_color, g_pos)

        in_threads(pull, ctx.chunks, ctx.items)
        g_color_, g_pos_ = torch.from_numpy(g_color), torch.from_numpy(g_pos.astype(np.float32))
        return g_color_.view(grads[0].shape), None, g_pos_, None, None, None


def antialias(
    color: Tensor,  # (B, H, W, C) float32
    rast: Tensor,  # (B, H, W, 4)
    pos: Tensor,  # (B, V, 4) float32 clip space
    tri: Tensor,  # (F, 3) int32
) -> Tensor:
    """Colours (B, H, W, C) blended across silhouette edges of the triangles seen, as nvdiffrast does.

    Gradients reach `color` and, through where the edges cross, x, y and w of `pos`.
    """
    _check(pos, tri)
    return OutlineBlend.apply(color, rast, pos, tri, topology_of(tri), False)  # type: ignore[no-any-return]
