"""Our `rasterize`, `interpolate` and dense outline on a GPU, in Triton, which comes with torch's CUDA builds on Linux.

The contract is that of `ops_cpu`; nvdiffrast's `antialias` is not among them. Nothing is built beforehand: Triton
compiles the kernels at first use, for which its launcher wants a C compiler. With `TRITON_INTERPRET=1` in the
environment before Triton is imported, they run on CPU tensors, slowly: for tests.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import cache
from subprocess import CalledProcessError
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dsr_fit.errors import InputError, one_line
from dsr_fit.render import triton_interpolate as points
from dsr_fit.render import triton_outline as border
from dsr_fit.render import triton_raster as raster
from dsr_fit.render.contract import check_attributes, check_instanced, check_mesh, interpolated
from dsr_fit.render.topology import Topology

BLOCK = 128  # triangles or pixels a program
SMALL = 16  # pixels of a triangle's box that one lane draws; larger triangles get programs of their own
TILE = 16  # their pixels at once, squared
LARGE = 1024  # programs for large triangles at once, at most
SHARED = 16  # tiles of a picture for which one more program works on the same triangle
CHANNELS = 32  # attributes at once, at most


def ready(device: torch.device) -> None:
    """Draw a triangle, which compiles what is needed. Raises InputError where Triton can't run on the device."""
    _tried(str(device))


@cache
def _tried(device: str) -> None:
    pos = torch.tensor([[[-1.0, -1.0, 0.0, 1.0], [3.0, -1.0, 0.0, 1.0], [-1.0, 3.0, 0.0, 1.0]]], device=device)
    tri = torch.tensor([[0, 1, 2]], dtype=torch.int32, device=device)
    try:
        triangle_ids(pos, tri, (1, 1))
    except (RuntimeError, OSError, CalledProcessError) as error:
        raise InputError(f"rendering on a GPU by Triton: {_cause(error)}; or use --device cpu") from error


def _cause(error: Exception) -> str:
    """What Triton lacks: its launcher is a few lines of C that it compiles on the spot."""
    if isinstance(error, (OSError, CalledProcessError)) or "C compiler" in str(error):
        said = str(error).strip().splitlines()[-1:]
        return (
            "at first use it needs a C compiler and Python's headers (apt-get install gcc python3-dev, "
            f"or set CC to a compiler); it says: {''.join(said)}"
        )
    return f"it can't run here ({one_line(error)})"


def _blocks(count: int, size: int) -> int:
    """How many blocks of `size` hold `count`."""
    return -(-count // size)


def _launch(kernel: Any, grid: tuple[int, int], like: Tensor, *args: Any, **sizes: Any) -> None:
    """Run a kernel on the tensor's device, its arithmetic as written: without fused multiply-adds."""
    if 0 not in grid:
        with torch.cuda.device(like.device) if like.is_cuda else nullcontext():
            kernel[grid](*args, **sizes, enable_fp_fusion=False)


def triangle_ids(pos: Tensor, tri: Tensor, resolution: Sequence[int]) -> Tensor:
    """Index + 1 of the nearest triangle at each pixel's centre, 0 where there is none: (B, H, W) int32.

    Triangles that index vertices which aren't there are not drawn. Raises InputError for wrong shapes, and for more
    triangles than float32 can number.
    """
    check_mesh(pos, tri)
    (batch, vertices, _), faces, (height, width) = pos.shape, len(tri), resolution
    if faces >= raster.LAST.value:
        raise InputError(f"tri has {faces} triangles; rasterize numbers up to {raster.LAST.value - 1}")
    pos, tri = pos.detach().contiguous(), tri.contiguous()
    keys = torch.full((batch, height, width), raster.EMPTY, device=pos.device)
    large = torch.empty(batch * faces, dtype=torch.int64, device=pos.device)
    count = torch.zeros(1, dtype=torch.int32, device=pos.device)
    shared = pos, tri, keys, large, count, faces, vertices, height, width
    _launch(raster.draw_small, (_blocks(faces, BLOCK), batch), pos, *shared, SMALL=SMALL, BLOCK=BLOCK)
    tiles = _blocks(height, TILE) * _blocks(width, TILE)
    grid = min(LARGE, batch * faces), _blocks(tiles, SHARED)
    _launch(raster.draw_large, grid, pos, *shared, TILE=TILE)
    return (~keys & raster.LAST.value).int()


class Barycentrics(torch.autograd.Function):
    """(u, v, z/w, id) and the pixel derivatives of u and v, of given triangle ids (B, H, W)."""

    @staticmethod
    def forward(ctx: Any, pos: Tensor, tri: Tensor, ids: Tensor, grad_db: bool) -> tuple[Tensor, Tensor]:
        pos, tri, ids = pos.contiguous(), tri.contiguous(), ids.contiguous()
        batch, height, width = ids.shape
        rast = pos.new_empty((batch, height, width, 4))
        rast_db = torch.empty_like(rast) if grad_db else pos.new_empty((0, 0, 0, 4))
        shared = pos, tri, ids, rast, rast_db, pos.shape[1], height, width, *_centres(height, width)
        _launch(raster.shade, (_blocks(height * width, BLOCK), batch), pos, *shared, WITH_DB=grad_db, BLOCK=BLOCK)
        ctx.save_for_backward(pos, tri, rast)
        ctx.set_materialize_grads(False)
        return rast, rast_db

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        pos, tri, rast = ctx.saved_tensors
        batch, height, width, _ = rast.shape
        sizes, grid = (pos.shape[1], height, width), (_blocks(height * width, BLOCK), batch)
        g_pos = torch.zeros_like(pos, dtype=torch.float64)
        g_rast, g_db = (None if g is None or g.numel() == 0 else g.contiguous() for g in grads)
        if g_rast is not None:
            tensors = pos, tri, rast, g_rast, g_pos
            _launch(raster.pull_shade, grid, pos, *tensors, *sizes, *_centres(height, width), BLOCK=BLOCK)
        if g_db is not None:
            _launch(raster.pull_derivatives, grid, pos, pos, tri, rast, g_db, g_pos, *sizes, BLOCK=BLOCK)
        return g_pos.to(pos.dtype), None, None, None


def _centres(height: int, width: int) -> tuple[float, float, float, float]:
    """What the kernels take: steps between the centres of pixels in -1..1, x then y, and the first centres."""
    height, width = max(height, 1), max(width, 1)
    return 2 / width, 2 / height, 1 / width - 1, 1 / height - 1


def rasterize(
    pos: Tensor, tri: Tensor, resolution: Sequence[int], ranges: Tensor | None = None, grad_db: bool = True
) -> tuple[Tensor, Tensor]:
    """As `ops_cpu.rasterize`, of which it sees the same triangles; raises as `triangle_ids`."""
    check_instanced(ranges, "by Triton")
    return Barycentrics.apply(pos, tri, triangle_ids(pos, tri, resolution), grad_db)  # type: ignore[no-any-return]


class Interpolation(torch.autograd.Function):
    """Attributes of the covered pixels."""

    @staticmethod
    def forward(ctx: Any, attr: Tensor, rast: Tensor, tri: Tensor) -> Tensor:
        attr, rast, tri = attr.contiguous(), rast.contiguous(), tri.contiguous()
        out = attr.new_empty((*rast.shape[:3], attr.shape[2]))
        grid, sizes, blocks = _pixels_and_channels(attr, rast)
        _launch(points.interpolate, grid, rast, attr, tri, rast, out, *sizes, **blocks)
        ctx.save_for_backward(attr, rast, tri)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        attr, rast, tri = ctx.saved_tensors
        g_rast = torch.zeros_like(rast)
        wanted = ctx.needs_input_grad[0]
        g_attr = torch.zeros_like(attr) if wanted else attr
        grid, sizes, blocks = _pixels_and_channels(attr, rast)
        tensors = attr, tri, rast, grads[0].contiguous(), g_attr, g_rast
        _launch(points.pull_interpolate, grid, rast, *tensors, *sizes, **blocks, WITH_ATTR=wanted)
        return g_attr if wanted else None, g_rast, None


def _pixels_and_channels(attr: Tensor, rast: Tensor) -> tuple[tuple[int, int], tuple[int, ...], dict[str, int]]:
    """The grid, the sizes and the block sizes that both kernels of `Interpolation` take."""
    batch, height, width, _ = rast.shape
    sets, rows, channels = attr.shape
    blocks = _blocks_of(channels)
    return (_blocks(height * width, blocks["BLOCK"]), batch), (sets, rows, height * width, channels), blocks


def _blocks_of(channels: int) -> dict[str, int]:
    """The channels and the pixels of a program, which fill its registers whatever the channels."""
    block = min(CHANNELS, 1 << max(channels - 1, 0).bit_length())
    return {"CHANNELS": block, "BLOCK": BLOCK * 4 // block}


def interpolate(
    attr: Tensor,
    rast: Tensor,
    tri: Tensor,
    rast_db: Tensor | None = None,
    diff_attrs: Literal["all"] | Sequence[int] | None = None,
) -> tuple[Tensor, Tensor]:
    """As `ops_cpu.interpolate`; attribute rows that aren't there count as zeros."""
    check_attributes(attr, rast)
    out: Tensor = Interpolation.apply(attr, rast, tri)  # type: ignore[assignment]
    return interpolated(out, attr, rast, tri, rast_db, diff_attrs)


class OutlineBlend(torch.autograd.Function):
    """Colours blended across the outline; `edges`, `faces` and `agree` are the topology's."""

    @staticmethod
    def forward(
        ctx: Any, color: Tensor, rast: Tensor, pos: Tensor, tri: Tensor, edges: Tensor, faces: Tensor, agree: Tensor
    ) -> Tensor:
        color, rast, pos, tri = (each.contiguous() for each in (color, rast, pos, tri))
        batch, height, width, channels = color.shape
        sizes, pairs = (pos.shape[1], height, width), (_blocks(2 * height * width, BLOCK), batch)
        keys = torch.full((batch, height, width, 2), border.NONE, device=pos.device)
        alpha, out = torch.empty_like(keys, dtype=torch.float32), torch.empty_like(color)
        tensors = pos, tri, edges, faces, agree, rast, keys
        _launch(
            border.find_crossings, (_blocks(len(edges), BLOCK), batch), pos, *tensors, len(edges), *sizes, BLOCK=BLOCK
        )
        _launch(border.amounts, pairs, pos, pos, edges, keys, alpha, *sizes, BLOCK=BLOCK)
        blocks = _blocks_of(channels)
        grid = _blocks(height * width, blocks["BLOCK"]), batch
        _launch(border.blend, grid, pos, color, alpha, out, height, width, channels, **blocks)
        ctx.save_for_backward(color, pos, edges, keys, alpha)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        color, pos, edges, keys, alpha = ctx.saved_tensors
        batch, height, width, channels = color.shape
        g_color, g_alpha = torch.empty_like(color), torch.empty_like(alpha)
        g_pos = torch.zeros_like(pos, dtype=torch.float64)
        blocks = _blocks_of(channels)
        grid = _blocks(height * width, blocks["BLOCK"]), batch
        tensors = color, alpha, grads[0].contiguous(), g_color, g_alpha
        _launch(border.pull_blend, grid, pos, *tensors, height, width, channels, **blocks)
        sizes, pairs = (pos.shape[1], height, width), (_blocks(2 * height * width, BLOCK), batch)
        _launch(border.pull_amounts, pairs, pos, pos, edges, keys, g_alpha, g_pos, *sizes, BLOCK=BLOCK)
        return g_color, None, g_pos.to(pos.dtype), None, None, None, None


def outline(color: Tensor, rast: Tensor, pos: Tensor, tri: Tensor, topology: Topology) -> Tensor:
    """As `outline.outline`; without waiting for the device to say how many crossings there are."""
    return OutlineBlend.apply(color, rast, pos, tri, *topology.on(pos.device))  # type: ignore[no-any-return]
