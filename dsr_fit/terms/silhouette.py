"""The silhouette baseline: fills the clothed outline with body, and so inflates it."""

from __future__ import annotations

from torch import Tensor

from dsr_fit.terms.dsr_mc import dsr_mc


def silhouette(coverage: Tensor, person: Tensor, known: Tensor) -> Tensor:
    """One minus the soft IoU of the rendered body and the person's mask, (B, S, S) each -> (B,)."""
    return dsr_mc(coverage, person, known)
