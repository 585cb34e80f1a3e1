"""Parameters of one body from the posed mesh of another: its surface and joints, matched by gradient descent.

Parameters are specific to a body; the surface and the joints are not. The energy is the point-to-plane distance of each
vertex of the new body to the nearest vertex of the old one, and the other way round, and the distance of joints of the
same names.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import KDTree
from torch import Tensor

from dsr_fit.body.body import Body
from dsr_fit.body.normals import vertex_normals
from dsr_fit.body.parameters import Parameters
from dsr_fit.optimise.descent import Adam

STEPS = 150
RATES = (0.02, 0.002)
"""Adam's first and last step: radians, metres and units of beta alike."""

MATCH_EVERY = 10
"""Steps between two searches for nearest vertices."""

UNIT = 0.01
"""Metres of surface error that cost 1."""

ROBUST = 0.03
"""Geman-McClure's scale of surface errors, metres: fingers, ears and feet differ between bodies."""

JOINT_UNIT = 0.02
JOINT_WEIGHT = 0.1
BETAS_WEIGHT = 1e-3


@dataclass(frozen=True)
class Converted:
    """B people in the new body, and how far it lies from the old one."""

    parameters: Parameters
    surface_m: Tensor  # (B,) mean distance of surfaces, both ways
    joints_m: Tensor  # (B,) mean distance of SMPL's 24 joints


@dataclass(frozen=True)
class _Match:
    """Nearest vertices, both ways, fixed between two searches."""

    target: Tensor  # (B, V, 3) of the old body, for each vertex of the new
    normal: Tensor  # (B, V, 3) there
    index: Tensor  # (B, W) vertex of the new body, for each of the old


def convert(parameters: Parameters, old: Body, new: Body, steps: int = STEPS) -> Converted:
    """The new body's parameters (batch B) that lie best on the old body's posed mesh."""
    with torch.no_grad():
        posed = parameters.pose(old)
        vertices, joints = posed.vertices(), posed.joints()
        normals = vertex_normals(vertices, old.faces.long())
        start = _start(parameters, new, joints)
    trees = [KDTree(one) for one in vertices.numpy()]
    current = start.map(lambda tensor: tensor.clone().requires_grad_())
    optimiser = Adam(current.tensors(), RATES[0])
    match = None
    for step in range(steps):
        found = current.pose(new)
        reached = found.vertices()
        if match is None or step % MATCH_EVERY == 0:
            match = _match(reached.detach(), vertices, normals, trees)
        loss = _loss(reached, found.joints(), current.betas, vertices, normals, joints, match).sum()
        optimiser.learning_rate = RATES[0] * (RATES[1] / RATES[0]) ** (step / max(steps - 1, 1))
        optimiser.step(torch.autograd.grad(loss, optimiser.tensors, allow_unused=True))
    with torch.no_grad():
        final = current.detach()
        found = final.pose(new)
        reached = found.vertices()
        match = _match(reached, vertices, normals, trees)
        one_way, other_way = _plane_distances(reached, vertices, normals, match)
        surface = 0.5 * (one_way.abs().mean(1) + other_way.abs().mean(1))
        return Converted(final, surface, (found.joints() - joints).norm(dim=-1).mean(1))


def _start(parameters: Parameters, new: Body, joints: Tensor) -> Parameters:
    """The same rotations, mean shape, placed so that the joints lie on each other on average."""
    start = Parameters(
        parameters.global_orient, parameters.body_pose, torch.zeros_like(parameters.betas), parameters.cam_t
    )
    shift = (joints - start.pose(new).joints()).mean(1)
    return Parameters(start.global_orient, start.body_pose, start.betas, start.cam_t + shift)


def _match(reached: Tensor, vertices: Tensor, normals: Tensor, trees: list[KDTree]) -> _Match:
    forward = [tree.query(points)[1] for tree, points in zip(trees, reached.numpy(), strict=True)]
    back = [KDTree(points).query(old)[1] for points, old in zip(reached.numpy(), vertices.numpy(), strict=True)]
    index = torch.from_numpy(np.stack(forward))[..., None].expand(-1, -1, 3)
    return _Match(vertices.gather(1, index), normals.gather(1, index), torch.from_numpy(np.stack(back)))


def _plane_distances(reached: Tensor, vertices: Tensor, normals: Tensor, match: _Match) -> tuple[Tensor, Tensor]:
    """Signed metres to the old body's tangent planes: of the new body's vertices (B, V), of its nearest (B, W)."""
    one_way = ((reached - match.target) * match.normal).sum(-1)
    nearest = reached.gather(1, match.index[..., None].expand(-1, -1, 3))
    return one_way, ((nearest - vertices) * normals).sum(-1)


def _loss(
    reached: Tensor,
    joints: Tensor,
    betas: Tensor,
    vertices: Tensor,
    normals: Tensor,
    true_joints: Tensor,
    match: _Match,
) -> Tensor:
    """(B,)"""
    one_way, other_way = _plane_distances(reached, vertices, normals, match)
    surface = sum((d.square() / (1 + d.square() / ROBUST**2)).mean(1) / UNIT**2 for d in (one_way, other_way))
    joint = ((joints - true_joints).square().sum(-1) / JOINT_UNIT**2).mean(1)
    return surface + JOINT_WEIGHT * joint + BETAS_WEIGHT * betas.square().sum(1)
