"""Triton kernels: the dense outline by the rules of `outline_kernels.outline_items`, and its gradients.

A pair is a pixel p0 and its neighbour p1 to the right (axis 0) or in the next row (axis 1), numbered 2 p0 + axis. The
crossings of a pair compete by an atomic maximum, of their rank and then of the earlier edge, in whatever order programs
run; what a pair's crossing blends is computed anew from its edge. So nobody asks how many crossings there are.
"""

# pyright: reportGeneralTypeIssues=false
# As in `triton_raster`.

from __future__ import annotations

import triton
import triton.language as tl

from dsr_fit.render import topology
from dsr_fit.render.triton_raster import SIZES, add_to_vertex, corner

NONE = -1  # the key of a pair that no edge crosses
LAST_EDGE = tl.constexpr(2**31 - 1)
FARTHEST = tl.constexpr(topology.FARTHEST)
ONE = tl.constexpr(0x3F800000)  # bits of 1.0, the largest t: positive floats are ordered as their bits are


@triton.jit
def on_screen(pos, v, height, width, mask):
    """Pixel x, y and z/w of a vertex in double, and whether it lies in front of the camera where float32 can tell."""
    row = pos + 4 * v.to(tl.int64)
    w = tl.load(row + 3, mask=mask, other=0.0).to(tl.float64)
    divisor = tl.where(w > 0.0, w, 1.0)
    x = (tl.load(row, mask=mask, other=0.0).to(tl.float64) / divisor + 1.0) * 0.5 * width.to(tl.float64)
    y = (tl.load(row + 1, mask=mask, other=0.0).to(tl.float64) / divisor + 1.0) * 0.5 * height.to(tl.float64)
    z = tl.load(row + 2, mask=mask, other=0.0).to(tl.float64) / divisor
    return x, y, z, mask & (w > 0.0) & (tl.abs(x) < FARTHEST) & (tl.abs(y) < FARTHEST)


@triton.jit
def is_positive(pos, tri, face, vertices, mask):
    """The winding of a face as seen from the camera."""
    _, x0, y0, _, w0 = corner(pos, tri, face, 0, vertices, mask)
    _, x1, y1, _, w1 = corner(pos, tri, face, 1, vertices, mask)
    _, x2, y2, _, w2 = corner(pos, tri, face, 2, vertices, mask)
    return w0 * (x1 * y2 - y1 * x2) + w1 * (x2 * y0 - y2 * x0) + w2 * (x0 * y1 - y0 * x1) >= 0.0


@triton.jit(do_not_specialize=[*SIZES, "count"])
def find_crossings(
    pos, tri, edges, faces, agree, rast, keys, count, vertices, height, width, BLOCK: tl.constexpr
):  # fmt: skip
    """Each pair's best crossing into keys (B, H, W, 2) int64, which start as NONE; one edge a lane."""
    image = tl.program_id(1).to(tl.int64)
    pos += image * vertices * 4
    rast += image * height * width * 4
    keys += image * height * width * 2
    edge = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = edge < count
    first = tl.load(faces + 2 * edge, mask=mask, other=-1)
    second = tl.load(faces + 2 * edge + 1, mask=mask, other=-1)
    positive = is_positive(pos, tri, first, vertices, mask)
    same = positive == is_positive(pos, tri, second, vertices, mask & (second >= 0))
    folded = same != (tl.load(agree + edge, mask=mask, other=0) != 0)
    mask = mask & ((second < 0) | folded)
    a, b = tl.load(edges + 2 * edge, mask=mask, other=0), tl.load(edges + 2 * edge + 1, mask=mask, other=0)
    xa, ya, za, there_a = on_screen(pos, a, height, width, mask)
    xb, yb, zb, there_b = on_screen(pos, b, height, width, mask)
    mask = there_a & there_b
    for axis in tl.static_range(2):
        # Along the scanned line p, across it q; axis 1 swaps the picture's x and y.
        if axis == 0:
            pa, qa, pb, qb, lines, length = xa, ya, xb, yb, height, width
        else:
            pa, qa, pb, qb, lines, length = ya, xa, yb, xb, width, height
        # Half open, so that a line through a shared vertex meets one of its two edges.
        low, high = tl.minimum(qa, qb) - 0.5, tl.maximum(qa, qb) - 0.5
        limit = lines.to(tl.float64)
        begin = tl.ceil(tl.minimum(tl.maximum(low, 0.0), limit)).to(tl.int32)
        end = tl.ceil(tl.minimum(tl.maximum(high, 0.0), limit)).to(tl.int32)
        crossed = tl.where(mask, end - begin, 0)
        across = tl.where(crossed > 0, qb - qa, 1.0)
        # The surface lies to the left of a -> b for a positive winding; swapping the axes mirrors that.
        ahead = (across < 0.0) == (positive == (axis == 0))
        for n in range(0, tl.max(crossed)):
            line = begin + n
            s = (line.to(tl.float64) + 0.5 - qa) / across
            place = pa + s * (pb - pa) - 0.5
            drawn = (n < crossed) & (place >= 0.0) & (place < length.to(tl.float64) - 1.0)
            k = tl.where(drawn, place, 0.0).to(tl.int32)
            t = (tl.where(drawn, place, 0.0) - k.to(tl.float64)).to(tl.float32)
            if axis == 0:
                p0, step = line * width + k, 1
            else:
                p0, step = k * width + line, width
            p1 = p0 + step
            id0 = tl.load(rast + 4 * p0 + 3, mask=drawn, other=0.0)
            id1 = tl.load(rast + 4 * p1 + 3, mask=drawn, other=0.0)
            z0 = tl.load(rast + 4 * p0 + 2, mask=drawn, other=0.0)
            z1 = tl.load(rast + 4 * p1 + 2, mask=drawn, other=0.0)
            empty = (id0 == 0.0) | (id1 == 0.0)
            owner_ahead = tl.where(empty, id0 == 0.0, z1 < z0)
            near = empty | (za + s * (zb - za) < 0.5 * (z0.to(tl.float64) + z1.to(tl.float64)))
            drawn = drawn & (id0 != id1) & (ahead == owner_ahead) & near
            # Beside an empty pixel the crossing farthest from the covered one counts, else the one closest to the
            # occluder.
            bits = t.to(tl.int32, bitcast=True)
            rank = tl.where(empty != owner_ahead, bits, ONE - bits).to(tl.int64)
            key = rank * (LAST_EDGE + 1) + (LAST_EDGE - edge)
            tl.atomic_max(keys + 2 * p0 + axis, key, mask=drawn, sem="relaxed")


@triton.jit
def crossing(pos, edges, key, pair, vertices, height, width):
    """Of a pair's crossing: the edge's vertices, where along it (0..1) and along the pair (0..1) it lies, and its slope
    along the pair over across it."""
    some = key >= 0
    edge = tl.where(some, LAST_EDGE - (key & LAST_EDGE), 0).to(tl.int32)
    a, b = tl.load(edges + 2 * edge, mask=some, other=0), tl.load(edges + 2 * edge + 1, mask=some, other=0)
    xa, ya, _, _ = on_screen(pos, a, height, width, some)
    xb, yb, _, _ = on_screen(pos, b, height, width, some)
    row, column = pair // 2 // width, pair // 2 % width
    along = pair % 2 == 0
    pa, qa = tl.where(along, xa, ya), tl.where(along, ya, xa)
    pb, qb = tl.where(along, xb, yb), tl.where(along, yb, xb)
    line, k = tl.where(along, row, column), tl.where(along, column, row)
    across = tl.where(some, qb - qa, 1.0)
    s = (line.to(tl.float64) + 0.5 - qa) / across
    t = pa + s * (pb - pa) - 0.5 - k.to(tl.float64)
    return a, b, s, t, (pb - pa) / across


@triton.jit(do_not_specialize=SIZES)
def amounts(pos, edges, keys, alpha, vertices, height, width, BLOCK: tl.constexpr):
    """How much of p1's colour less p0's each pair blends, into p0 where positive, else into p1: alpha (B, H, W, 2)."""
    image = tl.program_id(1).to(tl.int64)
    pair = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = pair < 2 * height * width
    at = image * height * width * 2 + pair
    key = tl.load(keys + at, mask=inside, other=-1)
    _, _, _, t, slope = crossing(pos + image * vertices * 4, edges, key, pair, vertices, height, width)
    value = ((0.5 - t) / (1.0 + slope * slope)).to(tl.float32)
    tl.store(alpha + at, tl.where(key >= 0, value, 0.0), mask=inside)


@triton.jit(do_not_specialize=SIZES)
def pull_amounts(pos, edges, keys, g_alpha, g_pos, vertices, height, width, BLOCK: tl.constexpr):
    """Add the gradient of `amounts`, through where edges cross, to g_pos (B, V, 4) in double; z gets none."""
    image = tl.program_id(1).to(tl.int64)
    pair = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = pair < 2 * height * width
    at = image * height * width * 2 + pair
    key = tl.load(keys + at, mask=inside, other=-1)
    some = key >= 0
    pos += image * vertices * 4
    g_pos += image * vertices * 4
    a, b, s, _, slope = crossing(pos, edges, key, pair, vertices, height, width)
    pull = -tl.load(g_alpha + at, mask=some, other=0.0).to(tl.float64) / (1.0 + slope * slope)
    pull_screen(pos, g_pos, a, pull * (1.0 - s), slope, pair % 2 == 0, height, width, some)
    pull_screen(pos, g_pos, b, pull * s, slope, pair % 2 == 0, height, width, some)


@triton.jit
def pull_screen(pos, g_pos, v, g_along, slope, along, height, width, mask):
    """From the gradient of a vertex's pixel coordinate along the pair, which fixes that across, to x, y and w."""
    row = pos + 4 * v.to(tl.int64)
    x, y = tl.load(row, mask=mask, other=0.0).to(tl.float64), tl.load(row + 1, mask=mask, other=0.0).to(tl.float64)
    w = tl.load(row + 3, mask=mask, other=1.0).to(tl.float64)
    g_across = -slope * g_along
    g_x = tl.where(along, g_along, g_across) * 0.5 * width.to(tl.float64) / w
    g_y = tl.where(along, g_across, g_along) * 0.5 * height.to(tl.float64) / w
    add_to_vertex(g_pos, v, g_x, g_y, -(g_x * x + g_y * y) / w, mask)


@triton.jit
def neighbours(alpha, at, i, j, height, width, inside):
    """The four pairs of pixel (i, j): alpha of those to the right, the next row, the left and the row before; 0 for
    none."""
    right = tl.load(alpha + 2 * at, mask=inside & (j < width - 1), other=0.0)
    below = tl.load(alpha + 2 * at + 1, mask=inside & (i < height - 1), other=0.0)
    left = tl.load(alpha + 2 * (at - 1), mask=inside & (j > 0), other=0.0)
    above = tl.load(alpha + 2 * (at - width) + 1, mask=inside & (i > 0), other=0.0)
    return right, below, left, above


@triton.jit(do_not_specialize=["height", "width", "channels"])
def blend(color, alpha, out, height, width, channels, CHANNELS: tl.constexpr, BLOCK: tl.constexpr):
    """Colours (B, H, W, C) blended into out; a pixel a lane sums what its four pairs give it."""
    image = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < height * width
    at = image * height * width + pixel
    right, below, left, above = neighbours(alpha, at, pixel // width, pixel % width, height, width, inside)
    # As p0 a pixel is blended by what is positive, as p1 by the rest.
    right, below = tl.maximum(right, 0.0)[:, None], tl.maximum(below, 0.0)[:, None]
    left, above = tl.minimum(left, 0.0)[:, None], tl.minimum(above, 0.0)[:, None]
    for start in range(0, channels, CHANNELS):
        c = (start + tl.arange(0, CHANNELS))[None, :]
        valid = inside[:, None] & (c < channels)
        own = color + at[:, None] * channels + c
        here = tl.load(own, mask=valid, other=0.0)
        value = here + right * (tl.load(own + channels, mask=valid & (right != 0.0), other=0.0) - here)
        value += below * (tl.load(own + width * channels, mask=valid & (below != 0.0), other=0.0) - here)
        value += left * (here - tl.load(own - channels, mask=valid & (left != 0.0), other=0.0))
        value += above * (here - tl.load(own - width * channels, mask=valid & (above != 0.0), other=0.0))
        tl.store(out + at[:, None] * channels + c, value, mask=valid)


@triton.jit(do_not_specialize=["height", "width", "channels"])
def pull_blend(
    color, alpha, g_out, g_color, g_alpha, height, width, channels, CHANNELS: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Gradients of `blend`: of the colours, and of the alpha of each pixel's pairs to the right and the next row."""
    image = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < height * width
    at = image * height * width + pixel
    right, below, left, above = neighbours(alpha, at, pixel // width, pixel % width, height, width, inside)
    right, below, left, above = right[:, None], below[:, None], left[:, None], above[:, None]
    g_right, g_below = tl.zeros((BLOCK,), tl.float32), tl.zeros((BLOCK,), tl.float32)
    for start in range(0, channels, CHANNELS):
        c = (start + tl.arange(0, CHANNELS))[None, :]
        valid = inside[:, None] & (c < channels)
        here = at[:, None] * channels + c
        after, under = here + channels, here + width * channels
        before, over = here - channels, here - width * channels
        g = tl.load(g_out + here, mask=valid, other=0.0)
        # A pair's gradient is that of the pixel that it blends.
        g_after = tl.where(right > 0.0, g, tl.load(g_out + after, mask=valid & (right < 0.0), other=0.0))
        g_under = tl.where(below > 0.0, g, tl.load(g_out + under, mask=valid & (below < 0.0), other=0.0))
        g_before = tl.where(left > 0.0, tl.load(g_out + before, mask=valid & (left > 0.0), other=0.0), g)
        g_over = tl.where(above > 0.0, tl.load(g_out + over, mask=valid & (above > 0.0), other=0.0), g)
        value = g - right * g_after - below * g_under + left * g_before + above * g_over
        tl.store(g_color + here, value, mask=valid)
        own = tl.load(color + here, mask=valid, other=0.0)
        ahead, down = valid & (right != 0.0), valid & (below != 0.0)
        g_right += tl.sum(tl.where(ahead, g_after * (tl.load(color + after, mask=ahead, other=0.0) - own), 0.0), axis=1)
        g_below += tl.sum(tl.where(down, g_under * (tl.load(color + under, mask=down, other=0.0) - own), 0.0), axis=1)
    tl.store(g_alpha + 2 * at, g_right, mask=inside)
    tl.store(g_alpha + 2 * at + 1, g_below, mask=inside)
