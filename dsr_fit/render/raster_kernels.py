"""Numba kernels of one image: which triangle is seen at a pixel's centre, where on it, and the way back.

Conventions are nvdiffrast's: clip-space positions (x, y, z, w); pixel i has its centre at i + 0.5 and
x_pixel = (x/w + 1) * width / 2; row 0 is y/w = -1; smaller z/w is nearer; both windings are seen; triangle
ids are index + 1 and 0 is empty. All arithmetic is double, so that a vertex projected to a pixel keeps every
digit that float32 positions hold; buffers are float32.
"""

from __future__ import annotations

import math

import numpy as np

from dsr_fit.compilation import inlined, kernel

EPSILON = 1e-6  # nvdiffrast's guard of 1/sum in the derivative of the barycentrics


@kernel
def project_screen(pos, height, width, screen):
    """Pixel x, y and z/w of each vertex into screen (V, 3); NaN for a vertex that is not in front (w <=
    0)."""
    half_w, half_h = 0.5 * width, 0.5 * height
    for v in range(pos.shape[0]):
        w = np.float64(pos[v, 3])
        if w > 0.0:
            inverse = 1.0 / w
            screen[v, 0] = (pos[v, 0] * inverse + 1.0) * half_w
            screen[v, 1] = (pos[v, 1] * inverse + 1.0) * half_h
            screen[v, 2] = pos[v, 2] * inverse
        else:
            screen[v, :] = np.nan


@inlined
def corners(tri, face):
    """A triangle's vertices; unsigned, which spares the compiled code Python's wrap-around of negative
    indices."""
    return np.uintp(tri[face, 0]), np.uintp(tri[face, 1]), np.uintp(tri[face, 2])


@inlined
def pixel_range(low, high, size):
    """First and last pixel whose centre lies in [low, high], clamped to the image; NaN gives an empty
    range."""
    if not (high >= 0.5 and low <= size - 0.5):
        return 1, 0
    return math.ceil(max(low - 0.5, 0.0)), math.floor(min(high - 0.5, size - 1.0))


@inlined
def draw_in_front(screen, v0, v1, v2, mark, ids, depth):
    """Depth-test one triangle whose three vertices lie in front of the camera."""
    height, width = ids.shape
    x0, y0, z0 = screen[v0, 0], screen[v0, 1], screen[v0, 2]
    x1, y1, z1 = screen[v1, 0], screen[v1, 1], screen[v1, 2]
    x2, y2, z2 = screen[v2, 0], screen[v2, 1], screen[v2, 2]
    top, bottom = pixel_range(min(y0, y1, y2), max(y0, y1, y2), height)
    if top > bottom:
        return
    left, right = pixel_range(min(x0, x1, x2), max(x0, x1, x2), width)
    if left > right:
        return
    # Edge functions e = a x + b y + c change sign to the last bit with the edge's direction: no gap at shared
    # edges.
    a0, b0, c0 = y1 - y2, x2 - x1, x1 * y2 - y1 * x2
    a1, b1, c1 = y2 - y0, x0 - x2, x2 * y0 - y2 * x0
    a2, b2, c2 = y0 - y1, x1 - x0, x0 * y1 - y0 * x1
    winding = 1.0 if c0 + c1 + c2 > 0.0 else -1.0
    for i in range(top, bottom + 1):
        row0, row1, row2 = b0 * (i + 0.5) + c0, b1 * (i + 0.5) + c1, b2 * (i + 0.5) + c2
        for j in range(left, right + 1):
            e0, e1, e2 = a0 * (j + 0.5) + row0, a1 * (j + 0.5) + row1, a2 * (j + 0.5) + row2
            if min(winding * e0, winding * e1, winding * e2) >= 0.0:
                total = e0 + e1 + e2
                if total != 0.0:
                    z = (e0 * z0 + e1 * z1 + e2 * z2) / total
                    if -1.0 <= z <= depth[i, j]:
                        depth[i, j] = z
                        ids[i, j] = mark


@kernel
def corner(pos, v):
    return np.float64(pos[v, 0]), np.float64(pos[v, 1]), np.float64(pos[v, 2]), np.float64(pos[v, 3])


@kernel
def clipped_box(pos, tri, face, height, width):
    """Pixel range of a triangle's part between the near and far planes (there w >= |z|), rows then
    columns."""
    _, _, z0, w0 = corner(pos, tri[face, 0])
    _, _, z1, w1 = corner(pos, tri[face, 1])
    _, _, z2, w2 = corner(pos, tri[face, 2])
    # Where both planes meet the camera's own, z = w = 0, inside the triangle, its edges don't bound what is seen.
    side0, side1, side2 = z1 * w2 - w1 * z2, z2 * w0 - w2 * z0, z0 * w1 - w0 * z1
    if min(side0, side1, side2) >= 0.0 or max(side0, side1, side2) <= 0.0:
        return 0, height - 1, 0, width - 1
    low_x, high_x, low_y, high_y = np.inf, -np.inf, np.inf, -np.inf
    for k in range(3):
        xa, ya, za, wa = corner(pos, tri[face, k])
        xb, yb, zb, wb = corner(pos, tri[face, (k + 1) % 3])
        # The part of the edge inside both planes, as an interval of its parameter.
        begin, end = 0.0, 1.0
        for da, db in ((wa + za, wb + zb), (wa - za, wb - zb)):
            if da < 0.0 and db < 0.0:
                begin, end = 1.0, 0.0
            elif da < 0.0:
                begin = max(begin, da / (da - db))
            elif db < 0.0:
                end = min(end, da / (da - db))
        if begin > end:
            continue
        for t in (begin, end):
            w = wa + t * (wb - wa)
            if w <= 1e-12 * (abs(wa) + abs(wb)):
                return 0, height - 1, 0, width - 1  # touches the camera's own plane: seen anywhere
            x = 0.5 * width * ((xa + t * (xb - xa)) / w + 1.0)
            y = 0.5 * height * ((ya + t * (yb - ya)) / w + 1.0)
            low_x, high_x, low_y, high_y = min(low_x, x), max(high_x, x), min(low_y, y), max(high_y, y)
    margin = 1e-3  # of a pixel, for the rounding of the clipped ends
    top, bottom = pixel_range(low_y - margin, high_y + margin, height)
    left, right = pixel_range(low_x - margin, high_x + margin, width)
    return top, bottom, left, right


@kernel
def edge_functions(pos, tri, face, fx, fy):
    """The three homogeneous edge functions a0, a1, a2 at the point (fx, fy) of the view plane."""
    x0, y0, _, w0 = corner(pos, tri[face, 0])
    x1, y1, _, w1 = corner(pos, tri[face, 1])
    x2, y2, _, w2 = corner(pos, tri[face, 2])
    x0, y0, x1, y1 = x0 - fx * w0, y0 - fy * w0, x1 - fx * w1, y1 - fy * w1
    x2, y2 = x2 - fx * w2, y2 - fy * w2
    return x1 * y2 - y1 * x2, x2 * y0 - y2 * x0, x0 * y1 - y0 * x1


@kernel
def draw_across(pos, tri, face, ids, depth):
    """Depth-test one triangle with a vertex behind the camera: homogeneous edge functions need no
    clipping."""
    height, width = ids.shape
    _, _, z0, w0 = corner(pos, tri[face, 0])
    _, _, z1, w1 = corner(pos, tri[face, 1])
    _, _, z2, w2 = corner(pos, tri[face, 2])
    top, bottom, left, right = clipped_box(pos, tri, face, height, width)
    for i in range(top, bottom + 1):
        fy = (2 * i + 1) / height - 1.0
        for j in range(left, right + 1):
            e0, e1, e2 = edge_functions(pos, tri, face, (2 * j + 1) / width - 1.0, fy)
            if (e0 >= 0.0 and e1 >= 0.0 and e2 >= 0.0) or (e0 <= 0.0 and e1 <= 0.0 and e2 <= 0.0):
                w = e0 * w0 + e1 * w1 + e2 * w2
                if w * (e0 + e1 + e2) > 0.0:  # the point seen lies in front of the camera
                    z = (e0 * z0 + e1 * z1 + e2 * z2) / w
                    if -1.0 <= z <= depth[i, j]:
                        depth[i, j] = z
                        ids[i, j] = face + 1


@kernel
def visible_triangles(pos, tri, screen, ids, depth):
    """Nearest triangle at each pixel centre within |z/w| <= 1 into ids (H, W); exact ties go to the later
    one."""
    ids[:] = 0
    depth[:] = 1.0
    for face in range(tri.shape[0]):
        v0, v1, v2 = corners(tri, face)
        if pos[v0, 3] > 0.0 and pos[v1, 3] > 0.0 and pos[v2, 3] > 0.0:
            draw_in_front(screen, v0, v1, v2, face + 1, ids, depth)
        elif pos[v0, 3] > 0.0 or pos[v1, 3] > 0.0 or pos[v2, 3] > 0.0:
            draw_across(pos, tri, face, ids, depth)


@kernel
def centre(pixel, size):
    """A pixel centre in normalised coordinates -1..1, rounded as float32 kernels round it."""
    return np.float32(2.0 / size) * np.float32(pixel) + np.float32(1.0 / size - 1.0)


@kernel
def shade(pos, tri, ids, rast):
    """Perspective-correct (u, v, z/w, id) of each covered pixel into a zeroed rast (H, W, 4).

    In float32, for parity: on slivers far smaller than a pixel nvdiffrast's own rounding shows in the third
    digit.
    """
    height, width = ids.shape
    zero, one = np.float32(0.0), np.float32(1.0)
    for i in range(height):
        fy = centre(i, height)
        for j in range(width):
            face = ids[i, j] - 1
            if face < 0:
                continue
            fx = centre(j, width)
            v0, v1, v2 = corners(tri, face)
            x0, y0 = pos[v0, 0] - fx * pos[v0, 3], pos[v0, 1] - fy * pos[v0, 3]
            x1, y1 = pos[v1, 0] - fx * pos[v1, 3], pos[v1, 1] - fy * pos[v1, 3]
            x2, y2 = pos[v2, 0] - fx * pos[v2, 3], pos[v2, 1] - fy * pos[v2, 3]
            a0, a1, a2 = x1 * y2 - y1 * x2, x2 * y0 - y2 * x0, x0 * y1 - y0 * x1
            inverse = one / (a0 + a1 + a2)
            z = a0 * pos[v0, 2] + a1 * pos[v1, 2] + a2 * pos[v2, 2]
            w = a0 * pos[v0, 3] + a1 * pos[v1, 3] + a2 * pos[v2, 3]
            # Clamps fire only by rounding, or where the id was decided on other positions than these.
            u, v = min(max(a0 * inverse, zero), one), min(max(a1 * inverse, zero), one)
            scale = one / max(u + v, one)
            rast[i, j, 0], rast[i, j, 1] = u * scale, v * scale
            rast[i, j, 2] = min(max(z / w, -one), one)
            rast[i, j, 3] = face + 1


@kernel
def cross(a, b):
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@kernel
def plane_corner(pos, v):
    """A vertex as the point (x, y, w) of the projective view plane."""
    return np.float64(pos[v, 0]), np.float64(pos[v, 1]), np.float64(pos[v, 3])


@inlined
def pull_barycentrics(pos, v0, v1, v2, fx, fy, g_u, g_v, g_pos):
    """Add the gradient of one pixel's unclamped (u, v) to g_pos (V, 4): x, y and w; z gets none.

    With the corners q_i = (x_i - fx w_i, y_i - fy w_i): a_0 = q_1 x q_2 and so on, u = a_0 / sum, v = a_1 /
    sum.
    """
    x0, y0 = pos[v0, 0] - fx * pos[v0, 3], pos[v0, 1] - fy * pos[v0, 3]
    x1, y1 = pos[v1, 0] - fx * pos[v1, 3], pos[v1, 1] - fy * pos[v1, 3]
    x2, y2 = pos[v2, 0] - fx * pos[v2, 3], pos[v2, 1] - fy * pos[v2, 3]
    a0, a1, a2 = x1 * y2 - y1 * x2, x2 * y0 - y2 * x0, x0 * y1 - y0 * x1
    total = a0 + a1 + a2
    inverse = np.float32(1.0) / (total + math.copysign(np.float32(EPSILON), total))
    mean = (g_u * a0 + g_v * a1) * inverse
    h0, h1, h2 = inverse * (g_u - mean), inverse * (g_v - mean), -inverse * mean
    pull_corner(v0, fx, fy, h2 * y1 - h1 * y2, h1 * x2 - h2 * x1, g_pos)
    pull_corner(v1, fx, fy, h0 * y2 - h2 * y0, h2 * x0 - h0 * x2, g_pos)
    pull_corner(v2, fx, fy, h1 * y0 - h0 * y1, h0 * x1 - h1 * x0, g_pos)


@inlined
def pull_corner(v, fx, fy, g_x, g_y, g_pos):
    """From the gradient of q = (x - fx w, y - fy w) to that of the vertex."""
    g_pos[v, 0] += g_x
    g_pos[v, 1] += g_y
    g_pos[v, 3] -= fx * g_x + fy * g_y
