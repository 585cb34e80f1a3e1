"""What people wear where: P(label | surface point) of a body."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dsr_fit.assets import shipped
from dsr_fit.body import Body
from dsr_fit.errors import InputError
from dsr_fit.files import read_arrays
from dsr_fit.labels import LABELS, MC_LABELS, LabelSet


@dataclass(frozen=True)
class SemanticPrior:
    """P(label | surface point), over the 20 labels."""

    probabilities: Tensor
    """(V, 20), or (F, 20) when `per_face`; rows sum to 1."""
    per_face: bool

    def merged(self, label_set: LabelSet) -> Tensor:
        """(V or F, K): probabilities of the classes of a label set."""
        return self.probabilities @ torch.from_numpy(label_set.membership()).to(self.probabilities.device)

    def minimally_clothed(self, valid: Tensor) -> Tensor:
        """(B, V or F): summed probability of each image's valid MC labels, `valid` (B, 5) bool."""
        return valid.to(self.probabilities.dtype) @ self.probabilities[:, list(MC_LABELS)].T

    def to(self, device: torch.device | str) -> SemanticPrior:
        return SemanticPrior(self.probabilities.to(device), self.per_face)


def load_semantic_prior(body: Body, path: Path | None = None) -> SemanticPrior:
    """The prior that ships for the open body, or a file: ours (.npz) or DSR's `semantic_prior.npy`, per face.

    Raises InputError when the prior was made for another body.
    """
    path = path or shipped("priors/semantic/prior.npz")
    try:
        loaded = read_arrays(path)
    except ValueError as error:
        raise InputError(f"{path}: not a readable semantic prior ({error})") from None
    if isinstance(loaded, np.ndarray):
        probabilities, per_face = np.squeeze(loaded), True
        if probabilities.shape != (len(body.faces), len(LABELS)):
            raise InputError(
                f"{path}: has shape {probabilities.shape}, but body {body.name!r} has {len(body.faces)} "
                "faces; DSR's prior belongs to official SMPL, give it with --body"
            )
    else:
        if "probabilities" not in loaded or "body_sha256" not in loaded:
            raise InputError(f"{path}: lacks `probabilities` or `body_sha256`")
        if str(loaded["body_sha256"]) != body.sha256:
            raise InputError(
                f"{path}: made for another body than {body.name!r}; give that body's own prior with --semantic-prior"
            )
        probabilities, per_face = loaded["probabilities"], False
        if probabilities.shape != (body.num_vertices, len(LABELS)):
            expected = (body.num_vertices, len(LABELS))
            raise InputError(f"{path}: `probabilities` has shape {probabilities.shape}, expected {expected}")
    if not np.all(np.isfinite(probabilities)) or probabilities.min() < 0:
        raise InputError(f"{path}: holds values that are no probabilities")
    rows = probabilities.astype(np.float64)
    rows = rows / np.maximum(rows.sum(1, keepdims=True), 1e-9)
    return SemanticPrior(torch.from_numpy(rows.astype(np.float32)), per_face)
