"""The files of body, regressor and semantic prior, which fits, trainings and evaluations name alike."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from dsr_fit.assets import licensed


@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """The user's choice; what is None follows the environment, or is what ships."""

    body: str | None = None
    """`open`, or an official SMPL .pkl or .npz; default: the one set in the environment, else `open`."""
    regressor: str | None = None
    """The regressor of the initial estimate: `open` (ours, for the open body), `kinematic`, our .safetensors file, or a
    checkpoint of DSR, SPIN or EFT; default: `open` for the open body, for others the one that is set, else
    `kinematic`."""
    joint_regressor_extra: Path | None = None
    """J_regressor_extra.npy, for official SMPL."""
    smpl_mean_params: Path | None = None
    """smpl_mean_params.npz, for checkpoints that lack the mean parameters."""
    semantic_prior: Path | None = None
    """A semantic prior for the body: ours (.npz), or DSR's semantic_prior.npy for official SMPL."""

    def named(self) -> dict[str, Any]:
        """These fields by name, for another object that has them."""
        return {entry.name: getattr(self, entry.name) for entry in fields(ModelFiles)}

    def body_path(self) -> Path | None:
        """The licensed body's file; None for the open body."""
        return None if self.body == "open" else licensed("body", self.body)

    def prior_path(self) -> Path | None:
        """The semantic prior's file; None for the one that ships. One set in the environment is for official SMPL."""
        if self.semantic_prior is None and self.body_path() is None:
            return None
        return licensed("semantic_prior", None if self.semantic_prior is None else str(self.semantic_prior))

    def regressor_name(self) -> str | None:
        """As `load_regressor` takes it. One set in the environment is for the licensed body."""
        if self.regressor is not None or self.body_path() is None:
            return self.regressor
        path = licensed("regressor", None)
        return None if path is None else str(path)
