"""Triton kernels: attributes at the points seen, and their gradients."""

# pyright: reportGeneralTypeIssues=false
# As in `triton_raster`.

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def seen_rows(tri, rast, at, k: tl.constexpr, rows, inside):
    """The attribute row at corner k of the triangle that each pixel sees, -1 where there is none."""
    found = tl.load(rast + 4 * at + 3, mask=inside, other=0.0).to(tl.int64)
    row = tl.load(tri + 3 * (found - 1) + k, mask=found > 0, other=-1)
    return tl.where(row < rows, row, -1).to(tl.int64)


@triton.jit(do_not_specialize=["sets", "rows", "pixels", "channels"])
def interpolate(
    attr, tri, rast, out, sets, rows, pixels, channels, CHANNELS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Attributes (sets, V, C) of each pixel into out (B, H * W, C), zero where nothing is seen."""
    image = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    at, inside = image * pixels + pixel, pixel < pixels
    attr += image % sets * rows * channels
    r0 = seen_rows(tri, rast, at, 0, rows, inside)[:, None]
    r1 = seen_rows(tri, rast, at, 1, rows, inside)[:, None]
    r2 = seen_rows(tri, rast, at, 2, rows, inside)[:, None]
    u = tl.load(rast + 4 * at, mask=inside, other=0.0)[:, None]
    v = tl.load(rast + 4 * at + 1, mask=inside, other=0.0)[:, None]
    for first in range(0, channels, CHANNELS):
        c = (first + tl.arange(0, CHANNELS))[None, :]
        valid = c < channels
        value = u * tl.load(attr + r0 * channels + c, mask=valid & (r0 >= 0), other=0.0)
        value += v * tl.load(attr + r1 * channels + c, mask=valid & (r1 >= 0), other=0.0)
        value += (1.0 - u - v) * tl.load(attr + r2 * channels + c, mask=valid & (r2 >= 0), other=0.0)
        tl.store(out + at[:, None] * channels + c, value, mask=valid & inside[:, None])


@triton.jit(do_not_specialize=["sets", "rows", "pixels", "channels"])
def pull_interpolate(
    attr, tri, rast, g_out, g_attr, g_rast, sets, rows, pixels, channels,
    WITH_ATTR: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients of `interpolate`: u and v of a zeroed g_rast and, WITH_ATTR, added to g_attr (sets, V, C)."""
    image = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    at, inside = image * pixels + pixel, pixel < pixels
    attr += image % sets * rows * channels
    g_attr += image % sets * rows * channels
    r0 = seen_rows(tri, rast, at, 0, rows, inside)[:, None]
    r1 = seen_rows(tri, rast, at, 1, rows, inside)[:, None]
    r2 = seen_rows(tri, rast, at, 2, rows, inside)[:, None]
    u = tl.load(rast + 4 * at, mask=inside, other=0.0)[:, None]
    v = tl.load(rast + 4 * at + 1, mask=inside, other=0.0)[:, None]
    g_u, g_v = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    for first in range(0, channels, CHANNELS):
        c = (first + tl.arange(0, CHANNELS))[None, :]
        valid = (c < channels) & (r0 >= 0) & (r1 >= 0) & (r2 >= 0)
        g = tl.load(g_out + at[:, None] * channels + c, mask=valid, other=0.0)
        a2 = tl.load(attr + r2 * channels + c, mask=valid, other=0.0)
        g_u += tl.sum(g * (tl.load(attr + r0 * channels + c, mask=valid, other=0.0) - a2), axis=1)
        g_v += tl.sum(g * (tl.load(attr + r1 * channels + c, mask=valid, other=0.0) - a2), axis=1)
        if WITH_ATTR:
            tl.atomic_add(g_attr + r0 * channels + c, g * u, mask=valid, sem="relaxed")
            tl.atomic_add(g_attr + r1 * channels + c, g * v, mask=valid, sem="relaxed")
            tl.atomic_add(g_attr + r2 * channels + c, g * (1.0 - u - v), mask=valid, sem="relaxed")
    tl.store(g_rast + 4 * at, g_u, mask=inside)
    tl.store(g_rast + 4 * at + 1, g_v, mask=inside)
