"""Levenberg-Marquardt on keypoints, 3D landmarks and priors: the fit's first stage, and inverse kinematics.

Joint rotations are updated on the manifold, R <- R exp(delta). The Jacobian is written out: a keypoint is a
combination of the joints' transforms (`dsr_fit.body.body`), so turning joint i about its own place moves keypoint k by
omega x (S_ki - N_ki p_i), with S and N the parts of that combination that hang below joint i. Pose blendshapes, where
a body has them, are followed in the residuals and left out of the Jacobian.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dsr_fit.body.body import Skeleton
from dsr_fit.body.parameters import Parameters
from dsr_fit.camera import project
from dsr_fit.config import FitConfig, Scales, Weights
from dsr_fit.observe.batch import Batch, Points
from dsr_fit.optimise.anchor import Anchor
from dsr_fit.priors.pose import PosePrior
from dsr_fit.rotation import axis_angle_to_matrix, log_jacobian, matrix_to_axis_angle, skew
from dsr_fit.terms import keypoints as point_terms
from dsr_fit.terms import priors as prior_terms

POSE, SHAPE, PLACE = slice(0, 72), slice(72, 82), slice(82, 85)
"""Columns of the Jacobian: 24 joint rotations, betas, translation."""


@dataclass(frozen=True)
class State:
    """A point on the manifold of poses, shapes and places."""

    rotations: Tensor  # (B, 24, 3, 3) local, root first
    betas: Tensor  # (B, 10)
    cam_t: Tensor  # (B, 3)

    def moved(self, delta: Tensor) -> State:
        """Updated by (B, 85)."""
        turn = axis_angle_to_matrix(delta[:, POSE].unflatten(1, (24, 3)))
        return State(self.rotations @ turn, self.betas + delta[:, SHAPE], self.cam_t + delta[:, PLACE])

    def where(self, choose: Tensor, other: State) -> State:
        """Rows of self where `choose` (B,) bool, rows of `other` elsewhere."""
        return State(
            torch.where(choose[:, None, None, None], self.rotations, other.rotations),
            torch.where(choose[:, None], self.betas, other.betas),
            torch.where(choose[:, None], self.cam_t, other.cam_t),
        )

    def rows(self, index: Tensor) -> State:
        return State(self.rotations[index], self.betas[index], self.cam_t[index])

    @classmethod
    def of(cls, parameters: Parameters) -> State:
        """In double precision."""
        pose = parameters.full_pose.detach().double().unflatten(1, (24, 3))
        return cls(axis_angle_to_matrix(pose), parameters.betas.detach().double(), parameters.cam_t.detach().double())

    def parameters(self) -> Parameters:
        """In single precision, as axis-angle."""
        pose = matrix_to_axis_angle(self.rotations).flatten(1)
        return Parameters(pose[:, :3].float(), pose[:, 3:].float(), self.betas.float(), self.cam_t.float())


@dataclass(frozen=True)
class Problem:
    """What the least-squares stage minimises; everything in double precision."""

    skeleton: Skeleton
    points: Points
    pose_prior: PosePrior
    weights: Weights
    scales: Scales
    anchor: Anchor | None = None
    """What the `initial` term holds to; without it there is no such term."""

    @classmethod
    def of(cls, batch: Batch, skeleton: Skeleton, pose_prior: PosePrior, config: FitConfig) -> Problem:
        """What a batch poses, on the skeleton's device."""
        device, double = skeleton.rest_joints.device, torch.float64
        points, prior = batch.points.to(device, double), pose_prior.to(device, double)
        return cls(skeleton.to(dtype=double), points, prior, config.weights, config.scales)

    def repeat(self, times: int) -> Problem:
        anchor = None if self.anchor is None else self.anchor.repeat(times)
        return replace(self, points=self.points.repeat(times), anchor=anchor)

    def energy(self, state: State) -> Tensor:
        """(B,) the weighted sum of the same terms that the gradient stages use."""
        points, weights, scales = self.points, self.weights, self.scales
        keypoints = self.skeleton.keypoints(state.rotations, state.betas)
        placed = keypoints + state.cam_t[:, None]
        pose = matrix_to_axis_angle(state.rotations[:, 1:]).flatten(1)
        total = weights.betas * prior_terms.betas(state.betas)
        total = total + weights.stature * prior_terms.stature(self.skeleton.height(state.betas))
        total = total + weights.pose * self.pose_prior.energy(pose)
        total = total + weights.bending * prior_terms.bending(pose)
        if self.anchor is not None:
            total = total + weights.initial * self.anchor.energy(state.rotations, state.betas)
        if weights.keypoints:
            error = point_terms.keypoints(
                project(placed, points.intrinsics), points.pixels, points.confidence, points.box,
                scales.unit, scales.robust,
            )  # fmt: skip
            behind = (placed[..., 2] < 0.05).any(1)
            total = total + weights.keypoints * error.masked_fill(behind, torch.inf)
        if weights.world_landmarks:
            total = total + weights.world_landmarks * point_terms.world_landmarks(
                keypoints, points.world, points.world_confidence, scales.world_unit
            )
        return total

    def linearise(self, state: State) -> tuple[Tensor, Tensor]:
        """Weighted residuals (B, R) and their Jacobian (B, R, 85); robust terms by their current weights."""
        weights = self.weights
        keypoints, jacobian = keypoint_jacobian(self.skeleton, state)
        blocks = [self._priors(state)]
        if weights.keypoints:
            blocks.append(self._reprojection(state, keypoints, jacobian))
        if weights.world_landmarks:
            blocks.append(self._world(keypoints, jacobian))
        if weights.initial and self.anchor is not None:
            blocks.append(self._initial(state, self.anchor))
        return torch.cat([block[0] for block in blocks], 1), torch.cat([block[1] for block in blocks], 1)

    def _reprojection(self, state: State, keypoints: Tensor, jacobian: Tensor) -> tuple[Tensor, Tensor]:
        points, scales = self.points, self.scales
        placed = keypoints + state.cam_t[:, None]
        depth = placed[..., 2].clamp(min=0.05)
        error = (project(placed, points.intrinsics) - points.pixels) / points.box[:, None, None]
        robust = 1 / (1 + error.square().sum(-1) / scales.robust**2).square()
        count = (points.confidence > 0).sum(1, keepdim=True).clamp(min=1)
        scale = (self.weights.keypoints / count * robust).sqrt() * points.confidence / scales.unit
        focal = points.intrinsics[:, None, :2] / points.box[:, None, None] / depth[..., None]
        direction = placed[..., :2] / depth[..., None]
        slope = focal[..., None] * (jacobian[:, :, :2] - direction[..., None] * jacobian[:, :, 2:])
        return (scale[..., None] * error).flatten(1), (scale[..., None, None] * slope).flatten(1, 2)

    def _world(self, keypoints: Tensor, jacobian: Tensor) -> tuple[Tensor, Tensor]:
        points = self.points
        confidence = points.world_confidence
        share = confidence.square()
        share = (share / share.sum(1, keepdim=True).clamp(min=1e-9))[..., None]
        error = keypoints - points.world
        error = error - (share * error).sum(1, keepdim=True)
        slope = jacobian - (share[..., None] * jacobian).sum(1, keepdim=True)
        count = (confidence > 0).sum(1, keepdim=True).clamp(min=1)
        scale = (self.weights.world_landmarks / count).sqrt() * confidence / self.scales.world_unit
        return (scale[..., None] * error).flatten(1), (scale[..., None, None] * slope).flatten(1, 2)

    def _initial(self, state: State, anchor: Anchor) -> tuple[Tensor, Tensor]:
        turn = prior_terms.turned(state.rotations, anchor.rotations)
        scale = (self.weights.initial / 24) ** 0.5 / anchor.spread[..., None]
        shape_scale = (self.weights.initial / 10) ** 0.5
        slope = turn.new_zeros(len(turn), 82, 85)
        for joint, block in enumerate((scale[..., None] * log_jacobian(turn)).unbind(1)):
            columns = slice(3 * joint, 3 * joint + 3)
            slope[:, columns, columns] = block
        slope[:, SHAPE, SHAPE] = shape_scale * torch.eye(10, dtype=turn.dtype, device=turn.device)
        return torch.cat([(scale * turn).flatten(1), shape_scale * (state.betas - anchor.betas)], 1), slope

    def _priors(self, state: State) -> tuple[Tensor, Tensor]:
        weights, prior = self.weights, self.pose_prior
        batch = len(state.betas)
        pose = matrix_to_axis_angle(state.rotations[:, 1:])  # (B, 23, 3)
        slope = pose.new_zeros(batch, 69, 85)
        for joint, block in enumerate(log_jacobian(pose).unbind(1)):
            slope[:, 3 * joint : 3 * joint + 3, 3 * joint + 3 : 3 * joint + 6] = block
        pose = pose.flatten(1)
        scale = (weights.pose / 69) ** 0.5
        deviations, whitening = prior.nearest(pose)
        index = [component for component, _ in prior_terms.BENDS]
        signs = pose.new_tensor([sign for _, sign in prior_terms.BENDS])
        backwards = prior_terms.bends(pose).clamp(max=0) * (weights.bending**0.5 / prior_terms.BEND_UNIT)
        active = (backwards < 0) * signs * (weights.bending**0.5 / prior_terms.BEND_UNIT)
        shape_slope = pose.new_zeros(batch, 10, 85)
        shape_scale = (weights.betas / 10) ** 0.5
        shape_slope[:, torch.arange(10), 72 + torch.arange(10)] = shape_scale
        tall_scale = weights.stature**0.5 / prior_terms.STATURE_UNIT
        beyond = prior_terms.too_short_or_tall(self.skeleton.height(state.betas))[:, None] * tall_scale
        tall_slope = pose.new_zeros(batch, 1, 85)
        tall_slope[:, 0, SHAPE] = (beyond != 0) * tall_scale * self.skeleton.stature[1:]
        residuals = [scale * deviations, backwards, shape_scale * state.betas, beyond]
        return torch.cat(residuals, 1), torch.cat(
            [scale * whitening @ slope, active[..., None] * slope[:, index], shape_slope, tall_slope], 1
        )


def keypoint_jacobian(skeleton: Skeleton, state: State) -> tuple[Tensor, Tensor]:
    """Keypoints (B, K, 3) without translation, and d(keypoints + cam_t) / d(85 unknowns), (B, K, 3, 85)."""
    rotations, betas = state.rotations, state.betas
    rest = skeleton.joints_at_rest(betas)
    world = skeleton.world_rotations(rotations)
    positions = skeleton.positions(world, rest)
    moments = skeleton.moments(rotations, betas)  # (B, K, J, 4)
    mass = moments[..., 3]
    anchored = positions - torch.einsum("bjrc,bjc->bjr", world, rest)
    parts = torch.einsum("bjrc,bkjc->bkjr", world, moments[..., :3]) + mass[..., None] * anchored[:, None]
    keypoints = parts.sum(2)

    below = torch.einsum("ij,bkjr->bkir", skeleton.tree, parts)
    below_mass = mass @ skeleton.tree.T
    lever = below - below_mass[..., None] * positions[:, None]
    turn = (-skew(lever) @ world[:, None]).permute(0, 1, 3, 2, 4).flatten(3)  # (B, K, 3, 72)

    # Rest joints and moments are linear in betas, and so are the keypoints of a fixed pose.
    parents = list(skeleton.parents[1:])
    dirs = skeleton.rest_joints_dirs
    steps = torch.einsum("bjrc,jcs->bjrs", world[:, parents], dirs[1:] - dirs[parents])
    steps = torch.cat([dirs[:1].expand(len(betas), -1, -1, -1), steps], 1)
    moved = torch.einsum("ij,birs->bjrs", skeleton.tree, steps) - torch.einsum("bjrc,jcs->bjrs", world, dirs)
    grown = torch.einsum("bjrc,kjcs->bkrs", world, skeleton.keypoint_moments_dirs)
    grown = grown + torch.einsum("bkj,bjrs->bkrs", mass, moved)
    eye = torch.eye(3, dtype=betas.dtype, device=betas.device).expand(*keypoints.shape, 3)
    return keypoints, torch.cat([turn, grown, eye], -1)


def solve(problem: Problem, start: State, steps: int, damping: float, free: slice = slice(0, 85)) -> State:
    """At most `steps` damped Gauss-Newton steps on the `free` columns; a step that raises the energy is not taken.

    Every person of the batch has a damping of its own.
    """
    state, energy = start, problem.energy(start)
    factor = torch.full_like(energy, damping)
    for _ in range(steps):
        residuals, jacobian = problem.linearise(state)
        jacobian = jacobian[..., free]
        normal = jacobian.transpose(1, 2) @ jacobian
        gradient = (jacobian.transpose(1, 2) @ residuals[..., None])[..., 0]
        diagonal = normal.diagonal(dim1=1, dim2=2)
        lifted = normal + torch.diag_embed(factor[:, None] * diagonal + 1e-9)
        step = energy.new_zeros(len(energy), 85)
        step[:, free] = -torch.linalg.solve(lifted, gradient)
        candidate = state.moved(step)
        reached = problem.energy(candidate)
        better = reached < energy  # false for NaN as well
        state, energy = candidate.where(better, state), torch.where(better, reached, energy)
        factor = torch.where(better, factor * 0.3, factor * 10).clamp(1e-6, 1e3)
    return state
