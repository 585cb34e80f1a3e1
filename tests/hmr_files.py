"""Checkpoints of HMR for tests: true names and shapes, small files, a value of its own in every tensor."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from dsr_fit.regressor.hmr import Hmr


@cache
def shapes() -> dict[str, tuple[int, ...]]:
    """Names as DSR has them: `backbone.conv1.weight` ... `head.init_cam`; without batch norm's counters."""
    return {
        name: tuple(value.shape)
        for name, value in Hmr().state_dict().items()
        if not name.endswith("num_batches_tracked")
    }


def values() -> dict[str, float]:
    """What each tensor of `weights` is filled with."""
    return {name: 1.0 + number for number, name in enumerate(shapes())}


def weights(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """One number behind each tensor: torch keeps a file of them small."""
    return {name: torch.tensor([value], dtype=dtype).expand(shapes()[name]) for name, value in values().items()}


def flat(named: dict[str, Tensor]) -> dict[str, Tensor]:
    """SPIN's and EFT's names, with batch norm's counters."""
    named = {name.removeprefix("backbone.").removeprefix("head."): value for name, value in named.items()}
    counters = [name for name in named if name.endswith("running_var")]
    return named | {name.replace("running_var", "num_batches_tracked"): torch.tensor(7) for name in counters}
