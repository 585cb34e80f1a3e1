"""Human parsing: which of the 20 clothing labels each pixel of a person shows."""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np

from dsr_fit.observation import Detection

ParsingProtocol = Literal["fast", "paper"]
"""One look, or the average over scales and mirror images of DSR's supplementary."""

SEGFORMER_DOWNLOAD = "hf download mattmdjaga/segformer_b2_clothes --local-dir FOLDER"
"""What gets a SegFormer for clothes."""


class HumanParser(Protocol):
    """Anything that labels the pixels of one person."""

    name: str

    def parse(self, image: np.ndarray, detection: Detection) -> np.ndarray:
        """(H, W) uint8 labels of `dsr_fit.labels` for one person of the (H, W, 3) uint8 RGB image."""
        ...
