"""Levenberg-Marquardt on keypoints, 3D landmarks and priors: the fit's first stage, and inverse kinematics.

Joint rotations are updated on the manifold, R <- R exp(delta). The Jacobian is written out: a keypoint is a
combination of the joints' transforms (`dsr_fit.body.skeleton`), so turning joint i about its own place moves keypoint k
by omega x (S_ki - N_ki p_i), with S and N the parts of that combination that hang below joint i. Pose blendshapes,
where a body has them, are followed in the residuals and left out of the Jacobian.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dsr_fit.body.parameters import Parameters
from dsr_fit.body.skeleton import Skeleton
from dsr_fit.config import FitConfig, Scales, Weights
from dsr_fit.observe.batch import Batch, Points
from dsr_fit.optimise.anchor import Anchor
from dsr_fit.optimise.objective import TERMS, Bodies, Given, Term, joint_slope, weights_of
from dsr_fit.priors.pose import PosePrior
from dsr_fit.priors.tilt import Vertical
from dsr_fit.rotation import axis_angle_to_matrix
from dsr_fit.tensors import Tensors
from dsr_fit.terms.points import NEAREST
from dsr_fit.terms.residual import Dual
from dsr_fit.terms.turns import rotation_vectors

POSE, SHAPE, PLACE = slice(0, 72), slice(72, 82), slice(82, 85)
"""Columns of the Jacobian: 24 joint rotations, betas, translation."""

SETTLED = 1e-5
"""Share of a person's energy; a step that lowers it by less is the last."""


@dataclass(frozen=True)
class State(Tensors):
    """Pose, shape and translation; poses on the manifold of rotations."""

    rotations: Tensor  # (B, 24, 3, 3) local, root first
    betas: Tensor  # (B, 10)
    cam_t: Tensor  # (B, 3)

    def moved(self, delta: Tensor) -> State:
        """Updated by (B, 85)."""
        turn = axis_angle_to_matrix(delta[:, POSE].unflatten(1, (24, 3)))
        return State(self.rotations @ turn, self.betas + delta[:, SHAPE], self.cam_t + delta[:, PLACE])

    @classmethod
    def of(cls, parameters: Parameters) -> State:
        """In double precision."""
        pose = parameters.full_pose.detach().double().unflatten(1, (24, 3))
        return cls(axis_angle_to_matrix(pose), parameters.betas.detach().double(), parameters.cam_t.detach().double())

    def parameters(self) -> Parameters:
        """In single precision, as axis-angle."""
        pose = rotation_vectors(self.rotations).flatten(1)
        return Parameters(pose[:, :3].float(), pose[:, 3:].float(), self.betas.float(), self.cam_t.float())


@dataclass(frozen=True)
class Problem:
    """The least-squares stage's objective: the terms that have residuals, in double precision."""

    skeleton: Skeleton
    points: Points
    pose_prior: PosePrior
    weights: Weights
    scales: Scales
    anchor: Anchor | None = None
    """The estimate of the `initial` term; None for no such term."""
    vertical: Vertical | None = None
    """Which way is up, for the `tilt` term; None for no such term."""
    terms: tuple[Term, ...] = TERMS

    @classmethod
    def of(
        cls,
        batch: Batch,
        skeleton: Skeleton,
        pose_prior: PosePrior,
        config: FitConfig,
        anchor: Anchor | None = None,
        terms: tuple[Term, ...] = TERMS,
    ) -> Problem:
        """The problem of a batch, on the skeleton's device."""
        device, double = skeleton.rest_joints.device, torch.float64
        points, prior = batch.points.to(device, double), pose_prior.to(device, double)
        anchor = None if anchor is None else anchor.to(device, double)
        axes = batch.axes.to(device, double)
        vertical = Vertical.of(axes, config.camera_tilt, config.pitch, config.roll)
        return cls(skeleton.to(dtype=double), points, prior, config.weights, config.scales, anchor, vertical, terms)

    def rows(self, index: Tensor) -> Problem:
        """Of some of the people."""
        anchor = None if self.anchor is None else self.anchor.rows(index)
        vertical = None if self.vertical is None else self.vertical.rows(index)
        return replace(self, points=self.points.rows(index), anchor=anchor, vertical=vertical)

    def repeat(self, times: int) -> Problem:
        """Each person `times` times in a row, for several hypotheses."""
        anchor = None if self.anchor is None else self.anchor.repeat(times)
        vertical = None if self.vertical is None else self.vertical.repeat(times)
        return replace(self, points=self.points.repeat(times), anchor=anchor, vertical=vertical)

    def energy(self, state: State) -> Tensor:
        """(B,) the weighted sum of the same terms that the later stages use, less the rendered ones.

        A body behind the camera, where keypoints count, costs infinity: projection has a pole there.
        """
        keypoints = self.skeleton.keypoints(state.rotations, state.betas) + state.cam_t[:, None]
        pose = rotation_vectors(state.rotations[:, 1:]).flatten(1)
        height = self.skeleton.height(state.betas)[:, None]
        bodies = Bodies(state.rotations, Dual(pose), Dual(state.betas), Dual(height), Dual(keypoints))
        total = torch.zeros_like(state.betas[:, 0])
        for term, weight in self._active():
            value = term.value(bodies, self._given())
            total = total if value is None else total + weight * value
        if self.weights.keypoints:
            total = total.masked_fill((keypoints[..., 2] < NEAREST).any(1), torch.inf)
        return total

    def linearise(self, state: State) -> tuple[Tensor, Tensor]:
        """Weighted residuals (B, R) and their Jacobian (B, R, 85); robust terms by their current weights."""
        bodies, blocks = self._followed(state), []
        for term, weight in self._active():
            residual = None if term.residual is None else term.residual(bodies, self._given())
            if residual is not None:
                blocks.append(residual.linearised(weight))
        if not blocks:  # rendered terms alone
            return state.betas.new_zeros(len(state.betas), 0), state.betas.new_zeros(len(state.betas), 0, 85)
        return torch.cat([block[0] for block in blocks], 1), torch.cat([block[1] for block in blocks], 1)

    def _active(self) -> list[tuple[Term, float]]:
        weights = weights_of(self.weights, self.terms)
        return [(term, weights[term.name]) for term in self.terms if term.rendered is None and weights[term.name]]

    def _given(self) -> Given:
        return Given(self.points, self.scales, self.pose_prior, self.anchor, self.vertical)

    def _followed(self, state: State) -> Bodies:
        """The bodies of a state, and their derivatives by the 85 unknowns."""
        keypoints, slope = keypoint_jacobian(self.skeleton, state)
        pose = rotation_vectors(state.rotations[:, 1:])  # (B, 23, 3)
        by_betas = pose.new_zeros(len(pose), 10, 85)
        by_betas[:, :, SHAPE] = torch.eye(10, dtype=pose.dtype, device=pose.device)
        tall = self.skeleton.height(state.betas)[:, None]
        return Bodies(
            rotations=state.rotations,
            body_pose=Dual(pose.flatten(1), joint_slope(pose, 1, 85).flatten(1, 2)),
            betas=Dual(state.betas, by_betas),
            height=Dual(tall, (self.skeleton.stature[1:] @ by_betas)[:, None]),
            keypoints=Dual(keypoints + state.cam_t[:, None], slope),
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
    turn = torch.linalg.cross(world.mT[:, None], lever[..., None, :], dim=-1)  # (B, K, J, turned axis, 3)
    turn = turn.permute(0, 1, 4, 2, 3).flatten(3)  # (B, K, 3, 72)

    # Rest joints and moments are linear in betas, and so are the keypoints of a fixed pose.
    dirs = skeleton.rest_joints_dirs
    above = skeleton.of_parents(world, 1)
    steps = torch.einsum("bjrc,jcs->bjrs", above, dirs[1:] - skeleton.of_parents(dirs, 0))
    steps = torch.cat([dirs[:1].expand(len(betas), -1, -1, -1), steps], 1)
    moved = torch.einsum("ij,birs->bjrs", skeleton.tree, steps) - torch.einsum("bjrc,jcs->bjrs", world, dirs)
    grown = torch.einsum("bjrc,kjcs->bkrs", world, skeleton.keypoint_moments_dirs)
    grown = grown + torch.einsum("bkj,bjrs->bkrs", mass, moved)
    eye = torch.eye(3, dtype=betas.dtype, device=betas.device).expand(*keypoints.shape, 3)
    return keypoints, torch.cat([turn, grown, eye], -1)


def solve(problem: Problem, start: State, steps: int, damping: float, free: slice = slice(0, 85)) -> State:
    """At most `steps` damped Gauss-Newton steps on the `free` columns; a step that raises the energy is not taken.

    Every person of the batch has a damping of its own, and takes no further steps once `SETTLED`; on a CPU whoever has
    leaves the batch.
    """
    state, energy = start, problem.energy(start)
    factor, done = torch.full_like(energy, damping), torch.zeros_like(energy, dtype=torch.bool)
    ended, rows = start, torch.arange(len(energy), device=energy.device)
    for _ in range(steps):
        residuals, jacobian = problem.linearise(state)
        jacobian = jacobian[..., free]
        normal = jacobian.transpose(1, 2) @ jacobian
        gradient = (jacobian.transpose(1, 2) @ residuals[..., None])[..., 0]
        diagonal = normal.diagonal(dim1=1, dim2=2)
        lifted = normal + torch.diag_embed(factor[:, None] * diagonal + 1e-9)
        step = energy.new_zeros(len(energy), 85)
        # A singular matrix gives no finite step, which is not taken; to look for one would wait for a GPU.
        step[:, free] = -torch.linalg.solve_ex(lifted, gradient)[0]
        candidate = state.moved(step)
        reached = problem.energy(candidate)
        better = (reached < energy) & ~done  # false for NaN as well
        done = done | (better & (energy - reached < SETTLED * energy.abs()))
        state, energy = candidate.where(better, state), torch.where(better, reached, energy)
        factor = torch.where(better, factor * 0.3, factor * 10).clamp(1e-6, 1e3)
        if energy.device.type == "cpu" and bool(done.any()):  # to ask would wait for a GPU
            ended, left = ended.updated(rows, state), ~done
            problem, state, rows = problem.rows(left), state.rows(left), rows[left]
            energy, factor, done = energy[left], factor[left], done[left]
            if len(rows) == 0:
                return ended
    return ended.updated(rows, state)
