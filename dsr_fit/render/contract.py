"""What our operators of every device share: the shapes they accept, and the parts that are plain torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from dsr_fit.errors import InputError


def check_mesh(pos: Tensor, tri: Tensor) -> None:
    """Raises InputError unless pos (B, V, 4) are clip positions and tri (F, 3) int32 triangles."""
    if pos.ndim != 3 or pos.shape[2] != 4:
        raise InputError(f"pos must be clip positions of shape (B, V, 4), not {tuple(pos.shape)}")
    if tri.ndim != 2 or tri.shape[1] != 3 or tri.dtype != torch.int32:
        raise InputError(f"tri must be int32 of shape (F, 3), not {tri.dtype} {tuple(tri.shape)}")


def check_instanced(ranges: Tensor | None, where: str) -> None:
    """Raises InputError for `ranges`, nvdiffrast's other input mode."""
    if ranges is not None:
        raise InputError(f"rasterize {where} knows only instanced mode: pass pos (B, V, 4) and no ranges")


def check_attributes(attr: Tensor, rast: Tensor) -> None:
    """Raises InputError unless attr is (B or 1, V, C) for rast (B, H, W, 4)."""
    if attr.ndim != 3 or len(attr) not in (1, len(rast)):
        raise InputError(f"attr must have shape ({len(rast)} or 1, V, C), not {tuple(attr.shape)}")


def interpolated(
    out: Tensor,  # (B, H, W, C) attributes of the pixels
    attr: Tensor,
    rast: Tensor,
    tri: Tensor,
    rast_db: Tensor | None,
    diff_attrs: Literal["all"] | Sequence[int] | None,
) -> tuple[Tensor, Tensor]:
    """What `interpolate` gives: `out`, and the pixel derivatives (B, H, W, 2 D) of the attributes asked for.

    Raises InputError for `diff_attrs` without `rast_db`.
    """
    if diff_attrs is None:
        return out, out.new_zeros((*rast.shape[:3], 0))
    if rast_db is None:
        raise InputError("interpolate needs rast_db for the derivatives that diff_attrs asks for")
    chosen = attr if diff_attrs == "all" else attr[..., list(diff_attrs)]
    return out, _attribute_derivatives(chosen, rast, tri, rast_db)


def _attribute_derivatives(attr: Tensor, rast: Tensor, tri: Tensor, rast_db: Tensor) -> Tensor:
    """(dA/dX, dA/dY) of each attribute, (B, H, W, 2 C); plain torch, for it is off the hot path."""
    covered = rast[..., 3] > 0
    corners = tri.long()[(rast[..., 3].long() - 1).clamp(min=0)]  # (B, H, W, 3)
    image = torch.arange(len(rast), device=rast.device).view(-1, 1, 1) % len(attr)
    a0, a1, a2 = (attr[image, corners[..., k]] for k in range(3))
    u_x, u_y, v_x, v_y = (rast_db * covered[..., None]).unsqueeze(-1).unbind(dim=-2)
    along = [u * (a0 - a2) + v * (a1 - a2) for u, v in ((u_x, v_x), (u_y, v_y))]
    return torch.stack(along, dim=-1).flatten(start_dim=-2)
