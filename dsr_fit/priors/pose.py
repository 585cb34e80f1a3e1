"""The pose prior: a mixture of Gaussians over the rotation vectors of SMPL's 23 body joints.

Rotations are relative to the T-pose, which is in the middle of the shoulders' range, so human poses stay clear of the
discontinuity at half a turn. Longer vectors are wrapped, so the energy depends on the rotation alone.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import yaml
from torch import Tensor

from dsr_fit.assets import shipped
from dsr_fit.errors import InputError
from dsr_fit.io.files import read_arrays
from dsr_fit.joints import SMPL_JOINTS
from dsr_fit.priors.tilt import FEATURES, TiltPrior

PosePriorKind = Literal["learned", "ranges"]


@dataclass(frozen=True)
class PosePrior:
    """K Gaussians over `body_pose`."""

    mean: Tensor  # (K, 69) radians
    whitening: Tensor  # (K, 69, 69) maps deviations to unit normals; W^T W is the inverse covariance
    offset: Tensor  # (K,) -2 log of a component's peak, relative to the highest peak
    tilt: TiltPrior | None = None
    """How the bodies are held against gravity; None where that is not known."""
    straight: Tensor | None = None
    """(2, 2) of knees and elbows: height of the peak of straight ones over the mixture, and its width in radians."""

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> PosePrior:
        mean, whitening, offset = (value.to(device, dtype) for value in (self.mean, self.whitening, self.offset))
        tilt = None if self.tilt is None else self.tilt.to(device, dtype)
        return PosePrior(
            mean, whitening, offset, tilt, None if self.straight is None else self.straight.to(device, dtype)
        )

    def fingerprint(self) -> str:
        """SHA-256 of its values."""
        tensors = [self.mean, self.whitening, self.offset, *(self.tilt.tensors() if self.tilt else [])]
        tensors += [] if self.straight is None else [self.straight]
        return hashlib.sha256(b"".join(tensor.cpu().numpy().tobytes() for tensor in tensors)).hexdigest()

    @property
    def center(self) -> Tensor:
        """(69,) mean of the component with the highest peak: the initial pose of fits."""
        return self.mean[self.offset.argmin()]

    @property
    def std(self) -> Tensor:
        """(69,) radians, standard deviation of the component with the highest peak."""
        whitening = self.whitening[self.offset.argmin()]
        return torch.linalg.inv(whitening.T @ whitening).diagonal().sqrt()

    def component_weights(self) -> Tensor:
        """(K,) mixture weights."""
        return torch.softmax(-self.offset / 2 - torch.linalg.slogdet(self.whitening)[1], 0)

    def deviations(self, body_pose: Tensor) -> Tensor:
        """(B, 69) -> (B, K, 69) whitened deviations from each component's mean."""
        off = wrapped(body_pose)[:, None] - self.mean
        if off.device.type != "cpu":  # see `dsr_fit.body.skeleton.by_row`
            return torch.einsum("kij,bkj->bki", self.whitening, off)
        # Person by person, so that nobody's sums are rounded by how many others there are.
        return torch.stack([(self.whitening @ row[..., None])[..., 0] for row in off.unbind(0)])

    def energy(self, body_pose: Tensor) -> Tensor:
        """(B, 69) -> (B,) -2 log density relative to the highest peak, over 69: about 1 for a usual pose."""
        cost = self.deviations(body_pose).square().sum(-1) + self.offset
        return -2 / body_pose.shape[1] * torch.logsumexp(-cost / 2, 1)

    def nearest(self, body_pose: Tensor) -> tuple[Tensor, Tensor]:
        """Deviations (B, 69) and whitening (B, 69, 69) of each pose's best component."""
        deviations = self.deviations(body_pose)
        best = (deviations.square().sum(-1) + self.offset).argmin(1)
        return deviations[torch.arange(len(best), device=best.device), best], self.whitening[best]


def wrapped(body_pose: Tensor) -> Tensor:
    """(B, 69) the same rotations as vectors of at most half a turn."""
    vectors = body_pose.unflatten(1, (-1, 3))
    angle = vectors.detach().norm(dim=-1, keepdim=True)
    # To ask spares a CPU the rest; a GPU would be waited for.
    if angle.device.type == "cpu" and not bool((angle > math.pi).any()):
        return body_pose
    turns = 2 * math.pi * (angle / (2 * math.pi)).round()
    exact = vectors.norm(dim=-1, keepdim=True).clamp(min=1e-6)
    return (vectors * (1 - turns / exact)).flatten(1)


def load_pose_prior(kind: PosePriorKind = "ranges") -> PosePrior:
    """The prior learned from motion capture and photos; or the hand-written joint ranges, with the learned tilt and
    peaks of straight limbs."""
    learned = read_pose_prior(shipped("priors/pose/density.npz"))
    return learned if kind == "learned" else replace(_ranges(), tilt=learned.tilt, straight=learned.straight)


def read_pose_prior(path: Path) -> PosePrior:
    """Read a file written by `tools/build_pose_prior.py`. Raises InputError for any other."""
    try:
        arrays = read_arrays(path)
    except ValueError as error:
        raise InputError(f"{path}: not a readable pose prior ({error})") from None
    try:
        if not isinstance(arrays, dict):
            raise ValueError("it holds one array")
        density = _tensors(arrays, "", {"mean": (69,), "whitening": (69, 69), "offset": ()})
        count = len(FEATURES)
        held = {"mean": (count,), "precision": (count, count), "log_weight": (), "up": (3,), "slope": (3, count)}
        tilt = TiltPrior(*_tensors(arrays, "tilt_", held | {"spread": ()})) if "tilt_mean" in arrays else None
        straight = _tensors(arrays, "", {"straight": (2,)})[0] if "straight" in arrays else None
        if straight is not None and straight.shape != (2, 2):
            raise ValueError("`straight` is not (2, 2)")
    except ValueError as error:
        raise InputError(f"{path}: not a pose prior of `tools/build_pose_prior.py` ({error})") from None
    mean, whitening, offset = density
    return PosePrior(mean, whitening, offset, tilt, straight)


def _tensors(arrays: dict[str, np.ndarray], prefix: str, shapes: dict[str, tuple[int, ...]]) -> list[torch.Tensor]:
    """Arrays (K, ...) with these shapes after K. Raises ValueError where there are others."""
    found = [arrays.get(f"{prefix}{name}") for name in shapes]
    for (name, shape), array in zip(shapes.items(), found, strict=True):
        first = found[0]
        if array is None or first is None or array.shape != (*first.shape[:1], *shape):
            raise ValueError(f"expected `{prefix}{name}` of shape {('K', *shape)}".replace("'K'", "K"))
    return [torch.from_numpy(array.astype(np.float32)) for array in found if array is not None]


def _ranges() -> PosePrior:
    """One Gaussian with independent components (`priors/pose/joint_ranges.yaml`)."""
    table = yaml.safe_load(shipped("priors/pose/joint_ranges.yaml").read_text(encoding="utf-8"))
    mirror = np.array([1.0, -1.0, -1.0])
    mean, std = np.zeros((23, 3)), np.zeros((23, 3))
    for row, name in enumerate(SMPL_JOINTS[1:]):
        entry = table[name.replace("right_", "left_")]
        mean[row] = np.array(entry["mean"]) * (mirror if name.startswith("right_") else 1)
        std[row] = entry["std"]
    whitening = torch.from_numpy(1 / std.ravel()).float().diag()[None]
    return PosePrior(torch.from_numpy(mean.ravel()).float()[None], whitening, torch.zeros(1))
