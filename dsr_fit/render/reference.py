"""Readable twins of the operators in plain torch, in double: what the compiled kernels are compared with.

Every pixel against every triangle: for scenes of a few hundred triangles. The dense outline's twin is
`outline_torch`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dsr_fit.render.outline_kernels import ANTIALIAS_GUARD, BAND
from dsr_fit.render.raster_kernels import EPSILON


def _centres(height: int, width: int) -> Tensor:
    """(H, W, 2) pixel centres in -1..1, x then y."""
    y = (2 * torch.arange(height, dtype=torch.float64) + 1) / height - 1
    x = (2 * torch.arange(width, dtype=torch.float64) + 1) / width - 1
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)


def _edge_functions(corners: Tensor, centre: Tensor) -> Tensor:
    """a_0, a_1, a_2 (..., 3) of triangles with clip corners (..., 3, 4) at centres (..., 2)."""
    q = corners[..., :2] - centre[..., None, :] * corners[..., 3:]
    following, last = q.roll(-1, dims=-2), q.roll(-2, dims=-2)
    return following[..., 0] * last[..., 1] - following[..., 1] * last[..., 0]


def triangle_ids(pos: Tensor, tri: Tensor, resolution: Sequence[int]) -> Tensor:
    """(B, H, W) int32: index + 1 of the nearest triangle within |z/w| <= 1, the later of exact ties; 0 for
    none."""
    corners = pos.double()[:, None, None, tri.long()]  # (B, 1, 1, F, 3, 4)
    a = _edge_functions(corners, _centres(*resolution)[:, :, None])  # (B, H, W, F, 3)
    w, total = (a * corners[..., 3]).sum(-1), a.sum(-1)
    z = (a * corners[..., 2]).sum(-1) / w
    inside = (a >= 0).all(-1) | (a <= 0).all(-1)
    seen = inside & (w * total > 0) & (z >= -1) & (z <= 1)
    z = torch.where(seen, z, torch.inf)
    last = len(tri) - 1 - z.flip(-1).argmin(-1)
    return torch.where(seen.any(-1), last + 1, 0).int()


def rasterize(pos: Tensor, tri: Tensor, resolution: Sequence[int], ids: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """rast and rast_db (B, H, W, 4); differentiable by autograd. `ids` replaces the visible triangles."""
    ids = triangle_ids(pos, tri, resolution) if ids is None else ids
    height, width = ids.shape[1:]
    covered = ids > 0
    image = torch.arange(len(pos))[:, None, None, None]
    corners = pos.double()[image, tri.long()[(ids.long() - 1).clamp(min=0)]]  # (B, H, W, 3, 4)
    centre = _centres(height, width)
    a = _edge_functions(corners, centre)
    total = a.sum(-1, keepdim=True)
    uv = a[..., :2] / (total + torch.copysign(torch.tensor(EPSILON), total.detach()))
    exact = (a[..., :2] / total).detach().clamp(0, 1)
    exact = exact / exact.sum(-1, keepdim=True).clamp(min=1)
    # nvdiffrast's derivative is that of the guarded division; its value is the clamped exact one.
    uv = exact + (uv - uv.detach())
    z = ((a * corners[..., 2]).sum(-1) / (a * corners[..., 3]).sum(-1)).detach().clamp(-1, 1)
    rast = torch.cat([uv, z[..., None], ids[..., None]], dim=-1)

    # a_i = n_i . (x, y, 1), so da_i/dx = n_i.x; the pixel's width is 2 / W.
    p = corners[..., [0, 1, 3]]
    normals = torch.linalg.cross(p.roll(-1, dims=-2), p.roll(-2, dims=-2))[..., :2]  # (B, H, W, 3, xy)
    size = torch.tensor([width, height])
    slope = normals[..., :2, :] - uv[..., None] * normals.sum(-2, keepdim=True)
    db = slope / (total + torch.copysign(torch.tensor(EPSILON), total.detach()))[..., None] * 2 / size
    empty = ~covered[..., None]
    return rast.masked_fill(empty, 0.0), db.flatten(start_dim=-2).masked_fill(empty, 0.0)


def interpolate(attr: Tensor, rast: Tensor, tri: Tensor) -> Tensor:
    """Attributes (B, H, W, C) of the covered pixels, zero elsewhere."""
    image = torch.arange(len(rast))[:, None, None, None] % len(attr)
    corners = attr.double()[image, tri.long()[(rast[..., 3].long() - 1).clamp(min=0)]]  # (B, H, W, 3, C)
    u, v = rast[..., 0:1].double(), rast[..., 1:2].double()
    values = u * corners[..., 0, :] + v * corners[..., 1, :] + (1 - u - v) * corners[..., 2, :]
    return values * (rast[..., 3:] > 0)


def antialias(color: Tensor, rast: Tensor, pos: Tensor, tri: Tensor) -> Tensor:
    """nvdiffrast's antialias, pair by pair."""
    batch, height, width, _ = color.shape
    neighbours = _third_vertices(tri)
    color, pos = color.double(), pos.double()
    out = color.clone()
    for b in range(batch):
        for i in range(height):
            for j in range(width):
                for down in (False, True):
                    other = (i + 1, j) if down else (i, j + 1)
                    if other[0] < height and other[1] < width:
                        alpha = _pair_alpha(rast[b], pos[b], tri, neighbours, (i, j), other, down)
                        if alpha is not None:
                            target = (i, j) if alpha > 0 else other
                            step = color[(b, *other)] - color[b, i, j]
                            out[(b, *target)] = out[(b, *target)] + alpha * step
    return out


def _third_vertices(tri: Tensor) -> dict[frozenset[int], list[int]]:
    """The first two distinct vertices opposite to each edge, by the edge's pair of vertices."""
    found: dict[frozenset[int], list[int]] = {}
    for face in tri.tolist():
        for k in range(3):
            thirds = found.setdefault(frozenset((face[k - 1], face[k - 2])), [])
            if face[k] not in thirds and len(thirds) < 2:
                thirds.append(face[k])
    return found


def _pair_alpha(
    rast: Tensor,
    pos: Tensor,
    tri: Tensor,
    neighbours: dict[frozenset[int], list[int]],
    p0: tuple[int, int],
    p1: tuple[int, int],
    down: bool,
) -> Tensor | None:
    """The share that is blended between two neighbouring pixels, None where nothing is."""
    height, width = rast.shape[:2]
    id0, id1 = int(rast[p0][3]), int(rast[p1][3])
    if id0 == id1:
        return None
    first_owns = id1 == 0 or (id0 != 0 and bool(rast[p0][2] < rast[p1][2]))
    owner, sign = (p0, 1.0) if first_owns else (p1, -1.0)
    face = tri[(id0 if first_owns else id1) - 1].tolist()

    def relative(v: int) -> Tensor:
        """Along the pair and across it, from the owner's centre, in pixels."""
        centre = torch.tensor([owner[1] + 0.5, owner[0] + 0.5])
        xy = (pos[v, :2] / pos[v, 3] + 1) * torch.tensor([width, height]) / 2 - centre
        return xy.flip(0) if down else xy

    farthest, edge = -torch.inf, None
    for k in range(3):
        a, b = face[k - 2], face[k - 1]
        (xa, ya), (xb, yb) = relative(a), relative(b)
        if torch.signbit(ya) != torch.signbit(yb):
            distance = sign * float(((xa * (yb - ya) - ya * (xb - xa)) / (yb - ya)).detach())
            if distance > farthest:
                farthest, edge = distance, (a, b, face[k])
    if edge is None or not -BAND < farthest < 1 + BAND:
        return None
    a, b, third = edge
    (xa, ya), (xb, yb) = relative(a), relative(b)
    dx, dy = xb - xa, yb - ya
    if abs(dy) < abs(dx):
        return None

    def side(v: int) -> bool:
        x, y = relative(v)
        return bool(torch.signbit((xa - x) * (yb - y) - (xb - x) * (ya - y)))

    others = [v for v in neighbours[frozenset((a, b))] if v != third]
    if others and side(others[0]) != side(third):
        return None
    value = sign * (0.5 - min(max(farthest, 0.0), 1.0))
    if value == 0 or abs(value) >= 0.5:
        return torch.tensor(value, dtype=pos.dtype)
    guarded = -(xa * dy - ya * dx) / (dy + torch.copysign(torch.tensor(ANTIALIAS_GUARD), dy.detach()))
    return value + (guarded - guarded.detach())
