"""What every reader returns: a skeleton at rest, and its joints' rotations over time.

Frames: y is up; at rest the figure faces z with its left at x, as the open body does. Readers of formats with
other axes turn them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

END = "_end"
"""Ends the names of joints that only mark where a last bone stops."""


@dataclass(frozen=True)
class Skeleton:
    """J joints, parents before children, in the rest pose."""

    names: tuple[str, ...]
    parents: tuple[int, ...]
    """-1 for the root, which is first."""
    offsets: np.ndarray
    """(J, 3) from the parent at rest, in the file's own unit of length."""

    def index(self, name: str) -> int:
        """Index of a joint. Raises ValueError when the skeleton lacks it."""
        if name not in self.names:
            raise ValueError(f"the skeleton has no joint {name!r}; it has {', '.join(self.names)}")
        return self.names.index(name)

    def rest(self) -> np.ndarray:
        """(J, 3) the joints at rest, root at the origin."""
        return joint_positions(np.broadcast_to(np.eye(3), (1, len(self.names), 3, 3)), self.parents, self.offsets)[0]


@dataclass(frozen=True)
class Clip:
    """T frames of a skeleton's motion, without the path of its root."""

    name: str
    fps: float
    skeleton: Skeleton
    rotations: np.ndarray
    """(T, J, 3, 3) each joint's rotation from the rest pose to the world."""

    def __len__(self) -> int:
        return len(self.rotations)

    def every(self, step: int) -> Clip:
        """Every `step`-th frame from the first."""
        return replace(self, fps=self.fps / step, rotations=self.rotations[::step])

    def positions(self) -> np.ndarray:
        """(T, J, 3) the joints in the world, root at the origin, in the skeleton's unit."""
        return joint_positions(self.rotations, self.skeleton.parents, self.skeleton.offsets)


def chain(local: np.ndarray, parents: tuple[int, ...]) -> np.ndarray:
    """Rotations relative to parents (T, J, 3, 3) -> rotations to the world (T, J, 3, 3)."""
    world = np.empty_like(local)
    for joint, parent in enumerate(parents):
        world[:, joint] = local[:, joint] if parent < 0 else world[:, parent] @ local[:, joint]
    return world


def unchain(world: np.ndarray, parents: tuple[int, ...]) -> np.ndarray:
    """The inverse of `chain`."""
    local = world.copy()
    for joint, parent in enumerate(parents):
        if parent >= 0:
            local[:, joint] = world[:, parent].swapaxes(-1, -2) @ world[:, joint]
    return local


def joint_positions(world: np.ndarray, parents: tuple[int, ...], offsets: np.ndarray) -> np.ndarray:
    """Joints (T, J, 3) of world rotations (T, J, 3, 3) and rest offsets (J, 3), the root at the origin."""
    positions = np.zeros(world.shape[:-1])
    for joint, parent in enumerate(parents):
        if parent >= 0:
            positions[:, joint] = positions[:, parent] + world[:, parent] @ offsets[joint]
    return positions


def parsed_numbers(rows: list[list[str]], what: str) -> np.ndarray:
    """Float array (T, C) of rows of text. Raises ValueError for ragged rows or words that are no numbers."""
    widths = {len(row) for row in rows}
    if len(widths) != 1:
        raise ValueError(f"{what}: frames have {sorted(widths)} numbers; each must have the same count")
    return np.array(rows, dtype=np.float64)
