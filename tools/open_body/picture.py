"""A small software renderer for the tools' pictures: z-buffer, smooth normals, one light, supersampling."""

from __future__ import annotations

import cv2
import numpy as np
from numba import njit

SUPERSAMPLING = 3


@njit(cache=True)
def rasterize(corners: np.ndarray, faces: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Nearest face and its screen barycentrics at each pixel's centre.

    Args:
        corners: vertices (V, 3): x, y in pixels (y down) and depth (smaller is nearer).
        faces: (F, 3).

    Returns:
        face index (H, W), -1 where empty, and barycentrics (H, W, 3).
    """
    face_map = np.full((height, width), -1, np.int64)
    bary_map = np.zeros((height, width, 3))
    depth_map = np.full((height, width), np.inf)
    for f in range(len(faces)):
        a, b, c = corners[faces[f, 0]], corners[faces[f, 1]], corners[faces[f, 2]]
        area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        if area == 0.0:
            continue
        for y in range(max(0, int(min(a[1], b[1], c[1]) - 0.5)), min(height, int(max(a[1], b[1], c[1]) + 1.5))):
            for x in range(max(0, int(min(a[0], b[0], c[0]) - 0.5)), min(width, int(max(a[0], b[0], c[0]) + 1.5))):
                px, py = x + 0.5, y + 0.5
                u = ((b[0] - px) * (c[1] - py) - (b[1] - py) * (c[0] - px)) / area
                v = ((c[0] - px) * (a[1] - py) - (c[1] - py) * (a[0] - px)) / area
                w = 1.0 - u - v
                if u < 0.0 or v < 0.0 or w < 0.0:
                    continue
                depth = u * a[2] + v * b[2] + w * c[2]
                if depth < depth_map[y, x]:
                    depth_map[y, x] = depth
                    face_map[y, x] = f
                    bary_map[y, x, 0], bary_map[y, x, 1], bary_map[y, x, 2] = u, v, w
    return face_map, bary_map


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit outward normals (V, 3), area weighted."""
    corner = vertices[faces]
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    total = np.stack([np.bincount(faces.ravel(), np.repeat(normal[:, i], 3), len(vertices)) for i in range(3)], 1)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


def interpolate(values: np.ndarray, faces: np.ndarray, face_map: np.ndarray, bary_map: np.ndarray) -> np.ndarray:
    """Vertex values (V, C) at each covered pixel (H, W, C); 0 elsewhere."""
    out = np.einsum("hwk,hwkc->hwc", bary_map, values[faces[face_map]])
    out[face_map < 0] = 0.0
    return out


def portrait(
    vertices: np.ndarray, faces: np.ndarray, size: tuple[int, int], pixels_per_metre: float, turn: float = 0.0
) -> np.ndarray:
    """A plain grey picture (H, W, 3) uint8 of a y-up body seen from the front, orthographic.

    Args:
        size: width and height in pixels.
        turn: degrees by which the body is turned about the vertical.
    """
    width, height = (SUPERSAMPLING * s for s in size)
    scale = SUPERSAMPLING * pixels_per_metre
    angle = np.deg2rad(turn)
    spin = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    turned = vertices @ spin.T
    middle = (turned.min(0) + turned.max(0)) / 2
    x = (turned[:, 0] - middle[0]) * scale + width / 2
    y = (middle[1] - turned[:, 1]) * scale + height / 2
    face_map, bary_map = rasterize(np.stack([x, y, -turned[:, 2] * scale], 1), faces, height, width)
    normal = interpolate(vertex_normals(turned, faces), faces, face_map, bary_map)
    light = np.array([0.35, 0.55, 0.75]) / np.linalg.norm([0.35, 0.55, 0.75])
    shade = 0.3 + 0.7 * (normal @ light).clip(0.0, 1.0)
    picture = np.where(face_map[..., None] >= 0, shade[..., None] * np.array([214.0, 190.0, 176.0]), 250.0)
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA).round().astype(np.uint8)
