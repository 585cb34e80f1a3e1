"""A semantic prior carried over from the body that it was counted on to another body of SMPL's format.

Who has SMPL and not the prior of DSR's authors need not do without the clothing terms: both bodies have the same
joints and the same T-pose, so that each vertex of one can be looked up on the other.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import scipy.sparse as sparse
import torch
from scipy.spatial import KDTree
from torch import Tensor

from dsr_fit.body.body import Body
from dsr_fit.joints import SMPL_JOINTS
from dsr_fit.priors.outfits import on_arms
from dsr_fit.priors.semantic import Outfits, SemanticPrior

NEIGHBOURS = 4
"""Vertices that a row is interpolated from, by inverse distance."""

_SAME_PLACE_M = 1e-4


def carry_over(prior: SemanticPrior, source: Body, body: Body) -> SemanticPrior:
    """The prior of `source`, per vertex and one for all images, for `body`; its outfits come along."""
    rows = _lookup(source, body)

    def carried(values: Tensor) -> Tensor:
        """(..., V, 20) of the source -> (..., V', 20)."""
        flat = values.reshape(-1, *values.shape[-2:]).cpu().numpy()
        found = np.stack([rows @ each for each in flat]).reshape(*values.shape[:-2], -1, values.shape[-1])
        return torch.from_numpy(found.astype(np.float32))

    outfits = None
    if prior.outfits is not None:
        arms = torch.from_numpy(np.flatnonzero(on_arms(body)))
        everywhere = prior.probabilities.repeat(len(prior.outfits.sleeves), 1, 1)
        everywhere[:, prior.outfits.on_arms] = prior.outfits.sleeves
        outfits = Outfits(carried(prior.outfits.trunks), carried(everywhere)[:, arms], arms)
    return SemanticPrior(carried(prior.probabilities), per_face=False, outfits=outfits)


def _lookup(source: Body, body: Body) -> sparse.csr_array:
    """(V', V) weights, rows summing to 1: where each vertex of `body` lies on `source`.

    A limb is looked up on the limb of its own side alone, since thighs nearly touch.
    """
    places, sides, their_sides = _moved(body, source), _side(body), _side(source)
    rows, columns, values = [], [], []
    for side in np.unique(sides):
        ours, theirs = np.flatnonzero(sides == side), np.flatnonzero(their_sides == side)
        distance, nearest = KDTree(source.v_template.cpu().numpy()[theirs]).query(places[ours], NEIGHBOURS)
        weight = 1 / np.maximum(distance, _SAME_PLACE_M)
        weight[distance[:, 0] < _SAME_PLACE_M, 1:] = 0  # the very vertex
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
    """(V', 3) the T-pose of `body` with the joints of `source`, limbs stretched to its lengths.

    Where spine and collars have their joints is a convention that bodies don't share, so that the trunk is moved as one
    piece, pelvis on pelvis and neck on neck, and the head likewise between neck and crown.
    """
    ours, theirs = (_anchors(each) for each in (body, source))
    ratio = theirs.lengths / ours.lengths
    weights = body.weights.dense().cpu().numpy().astype(np.float64)
    offsets = theirs.places - ratio[:, None] * ours.places
    return weights @ offsets + (weights @ ratio)[:, None] * body.v_template.cpu().numpy()


class _Anchors(NamedTuple):
    """What is put on each other, joint by joint."""

    places: np.ndarray  # (24, 3)
    lengths: np.ndarray  # (24,)


def _anchors(body: Body) -> _Anchors:
    joints = body.skeleton.rest_joints.cpu().numpy().astype(np.float64)
    places, lengths = joints.copy(), np.zeros(len(joints))
    for joint, parent in reversed(list(enumerate(body.skeleton.parents))):
        if lengths[joint] == 0:  # nothing hangs from it: the length of its parent's
            lengths[joint] = np.linalg.norm(joints[joint] - joints[parent])
        if parent >= 0:
            lengths[parent] = np.linalg.norm(joints[joint] - joints[parent])
    pelvis, neck = joints[SMPL_JOINTS.index("pelvis")], joints[SMPL_JOINTS.index("neck")]
    crown = float(body.v_template[:, 1].max())
    for part, place, length in ((_TRUNK, pelvis, np.linalg.norm(neck - pelvis)), (_HEAD, neck, crown - neck[1])):
        places[part], lengths[part] = place, length
    return _Anchors(places, lengths)


_TRUNK = [SMPL_JOINTS.index(n) for n in ("pelvis", "spine1", "spine2", "spine3", "left_collar", "right_collar")]
_HEAD = [SMPL_JOINTS.index(name) for name in ("neck", "head")]
