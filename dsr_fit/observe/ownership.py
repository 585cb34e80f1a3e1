"""Whose pixels are whose, where people stand close: masks of several people, each restricted to its own."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from dsr_fit.observe.blazepose import INPUT
from dsr_fit.observe.landmarks import Measured

LIMBS = (
    (11, 12), (11, 23), (12, 24), (23, 24), (11, 13), (13, 15), (15, 19), (12, 14), (14, 16), (16, 20), (23, 25),
    (25, 27), (27, 31), (24, 26), (26, 28), (28, 32), (0, 7), (0, 8), (0, 11), (0, 12),
)  # fmt: skip
"""Pairs of BlazePose's landmarks: the bones that tell whose a pixel is."""

GRID = 64
"""Cells of a region's side at which distances to bones are measured."""

MARGIN = 0.1
"""A mask must be so much surer than another's to win without regard to bones."""


def own_pixels(number: int, people: Sequence[Measured]) -> tuple[np.ndarray, np.ndarray | None]:
    """A person's (256, 256) float32 mask without the others' pixels, and the bool pixels of others, if any; both in
    the person's region.

    Where two masks claim a pixel, the surer one has it; where both are sure, the person whose bones are nearer.
    """
    person = people[number]
    own = person.mask
    taken = np.zeros(own.shape, bool)
    distance: np.ndarray | None = None
    for other in (*people[:number], *people[number + 1 :]):
        theirs = _seen_in(other.mask, other, person)
        if theirs.max(initial=0) < 0.5:
            continue
        if distance is None:
            distance = _bone_distance(person, person)
        nearer = _bone_distance(other, person) < distance
        taken |= (theirs > 0.5) & ((theirs > own + MARGIN) | ((theirs > own - MARGIN) & nearer))
    if not taken.any():
        return own, None
    return np.where(taken, np.float32(0), own), taken


def covered(person: Measured, other: Measured) -> float:
    """Share of a person's mask that lies on another's."""
    own = person.mask > 0.5
    return float((_seen_in(other.mask, other, person)[own] > 0.5).mean()) if own.any() else 1.0


def _seen_in(mask: np.ndarray, owner: Measured, viewer: Measured) -> np.ndarray:
    """A mask in another person's region."""
    there, here = _whole(owner.region.matrix()), _whole(viewer.region.matrix())
    return _warped(mask, here @ np.linalg.inv(there), (INPUT, INPUT))


def in_image(mask: np.ndarray, person: Measured, shape: tuple[int, int]) -> np.ndarray:
    """A region's mask in the image, 0 outside the region."""
    return _warped(mask, np.linalg.inv(_whole(person.region.matrix())), shape)


def _whole(matrix: np.ndarray) -> np.ndarray:
    return np.vstack([matrix, (0, 0, 1)])


def _warped(mask: np.ndarray, matrix: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    centred = matrix[:2].copy()  # OpenCV counts from pixels' centres
    centred[:, 2] += centred[:, :2] @ (0.5, 0.5) - 0.5
    return cv2.warpAffine(mask.astype(np.float32), centred, shape[::-1], flags=cv2.INTER_LINEAR)


def _bone_distance(person: Measured, viewer: Measured) -> np.ndarray:
    """(256, 256) distance of the viewer's crop's pixels to a person's bones, in the crop's pixels."""
    matrix = viewer.region.matrix()
    points = person.points[:, :2] @ matrix[:, :2].T + matrix[:, 2]
    start, end = points[[a for a, _ in LIMBS]], points[[b for _, b in LIMBS]]
    centres = (np.arange(GRID) + 0.5) * (INPUT / GRID)
    pixels = np.stack(np.meshgrid(centres, centres), -1).reshape(-1, 1, 2)  # (G*G, 1, 2)
    axis = end - start
    along = ((pixels - start) * axis).sum(-1) / np.maximum((axis * axis).sum(-1), 1e-6)
    nearest = start + along.clip(0, 1)[..., None] * axis
    distance = np.sqrt(np.square(pixels - nearest).sum(-1)).min(1).reshape(GRID, GRID)
    return cv2.resize(distance.astype(np.float32), (INPUT, INPUT), interpolation=cv2.INTER_LINEAR)
