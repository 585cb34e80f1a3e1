"""How joints bend."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import yaml
from torch import Tensor

from dsr_fit.assets import shipped
from dsr_fit.joints import SMPL_JOINTS


@dataclass(frozen=True)
class PosePrior:
    """A Gaussian per component of `body_pose`, axis-angle radians."""

    mean: Tensor  # (69,)
    std: Tensor  # (69,)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> PosePrior:
        return PosePrior(self.mean.to(device, dtype), self.std.to(device, dtype))


def load_pose_prior() -> PosePrior:
    """The rule-based prior that ships (`priors/pose/joint_ranges.yaml`)."""
    table = yaml.safe_load(shipped("priors/pose/joint_ranges.yaml").read_text(encoding="utf-8"))
    mirror = np.array([1.0, -1.0, -1.0])
    mean, std = np.zeros((23, 3)), np.zeros((23, 3))
    for row, name in enumerate(SMPL_JOINTS[1:]):
        entry = table[name.replace("right_", "left_")]
        mean[row] = np.array(entry["mean"]) * (mirror if name.startswith("right_") else 1)
        std[row] = entry["std"]
    return PosePrior(torch.from_numpy(mean.ravel()).float(), torch.from_numpy(std.ravel()).float())
