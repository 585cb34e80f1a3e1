"""Human parsing: which of the 20 clothing labels each pixel of a person shows. The parsers by name."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from dsr_fit.errors import UsageError
from dsr_fit.observation import Detection

ParsingProtocol = Literal["fast", "paper"]
"""One forward pass, or the average over scales and mirror images of DSR's supplementary."""


class HumanParser(Protocol):
    """Anything that labels the pixels of one person."""

    name: str

    def parse(self, image: np.ndarray, detection: Detection) -> np.ndarray:
        """(H, W) uint8 labels of `dsr_fit.labels` for one person of the (H, W, 3) uint8 RGB image."""
        ...


def load_parser(which: str = "open", protocol: ParsingProtocol = "fast", device: str = "cpu") -> HumanParser:
    """The parser of that name: `open` (ships), a `.safetensors` file of ours, or a SegFormer folder, which stays on the
    CPU.

    Raises:
        UsageError: no such parser, or one that knows a single protocol is asked for another.
        InputError: its files can't be used.
    """
    if which == "open" or which.endswith(".safetensors"):
        from dsr_fit.observe.network_parser import NetworkParser

        return NetworkParser(None if which == "open" else Path(which), protocol, device)
    if protocol != "fast":
        raise UsageError(f"--parsing-protocol {protocol} is for the parsers of ours; {which!r} knows `fast` alone")
    from dsr_fit.observe.segformer import DOWNLOAD, SegformerParser

    if Path(which).is_dir():
        return SegformerParser(Path(which))
    raise UsageError(
        f"--parser {which}: expected `open`, a .safetensors file of ours, or the folder of a SegFormer for "
        f"clothes (`{DOWNLOAD}` gets one)"
    )
