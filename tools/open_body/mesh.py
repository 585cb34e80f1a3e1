"""Mesh work on bodies that are mirror images of themselves across x = 0: decimation, transfer, checks."""

from __future__ import annotations

import numpy as np
import pyfqmr
import trimesh
from scipy import sparse
from scipy.spatial import KDTree

MIRROR = np.array([-1.0, 1.0, 1.0])


def mirror_permutation(vertices: np.ndarray, tolerance: float = 1e-6) -> np.ndarray:
    """Index (V,) of each vertex's mirror image; ValueError where a vertex has none."""
    distance, found = KDTree(vertices).query(vertices * MIRROR)
    index = np.asarray(found)
    if distance.max() > tolerance or not np.array_equal(index[index], np.arange(len(vertices))):
        raise ValueError(f"the mesh is not symmetric: a vertex misses its image by {distance.max():.2e} m")
    return index


def symmetrize(vertices: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    """Mean of bodies (..., V, 3) and their mirror images, which leaves exact symmetry."""
    return (vertices + vertices[..., mirror, :] * MIRROR) / 2


def decimate(vertices: np.ndarray, faces: np.ndarray, vertex_count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Decimate a closed symmetric mesh (V, 3), (F, 3) to `vertex_count` vertices.

    One half is decimated with its border in the plane x = 0 kept, then mirrored: symmetric and closed. A
    closed surface of genus 0 has 2 V - 4 faces, which sets the half's target.

    Returns:
        vertices in the order middle, left, right (x > 0 is left), faces, and the mirror permutation.
    """
    left = (vertices[faces, 0] > -1e-9).all(1)
    simplifier = pyfqmr.Simplify()  # pyright: ignore[reportAttributeAccessIssue]
    used, local = np.unique(faces[left], return_inverse=True)
    simplifier.setMesh(vertices[used], local.reshape(-1, 3))
    simplifier.simplify_mesh(target_count=vertex_count - 2, aggressiveness=3, preserve_border=True, verbose=False)
    half, half_faces, _ = simplifier.getMesh()
    half = np.asarray(half, np.float64)
    half_faces = np.asarray(half_faces, np.int64)
    middle = np.abs(half[:, 0]) < 1e-6
    half[middle, 0] = 0.0
    order = np.concatenate([np.flatnonzero(middle), np.flatnonzero(~middle)])
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    half, half_faces = half[order], rank[half_faces]
    m, s = int(middle.sum()), int((~middle).sum())
    mirror = np.concatenate([np.arange(m), np.arange(m + s, m + 2 * s), np.arange(m, m + s)])
    all_vertices = np.concatenate([half, half[m:] * MIRROR])
    all_faces = np.concatenate([half_faces, mirror[half_faces][:, ::-1]])
    return all_vertices, all_faces, mirror


def closest_points(
    vertices: np.ndarray, faces: np.ndarray, points: np.ndarray, neighbours: int = 8
) -> tuple[np.ndarray, np.ndarray]:
    """Closest points (P, 3) of a surface and their faces (P,), among the faces at the nearest vertices."""
    near = np.asarray(KDTree(vertices).query(points, k=neighbours)[1])
    corner = np.argsort(faces.ravel(), kind="stable")
    start = np.searchsorted(faces.ravel()[corner], np.arange(len(vertices) + 1))
    best, best_face = np.full((len(points), 3), np.inf), np.zeros(len(points), np.int64)
    best_distance = np.full(len(points), np.inf)
    for k in range(neighbours):
        for step in range(int(np.diff(start).max())):
            slot = np.minimum(start[near[:, k]] + step, start[near[:, k] + 1] - 1)
            face = corner[slot] // 3
            point = trimesh.triangles.closest_point(vertices[faces[face]], points)
            distance = np.linalg.norm(point - points, axis=1)
            closer = distance < best_distance
            best[closer], best_face[closer], best_distance[closer] = (
                point[closer],
                face[closer],
                distance[closer],
            )
    return best, best_face


def surface_transfer(
    vertices: np.ndarray, faces: np.ndarray, points: np.ndarray, mirror: np.ndarray, points_mirror: np.ndarray
) -> sparse.csr_matrix:
    """Weights (P, V) that put each point on its closest point of the surface, three vertices to a row.

    Rows of mirrored points are mirrored, rows of points on the middle plane averaged with their own image.
    """
    closest, face = closest_points(vertices, faces, points)
    bary = trimesh.triangles.points_to_barycentric(vertices[faces[face]], closest).clip(0.0, 1.0)
    bary /= bary.sum(1, keepdims=True)
    rows = np.repeat(np.arange(len(points)), 3)
    transfer = sparse.csr_matrix((bary.ravel(), (rows, faces[face].ravel())), (len(points), len(vertices)))
    image = transfer[points_mirror][:, mirror]
    left = sparse.diags((points[:, 0] > 1e-6).astype(float))
    right = sparse.diags((points[:, 0] < -1e-6).astype(float))
    middle = sparse.diags((np.abs(points[:, 0]) <= 1e-6).astype(float))
    return (left @ transfer + right @ image + middle @ ((transfer + image) / 2)).tocsr()


def vertex_areas(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """A third of the area (V,) of the faces round each vertex."""
    corner = vertices[faces]
    area = np.linalg.norm(np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1) / 2
    return np.bincount(faces.ravel(), np.repeat(area / 3, 3), len(vertices))


def volumes(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Enclosed volume (N,) of closed bodies (N, V, 3)."""
    corner = vertices[:, faces]
    return np.einsum("nfi,nfi->n", corner[:, :, 0], np.cross(corner[:, :, 1], corner[:, :, 2])) / 6
