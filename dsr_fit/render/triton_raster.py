"""Triton kernels: which triangle is seen at a pixel's centre, where on it, and the way back.

Conventions are those of `raster_kernels`. What is visible is decided in double by one rule for all triangles, the
homogeneous edge functions, which need no clipping; launched without fused multiply-adds they change sign to the last
bit with an edge's direction, so that shared edges leave no gap, and a GPU sees what the CPU sees.

The visibility buffer holds one 64-bit number a pixel: 39 bits of depth, then 24 bits that are smaller for later
triangles. Its atomic minimum is the nearest triangle, the later one of equals, whatever the order of the writes.
"""

# pyright: reportGeneralTypeIssues=false
# To it the kernels' functions never return, for outside of kernels they can't be called.

from __future__ import annotations

import triton
import triton.language as tl

EMPTY = 2**63 - 1  # a pixel that sees nothing
LAST = tl.constexpr(2**24 - 1)  # the largest triangle id; float32, which holds ids in rast, counts no further
DEPTH_STEPS = tl.constexpr(2.0**37)  # for one unit of z/w
EPSILON = tl.constexpr(1e-6)  # as in `raster_kernels`
SIZES = ["faces", "vertices", "height", "width"]  # arguments whose values compile nothing anew
MARGIN = tl.constexpr(1e-6)  # of a pixel, around a triangle's box, for the rounding of the projection


@triton.jit
def corner(pos, tri, face, k: tl.constexpr, vertices, mask):
    """Vertex index of corner k and its x, y, z, w in double.

    A corner that isn't there, masked or outside 0..vertices-1, is all zeros: no triangle with w = 0 in the corner
    that faces the only edge left is ever seen.
    """
    v = tl.load(tri + 3 * face.to(tl.int64) + k, mask=mask, other=-1)
    there = mask & (v >= 0) & (v < vertices)
    row = pos + 4 * v.to(tl.int64)
    x = tl.load(row, mask=there, other=0.0).to(tl.float64)
    y = tl.load(row + 1, mask=there, other=0.0).to(tl.float64)
    z = tl.load(row + 2, mask=there, other=0.0).to(tl.float64)
    w = tl.load(row + 3, mask=there, other=0.0).to(tl.float64)
    return tl.where(there, v, 0), x, y, z, w


@triton.jit
def pixel_range(p0, w0, p1, w1, p2, w2, size):
    """First pixel of one axis whose centre a triangle in front of the camera may cover, and how many they are."""
    half = 0.5 * size.to(tl.float64)
    s0 = (p0 * (1.0 / tl.where(w0 > 0.0, w0, 1.0)) + 1.0) * half - 0.5
    s1 = (p1 * (1.0 / tl.where(w1 > 0.0, w1, 1.0)) + 1.0) * half - 0.5
    s2 = (p2 * (1.0 / tl.where(w2 > 0.0, w2, 1.0)) + 1.0) * half - 0.5
    low = tl.minimum(tl.minimum(s0, s1), s2) - MARGIN
    high = tl.maximum(tl.maximum(s0, s1), s2) + MARGIN
    first = tl.ceil(tl.minimum(tl.maximum(low, 0.0), size.to(tl.float64))).to(tl.int32)
    last = tl.floor(tl.minimum(tl.maximum(high, -1.0), size.to(tl.float64) - 1.0)).to(tl.int32)
    return first, tl.maximum(last - first + 1, 0)


@triton.jit
def edge_functions(x0, y0, w0, x1, y1, w1, x2, y2, w2, fx, fy):
    """The homogeneous edge functions a0, a1, a2 at the point (fx, fy) of the view plane."""
    p0, q0 = x0 - fx * w0, y0 - fy * w0
    p1, q1 = x1 - fx * w1, y1 - fy * w1
    p2, q2 = x2 - fx * w2, y2 - fy * w2
    return p1 * q2 - q1 * p2, p2 * q0 - q2 * p0, p0 * q1 - q0 * p1


@triton.jit
def normals(x0, y0, w0, x1, y1, w1, x2, y2, w2):
    """x and y of the edge functions' first two gradients in the view plane, and of the sum of all three."""
    n0x, n0y = y1 * w2 - w1 * y2, w1 * x2 - x1 * w2
    n1x, n1y = y2 * w0 - w2 * y0, w2 * x0 - x2 * w0
    return n0x, n0y, n1x, n1y, n0x + n1x + y0 * w1 - w0 * y1, n0y + n1y + w0 * x1 - x0 * w1


@triton.jit
def centre(pixel, size):
    """A pixel's centre in -1..1, in double."""
    return (2 * pixel + 1).to(tl.float64) * (1.0 / size.to(tl.float64)) - 1.0


@triton.jit
def see(keys, face, i, j, mask, x0, y0, z0, w0, x1, y1, z1, w1, x2, y2, z2, w2, height, width):
    """Depth-test a triangle at the centre of pixel (i, j)."""
    a0, a1, a2 = edge_functions(x0, y0, w0, x1, y1, w1, x2, y2, w2, centre(j, width), centre(i, height))
    low, high = tl.minimum(tl.minimum(a0, a1), a2), tl.maximum(tl.maximum(a0, a1), a2)
    w = a0 * w0 + a1 * w1 + a2 * w2
    z = (a0 * z0 + a1 * z1 + a2 * z2) / tl.where(w == 0.0, 1.0, w)
    # The sign of w and of the sum agree where the point seen lies in front of the camera.
    seen = mask & ((low >= 0.0) | (high <= 0.0)) & (w * (a0 + a1 + a2) > 0.0) & (z >= -1.0) & (z <= 1.0)
    depth = ((tl.where(seen, z, 0.0) + 1.0) * DEPTH_STEPS).to(tl.int64)
    key = depth * (LAST + 1) + (LAST - 1 - face)
    tl.atomic_min(keys + i * width + j, key, mask=seen, sem="relaxed")


@triton.jit(do_not_specialize=SIZES)
def draw_small(
    pos, tri, keys, large, count, faces, vertices, height, width, SMALL: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    """Draw the triangles whose box holds at most SMALL pixels, one a lane; list the others in `large`.

    keys (B, H, W) int64 start as EMPTY; `large` has room for all triangles of all images, as image * faces + face.
    """
    image = tl.program_id(1).to(tl.int64)
    pos += image * vertices * 4
    keys += image * height * width
    face = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = face < faces
    _, x0, y0, z0, w0 = corner(pos, tri, face, 0, vertices, mask)
    _, x1, y1, z1, w1 = corner(pos, tri, face, 1, vertices, mask)
    _, x2, y2, z2, w2 = corner(pos, tri, face, 2, vertices, mask)
    left, columns = pixel_range(x0, w0, x1, w1, x2, w2, width)
    top, rows = pixel_range(y0, w0, y1, w1, y2, w2, height)
    in_front = (w0 > 0.0) & (w1 > 0.0) & (w2 > 0.0)
    behind = (w0 <= 0.0) & (w1 <= 0.0) & (w2 <= 0.0)
    pixels = rows * columns
    small = in_front & (pixels <= SMALL)
    slot = tl.atomic_add(count + face * 0, 1, mask=mask & ~small & ~behind, sem="relaxed")
    tl.store(large + slot, image * faces + face, mask=mask & ~small & ~behind)
    for n in range(0, tl.max(tl.where(small, pixels, 0))):
        row = n // tl.maximum(columns, 1)
        i, j = top + row, left + n - row * columns
        drawn = small & (n < pixels)
        see(keys, face, i, j, drawn, x0, y0, z0, w0, x1, y1, z1, w1, x2, y2, z2, w2, height, width)


@triton.jit(do_not_specialize=SIZES)
def draw_large(pos, tri, keys, large, count, faces, vertices, height, width, TILE: tl.constexpr):
    """Draw the listed triangles: programs (p, q) share them by p, and the tiles of TILE x TILE pixels by q.

    Those with a vertex behind the camera may show anywhere.
    """
    for n in range(tl.program_id(0), tl.load(count), tl.num_programs(0)):
        item = tl.load(large + n)
        image = item // faces
        face = (item - image * faces).to(tl.int32)
        points, buffer = pos + image * vertices * 4, keys + image * height * width
        _, x0, y0, z0, w0 = corner(points, tri, face, 0, vertices, True)
        _, x1, y1, z1, w1 = corner(points, tri, face, 1, vertices, True)
        _, x2, y2, z2, w2 = corner(points, tri, face, 2, vertices, True)
        left, columns = pixel_range(x0, w0, x1, w1, x2, w2, width)
        top, rows = pixel_range(y0, w0, y1, w1, y2, w2, height)
        in_front = (w0 > 0.0) & (w1 > 0.0) & (w2 > 0.0)
        left, columns = tl.where(in_front, left, 0), tl.where(in_front, columns, width)
        top, rows = tl.where(in_front, top, 0), tl.where(in_front, rows, height)
        across = tl.cdiv(columns, TILE)
        for tile in range(tl.program_id(1), across * tl.cdiv(rows, TILE), tl.num_programs(1)):
            pixel = tl.arange(0, TILE * TILE)
            i = top + tile // across * TILE + pixel // TILE
            j = left + tile % across * TILE + pixel % TILE
            drawn = (i < top + rows) & (j < left + columns)
            see(buffer, face, i, j, drawn, x0, y0, z0, w0, x1, y1, z1, w1, x2, y2, z2, w2, height, width)


@triton.jit(do_not_specialize=SIZES)
def shade(
    pos, tri, ids, rast, rast_db, vertices, height, width, step_x, step_y, first_x, first_y,
    WITH_DB: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """(u, v, z/w, id) of each pixel into rast (B, H, W, 4) and, WITH_DB, the derivatives into rast_db, from ids.

    rast in float32, for parity with nvdiffrast, which also has the pixels' centres as first + step * index.
    """
    image = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < height * width
    at = image * height * width + pixel
    pos += image * vertices * 4
    found = tl.load(ids + at, mask=inside, other=0)
    _, x0, y0, z0, w0 = corner(pos, tri, found - 1, 0, vertices, found > 0)
    _, x1, y1, z1, w1 = corner(pos, tri, found - 1, 1, vertices, found > 0)
    _, x2, y2, z2, w2 = corner(pos, tri, found - 1, 2, vertices, found > 0)
    i, j = pixel // width, pixel % width
    fx, fy = step_x * j.to(tl.float32) + first_x, step_y * i.to(tl.float32) + first_y
    a0, a1, a2 = edge_functions(
        x0.to(tl.float32), y0.to(tl.float32), w0.to(tl.float32), x1.to(tl.float32), y1.to(tl.float32),
        w1.to(tl.float32), x2.to(tl.float32), y2.to(tl.float32), w2.to(tl.float32), fx, fy,
    )  # fmt: skip
    total = a0 + a1 + a2
    z = a0 * z0.to(tl.float32) + a1 * z1.to(tl.float32) + a2 * z2.to(tl.float32)
    w = a0 * w0.to(tl.float32) + a1 * w1.to(tl.float32) + a2 * w2.to(tl.float32)
    inverse = tl.div_rn(1.0, tl.where(total == 0.0, 1.0, total))
    z = tl.div_rn(z, tl.where(w == 0.0, 1.0, w))
    # Clamps fire only by rounding, or where the id was decided on other positions than these.
    u, v = tl.minimum(tl.maximum(a0 * inverse, 0.0), 1.0), tl.minimum(tl.maximum(a1 * inverse, 0.0), 1.0)
    scale = tl.div_rn(1.0, tl.maximum(u + v, 1.0))
    u, v = u * scale, v * scale
    tl.store(rast + 4 * at, tl.where(found > 0, u, 0.0), mask=inside)
    tl.store(rast + 4 * at + 1, tl.where(found > 0, v, 0.0), mask=inside)
    tl.store(rast + 4 * at + 2, tl.where(found > 0, tl.minimum(tl.maximum(z, -1.0), 1.0), 0.0), mask=inside)
    tl.store(rast + 4 * at + 3, found.to(tl.float32), mask=inside)
    if WITH_DB:
        a0, a1, a2 = edge_functions(x0, y0, w0, x1, y1, w1, x2, y2, w2, centre(j, width), centre(i, height))
        total = a0 + a1 + a2
        inverse = 2.0 / tl.where(total == 0.0, 1.0, total)
        across, down = inverse / width.to(tl.float64), inverse / height.to(tl.float64)
        n0x, n0y, n1x, n1y, sum_x, sum_y = normals(x0, y0, w0, x1, y1, w1, x2, y2, w2)
        tl.store(rast_db + 4 * at, (across * (n0x - u * sum_x)).to(tl.float32), mask=inside)
        tl.store(rast_db + 4 * at + 1, (down * (n0y - u * sum_y)).to(tl.float32), mask=inside)
        tl.store(rast_db + 4 * at + 2, (across * (n1x - v * sum_x)).to(tl.float32), mask=inside)
        tl.store(rast_db + 4 * at + 3, (down * (n1y - v * sum_y)).to(tl.float32), mask=inside)


@triton.jit(do_not_specialize=SIZES)
def pull_shade(
    pos, tri, rast, g_rast, g_pos, vertices, height, width, step_x, step_y, first_x, first_y, BLOCK: tl.constexpr
):  # fmt: skip
    """Add the gradient of the unclamped u and v to g_pos (B, V, 4) in double; z gets none.

    With the corners q_k = (x_k - fx w_k, y_k - fy w_k): a_0 = q_1 x q_2 and so on, u = a_0 / sum, v = a_1 / sum. In
    float32, for parity: nvdiffrast's rounding shows on slivers, in the fourth digit of a body's gradient.
    """
    image = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < height * width
    at = 4 * (image * height * width + pixel)
    pos += image * vertices * 4
    g_pos += image * vertices * 4
    found = tl.load(rast + at + 3, mask=inside, other=0.0).to(tl.int32)
    seen = found > 0
    v0, x0, y0, _, w0 = corner(pos, tri, found - 1, 0, vertices, seen)
    v1, x1, y1, _, w1 = corner(pos, tri, found - 1, 1, vertices, seen)
    v2, x2, y2, _, w2 = corner(pos, tri, found - 1, 2, vertices, seen)
    fx = step_x * (pixel % width).to(tl.float32) + first_x
    fy = step_y * (pixel // width).to(tl.float32) + first_y
    x0, y0 = x0.to(tl.float32) - fx * w0.to(tl.float32), y0.to(tl.float32) - fy * w0.to(tl.float32)
    x1, y1 = x1.to(tl.float32) - fx * w1.to(tl.float32), y1.to(tl.float32) - fy * w1.to(tl.float32)
    x2, y2 = x2.to(tl.float32) - fx * w2.to(tl.float32), y2.to(tl.float32) - fy * w2.to(tl.float32)
    a0, a1, a2 = x1 * y2 - y1 * x2, x2 * y0 - y2 * x0, x0 * y1 - y0 * x1
    total = a0 + a1 + a2
    inverse = tl.div_rn(1.0, total + tl.where(total < 0.0, -EPSILON, EPSILON))
    g_u = tl.load(g_rast + at, mask=seen, other=0.0)
    g_v = tl.load(g_rast + at + 1, mask=seen, other=0.0)
    mean = (g_u * a0 + g_v * a1) * inverse
    h0, h1, h2 = inverse * (g_u - mean), inverse * (g_v - mean), -inverse * mean
    add_to_corner(g_pos, v0, h2 * y1 - h1 * y2, h1 * x2 - h2 * x1, fx, fy, seen)
    add_to_corner(g_pos, v1, h0 * y2 - h2 * y0, h2 * x0 - h0 * x2, fx, fy, seen)
    add_to_corner(g_pos, v2, h1 * y0 - h0 * y1, h0 * x1 - h1 * x0, fx, fy, seen)


@triton.jit
def add_to_corner(g_pos, v, g_x, g_y, fx, fy, mask):
    """From the gradient of q = (x - fx w, y - fy w) to that of the vertex."""
    add_to_vertex(g_pos, v, g_x, g_y, -(fx * g_x + fy * g_y), mask)


@triton.jit
def add_to_vertex(g_pos, v, g_x, g_y, g_w, mask):
    row = g_pos + 4 * v.to(tl.int64)
    tl.atomic_add(row, g_x.to(tl.float64), mask=mask, sem="relaxed")
    tl.atomic_add(row + 1, g_y.to(tl.float64), mask=mask, sem="relaxed")
    tl.atomic_add(row + 3, g_w.to(tl.float64), mask=mask, sem="relaxed")


@triton.jit(do_not_specialize=SIZES)
def pull_derivatives(pos, tri, rast, g_db, g_pos, vertices, height, width, BLOCK: tl.constexpr):
    """Add the gradient of `shade`'s derivatives, through the unclamped u and v too, to g_pos (B, V, 4) in double.

    With the corners as points p_k = (x, y, w) and the normals n_0 = p_1 x p_2 and so on, a_k = n_k . (fx, fy, 1),
    u = a_0 / sum and du/dX = 2 / W (n_0.x - u N.x) / sum, where N is the sum of the normals.
    """
    image = tl.program_id(1).to(tl.int64)
    pixel = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = pixel < height * width
    at = 4 * (image * height * width + pixel)
    pos += image * vertices * 4
    g_pos += image * vertices * 4
    found = tl.load(rast + at + 3, mask=inside, other=0.0).to(tl.int32)
    seen = found > 0
    v0, x0, y0, _, w0 = corner(pos, tri, found - 1, 0, vertices, seen)
    v1, x1, y1, _, w1 = corner(pos, tri, found - 1, 1, vertices, seen)
    v2, x2, y2, _, w2 = corner(pos, tri, found - 1, 2, vertices, seen)
    fx, fy = centre(pixel % width, width), centre(pixel // width, height)
    a0, a1, a2 = edge_functions(x0, y0, w0, x1, y1, w1, x2, y2, w2, fx, fy)
    total = a0 + a1 + a2
    inverse = 1.0 / (total + tl.where(total < 0.0, -EPSILON, EPSILON))
    u, v = a0 * inverse, a1 * inverse
    n0x, n0y, n1x, n1y, sum_x, sum_y = normals(x0, y0, w0, x1, y1, w1, x2, y2, w2)
    across, down = 2.0 * inverse / width.to(tl.float64), 2.0 * inverse / height.to(tl.float64)
    ux = across * tl.load(g_db + at, mask=seen, other=0.0)
    uy = down * tl.load(g_db + at + 1, mask=seen, other=0.0)
    vx = across * tl.load(g_db + at + 2, mask=seen, other=0.0)
    vy = down * tl.load(g_db + at + 3, mask=seen, other=0.0)
    g_u, g_v = -(ux * sum_x + uy * sum_y), -(vx * sum_x + vy * sum_y)
    g_total = -inverse * (
        ux * (n0x - u * sum_x) + uy * (n0y - u * sum_y) + vx * (n1x - v * sum_x) + vy * (n1y - v * sum_y)
        + g_u * u + g_v * v
    )  # fmt: skip
    # Gradients of the normals: x and y directly and through the a_k, the third component through these alone.
    g0, g1, g2 = g_total + g_u * inverse, g_total + g_v * inverse, g_total
    shared_x, shared_y = -u * ux - v * vx, -u * uy - v * vy
    g0x, g0y = ux + shared_x + g0 * fx, uy + shared_y + g0 * fy
    g1x, g1y = vx + shared_x + g1 * fx, vy + shared_y + g1 * fy
    g2x, g2y = shared_x + g2 * fx, shared_y + g2 * fy
    # For n = a x b: the gradient of a is b x g, of b is g x a.
    add_to_vertex(
        g_pos, v0, g1y * w2 - g1 * y2 + y1 * g2 - w1 * g2y, g1 * x2 - g1x * w2 + w1 * g2x - x1 * g2,
        g1x * y2 - g1y * x2 + x1 * g2y - y1 * g2x, seen,
    )  # fmt: skip
    add_to_vertex(
        g_pos, v1, g2y * w0 - g2 * y0 + y2 * g0 - w2 * g0y, g2 * x0 - g2x * w0 + w2 * g0x - x2 * g0,
        g2x * y0 - g2y * x0 + x2 * g0y - y2 * g0x, seen,
    )  # fmt: skip
    add_to_vertex(
        g_pos, v2, g0y * w1 - g0 * y1 + y0 * g1 - w0 * g1y, g0 * x1 - g0x * w1 + w0 * g1x - x0 * g1,
        g0x * y1 - g0y * x1 + x0 * g1y - y0 * g1x, seen,
    )  # fmt: skip
