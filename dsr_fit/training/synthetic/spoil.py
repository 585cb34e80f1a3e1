"""Label maps as a parser might get them wrong."""

from __future__ import annotations

import numpy as np

from dsr_fit.labels import OCCLUDER, UNKNOWN

MISTAKEN: tuple[dict[int, int], ...] = (
    {}, {}, {5: 7}, {7: 5}, {5: 6}, {6: 5}, {12: 6}, {6: 12}, {9: 16}, {8: 9}, {14: 15, 15: 14},
    {16: 17, 17: 16, 18: 19, 19: 18}, {14: 5, 15: 5},
)  # fmt: skip
"""Labels that parsers take for others: garments of one family, left and right, bare and covered."""


def spoilt(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A label map (S, S) as a parser might get it wrong: some labels mistaken, a rectangle lost."""
    table = np.arange(256, dtype=np.uint8)
    for label, other in MISTAKEN[rng.integers(len(MISTAKEN))].items():
        table[label] = other
    labels = table[labels]
    if rng.uniform() < 0.5:
        side = len(labels)
        height, width = rng.integers(side // 12, side // 3, 2)
        row, column = rng.integers(side // 8, side - side // 4, 2)
        labels[row : row + height, column : column + width] = rng.choice([0, 0, OCCLUDER, UNKNOWN])
    return labels
