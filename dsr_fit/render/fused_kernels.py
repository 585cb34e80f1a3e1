"""Kernels of the renderer's hot path: projection, and rasterise + interpolate + dense outline in one sweep.

They chain the kernels of the separate operators over the same buffers, and skip what an operator's signature
would force: a copy of the colours for each step, and gradients of images that hold nothing.
"""

from __future__ import annotations

import numpy as np

from dsr_fit.compilation import inlined, kernel
from dsr_fit.render import interpolate_kernels as points
from dsr_fit.render import outline_kernels as outline
from dsr_fit.render import raster_kernels as raster


@kernel
def project(vertices, intrinsics, depth_range, height, width, pos):
    """Clip positions (B, V, 4) of camera-frame vertices (B, V, 3): w is the depth, z/w runs over
    depth_range (B, 2)."""
    for b in range(vertices.shape[0]):
        fx, fy = 2.0 * intrinsics[b, 0] / width, 2.0 * intrinsics[b, 1] / height
        cx, cy = 2.0 * intrinsics[b, 2] / width - 1.0, 2.0 * intrinsics[b, 3] / height - 1.0
        near, far = depth_range[b, 0], depth_range[b, 1]
        slope, offset = (far + near) / (far - near), -2.0 * far * near / (far - near)
        for v in range(vertices.shape[1]):
            z = np.float64(vertices[b, v, 2])
            pos[b, v, 0] = fx * vertices[b, v, 0] + cx * z
            pos[b, v, 1] = fy * vertices[b, v, 1] + cy * z
            pos[b, v, 2] = slope * z + offset
            pos[b, v, 3] = z


@kernel
def pull_project(vertices, intrinsics, height, width, g_pos, g_vertices, g_intrinsics):
    """Gradients of `project`; clip z carries none."""
    for b in range(vertices.shape[0]):
        kx, ky = 2.0 / width, 2.0 / height
        fx, fy = kx * intrinsics[b, 0], ky * intrinsics[b, 1]
        cx, cy = kx * intrinsics[b, 2] - 1.0, ky * intrinsics[b, 3] - 1.0
        g_fx, g_fy, g_cx, g_cy = 0.0, 0.0, 0.0, 0.0
        for v in range(vertices.shape[1]):
            gx, gy, gw = g_pos[b, v, 0], g_pos[b, v, 1], g_pos[b, v, 3]
            x, y, z = vertices[b, v, 0], vertices[b, v, 1], vertices[b, v, 2]
            g_vertices[b, v, 0] = fx * gx
            g_vertices[b, v, 1] = fy * gy
            g_vertices[b, v, 2] = cx * gx + cy * gy + gw
            g_fx += gx * x
            g_fy += gy * y
            g_cx += gx * z
            g_cy += gy * z
        g_intrinsics[b, 0], g_intrinsics[b, 1] = kx * g_fx, ky * g_fy
        g_intrinsics[b, 2], g_intrinsics[b, 3] = kx * g_cx, ky * g_cy


@kernel
def coverage_step(rast, p0, p1):
    """The change of the hard mask from pixel p0 to p1 of rast (H * W, 4)."""
    return (1.0 if rast[p1, 3] > 0.0 else 0.0) - (1.0 if rast[p0, 3] > 0.0 else 0.0)


@kernel
def draw(start, stop, pos, tri, attr, attr_tri, edges, edge_faces, agree, rast, colour, alpha):
    """Images start..stop into zeroed rast (B, H, W, 4), colour (B, H * W, C) and alpha (B, H * W).

    Returns items, blend, steps and ends as `batch_kernels.blend_outline` does.
    """
    height, width, channels = rast.shape[1], rast.shape[2], colour.shape[2]
    ids, depth = np.empty((height, width), np.int32), np.empty((height, width))
    screen, signs = np.empty((pos.shape[1], 3)), np.empty(tri.shape[0], np.int8)
    items, blend = np.empty((outline.ROOM, 5), np.int32), np.empty((outline.ROOM, 2), np.float32)
    steps, ends = np.empty((outline.ROOM, channels), np.float32), np.zeros(stop - start, np.int64)
    count = 0
    for b in range(start, stop):
        raster.project_screen(pos[b], height, width, screen)
        raster.visible_triangles(pos[b], tri, screen, ids, depth)
        raster.shade(pos[b], tri, ids, rast[b])
        flat = rast[b].reshape(height * width, 4)
        values, colour_b, alpha_b = attr[b % attr.shape[0]], colour[b], alpha[b]
        for p in range(height * width):
            face = np.int64(flat[p, 3]) - 1
            if face >= 0:
                v0, v1, v2 = raster.corners(attr_tri, face)
                alpha_b[p] = 1.0
                points.attribute_at(values, v0, v1, v2, flat[p, 0], flat[p, 1], colour_b, p)
        first = count
        outline.face_signs(pos[b], tri, signs)
        items, blend, count = outline.outline_items(
            screen, signs, edges, edge_faces, agree, rast[b], items, blend, count
        )
        steps = outline.with_room(steps, count)
        outline.add_blend(items, blend, steps, first, count, width, colour_b)
        for n in range(first, count):
            p0, p1, target, amount = outline.blend_amount(items, blend, n, width)
            alpha_b[target] += amount * coverage_step(flat, p0, p1)
        ends[b - start] = count
    return items[:count].copy(), blend[:count].copy(), steps[:count].copy(), ends


@inlined
def pull_point(pos, tri, attr, attr_tri, flat, p, fx, fy, g_colour, source, scale, g_attr, g_pos):
    """Gradients of the attributes of covered pixel p at (fx, fy), the upstream being scale *
    g_colour[source]."""
    face = np.int64(flat[p, 3]) - 1
    v0, v1, v2 = raster.corners(attr_tri, face)
    u, v = flat[p, 0], flat[p, 1]
    g_u, g_v = points.pull_attribute(attr, v0, v1, v2, u, v, g_colour, source, scale, g_attr)
    if g_u != 0.0 or g_v != 0.0:
        v0, v1, v2 = raster.corners(tri, face)
        raster.pull_barycentrics(pos, v0, v1, v2, fx, fy, g_u, g_v, g_pos)


@kernel
def pull_image(
    pos, tri, attr, attr_tri, flat, items, blend, steps, first, last, height, width,
    g_colour, g_alpha, g_attr, g_pos
):  # fmt: skip
    """Gradients of one image of `draw`: flat is its rast (H * W, 4), first..last are its items."""
    one = np.float32(1.0)
    for i in range(height):
        fy = raster.centre(i, height)
        for p in range(i * width, (i + 1) * width):
            if flat[p, 3] > 0.0:
                fx = raster.centre(p - i * width, width)
                pull_point(pos, tri, attr, attr_tri, flat, p, fx, fy, g_colour, p, one, g_attr, g_pos)
    for n in range(first, last):
        p0, p1, target, amount = outline.blend_amount(items, blend, n, width)
        g_amount = g_alpha[target] * coverage_step(flat, p0, p1)
        for c in range(g_colour.shape[1]):
            g_amount += g_colour[target, c] * steps[n, c]
        outline.pull_crossing(pos, items, n, blend[n, 1], g_amount, height, width, 0.0, g_pos)
        for p, scale in ((p0, -amount), (p1, amount)):
            if flat[p, 3] > 0.0:
                fx, fy = raster.centre(p % width, width), raster.centre(p // width, height)
                pull_point(pos, tri, attr, attr_tri, flat, p, fx, fy, g_colour, target, scale, g_attr, g_pos)


@kernel
def pull_draw(
    start, stop, pos, tri, attr, attr_tri, rast, items, blend, steps, ends, g_colour, g_alpha, g_attr, g_pos
):  # fmt: skip
    """Gradients of `draw`: adds to g_attr (like attr, or no rows: not wanted) and to g_pos (B, V, 4)."""
    height, width = rast.shape[1], rast.shape[2]
    first = 0
    for b in range(start, stop):
        one, last = b % attr.shape[0], ends[b - start]
        pull_image(
            pos[b], tri, attr[one], attr_tri, rast[b].reshape(height * width, 4), items, blend, steps,
            first, last, height, width, g_colour[b], g_alpha[b], g_attr[one], g_pos[b],
        )  # fmt: skip
        first = last
