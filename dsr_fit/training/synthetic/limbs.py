"""New poses out of old ones: limbs of several people on one."""

from __future__ import annotations

import numpy as np

LIMBS = ((1, 4, 7, 10), (2, 5, 8, 11), (13, 16, 18, 20, 22), (14, 17, 19, 21, 23), (3, 6, 9, 12, 15))
"""Joints of the legs, the arms, the spine and head."""
EXCHANGED = 0.4
"""A limb's chance to be somebody else's."""


def crossed(full_pose: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Poses (N, 72); a `share` of them take limbs of others among the N. The root stays."""
    count = len(full_pose)
    chosen = rng.uniform(size=count) < share
    mixed = full_pose
    for limb in LIMBS:
        taken = chosen & (rng.uniform(size=count) < EXCHANGED)
        columns = np.isin(np.arange(24), limb).repeat(3)
        mixed = np.where(taken[:, None] & columns, full_pose[rng.permutation(count)], mixed)
    return mixed
