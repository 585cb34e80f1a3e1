"""Augmentations of people to train on: limbs swapped between poses, and label maps with a parser's errors."""

from __future__ import annotations

import numpy as np

from dsr_fit.labels import OCCLUDER, UNKNOWN

LIMBS = ((1, 4, 7, 10), (2, 5, 8, 11), (13, 16, 18, 20, 22), (14, 17, 19, 21, 23), (3, 6, 9, 12, 15))
"""Joints of the legs, the arms, the spine and head."""
SWAP_CHANCE = 0.4
"""Chance that a limb comes from another pose."""

CONFUSIONS: tuple[dict[int, int], ...] = (
    {}, {}, {5: 7}, {7: 5}, {5: 6}, {6: 5}, {12: 6}, {6: 12}, {9: 16}, {8: 9}, {14: 15, 15: 14},
    {16: 17, 17: 16, 18: 19, 19: 18}, {14: 5, 15: 5},
)  # fmt: skip
"""Labels that parsers confuse: garments of one family, left and right, bare and covered."""


def swap_limbs(full_pose: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Poses (N, 72); a `share` of them take limbs from others among the N. The root stays."""
    count = len(full_pose)
    chosen = rng.uniform(size=count) < share
    mixed = full_pose
    for limb in LIMBS:
        taken = chosen & (rng.uniform(size=count) < SWAP_CHANCE)
        columns = np.isin(np.arange(24), limb).repeat(3)
        mixed = np.where(taken[:, None] & columns, full_pose[rng.permutation(count)], mixed)
    return mixed


def corrupt_labels(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A label map (S, S) as a parser might get it wrong: some labels confused, a rectangle lost."""
    table = np.arange(256, dtype=np.uint8)
    for label, other in CONFUSIONS[rng.integers(len(CONFUSIONS))].items():
        table[label] = other
    labels = table[labels]
    if rng.uniform() < 0.5:
        side = len(labels)
        height, width = rng.integers(side // 12, side // 3, 2)
        row, column = rng.integers(side // 8, side - side // 4, 2)
        labels[row : row + height, column : column + width] = rng.choice([0, 0, OCCLUDER, UNKNOWN])
    return labels
