"""Which triangles share which edge: computed once per mesh, by vertex index."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from dsr_fit.errors import InputError

FARTHEST = 1e9  # pixels; an outline edge that ends farther away has no position that float32 could tell


@dataclass(frozen=True)
class Topology:
    """The edges of a triangle mesh; an edge is an unordered pair of vertex indices."""

    edges: NDArray[np.int32]
    """(E, 2) vertex indices, in the direction in which the first face runs along the edge."""
    faces: NDArray[np.int32]
    """(E, 2) the first two faces on the edge; the second is -1 on a border."""
    agree: NDArray[np.bool_]
    """(E,) the second face runs along the edge the other way: equal orientation."""
    opposite: NDArray[np.int32]
    """(F, 3) for the edge opposite to corner k, the other face's third vertex, or -1."""
    copies: dict[torch.device, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict, compare=False, repr=False)
    """What `on` has copied."""

    def on(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """`edges`, `faces` and `agree` on a device, copied there once."""
        if device not in self.copies:
            arrays = self.edges, self.faces, self.agree
            self.copies[device] = tuple(torch.from_numpy(array).to(device) for array in arrays)  # type: ignore[assignment]
        return self.copies[device]


def checked_faces(faces: NDArray[np.integer], num_vertices: int) -> NDArray[np.int32]:
    """`faces` as contiguous (F, 3) int32; refuses other shapes and indices outside 0..num_vertices-1."""
    if faces.ndim != 2 or faces.shape[1] != 3 or faces.dtype.kind not in "iu":
        raise InputError(f"faces must be integers of shape (F, 3), not {faces.dtype} {tuple(faces.shape)}")
    if faces.size and (faces.min() < 0 or faces.max() >= num_vertices):
        raise InputError(f"faces index vertices {faces.min()}..{faces.max()}, but the mesh has {num_vertices} vertices")
    return np.ascontiguousarray(faces, dtype=np.int32)


def mesh_topology(faces: NDArray[np.int32]) -> Topology:
    """Topology of `faces` (F, 3).

    Where more than two triangles meet in one edge, the first two (in face order) whose third vertices differ
    count, as in nvdiffrast. Triangles that repeat a vertex own no edges.
    """
    count = len(faces)
    # Half-edge h = 3 f + k is opposite to corner k of face f and runs from corner k+1 to corner k+2.
    start, end = np.roll(faces, -1, axis=1).reshape(-1), np.roll(faces, -2, axis=1).reshape(-1)
    third = faces.reshape(-1)
    proper = ((start != end) & (start != third) & (end != third)).nonzero()[0]
    low, high = np.minimum(start, end).astype(np.int64), np.maximum(start, end).astype(np.int64)
    key = low * (int(faces.max(initial=0)) + 1) + high
    order = proper[np.argsort(key[proper], kind="stable")]
    is_first = np.ones(len(order), bool)
    is_first[1:] = key[order][1:] != key[order][:-1]
    group = np.cumsum(is_first) - 1
    first = order[is_first]
    # The second half-edge is the earliest one in the group whose third vertex differs from the first one's.
    rank = np.arange(len(order))
    differs = third[order] != third[first][group]
    second_rank = np.full(len(first), len(order))
    np.minimum.at(second_rank, group[differs], rank[differs])
    paired = second_rank < len(order)
    second = np.full(len(first), -1)
    second[paired] = order[second_rank[paired]]

    opposite = np.full(3 * count, -1, np.int32)
    mates = np.where(third[order] == third[first][group], second[group], first[group])
    opposite[order] = np.where(mates >= 0, third[mates], -1)
    return Topology(
        edges=np.stack([start[first], end[first]], axis=1).astype(np.int32),
        faces=np.stack([first // 3, np.where(paired, second // 3, -1)], axis=1).astype(np.int32),
        agree=np.where(paired, start[second] == end[first], True),
        opposite=opposite.reshape(count, 3),
    )


_KNOWN: WeakIdKeyDictionary = WeakIdKeyDictionary()


def topology_of(tri: Tensor) -> Topology:
    """`mesh_topology` of a triangle tensor (F, 3), kept for as long as the tensor lives unchanged."""
    known: tuple[int, Topology] | None = _KNOWN.get(tri)
    if known is None or known[0] != tri._version:
        known = tri._version, mesh_topology(tri.detach().cpu().numpy())
        _KNOWN[tri] = known
    return known[1]
