"""Sparse linear regressors from vertices to joints and keypoints: few, local weights, mirrored exactly."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.optimize import nnls

from dsr_fit.joints import BODY_25
from open_body.skeleton import JOINT, MIRROR_JOINT, PARENTS

# What each of the 49 keypoints of dsr_fit.joints.KEYPOINTS_49 is on the body, in that order.
KEYPOINT_PARTS = (
    "nose", "neck", "right_shoulder", "right_elbow", "right_wrist", "left_shoulder", "left_elbow",
    "left_wrist", "mid_hip", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle",
    "right_eye", "left_eye", "right_ear", "left_ear", "left_big_toe", "left_small_toe", "left_heel",
    "right_big_toe", "right_small_toe", "right_heel",
    "right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle", "right_wrist",
    "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "neck_lsp", "head_top",
    "mid_hip", "neck",
    "spine_h36m", "jaw_h36m", "head_h36m", "nose", "left_eye", "right_eye", "left_ear", "right_ear",
)  # fmt: skip


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
    """Weights (K,) summing to 1 with sum_k w_k points[n, k] near targets[n]; ridge pulls towards equal ones.

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
    template: np.ndarray,
    bodies: np.ndarray,
    targets: np.ndarray,
    mirror: np.ndarray,
    *,
    count: int,
    ridge: float,
    positive: bool,
    middle: bool,
    centre: np.ndarray | None = None,
) -> sparse.csr_matrix:
    """One regressor row (1, V); `middle` targets get a row that is its own mirror image.

    The vertices are chosen round `centre` (3,), by default the mean target.
    """
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

    The left rows are fitted and the right ones mirrored. Weights may be negative: joints lie deep inside the
    body, and positive weights alone miss them by twice as much.
    """
    rows: list[sparse.csr_matrix] = []
    for j, image in enumerate(MIRROR_JOINT):
        if image < j:
            rows.append(rows[image][:, mirror])
            continue
        rows.append(
            fit_row(
                template,
                bodies,
                joints[:, j],
                mirror,
                count=count,
                ridge=ridge,
                positive=False,
                middle=image == j,
            )
        )
    return sparse.csr_matrix(sparse.vstack(rows))


def surface_row(template: np.ndarray, target: np.ndarray, count: int = 6) -> sparse.csr_matrix:
    """Weights (1, V) on the vertices nearest to a point, falling with the distance squared."""
    distance = np.linalg.norm(template - target, axis=1)
    near = np.argsort(distance)[:count]
    weights = 1 / (distance[near] ** 2 + 0.004**2)
    return sparse.csr_matrix((weights / weights.sum(), (np.zeros(count, int), near)), (1, len(template)))


def keypoint_regressor(
    template: np.ndarray,
    mirror: np.ndarray,
    limb_rows: dict[str, sparse.csr_matrix],
    points: dict[str, np.ndarray],
    joint_rows: sparse.csr_matrix,
) -> sparse.csr_matrix:
    """The 49 keypoints (49, V).

    Args:
        limb_rows: rows of the left shoulder, elbow, wrist, hip, knee and ankle.
        points: left eye, ear, big toe, small toe and heel, and nose, head top and chin, on the template (3,).
        joint_rows: the joint regressor (24, V), for the neck and spine.
    """
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
        "neck": shoulders,
        "mid_hip": hips,
        "neck_lsp": (shoulders + neck) / 2,
        "spine_h36m": spine,
        "jaw_h36m": (rows["chin"] + head) / 2,
        "head_h36m": 0.7 * rows["head_top"] + 0.3 * head,
    }
    return sparse.csr_matrix(sparse.vstack([rows[part] for part in KEYPOINT_PARTS]))


def shift_row(template: np.ndarray, row: sparse.csr_matrix, offset: np.ndarray, count: int = 32) -> sparse.csr_matrix:
    """A row (1, V) whose template point is moved by `offset` (3,), with the least change of weights."""
    point = np.asarray(row @ template).ravel()
    near = np.union1d(row.indices, np.argsort(np.linalg.norm(template - point, axis=1))[:count])
    constraints = np.concatenate([np.ones((1, len(near))), (template[near] - point).T])
    change = np.linalg.pinv(constraints) @ np.concatenate([[0.0], offset])
    return row + sparse.csr_matrix((change, (np.zeros(len(near), int), near)), row.shape)


def calibrate(
    template: np.ndarray, mirror: np.ndarray, rows: sparse.csr_matrix, offsets: dict[str, list[float]]
) -> sparse.csr_matrix:
    """Move the first 25 of 49 keypoints (49, V) to where a detector marks them.

    Args:
        offsets: metres in the T-pose's axes by name; the left ones are mirrored for the right.
    """
    moved = {name: shift_row(template, rows[BODY_25.index(name)], np.array(x)) for name, x in offsets.items()}
    for name in ("Nose", "Neck", "MidHip"):
        moved[name] = (moved[name] + moved[name][:, mirror]) / 2
    first = [moved["L" + name[1:]][:, mirror] if name.startswith("R") else moved[name] for name in BODY_25]
    return sparse.csr_matrix(sparse.vstack([*first, rows[25:]]))


def carried_point(point: np.ndarray, joint: int, rotation: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """A rest point (3,) at a joint moved by a pose: halfway between what the joint and its parent do to it.

    Args:
        rotation: global rotations (24, 3, 3).
        offset: global translations (24, 3), so that joint j moves x to rotation[j] @ x + offset[j].
    """
    moved = [rotation[j] @ point + offset[j] for j in (joint, PARENTS[joint])]
    return (moved[0] + moved[1]) / 2
