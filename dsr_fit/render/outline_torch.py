"""The dense outline in plain torch: the path of a GPU without Triton, and the readable twin of
`outline_kernels.outline_items` and of `triton_outline`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dsr_fit.render.topology import FARTHEST, Topology

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Crossings:
    """Where outline edges cross the lines of pixel centres; N of them, over all images of a batch."""

    image: Tensor  # (N,)
    edge: Tensor  # (N,) row of the topology's edges
    axis: Tensor  # (N,) 0: along a row of pixels, 1: along a column
    line: Tensor  # (N,) the row or column


def outline_torch(
    color: Tensor,  # (B, H, W, C)
    rast: Tensor,  # (B, H, W, 4)
    pos: Tensor,  # (B, V, 4) clip space
    tri: Tensor,  # (F, 3)
    topology: Topology,
) -> Tensor:
    """Colours (B, H, W, C) blended across the outline. See `outline.outline` and docs/rendering.md for the
    rules."""
    batch, height, width, channels = color.shape
    edges, edge_faces, agree = (each if each.dtype == torch.bool else each.long() for each in topology.on(pos.device))
    screen = _screen(pos, height, width)
    usable = (pos.detach()[..., 3] > 0) & (screen.detach()[..., :2].abs() < FARTHEST).all(-1)
    on_outline = _outline_edges(pos.detach(), tri, edge_faces, agree)
    found = _crossings(screen.detach(), usable, on_outline, edges, height, width)
    along, across = _ends(screen, found, edges)
    span = across[1] - across[0]
    s = (found.line + 0.5 - across[0]) / span
    crossing = along[0] + s * (along[1] - along[0]) - 0.5
    length = torch.where(found.axis == 0, width, height)

    inside = (crossing >= 0) & (crossing < length - 1)
    k = torch.where(inside, crossing, 0.0).detach().long()
    pixel = torch.where(found.axis == 0, found.line * width + k, k * width + found.line)
    p0 = torch.where(inside, found.image * height * width + pixel, 0)
    p1 = torch.where(inside, p0 + torch.where(found.axis == 0, 1, width), 0)
    t = crossing - k

    flat = rast.detach().reshape(-1, 4)
    id0, id1, z0, z1 = flat[p0, 3], flat[p1, 3], flat[p0, 2].double(), flat[p1, 2].double()
    either_empty = (id0 == 0) | (id1 == 0)
    surface_ahead = _surface_ahead(pos.detach(), tri, edge_faces, found, span.detach())
    owner_ahead = torch.where(either_empty, id0 == 0, z1 < z0)
    z = _at(screen.detach()[..., 2], found, edges)
    near_enough = either_empty | (z[0] + s.detach() * (z[1] - z[0]) < 0.5 * (z0 + z1))
    counts = inside & (id0 != id1) & (surface_ahead == owner_ahead) & near_enough

    # Beside an empty pixel the crossing farthest from the covered one counts, else the one closest to the
    # occluder.
    farther = torch.where(either_empty, ~owner_ahead, owner_ahead)
    rank = torch.where(farther, t, -t).detach().float()
    pair = 2 * p0 + found.axis
    counts = _best(pair, rank, counts, 2 * batch * height * width)

    t, p0, p1 = t[counts], p0[counts], p1[counts]
    slope = ((along[1] - along[0])[counts] / span[counts]).detach()
    alpha = ((0.5 - t) / (1 + slope**2)).to(color.dtype)[:, None]
    original = color.reshape(-1, channels)
    target = torch.where(alpha[:, 0] > 0, p0, p1)
    return original.index_add(0, target, alpha * (original[p1] - original[p0])).view_as(color)


def _screen(pos: Tensor, height: int, width: int) -> Tensor:
    """Pixel x, y and z/w of each vertex, in double as the compiled twin has them; of no use behind the
    camera."""
    pos = pos.double()
    w = torch.where(pos[..., 3:] > 0, pos[..., 3:], 1.0)
    size = torch.tensor([width, height], device=pos.device)
    return torch.cat([(pos[..., :2] / w + 1) * 0.5 * size, pos[..., 2:3] / w], dim=-1)


def _windings(pos: Tensor, tri: Tensor) -> Tensor:
    """(B, F) bool: the winding of each face is positive as seen from the camera."""
    p0, p1, p2 = pos[..., [0, 1, 3]].double()[:, tri.long()].unbind(dim=2)
    return torch.linalg.vecdot(p0, torch.linalg.cross(p1, p2)) >= 0


def _outline_edges(pos: Tensor, tri: Tensor, faces: Tensor, agree: Tensor) -> Tensor:
    """(B, E) bool: the edge lies between a front- and a back-facing triangle, or on a border."""
    winding = _windings(pos, tri)
    same = winding[:, faces[:, 0]] == winding[:, faces[:, 1]]
    return (faces[:, 1] < 0) | (same != agree)


def _crossings(screen: Tensor, usable: Tensor, on_outline: Tensor, edges: Tensor, height: int, width: int) -> Crossings:
    """Every crossing of an outline edge with a row or a column of pixel centres inside the image."""
    image, edge = (on_outline & usable[:, edges].all(-1)).nonzero(as_tuple=True)
    parts = []
    for axis, lines in ((0, height), (1, width)):
        across = screen[image[:, None], edges[edge], 1 - axis] - 0.5
        # Half open, so that a line through a shared vertex meets one of its two edges.
        low, high = across.clamp(0, lines).ceil().long().aminmax(dim=1)
        count = high - low
        which = torch.repeat_interleave(torch.arange(len(count), device=count.device), count)
        line = torch.arange(len(which), device=count.device) - (count.cumsum(0) - count - low)[which]
        parts.append((image[which], edge[which], torch.full_like(line, axis), line))
    return Crossings(*(torch.cat(part) for part in zip(*parts, strict=True)))


def _at(values: Tensor, found: Crossings, edges: Tensor) -> Pair:
    """values (B, V) at the two ends of each crossing's edge."""
    a, b = edges[found.edge].unbind(dim=1)
    return values[found.image, a], values[found.image, b]


def _ends(screen: Tensor, found: Crossings, edges: Tensor) -> tuple[Pair, Pair]:
    """Pixel coordinates of the edge's two ends along the scanned line, and across it."""
    a, b = edges[found.edge].unbind(dim=1)
    return (
        (screen[found.image, a, found.axis], screen[found.image, b, found.axis]),
        (screen[found.image, a, 1 - found.axis], screen[found.image, b, 1 - found.axis]),
    )


def _surface_ahead(pos: Tensor, tri: Tensor, faces: Tensor, found: Crossings, span: Tensor) -> Tensor:
    """(N,) bool: the edge's surface lies on the side of the growing coordinate.

    An edge runs in the direction of its first face, which lies to its left for a positive winding; the swap
    of x and y for columns mirrors that.
    """
    first = faces[found.edge, 0]
    positive = _windings(pos, tri)[found.image, first]
    return (span < 0) == (positive == (found.axis == 0))


def _best(pair: Tensor, rank: Tensor, counts: Tensor, pairs: int) -> Tensor:
    """Indices of the crossing of highest rank of each pair, the first of equals, among those that count."""
    index = counts.nonzero()[:, 0]
    best = rank.new_full((pairs,), -torch.inf).scatter_reduce(0, pair[index], rank[index], "amax")
    index = index[rank[index] == best[pair[index]]]
    first = index.new_full((pairs,), len(pair)).scatter_reduce(0, pair[index], index, "amin")
    return index[first[pair[index]] == index]
