"""Frozen dataclasses of tensors, moved and indexed as one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, Self

import torch
from torch import Tensor


class Tensors:
    """Base of dataclasses with fields that are tensors, or such dataclasses themselves; other fields stay the same."""

    def map(self, function: Callable[[Tensor], Tensor]) -> Self:
        """With a function applied to each tensor."""
        this: Any = self
        changed = {}
        for field in fields(this):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                changed[field.name] = function(value)
            elif isinstance(value, Tensors):
                changed[field.name] = value.map(function)
        return replace(this, **changed)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """On another device, or with another type of the floating-point tensors."""
        return self.map(lambda tensor: tensor.to(device, dtype if tensor.is_floating_point() else None))

    def detach(self) -> Self:
        return self.map(Tensor.detach)

    def repeat(self, times: int) -> Self:
        """Each row `times` times in a row."""
        return self.map(lambda tensor: tensor.repeat_interleave(times, 0))

    def rows(self, index: Tensor) -> Self:
        return self.map(lambda tensor: tensor[index])

    def updated(self, rows: Tensor, other: Self) -> Self:
        """With the rows of `other` in these `rows`."""
        others = iter(other.tensors())
        return self.map(lambda tensor: tensor.index_copy(0, rows, next(others)))

    def tensors(self) -> list[Tensor]:
        """The tensors that are fields."""
        this: Any = self
        values = (getattr(self, field.name) for field in fields(this))
        return [value for value in values if isinstance(value, Tensor)]

    def where(self, choose: Tensor, other: Self) -> Self:
        """Rows of self where `choose` (B,) bool, rows of `other` elsewhere."""
        others = iter(other.tensors())
        return self.map(lambda tensor: torch.where(choose.view(-1, *[1] * (tensor.dim() - 1)), tensor, next(others)))
