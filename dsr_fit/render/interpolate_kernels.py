"""Numba kernels of one image: attributes at the points seen, their gradients, and the pixel derivatives of
(u, v)."""

from __future__ import annotations

import math

import numpy as np

from dsr_fit.compilation import inlined, kernel
from dsr_fit.render.raster_kernels import EPSILON, corners, cross, edge_functions, plane_corner


@inlined
def attribute_at(attr, v0, v1, v2, u, v, out, p):
    """Attributes (C,) of the point (u, v) of a triangle, into row p of out."""
    rest = np.float32(1.0) - u - v
    for c in range(attr.shape[1]):
        out[p, c] = u * attr[v0, c] + v * attr[v1, c] + rest * attr[v2, c]


@inlined
def pull_attribute(attr, v0, v1, v2, u, v, g_out, p, scale, g_attr):
    """Gradient of (u, v) for the upstream scale * g_out[p]; adds to g_attr (V, C) unless that has no rows."""
    rest = np.float32(1.0) - u - v
    g_u, g_v = np.float32(0.0), np.float32(0.0)
    if v0 != v1 or v0 != v2:  # else one value for the whole face
        for c in range(attr.shape[1]):
            g_u += g_out[p, c] * (attr[v0, c] - attr[v2, c])
            g_v += g_out[p, c] * (attr[v1, c] - attr[v2, c])
    if g_attr.shape[0] > 0:
        for c in range(attr.shape[1]):
            g = scale * g_out[p, c]
            g_attr[v0, c] += g * u
            g_attr[v1, c] += g * v
            g_attr[v2, c] += g * rest
    return scale * g_u, scale * g_v


@kernel
def interpolate(attr, tri, rast, out):
    """Attributes of every covered pixel of rast (H * W, 4) into a zeroed out (H * W, C)."""
    for p in range(rast.shape[0]):
        face = np.int64(rast[p, 3]) - 1
        if face >= 0:
            v0, v1, v2 = corners(tri, face)
            attribute_at(attr, v0, v1, v2, rast[p, 0], rast[p, 1], out, p)


@kernel
def pull_interpolate(attr, tri, rast, g_out, g_attr, g_rast):
    """Gradients of `interpolate`: adds to g_attr (V, C), writes u and v of a zeroed g_rast (H * W, 4)."""
    for p in range(rast.shape[0]):
        face = np.int64(rast[p, 3]) - 1
        if face >= 0:
            v0, v1, v2 = corners(tri, face)
            g_rast[p, 0], g_rast[p, 1] = pull_attribute(
                attr, v0, v1, v2, rast[p, 0], rast[p, 1], g_out, p, np.float32(1.0), g_attr
            )


@kernel
def plane_normals(pos, v0, v1, v2):
    p0, p1, p2 = plane_corner(pos, v0), plane_corner(pos, v1), plane_corner(pos, v2)
    return cross(p1, p2), cross(p2, p0), cross(p0, p1)


@kernel
def pixel_derivatives(pos, tri, rast, rast_db):
    """(du/dX, du/dY, dv/dX, dv/dY) per pixel into a zeroed rast_db (H, W, 4)."""
    height, width = rast.shape[0], rast.shape[1]
    for i in range(height):
        for j in range(width):
            face = np.int64(rast[i, j, 3]) - 1
            if face < 0:
                continue
            n0, n1, n2 = plane_normals(pos, tri[face, 0], tri[face, 1], tri[face, 2])
            a0, a1, a2 = edge_functions(pos, tri, face, (2 * j + 1) / width - 1.0, (2 * i + 1) / height - 1.0)
            inverse = 1.0 / (a0 + a1 + a2)
            u, v = np.float64(rast[i, j, 0]), np.float64(rast[i, j, 1])
            for axis in range(2):
                step = 2.0 * inverse / (width if axis == 0 else height)
                total = n0[axis] + n1[axis] + n2[axis]
                rast_db[i, j, axis] = step * (n0[axis] - u * total)
                rast_db[i, j, 2 + axis] = step * (n1[axis] - v * total)


@kernel
def pull_pixel_derivatives(pos, tri, rast, g_db, g_pos):
    """Add the gradient of `pixel_derivatives`, through unclamped (u, v) too, to g_pos (V, 4)."""
    height, width = rast.shape[0], rast.shape[1]
    for i in range(height):
        fy = (2 * i + 1) / height - 1.0
        for j in range(width):
            face = np.int64(rast[i, j, 3]) - 1
            if face < 0:
                continue
            fx = (2 * j + 1) / width - 1.0
            v0, v1, v2 = corners(tri, face)
            n0, n1, n2 = plane_normals(pos, v0, v1, v2)
            a0, a1, a2 = edge_functions(pos, tri, face, fx, fy)
            total = a0 + a1 + a2
            inverse = 1.0 / (total + math.copysign(EPSILON, total))
            u, v = a0 * inverse, a1 * inverse
            # du/dX = k (n0.x - u N.x) / sum with N = n0 + n1 + n2; the normals' gradients are g0, g1, g2.
            g_u, g_v, g_total = 0.0, 0.0, 0.0
            g0, g1, g2 = np.zeros(3), np.zeros(3), np.zeros(3)
            for axis in range(2):
                n = n0[axis] + n1[axis] + n2[axis]
                step = 2.0 * inverse / (width if axis == 0 else height)
                g_du, g_dv = step * g_db[i, j, axis], step * g_db[i, j, 2 + axis]
                g_u -= n * g_du
                g_v -= n * g_dv
                g_total -= (g_du * (n0[axis] - u * n) + g_dv * (n1[axis] - v * n)) * inverse
                shared = -u * g_du - v * g_dv
                g0[axis] += g_du + shared
                g1[axis] += g_dv + shared
                g2[axis] += shared
            g_total -= (g_u * u + g_v * v) * inverse
            h0, h1, h2 = g_total + g_u * inverse, g_total + g_v * inverse, g_total
            f = (fx, fy, 1.0)
            for axis in range(3):
                g0[axis] += h0 * f[axis]
                g1[axis] += h1 * f[axis]
                g2[axis] += h2 * f[axis]
            p0, p1, p2 = plane_corner(pos, v0), plane_corner(pos, v1), plane_corner(pos, v2)
            # For n = a x b: the gradient of a is b x g, of b is g x a.
            for v, one, other in (
                (v0, cross(g1, p2), cross(p1, g2)),
                (v1, cross(g2, p0), cross(p2, g0)),
                (v2, cross(g0, p1), cross(p0, g1)),
            ):
                g_pos[v, 0] += one[0] + other[0]
                g_pos[v, 1] += one[1] + other[1]
                g_pos[v, 3] += one[2] + other[2]
