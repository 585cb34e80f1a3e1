"""The kernels that Python calls: each works through images start..stop of a batch, one thread each such
range."""

from __future__ import annotations

import numpy as np

from dsr_fit.compilation import kernel
from dsr_fit.render import interpolate_kernels as points
from dsr_fit.render import outline_kernels as outline
from dsr_fit.render import raster_kernels as raster


@kernel
def triangle_ids(start, stop, pos, tri, ids):
    """Id of the triangle seen at each pixel's centre into ids (B, H, W)."""
    height, width = ids.shape[1:]
    screen, depth = np.empty((pos.shape[1], 3)), np.empty((height, width))
    for b in range(start, stop):
        raster.project_screen(pos[b], height, width, screen)
        raster.visible_triangles(pos[b], tri, screen, ids[b], depth)


@kernel
def barycentrics(start, stop, pos, tri, ids, rast, rast_db):
    """Zeroed rast (B, H, W, 4) and rast_db (the same, or no images) from ids (B, H, W)."""
    for b in range(start, stop):
        raster.shade(pos[b], tri, ids[b], rast[b])
        if rast_db.shape[0] > 0:
            points.pixel_derivatives(pos[b], tri, rast[b], rast_db[b])


@kernel
def pull_barycentrics(start, stop, pos, tri, rast, g_rast, g_db, g_pos):
    """Add the gradients of u, v and, where g_db has images, of their pixel derivatives to g_pos (B, V, 4)."""
    height, width = rast.shape[1], rast.shape[2]
    for b in range(start, stop):
        for i in range(height):
            fy = raster.centre(i, height)
            for j in range(width):
                face = np.int64(rast[b, i, j, 3]) - 1
                if face >= 0:
                    g_u, g_v = g_rast[b, i, j, 0], g_rast[b, i, j, 1]
                    v0, v1, v2 = raster.corners(tri, face)
                    fx = raster.centre(j, width)
                    raster.pull_barycentrics(pos[b], v0, v1, v2, fx, fy, g_u, g_v, g_pos[b])
        if g_db.shape[0] > 0:
            points.pull_pixel_derivatives(pos[b], tri, rast[b], g_db[b], g_pos[b])


@kernel
def interpolate(start, stop, attr, tri, rast, out):
    """Attributes (B or 1, V, C) of the covered pixels of rast (B, H * W, 4) into a zeroed out (B, H * W,
    C)."""
    for b in range(start, stop):
        points.interpolate(attr[b % attr.shape[0]], tri, rast[b], out[b])


@kernel
def pull_interpolate(start, stop, attr, tri, rast, g_out, g_attr, g_rast):
    """Gradients of `interpolate`; a shared attribute set (1, V, C) sums over the images."""
    for b in range(start, stop):
        one = b % attr.shape[0]
        points.pull_interpolate(attr[one], tri, rast[b], g_out[b], g_attr[one], g_rast[b])


@kernel
def find_items(pos, tri, opposite, edges, edge_faces, agree, rast, items, blend, count):
    """Append one image's items: of the dense outline, or of antialias where there are no edges."""
    if edges.shape[0] == 0:
        return outline.antialias_items(pos, tri, opposite, rast, items, blend, count)
    screen, signs = np.empty((pos.shape[0], 3)), np.empty(tri.shape[0], np.int8)
    raster.project_screen(pos, rast.shape[0], rast.shape[1], screen)
    outline.face_signs(pos, tri, signs)
    return outline.outline_items(screen, signs, edges, edge_faces, agree, rast, items, blend, count)


@kernel
def blend_outline(start, stop, pos, tri, opposite, edges, edge_faces, agree, rast, out):
    """Blend across the outlines into out (B, H * W, C), which holds the colours.

    Returns what the way back needs: items, blend, steps of the images in turn, and where each image's rows
    end.
    """
    items, blend = np.empty((outline.ROOM, 5), np.int32), np.empty((outline.ROOM, 2), np.float32)
    steps = np.empty((outline.ROOM, out.shape[2]), np.float32)
    ends = np.zeros(stop - start, np.int64)
    count, width = 0, rast.shape[2]
    for b in range(start, stop):
        first = count
        items, blend, count = find_items(pos[b], tri, opposite, edges, edge_faces, agree, rast[b], items, blend, count)
        steps = outline.with_room(steps, count)
        outline.add_blend(items, blend, steps, first, count, width, out[b])
        ends[b - start] = count
    return items[:count].copy(), blend[:count].copy(), steps[:count].copy(), ends


@kernel
def pull_blend(start, stop, pos, items, blend, steps, ends, height, width, guard, g_out, g_colour, g_pos):
    """Gradients of `blend_outline`: adds to g_colour (B, H * W, C), a copy of g_out, and to g_pos (B, V,
    4)."""
    first = 0
    for b in range(start, stop):
        last = ends[b - start]
        outline.pull_blend(
            pos[b], items, blend, steps, first, last, height, width, guard, g_out[b], g_colour[b], g_pos[b]
        )  # fmt: skip
        first = last
