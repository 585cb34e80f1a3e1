"""Numba kernels of one image: pairs of neighbouring pixels with an outline between them, and their blending.

A pair is pixel p0 and its neighbour p1 to the right (axis 0) or in the next row (axis 1). An item is a pair
with an edge between its centres: row (p0, axis, vertex a, vertex b, owner) of `items`, row (t, weight) of
`blend`. The edge crosses the pair t pixels from p0's centre, and alpha = weight * (1/2 - t): positive, p0
gets alpha * (c1 - c0), as much of p1's colour as reaches into it; negative, p1 gets it. The owner is the
pixel (p0 or p1) that sees the edge's surface; only the rounding of the derivative depends on it.
"""

from __future__ import annotations

import math

import numpy as np

from dsr_fit.compilation import kernel
from dsr_fit.render.raster_kernels import corners
from dsr_fit.render.topology import FARTHEST

ROOM = 4096  # rows of a buffer at first
BAND = 1.0 / 16.0  # nvdiffrast looks for an edge this far beyond either centre
ANTIALIAS_GUARD = 1e-3  # pixels, nvdiffrast's guard of 1/dy in the derivative of a crossing


@kernel
def with_room(array, rows):
    """The array itself, or a copy in a buffer of twice as many rows as are needed."""
    if array.shape[0] >= rows:
        return array
    bigger = np.empty((2 * rows, array.shape[1]), array.dtype)
    bigger[: array.shape[0]] = array
    return bigger


@kernel
def face_signs(pos, tri, signs):
    """+1 or -1 for each face's winding as seen from the camera (w < 0 included) into signs (F,)."""
    for f in range(tri.shape[0]):
        v0, v1, v2 = corners(tri, f)
        x0, y0, w0 = np.float64(pos[v0, 0]), np.float64(pos[v0, 1]), np.float64(pos[v0, 3])
        x1, y1, w1 = np.float64(pos[v1, 0]), np.float64(pos[v1, 1]), np.float64(pos[v1, 3])
        x2, y2, w2 = np.float64(pos[v2, 0]), np.float64(pos[v2, 1]), np.float64(pos[v2, 3])
        area = w0 * (x1 * y2 - y1 * x2) + w1 * (x2 * y0 - y2 * x0) + w2 * (x0 * y1 - y0 * x1)
        signs[f] = 1 if area >= 0.0 else -1


@kernel
def outline_items(screen, signs, edges, edge_faces, agree, rast, items, blend, count):
    """Append items of the dense outline from row `count`; returns (items, blend, count), maybe new buffers.

    Every edge between a front- and a back-facing triangle, or on a border, is scanned along the rows and
    columns of pixel centres that it crosses. Of a covered and an empty pixel, the crossing farthest from the
    covered one counts. Of two covered pixels, the nearer one is the occluder; its edge has its surface on the
    occluder's side, is nearer than the mean depth of the two, and is the crossing closest to the occluder.
    The weight dy^2 / (dx^2 + dy^2) shares a slanting edge between the rows and the columns.
    """
    height, width = rast.shape[0], rast.shape[1]
    chosen = np.full((2, height, width), -1, np.int32)
    for e in range(edges.shape[0]):
        f, g = edge_faces[e, 0], edge_faces[e, 1]
        if g >= 0 and (signs[f] == signs[g]) == agree[e]:
            continue
        a, b = edges[e, 0], edges[e, 1]
        reach = max(abs(screen[a, 0]), abs(screen[a, 1]), abs(screen[b, 0]), abs(screen[b, 1]))
        if not reach < FARTHEST:  # NaN, a vertex behind the camera, goes too
            continue
        for axis in range(2):
            # Along the scanned line x, across it y; axis 1 swaps the picture's x and y.
            xa, ya, xb, yb = screen[a, axis], screen[a, 1 - axis], screen[b, axis], screen[b, 1 - axis]
            lines, length = (height, width) if axis == 0 else (width, height)
            low, high = min(ya, yb) - 0.5, max(ya, yb) - 0.5
            if not (high > 0.0 and low <= lines - 1.0):
                continue
            # Half open, so that a line through a shared vertex meets one of its two edges.
            first, last = int(math.ceil(max(low, 0.0))), int(math.ceil(min(high, np.float64(lines))))
            if first >= last:
                continue
            dx, dy = xb - xa, yb - ya
            weight = dy * dy / (dx * dx + dy * dy)
            # The surface lies to the left of a -> b for a positive winding; swapping the axes mirrors that.
            towards_more = (dy < 0.0) == ((signs[f] > 0) == (axis == 0))
            for line in range(first, last):
                s = (line + 0.5 - ya) / dy
                x = xa + s * dx - 0.5
                if not 0.0 <= x < length - 1.0:
                    continue
                k = int(x)
                t = np.float32(x - k)
                i0, j0 = (line, k) if axis == 0 else (k, line)
                i1, j1 = (line, k + 1) if axis == 0 else (k + 1, line)
                id0, id1 = rast[i0, j0, 3], rast[i1, j1, 3]
                if id0 == id1:
                    continue
                if id0 == 0.0 or id1 == 0.0:
                    if (id0 == 0.0) != towards_more:
                        continue
                    farther = id1 == 0.0
                else:
                    z0, z1 = rast[i0, j0, 2], rast[i1, j1, 2]
                    if (z1 < z0) != towards_more:
                        continue
                    if screen[a, 2] + s * (screen[b, 2] - screen[a, 2]) >= 0.5 * (z0 + z1):
                        continue
                    farther = z1 < z0
                n = chosen[axis, i0, j0]
                if n < 0:
                    n = count
                    count += 1
                    items, blend = with_room(items, count), with_room(blend, count)
                    chosen[axis, i0, j0] = n
                elif not (t > blend[n, 0] if farther else t < blend[n, 0]):
                    continue
                items[n, 0], items[n, 1], items[n, 2], items[n, 3] = i0 * width + j0, axis, a, b
                items[n, 4] = i1 * width + j1 if towards_more else items[n, 0]
                blend[n, 0], blend[n, 1] = t, weight
    return items, blend, count


@kernel
def antialias_items(pos, tri, opposite, rast, items, blend, count):
    """Append items of nvdiffrast's antialias from row `count`; returns (items, blend, count)."""
    height, width = rast.shape[0], rast.shape[1]
    x, y = np.empty(4), np.empty(4)  # the triangle's corners, then a neighbour's, along and across the pair
    for i in range(height):
        for j in range(width):
            for axis in range(2):
                i1, j1 = (i, j + 1) if axis == 0 else (i + 1, j)
                if i1 >= height or j1 >= width:
                    continue
                id0, id1 = np.int64(rast[i, j, 3]), np.int64(rast[i1, j1, 3])
                if id0 == id1:
                    continue
                owner0 = id1 == 0 or (id0 != 0 and rast[i, j, 2] < rast[i1, j1, 2])
                face = (id0 if owner0 else id1) - 1
                cx, cy = (j, i) if owner0 else (j1, i1)
                towards = 1.0 if owner0 else -1.0
                for k in range(3):
                    x[k], y[k] = relative(pos, tri[face, k], cx, cy, axis, height, width)
                edge, farthest = -1, -np.inf
                for k in range(3):
                    a, b = (k + 1) % 3, (k + 2) % 3
                    if math.copysign(1.0, y[a]) != math.copysign(1.0, y[b]):
                        dy = y[b] - y[a]
                        distance = towards * (x[a] * dy - y[a] * (x[b] - x[a])) / dy
                        if distance > farthest:
                            edge, farthest = k, distance
                if edge < 0 or not -BAND < farthest < 1.0 + BAND:
                    continue
                a, b = (edge + 1) % 3, (edge + 2) % 3
                if abs(y[b] - y[a]) < abs(x[b] - x[a]):
                    continue
                other = opposite[face, edge]
                if other >= 0:
                    x[3], y[3] = relative(pos, other, cx, cy, axis, height, width)
                    if same_side(x, y, a, b, edge) != same_side(x, y, a, b, 3):
                        continue
                items, blend = with_room(items, count + 1), with_room(blend, count + 1)
                items[count, 0], items[count, 1] = i * width + j, axis
                items[count, 2], items[count, 3] = tri[face, a], tri[face, b]
                items[count, 4] = cy * width + cx
                distance = min(max(farthest, 0.0), 1.0)
                blend[count, 0], blend[count, 1] = distance if owner0 else 1.0 - distance, 1.0
                count += 1
    return items, blend, count


@kernel
def relative(pos, v, cx, cy, axis, height, width):
    """Pixel coordinates of a vertex from the centre of pixel (cx, cy): along the pair's axis, and across."""
    half_w, half_h = np.float32(0.5 * width), np.float32(0.5 * height)
    inverse = np.float32(1.0) / pos[v, 3]
    px = pos[v, 0] * inverse * half_w + (half_w - np.float32(cx + 0.5))
    py = pos[v, 1] * inverse * half_h + (half_h - np.float32(cy + 0.5))
    return (np.float64(px), np.float64(py)) if axis == 0 else (np.float64(py), np.float64(px))


@kernel
def same_side(x, y, a, b, k):
    """Sign bit of the area of corners a, b, k."""
    return math.copysign(1.0, (x[a] - x[k]) * (y[b] - y[k]) - (x[b] - x[k]) * (y[a] - y[k]))


@kernel
def blend_amount(items, blend, n, width):
    """Item n's two pixels, the one that is blended, and alpha."""
    alpha = blend[n, 1] * (np.float32(0.5) - blend[n, 0])
    p0 = np.int64(items[n, 0])
    p1 = p0 + (1 if items[n, 1] == 0 else width)
    return p0, p1, p0 if alpha > 0.0 else p1, alpha


@kernel
def add_blend(items, blend, steps, first, count, width, out):
    """Blend items first..count into out (H * W, C); their c1 - c0, by the colours before, go to rows of
    steps."""
    for n in range(first, count):
        p0, p1, _, _ = blend_amount(items, blend, n, width)
        for c in range(out.shape[1]):
            steps[n, c] = out[p1, c] - out[p0, c]
    for n in range(first, count):
        _, _, target, alpha = blend_amount(items, blend, n, width)
        for c in range(out.shape[1]):
            out[target, c] += alpha * steps[n, c]


@kernel
def pull_blend(pos, items, blend, steps, first, count, height, width, guard, g_out, g_colour, g_pos):
    """Gradients of `add_blend`: adds to g_colour (H * W, C), which holds g_out already, and to g_pos (V,
    4)."""
    for n in range(first, count):
        p0, p1, target, alpha = blend_amount(items, blend, n, width)
        g_alpha = 0.0
        for c in range(g_out.shape[1]):
            g = g_out[target, c]
            g_alpha += g * steps[n, c]
            g_colour[p0, c] -= alpha * g
            g_colour[p1, c] += alpha * g
        if 0.0 < blend[n, 0] < 1.0 and alpha != 0.0:  # nvdiffrast's exceptions: saturated, exactly half-way
            pull_crossing(pos, items, n, blend[n, 1], g_alpha, height, width, guard, g_pos)


@kernel
def pull_crossing(pos, items, n, weight, g_alpha, height, width, guard, g_pos):
    """Add the gradient of item n's alpha, through the place where its edge crosses, to g_pos (V, 4).

    Along the pair x = (xa yb - ya xb) / (yb - ya), relative to the owner's centre; z gets no gradient.
    """
    axis, a, b, owner = items[n, 1], np.uintp(items[n, 2]), np.uintp(items[n, 3]), items[n, 4]
    xa, ya = relative(pos, a, owner % width, owner // width, axis, height, width)
    xb, yb = relative(pos, b, owner % width, owner // width, axis, height, width)
    dy = yb - ya
    inverse = 1.0 / (dy + math.copysign(guard, dy))
    crossing = (xa * yb - ya * xb) * inverse
    g = -weight * g_alpha * inverse
    pull_screen(pos, a, axis, height, width, g * yb, g * (crossing - xb), g_pos)
    pull_screen(pos, b, axis, height, width, -g * ya, g * (xa - crossing), g_pos)


@kernel
def pull_screen(pos, v, axis, height, width, g_along, g_across, g_pos):
    """From the gradient of a vertex's pixel coordinates to its clip coordinates x, y and w."""
    g_x, g_y = (g_along, g_across) if axis == 0 else (g_across, g_along)
    inverse = 1.0 / np.float64(pos[v, 3])
    g_x, g_y = g_x * 0.5 * width * inverse, g_y * 0.5 * height * inverse
    g_pos[v, 0] += g_x
    g_pos[v, 1] += g_y
    g_pos[v, 3] -= (g_x * pos[v, 0] + g_y * pos[v, 1]) * inverse
