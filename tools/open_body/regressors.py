"""Sparse linear regressors from vertices to joints and keypoints: few, local weights, mirrored exactly."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.optimize import nnls

from open_body.skeleton import JOINT, KEYPOINT_NAMES, MIRROR_JOINT, PARENTS


def local_vertices(vertices: np.ndarray, target: np.ndarray, count: int, reach: float = 1.6) -> np.ndarray:
    """`count` vertices spread evenly (farthest point first) over the surface round a target (3,).

    The pool is all vertices within `reach` times the distance of the 20th nearest one.
    """
    distance = np.linalg.norm(vertices - target, axis=1)
    radius = reach * np.partition(distance, 20)[20]
    pool = np.flatnonzero(distance < radius)
    if len(pool) <= count:
        pool = np.argsort(distance)[:count]
    chosen = [int(pool[distance[pool].argmin()])]
    gap = np.linalg.norm(vertices[pool] - vertices[chosen[0]], axis=1)
    while len(chosen) < min(count, len(pool)):
        pick = int(gap.argmax())
        chosen.append(int(pool[pick]))
        gap = np.minimum(gap, np.linalg.norm(vertices[pool] - vertices[pool[pick]], axis=1))
    return np.sort(chosen)


def solve_weights(points: np.ndarray, targets: np.ndarray, ridge: float, positive: bool) -> np.ndarray:
    """Weights (K,) summing to 1 with sum_k w_k points[n, k] near targets[n]; ridge pulls towards equal weights.

    Args:
        points: (N, K, 3) metres.
        targets: (N, 3).
        ridge: metres of error per unit of weight, over all N.
        positive: whether the weights must not be negative.
    """
    count = points.shape[1]
    # Coordinates relative to the target make "sum to 1" a soft row of its own, rescaled exactly afterwards.
    matrix = (points - targets[:, None]).transpose(0, 2, 1).reshape(-1, count) / np.sqrt(len(points))
    rows = np.concatenate([matrix, ridge * np.eye(count), 10.0 * np.ones((1, count))])
    right = np.concatenate([np.zeros(len(matrix)), np.full(count, ridge / count), [10.0]])
    weights = nnls(rows, right)[0] if positive else np.linalg.lstsq(rows, right, rcond=None)[0]
    return weights / weights.sum()


def fit_row(
    template: np.ndarray, bodies: np.ndarray, targets: np.ndarray, mirror: np.ndarray, *,
    count: int, ridge: float, positive: bool, middle: bool, centre: np.ndarray | None = None,
) -> sparse.csr_matrix:
    """One regressor row (1, V); `middle` targets get a row that is its own mirror image."""  # fmt: skip
    near = local_vertices(template, targets.mean(0) if centre is None else centre, count)
    if middle:
        near = np.unique(np.concatenate([near, mirror[near]]))
    weights = solve_weights(bodies[:, near], targets, ridge, positive)
    row = sparse.csr_matrix((weights, (np.zeros(len(near), int), near)), (1, len(template)))
    return ((row + row[:, mirror]) / 2).tocsr() if middle else row


def joint_regressor(
    template: np.ndarray, bodies: np.ndarray, joints: np.ndarray, mirror: np.ndarray, count: int, ridge: float
) -> sparse.csr_matrix:
    """Joints (24, V) from rest bodies (N, V, 3) and their joints (N, 24, 3).

    The left rows are fitted and the right ones mirrored. Weights may be negative: joints lie deep inside the body, and
    positive weights alone miss them by twice as much.
    """
    rows: list[sparse.csr_matrix] = []
    for j, image in enumerate(MIRROR_JOINT):
        if image < j:
            rows.append(rows[image][:, mirror])
            continue
        rows.append(
            fit_row(template, bodies, joints[:, j], mirror, count=count, ridge=ridge, positive=False, middle=image == j)
        )
    return sparse.vstack(rows).tocsr()


def surface_row(template: np.ndarray, target: np.ndarray, count: int = 6) -> sparse.csr_matrix:
    """Weights (1, V) on the vertices nearest to a point, falling with the distance squared."""
    distance = np.linalg.norm(template - target, axis=1)
    near = np.argsort(distance)[:count]
    weights = 1 / (distance[near] ** 2 + 0.004**2)
    return sparse.csr_matrix((weights / weights.sum(), (np.zeros(count, int), near)), (1, len(template)))


def keypoint_regressor(
    template: np.ndarray, mirror: np.ndarray, limb_rows: dict[str, sparse.csr_matrix], points: dict[str, np.ndarray],
    joint_rows: sparse.csr_matrix,
) -> sparse.csr_matrix:
    """The 49 keypoints (49, V).

    Args:
        limb_rows: rows of the left shoulder, elbow, wrist, hip, knee and ankle.
        points: left eye, ear, big toe, small toe and heel, and nose, head top and chin, on the template (3,).
        joint_rows: the joint regressor (24, V), for the neck and spine.
    """  # fmt: skip
    rows: dict[str, sparse.csr_matrix] = {}
    for part, row in (limb_rows | {p: surface_row(template, x) for p, x in points.items()}).items():
        if part in ("nose", "head_top", "chin"):
            rows[part] = (row + row[:, mirror]) / 2
        else:
            rows["left_" + part], rows["right_" + part] = row, row[:, mirror]
    shoulders = (rows["left_shoulder"] + rows["right_shoulder"]) / 2
    hips = (rows["left_hip"] + rows["right_hip"]) / 2
    neck, head, spine = (joint_rows[JOINT[name]] for name in ("neck", "head", "spine2"))
    rows |= {
        "neck": shoulders, "mid_hip": hips, "neck_lsp": (shoulders + neck) / 2, "head_top_lsp": rows["head_top"],
        "pelvis_mpii": hips, "thorax_mpii": shoulders, "spine_h36m": spine,
        "jaw_h36m": (rows["chin"] + head) / 2, "head_h36m": 0.7 * rows["head_top"] + 0.3 * head,
    }  # fmt: skip
    return sparse.vstack([rows[name.removesuffix("_2")] for name in KEYPOINT_NAMES]).tocsr()


def carried_point(point: np.ndarray, joint: int, rotation: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """A rest point (3,) at a joint moved by a pose: halfway between what the joint and its parent do to it.

    Args:
        rotation: global rotations (24, 3, 3).
        offset: global translations (24, 3), so that joint j moves x to rotation[j] @ x + offset[j].
    """
    return sum(rotation[j] @ point + offset[j] for j in (joint, PARENTS[joint])) / 2
