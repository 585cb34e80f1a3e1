"""Residuals of least-squares terms: values with their derivatives, and the energy of groups of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Dual:
    """A tensor and, in least squares, its derivative by U unknowns: forward-mode differentiation of affine steps.

    Without a `slope` it is the tensor alone, and autograd may follow it.
    """

    value: Tensor  # (B, ...)
    slope: Tensor | None = None  # (B, ..., U)

    def __add__(self, other: Tensor) -> Dual:
        return Dual(self.value + other, self.slope)

    def __sub__(self, other: Tensor | Dual) -> Dual:
        if isinstance(other, Tensor):
            return Dual(self.value - other, self.slope)
        both = self.slope is not None and other.slope is not None
        return Dual(self.value - other.value, self.slope - other.slope if both else None)  # type: ignore[operator]

    def __mul__(self, factor: Tensor | float) -> Dual:
        """By a constant that broadcasts against the value."""
        stretch = factor[..., None] if isinstance(factor, Tensor) else factor
        return Dual(self.value * factor, None if self.slope is None else self.slope * stretch)

    def __getitem__(self, index: Any) -> Dual:
        """Of dimensions before the unknowns'."""
        return Dual(self.value[index], None if self.slope is None else self.slope[index])

    def less_mean(self, share: Tensor) -> Dual:
        """Each of (B, N, D) from their mean by `share` (B, N), which sums to 1."""
        value = self.value - (share[..., None] * self.value).sum(1, keepdim=True)
        slope = self.slope
        return Dual(value, None if slope is None else slope - (share[..., None, None] * slope).sum(1, keepdim=True))

    @classmethod
    def joined(cls, parts: Sequence[Dual]) -> Dual:
        """(B, M), (B, N), ... -> (B, M + N + ...)."""
        slopes = [part.slope for part in parts if part.slope is not None]
        return cls(torch.cat([part.value for part in parts], 1), torch.cat(slopes, 1) if slopes else None)


def geman_mcclure(squared: Tensor, scale: float) -> Tensor:
    """Robust version of a squared error: quadratic well below `scale`, at most scale^2 (Geman and McClure 1987)."""
    return squared / (1 + squared / scale**2)


@dataclass(frozen=True)
class Residual:
    """Errors in G groups of D numbers, each group's squared length weighted and, with a scale, made robust."""

    error: Dual  # (B, G, D); or (B, R), one group
    weight: Tensor | float = 1.0  # (B, G)
    robust: float | None = None
    """Geman-McClure's scale, in units of the error."""

    def energy(self) -> Tensor:
        """(B,) sum over the groups."""
        cost = self._groups().value.square().sum(-1)
        if self.robust is not None:
            cost = geman_mcclure(cost, self.robust)
        return (self.weight * cost).sum(1)

    def linearised(self, weight: float) -> tuple[Tensor, Tensor]:
        """Weighted residuals r (B, R) and their Jacobian J (B, R, U): 2 J^T r is the weighted energy's gradient.

        A robust error counts by its current weight (iteratively reweighted least squares).
        """
        error = self._groups()
        assert error.slope is not None
        share = weight * self.weight
        share = share if isinstance(share, Tensor) else error.value.new_full((), share)
        if self.robust is not None:
            share = share / (1 + error.value.square().sum(-1) / self.robust**2).square()
        scaled = error * share.sqrt()[..., None]
        assert scaled.slope is not None
        return scaled.value.flatten(1), scaled.slope.flatten(1, 2)

    def _groups(self) -> Dual:
        return self.error if self.error.value.dim() == 3 else self.error[:, None]
