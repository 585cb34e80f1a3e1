"""How people hold themselves against gravity, given their pose; and how cameras are held.

With `u` the upward direction in the pelvis's frame and `f` some joint angles, motion capture, which is recorded
upright, gives a mixture of Gaussians over (f, u). Its conditional p(u | f) is a mixture of linear predictions of `u`,
weighted by how well each component's angles fit: over straight legs up is along the trunk, over a body that rolls it
may be anywhere. A camera's pitch and roll are Gaussian too, so that their variances add to the body's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dsr_fit.config import CameraTilt
from dsr_fit.joints import SMPL_JOINTS
from dsr_fit.rotation import skew
from dsr_fit.tensors import Tensors
from dsr_fit.terms.residual import Dual, Residual

FEATURES = [
    3 * (SMPL_JOINTS.index(name) - 1) + axis
    for name, axes in (
        ("left_hip", 3), ("right_hip", 3), ("left_knee", 1), ("right_knee", 1), ("spine1", 3), ("spine2", 3),
        ("spine3", 3),
    )
    for axis in range(axes)
]  # fmt: skip
"""Components of `body_pose` that tell how a body stands: hips and spine, and the bend of the knees."""

_COLUMNS = torch.tensor(FEATURES)  # a list is turned into one on every use

ANYHOW = 0.02
"""Share of bodies that are held in no way that motion capture knows; their up is anywhere on the sphere."""


@dataclass(frozen=True)
class TiltPrior(Tensors):
    """K linear predictions of the upward direction in the pelvis's frame (at rest y), from F = 17 joint angles."""

    mean: Tensor  # (K, F) radians, the components' angles
    precision: Tensor  # (K, F, F) inverse covariance of the angles
    log_weight: Tensor  # (K,) log of a component's weight, times the root of the precision's determinant
    up: Tensor  # (K, 3) the upward direction at the mean
    slope: Tensor  # (K, 3, F) its change with the angles
    spread: Tensor  # (K,) radians


@dataclass(frozen=True)
class Vertical(Tensors):
    """What is known of gravity in B pictures, as Gaussians in the axes of the full image's camera."""

    up: Tensor  # (B, 3) the likeliest upward direction
    variance: Tensor  # (B, 3) of its components, squared radians
    axes: Tensor  # (B, 3, 3) turns the axes of the full image's camera into those of the fit's

    @classmethod
    def of(cls, axes: Tensor, tilt: CameraTilt, pitch: float | None, roll: float | None) -> Vertical:
        """Of the camera's tilt, degrees; None where it is not known."""
        down = math.radians(tilt.pitch if pitch is None else pitch)
        right = math.radians(0.0 if roll is None else roll)
        up = [math.sin(right) * math.cos(down), -math.cos(right) * math.cos(down), -math.sin(down)]
        sideways = math.radians(tilt.roll_spread if roll is None else tilt.known_spread)
        forwards = math.radians(tilt.pitch_spread if pitch is None else tilt.known_spread)
        count = len(axes)
        variance = axes.new_tensor([sideways**2, 0.0, forwards**2])
        return cls(axes.new_tensor(up).expand(count, 3), variance.expand(count, 3), axes)


@dataclass(frozen=True)
class _Parts:
    """Of B bodies and K components."""

    up: Tensor  # (B, K, 3) predicted upward directions, pelvis's frame
    seen: Tensor  # (B, 3, 3) the pelvis's axes in the full image's camera
    error: Tensor  # (B, K, 3) of these in the camera's axes, in standard deviations
    std: Tensor  # (B, K, 3) radians
    pull: Tensor  # (B, K, F) precision times the angles' distance from the component's
    weight: Tensor  # (B, K) of the components, given the angles
    share: Tensor  # (B, K) of the components, given the upward direction too; 1 less `ANYHOW`'s
    energy: Tensor  # (B,)


def _parts(prior: TiltPrior, vertical: Vertical, root: Tensor, body_pose: Tensor) -> _Parts:
    # Products are summed without matrix products, so that nobody's sums are rounded by how many others there are.
    off = body_pose[:, _COLUMNS][:, None] - prior.mean
    pull = (prior.precision * off[..., None, :]).sum(-1)
    log_weight = torch.log_softmax(prior.log_weight - (off * pull).sum(-1) / 2, 1)
    up = prior.up + (prior.slope * off[..., None, :]).sum(-1)
    seen = (vertical.axes[..., :, :, None] * root[..., :, None, :]).sum(-3)
    std = (prior.spread[:, None].square() + vertical.variance[:, None]).sqrt()
    error = ((seen[:, None] * up[..., None, :]).sum(-1) - vertical.up[:, None]) / std
    # A direction has two degrees of freedom: across the picture and along the view.
    peak = -torch.log(2 * math.pi / (1 - ANYHOW) * std[..., 0] * std[..., 2])
    density = log_weight + peak - error.square().sum(-1) / 2
    anyhow = density.new_full((len(density), 1), math.log(ANYHOW / (4 * math.pi)))
    total = torch.logsumexp(torch.cat([density, anyhow], 1), 1)
    share = torch.exp(density - total[:, None])
    return _Parts(up, seen, error, std, pull, log_weight.exp(), share, 2 * (peak.amax(1) - total))


class _Energy(torch.autograd.Function):
    """The energy with its gradient written out: autograd's own takes ten times as long over numbers so few."""

    @staticmethod
    def forward(ctx, prior: TiltPrior, vertical: Vertical, root: Tensor, body_pose: Tensor) -> Tensor:
        parts = _parts(prior, vertical, root, body_pose)
        share, back = (
            parts.share[..., None],
            2 * parts.share[..., None] * parts.error / parts.std,
        )  # d energy / d seen up
        in_pelvis = (back[..., :, None] * parts.seen[:, None]).sum(-2)
        angles = (in_pelvis[..., :, None] * prior.slope).sum((1, 2))
        angles += 2 * ((share - share.sum(1, keepdim=True) * parts.weight[..., None]) * parts.pull).sum(1)
        by_pose = torch.zeros_like(body_pose)
        by_pose[:, _COLUMNS] = angles
        by_seen = (back[..., :, None] * parts.up[..., None, :]).sum(1)
        ctx.save_for_backward((vertical.axes[..., :, :, None] * by_seen[:, None]).sum(-2), by_pose)
        return parts.energy

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[None, None, Tensor, Tensor]:  # type: ignore[override]
        by_root, by_pose = ctx.saved_tensors
        return None, None, gradient[:, None, None] * by_root, gradient[:, None] * by_pose


def energy(prior: TiltPrior, vertical: Vertical, root: Tensor, body_pose: Tensor) -> Tensor:
    """(B,) -2 log density of the upward direction given the pose, from the highest that any component could have.

    `root` (B, 3, 3) turns the pelvis's axes into the fit's camera's; `body_pose` (B, 69).
    """
    return _Energy.apply(prior, vertical, root, body_pose)  # type: ignore[return-value]


def residual(prior: TiltPrior, vertical: Vertical, root: Tensor, body_pose: Dual) -> Residual:
    """Each component's error by its share in the density (expectation maximisation). How the shares follow the pose is
    left out of the slope."""
    parts = _parts(prior, vertical, root, body_pose.value)
    if body_pose.slope is None:
        return Residual(Dual(parts.error), parts.share)
    slope = prior.slope @ body_pose.slope[:, _COLUMNS][:, None]  # (B, K, 3, U)
    slope[..., :3] -= skew(parts.up)  # R exp(delta) u = R (u - u x delta)
    return Residual(Dual(parts.error, (parts.seen[:, None] @ slope) / parts.std[..., None]), parts.share)
