"""How many images `--batch-size auto` makes a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from dsr_fit.dataset.defaults import BATCH_SIZE
from dsr_fit.dataset.manifest import NAME, read_manifest

PERSON_BYTES = 64 << 20
"""Of a GPU's memory for a person at 224 px: a dozen pictures of ten channels with their gradients are 24 MB, the rest
is reserve. Counted, not yet measured on a GPU."""

SHARE = 0.8
"""Of the free memory that a batch may take."""

LARGEST = 256
"""Images of a batch: more keep a GPU no busier, and more is lost when one fails."""


def auto_batch_size(device: Literal["cpu", "cuda"], out: Path) -> int:
    """Of a folder that holds results, its own, which is fixed; else, on a GPU, the largest power of two up to `LARGEST`
    that its free memory has room for, and on a CPU the default.

    Raises InputError where the folder's manifest can't be read.
    """
    if (out / NAME).is_file():
        return read_manifest(out).batch_size
    if device == "cpu":
        return BATCH_SIZE
    room = int(SHARE * torch.cuda.mem_get_info()[0] / PERSON_BYTES)
    return min(1 << max(room, 1).bit_length() - 1, LARGEST)
