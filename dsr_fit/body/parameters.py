"""The parameters of a posed body, for a batch of people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from dsr_fit.body.body import Body, Posed
from dsr_fit.tensors import Tensors


@dataclass(frozen=True)
class Parameters(Tensors):
    """SMPL parameters and translation in the full image's camera frame."""

    global_orient: Tensor  # (B, 3) axis-angle
    body_pose: Tensor  # (B, 69) axis-angle
    betas: Tensor  # (B, 10)
    cam_t: Tensor  # (B, 3) metres

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, Any]) -> Parameters:
        """One person's arrays by name, as a row of results or `mesh.npz` has them: a batch of 1."""
        return cls(*(torch.from_numpy(arrays[each.name])[None] for each in fields(cls)))

    def pose(self, body: Body) -> Posed:
        return body(self.global_orient, self.body_pose, self.betas, self.cam_t)

    def resized(self, body: Body, height: Tensor) -> Parameters:
        """The nearest betas of known heights (B,), metres, NaN where unknown; the pelvis moves along its ray, so that
        a body keeps its size in the image."""
        skeleton, known = body.skeleton, ~height.isnan()
        own, per_beta = skeleton.height(self.betas), skeleton.stature[1:]
        height = height.where(known, own)  # a NaN would reach the gradient
        betas = self.betas + ((height - own) / per_beta.square().sum())[:, None] * per_beta
        before, after = (skeleton.joints_at_rest(each)[:, 0] for each in (self.betas, betas))
        cam_t = (before + self.cam_t) * (height / own)[:, None] - after
        return replace(self, betas=betas, cam_t=cam_t).where(known, self)

    @property
    def full_pose(self) -> Tensor:
        """(B, 72) global orientation first."""
        return torch.cat([self.global_orient, self.body_pose], 1)
