"""The body's surface as something to cut cloth from: finer meshes, smoothing, normals, cuts along a curve.

Everything that does not depend on a person is laid out once, on the mean body in its T-pose ("rest": x to the
body's left, y up, z forward, metres, the pelvis at the origin).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numba import njit
from scipy import sparse

from dsr_fit.body.body import Body
from dsr_fit.body.files import load_body


@dataclass(frozen=True)
class Surface:
    """The open body's surface, V vertices, and a mesh twice as fine, W vertices, for the cloth on it."""

    body: Body
    rest: np.ndarray  # (V, 3) float64
    faces: np.ndarray  # (F, 3) int64
    weights: np.ndarray  # (V, 24) float64
    average: sparse.csr_matrix  # (V, V): the mean of each vertex's neighbours
    finer: sparse.csr_matrix  # (W, V): Loop's subdivision (C. Loop, 1987)
    fine_rest: np.ndarray  # (W, 3)
    fine_faces: np.ndarray  # (4 F, 3) int64

    def smoothed(self, positions: np.ndarray, share: np.ndarray, steps: int) -> np.ndarray:
        """Laplacian smoothing of (V, 3), each vertex by its share (V,) of the way to its neighbours' mean."""
        weight = share[:, None]
        for _ in range(steps):
            positions = positions + weight * (self.average @ positions - positions)
        return positions


@cache
def open_surface() -> Surface:
    """The layout of the body that ships."""
    body = load_body("open")
    faces = body.faces.numpy().astype(np.int64)
    rest = body.v_template.numpy().astype(np.float64)
    loop, fine_faces = subdivision(faces, len(rest))
    return Surface(
        body=body,
        rest=rest,
        faces=faces,
        weights=body.weights.dense().numpy().astype(np.float64),
        average=neighbour_mean(faces, len(rest)),
        finer=loop,
        fine_rest=loop @ rest,
        fine_faces=fine_faces,
    )


def neighbour_mean(faces: np.ndarray, count: int) -> sparse.csr_matrix:
    """(count, count): row v averages the neighbours of vertex v."""
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    link = sparse.csr_matrix((np.ones(len(edges)), edges.T), (count, count))
    link = ((link + link.T) > 0).astype(np.float64)
    return sparse.csr_matrix(sparse.diags(1 / np.asarray(link.sum(1)).ravel()) @ link)


def subdivision(faces: np.ndarray, count: int) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Matrix (W, V) of Loop subdivision of a closed mesh, and the new faces (4 F, 3)."""
    corner = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    across = np.concatenate([faces[:, 2], faces[:, 0], faces[:, 1]])
    edges, edge_of = np.unique(np.sort(corner, 1), axis=0, return_inverse=True)
    edge_of = edge_of.ravel()
    middle_of = count + edge_of.reshape(3, -1).T  # (F, 3): the midpoints of edges 01, 12, 20
    a, b, c = faces.T
    ab, bc, ca = middle_of.T
    fine_faces = np.concatenate([np.stack(t, 1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])

    own = np.arange(count)
    new = count + np.arange(len(edges))
    shape = (count + len(edges), count)
    valence = np.bincount(edges.ravel(), minlength=count)
    beta = np.where(valence == 3, 9 / 16, 3 / 8)  # of an old vertex, what its neighbours' mean replaces
    rows = np.concatenate([own, edges[:, 0], edges[:, 1], new, new, count + edge_of])
    columns = np.concatenate([own, edges[:, 1], edges[:, 0], edges[:, 0], edges[:, 1], across])
    values = np.concatenate([
        1 - beta, (beta / valence)[edges[:, 0]], (beta / valence)[edges[:, 1]],
        np.full(2 * len(edges), 3 / 8), np.full(len(edge_of), 1 / 8),
    ])  # fmt: skip
    return sparse.csr_matrix((values, (rows, columns)), shape), fine_faces


@njit(cache=True, nogil=True)
def _add_normals(vertices, faces, total):
    for f in range(len(faces)):
        a, b, c = faces[f, 0], faces[f, 1], faces[f, 2]
        ux, uy, uz = (
            vertices[b, 0] - vertices[a, 0],
            vertices[b, 1] - vertices[a, 1],
            vertices[b, 2] - vertices[a, 2],
        )
        vx, vy, vz = (
            vertices[c, 0] - vertices[a, 0],
            vertices[c, 1] - vertices[a, 1],
            vertices[c, 2] - vertices[a, 2],
        )
        nx, ny, nz = uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx
        for v in (a, b, c):
            total[v, 0] += nx
            total[v, 1] += ny
            total[v, 2] += nz


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Unit normals (V, 3), area weighted, on the side from which a face's corners turn counter-clockwise."""
    total = np.zeros((len(vertices), 3))
    _add_normals(np.ascontiguousarray(vertices, np.float64), faces, total)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


def cut(values: np.ndarray, faces: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The part of a mesh where `inside` > 0, with new vertices where its edges cross zero.

    `values` (N, C) any quantities of the vertices, `faces` (F, 3), `inside` (N,) -> values (M, C), faces (G, 3)
    and `inside` (M,) of the part; each vertex is kept once.
    """
    inside = np.where(inside == 0, 1e-9, inside)
    positive = inside[faces] > 0
    count = positive.sum(1)
    kept = [faces[count == 3]]
    # Turn each crossed face so that its odd one out comes first.
    crossed = faces[(count == 1) | (count == 2)]
    odd_positive = (count == 1)[(count == 1) | (count == 2)]
    sign = (inside[crossed] > 0) == odd_positive[:, None]
    first = sign.argmax(1)
    turned = crossed[np.arange(len(crossed))[:, None], (first[:, None] + np.arange(3)) % 3]
    pairs = np.concatenate([turned[:, [0, 1]], turned[:, [0, 2]]])
    edges, new = np.unique(np.sort(pairs, 1), axis=0, return_inverse=True)
    new = len(values) + new.reshape(2, -1)
    a, b = edges.T
    t = (inside[a] / (inside[a] - inside[b]))[:, None]
    values = np.concatenate([values, values[a] + t * (values[b] - values[a])])
    inside = np.concatenate([inside, np.zeros(len(edges))])
    one, two = odd_positive, ~odd_positive
    kept.append(np.stack([turned[one, 0], new[0, one], new[1, one]], 1))
    kept.append(np.stack([new[0, two], turned[two, 1], turned[two, 2]], 1))
    kept.append(np.stack([new[0, two], turned[two, 2], new[1, two]], 1))
    all_faces = np.concatenate(kept)
    used = np.zeros(len(values), bool)
    used[all_faces] = True
    number = np.cumsum(used) - 1
    return values[used], number[all_faces], inside[used]
