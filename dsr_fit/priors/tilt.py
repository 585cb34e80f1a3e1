"""How people hold themselves against gravity, given their pose; and how cameras are held.

With `u` the upward direction in the pelvis's frame and `f` some joint angles, motion capture, which is recorded
upright, gives a mixture of Gaussians over (f, u). Its conditional p(u | f) is a mixture of linear predictions of `u`,
weighted by how well each component's angles fit: over straight legs up is along the trunk, over a body that rolls it
may be anywhere. A camera's pitch and roll are Gaussian too, so that their variances add to the body's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dsr_fit.compilation import kernel
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


def _with_gradient(
    prior: TiltPrior, vertical: Vertical, root: Tensor, body_pose: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The energy (B,), and its gradients by `root` and `body_pose`: the readable twin of `_measure`."""
    parts = _parts(prior, vertical, root, body_pose)
    share = parts.share[..., None]
    back = 2 * share * parts.error / parts.std  # d energy / d seen up
    in_pelvis = (back[..., :, None] * parts.seen[:, None]).sum(-2)
    angles = (in_pelvis[..., :, None] * prior.slope).sum((1, 2))
    angles += 2 * ((share - share.sum(1, keepdim=True) * parts.weight[..., None]) * parts.pull).sum(1)
    by_pose = torch.zeros_like(body_pose)
    by_pose[:, _COLUMNS] = angles
    by_seen = (back[..., :, None] * parts.up[..., None, :]).sum(1)
    return parts.energy, (vertical.axes[..., :, :, None] * by_seen[:, None]).sum(-2), by_pose


class _Energy(torch.autograd.Function):
    """The energy with its gradient written out: autograd's own takes ten times as long over numbers so few, and torch
    takes ten times as long as a kernel."""

    @staticmethod
    def forward(ctx, prior: TiltPrior, vertical: Vertical, root: Tensor, body_pose: Tensor) -> Tensor:
        if root.device.type != "cpu":
            energy, by_root, by_pose = _with_gradient(prior, vertical, root, body_pose)
        else:
            energy, by_root, by_pose = (
                torch.empty_like(root[:, 0, 0]),
                torch.empty_like(root),
                torch.zeros_like(body_pose),
            )
            held = (*prior.tensors(), *vertical.tensors(), root, body_pose, energy, by_root, by_pose)
            _measure(_COLUMNS.numpy(), *(each.detach().contiguous().numpy() for each in held))
        ctx.save_for_backward(by_root, by_pose)
        return energy

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[None, None, Tensor, Tensor]:  # type: ignore[override]
        by_root, by_pose = ctx.saved_tensors
        return None, None, gradient[:, None, None] * by_root, gradient[:, None] * by_pose


@kernel
def _measure(
    columns, mean, precision, log_weight, up_at_mean, slope, spread, upward, variance, axes, root, body_pose, energy,
    by_root, by_pose,
):  # fmt: skip
    """`_with_gradient` into zeroed `by_pose`; sums in double precision."""
    components, features = mean.shape
    off, pull = np.empty((components, features)), np.empty((components, features))
    up, error, std = np.empty((components, 3)), np.empty((components, 3)), np.empty((components, 3))
    weight, density, seen, by_seen = np.empty(components), np.empty(components), np.empty((3, 3)), np.empty((3, 3))
    for b in range(len(root)):
        for r in range(3):
            for c in range(3):
                seen[r, c] = by_seen[r, c] = 0.0
                for m in range(3):
                    seen[r, c] += axes[b, m, r] * root[b, m, c]
        most = highest = -np.inf
        for k in range(components):
            distance = 0.0
            for f in range(features):
                off[k, f] = body_pose[b, columns[f]] - mean[k, f]
            for f in range(features):
                pull[k, f] = 0.0
                for g in range(features):
                    pull[k, f] += precision[k, f, g] * off[k, g]
                distance += off[k, f] * pull[k, f]
            weight[k] = log_weight[k] - distance / 2
            most = max(most, weight[k])
        total = 0.0
        for k in range(components):
            total += math.exp(weight[k] - most)
        normaliser, most = most + math.log(total), math.log(ANYHOW / (4 * math.pi))
        anyhow = most
        for k in range(components):
            weight[k] -= normaliser
            squared = 0.0
            for r in range(3):
                up[k, r] = up_at_mean[k, r]
                for f in range(features):
                    up[k, r] += slope[k, r, f] * off[k, f]
            for r in range(3):
                std[k, r] = math.sqrt(float(spread[k]) ** 2 + variance[b, r])
                shown = seen[r, 0] * up[k, 0] + seen[r, 1] * up[k, 1] + seen[r, 2] * up[k, 2]
                error[k, r] = (shown - upward[b, r]) / std[k, r]
                squared += error[k, r] ** 2
            peak = -math.log(2 * math.pi / (1 - ANYHOW) * std[k, 0] * std[k, 2])
            highest = max(highest, peak)
            density[k] = weight[k] + peak - squared / 2
            most = max(most, density[k])
        total = math.exp(anyhow - most)
        for k in range(components):
            total += math.exp(density[k] - most)
        total = most + math.log(total)
        energy[b] = 2 * (highest - total)
        held = 0.0
        for k in range(components):
            density[k] = math.exp(density[k] - total)  # now the component's share
            held += density[k]
        for k in range(components):
            share = density[k]
            for f in range(features):
                by_pose[b, columns[f]] += 2 * (share - held * math.exp(weight[k])) * pull[k, f]
            for c in range(3):
                in_pelvis = 0.0
                for r in range(3):
                    back = 2 * share * error[k, r] / std[k, r]
                    in_pelvis += back * seen[r, c]
                    by_seen[r, c] += back * up[k, c]
                for f in range(features):
                    by_pose[b, columns[f]] += in_pelvis * slope[k, c, f]
        for r in range(3):
            for c in range(3):
                by_root[b, r, c] = (
                    axes[b, r, 0] * by_seen[0, c] + axes[b, r, 1] * by_seen[1, c] + axes[b, r, 2] * by_seen[2, c]
                )


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
