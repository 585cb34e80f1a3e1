"""The body's surface as a base for garments: subdivision, smoothing, normals, cutting; and a posed, dressed body.

What doesn't depend on the person is computed once on the mean body in T-pose ("rest": x to the body's left, y up, z
forward, metres, origin at the pelvis).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch
from scipy import sparse

from dsr_fit.body.body import Body
from dsr_fit.body.files import load_body


@dataclass(frozen=True)
class Surface:
    """The open body's surface (V vertices) and its subdivision (W vertices) for cloth."""

    body: Body
    rest: np.ndarray  # (V, 3) float64
    faces: np.ndarray  # (F, 3) int64
    weights: np.ndarray  # (V, 24) float64
    average: sparse.csr_matrix  # (V, V): the mean of each vertex's neighbours
    finer: sparse.csr_matrix  # (W, V): Loop's subdivision (C. Loop, 1987)
    fine_rest: np.ndarray  # (W, 3)
    fine_faces: np.ndarray  # (4 F, 3) int64

    def smoothed(self, positions: np.ndarray, share: np.ndarray, steps: int) -> np.ndarray:
        """Laplacian smoothing of (V, 3): each step moves a vertex by `share` (V,) towards its neighbours' mean."""
        weight = share[:, None]
        for _ in range(steps):
            positions = positions + weight * (self.average @ positions - positions)
        return positions


@cache
def open_surface() -> Surface:
    """The shipped body's surface."""
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
    beta = np.where(valence == 3, 9 / 16, 3 / 8)  # weight of the neighbours' mean at an old vertex
    rows = np.concatenate([own, edges[:, 0], edges[:, 1], new, new, count + edge_of])
    columns = np.concatenate([own, edges[:, 1], edges[:, 0], edges[:, 0], edges[:, 1], across])
    values = np.concatenate([
        1 - beta, (beta / valence)[edges[:, 0]], (beta / valence)[edges[:, 1]],
        np.full(2 * len(edges), 3 / 8), np.full(len(edge_of), 1 / 8),
    ])  # fmt: skip
    return sparse.csr_matrix((values, (rows, columns)), shape), fine_faces


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Area-weighted unit normals (V, 3), on the side from which a face's corners are counter-clockwise."""
    a, b, c = (vertices[column].astype(np.float64) for column in faces.T)
    normals = np.repeat(np.cross(b - a, c - a), 3, axis=0)
    total = np.stack([np.bincount(faces.ravel(), axis, len(vertices)) for axis in normals.T], 1)
    return total / np.maximum(np.linalg.norm(total, axis=1, keepdims=True), 1e-12)


def cut(values: np.ndarray, faces: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The part of a mesh where `inside` > 0, with new vertices where edges cross zero.

    `values` (N, C) are any vertex attributes, `faces` (F, 3), `inside` (N,); returns the part's values (M, C), faces
    (G, 3) and `inside` (M,), without unused vertices.
    """
    inside = np.where(inside == 0, 1e-9, inside)
    positive = inside[faces] > 0
    count = positive.sum(1)
    kept = [faces[count == 3]]
    # Rotate each crossed face so that the odd vertex out comes first.
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


@dataclass
class Wearer:
    """One person's posed body in the camera frame, and the outer surface of the clothes put on so far."""

    surface: Surface
    shaped: np.ndarray  # (V, 3) T-pose of this shape, metres
    transforms: np.ndarray  # (24, 3, 4) from the T-pose to the camera frame
    vertices: np.ndarray  # (V, 3) camera frame
    normals: np.ndarray  # (V, 3)
    down: np.ndarray  # (3,) gravity
    outer: np.ndarray  # (V, 3) outermost cloth over each vertex, the body itself where bare
    hanging: np.ndarray = field(default_factory=lambda: np.zeros((0, 6)))  # points and normals of skirts worn

    def obstacle(self, without: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """Collision points and unit normals (N, 3) for cloth, without those moving with the joints `without`."""
        solid = self.surface.weights[:, without].sum(1) < 0.5
        normals = vertex_normals(self.outer, self.surface.faces)
        points, hung = np.split(self.hanging, 2, axis=1)
        return np.concatenate([self.outer[solid], points]), np.concatenate([normals[solid], hung])

    def carried(self, offsets: np.ndarray) -> np.ndarray:
        """Offsets (V, 3) rotated from the T-pose to the camera frame with the skin."""
        turned = np.einsum("jrc,vc->vjr", self.transforms[..., :3], offsets)
        return np.einsum("vj,vjr->vr", self.surface.weights, turned)

    def posed(self, points: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """T-pose points (N, 3) with skinning weights (N, 24), in the camera frame."""
        blended = np.einsum("nj,jrc->nrc", weights, self.transforms)
        return np.einsum("nrc,nc->nr", blended[..., :3], points) + blended[..., 3]


def wearer_of(
    global_orient: np.ndarray, body_pose: np.ndarray, betas: np.ndarray, cam_t: np.ndarray, down: np.ndarray
) -> tuple[Wearer, np.ndarray]:
    """The undressed wearer, and its keypoints (49, 3) in the camera frame."""
    surface = open_surface()
    body = surface.body
    with torch.no_grad():
        arrays = (torch.from_numpy(np.asarray(a, np.float32))[None] for a in (global_orient, body_pose, betas, cam_t))
        posed = body(*arrays)
        vertices = posed.vertices()[0].numpy().astype(np.float64)
        shaped = (body.v_template + body.shapedirs @ torch.from_numpy(np.asarray(betas, np.float32))).numpy()
        transforms = posed.transforms[0].numpy().astype(np.float64)
        keypoints = posed.keypoints[0].numpy()
    transforms[..., 3] += cam_t
    normals = vertex_normals(vertices, surface.faces)
    return Wearer(surface, shaped.astype(np.float64), transforms, vertices, normals, down, vertices.copy()), keypoints
