"""Where each vertex of one body of SMPL's format lies on another: all have the same joints and the same T-pose."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sparse
from scipy.spatial import KDTree

from dsr_fit.body.body import Body
from dsr_fit.joints import SMPL_JOINTS

NEIGHBOURS = 4
"""Vertices that a row is interpolated from, by inverse distance."""

_SAME_PLACE_M = 1e-4
_TRUNK = [SMPL_JOINTS.index(n) for n in ("pelvis", "spine1", "spine2", "spine3", "left_collar", "right_collar")]
_HEAD = [SMPL_JOINTS.index(name) for name in ("neck", "head")]


def correspondence(source: Body, body: Body) -> sparse.csr_array:
    """(V', V) weights that interpolate each vertex of `body` from those of `source`; rows sum to 1.

    Limbs are looked up only on their own side, since thighs nearly touch.
    """
    places, sides, their_sides = _moved(body, source), _side(body), _side(source)
    rows, columns, values = [], [], []
    for side in np.unique(sides):
        ours, theirs = np.flatnonzero(sides == side), np.flatnonzero(their_sides == side)
        distance, nearest = KDTree(source.v_template.cpu().numpy()[theirs]).query(places[ours], NEIGHBOURS)
        weight = 1 / np.maximum(distance, _SAME_PLACE_M)
        weight[distance[:, 0] < _SAME_PLACE_M, 1:] = 0  # that vertex alone
        rows.append(np.repeat(ours, NEIGHBOURS))
        columns.append(theirs[nearest].ravel())
        values.append((weight / weight.sum(1, keepdims=True)).ravel())
    entries = np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))
    return sparse.csr_array(entries, shape=(body.num_vertices, source.num_vertices))


def _side(body: Body) -> np.ndarray:
    """(V,) 0 in the middle, 1 on the left, 2 on the right, by the joint that moves a vertex most."""
    of_joint = np.array([1 if n.startswith("left_") else 2 if n.startswith("right_") else 0 for n in SMPL_JOINTS])
    return of_joint[body.weights.dense().cpu().numpy().argmax(1)]


def _moved(body: Body, source: Body) -> np.ndarray:
    """(V', 3) the T-pose of `body` moved onto the joints of `source`, its limbs stretched to the same lengths.

    Bodies place the joints of spine and collars differently, so the trunk moves as one piece, pelvis onto pelvis and
    neck onto neck, and the head likewise between neck and crown.
    """
    (places, lengths), (their_places, their_lengths) = _anchors(body), _anchors(source)
    ratio = their_lengths / lengths
    weights = body.weights.dense().cpu().numpy().astype(np.float64)
    offsets = their_places - ratio[:, None] * places
    return weights @ offsets + (weights @ ratio)[:, None] * body.v_template.cpu().numpy()


def _anchors(body: Body) -> tuple[np.ndarray, np.ndarray]:
    """(24, 3) the place that each joint moves about, and (24,) the length that it is scaled by."""
    joints = body.skeleton.rest_joints.cpu().numpy().astype(np.float64)
    places, lengths = joints.copy(), np.zeros(len(joints))
    for joint, parent in reversed(list(enumerate(body.skeleton.parents))):
        if lengths[joint] == 0:  # a leaf: its own bone's length
            lengths[joint] = np.linalg.norm(joints[joint] - joints[parent])
        if parent >= 0:
            lengths[parent] = np.linalg.norm(joints[joint] - joints[parent])
    pelvis, neck = joints[SMPL_JOINTS.index("pelvis")], joints[SMPL_JOINTS.index("neck")]
    crown = float(body.v_template[:, 1].max())
    for part, place, length in ((_TRUNK, pelvis, np.linalg.norm(neck - pelvis)), (_HEAD, neck, crown - neck[1])):
        places[part], lengths[part] = place, length
    return places, lengths
