"""The dense outline operator: colours blended across the mesh's true outline, with gradients to its edges.

nvdiffrast's `antialias` looks for the outline only among the three edges of the triangle that a pixel's
centre sees. Where triangles are smaller than pixels that is hardly ever the triangle with the outline's edge,
and over nine tenths of the outline get no gradient. This operator goes the other way: it takes every edge
between a front- and a back-facing triangle (or on a border) and finds the pixel pairs between whose centres
the edge passes. docs/rendering.md gives the rules and how accurate the gradients are.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec

from torch import Tensor

from dsr_fit.render.topology import Topology


def outline(
    color: Tensor,  # (B, H, W, C) float32
    rast: Tensor,  # (B, H, W, 4)
    pos: Tensor,  # (B, V, 4) float32 clip space
    tri: Tensor,  # (F, 3) int32
    topology: Topology,  # of tri
) -> Tensor:
    """Colours (B, H, W, C) blended across the outline, between covered and empty pixels and at occlusions.

    Gradients reach `color` and, through where the edges cross, x, y and w of `pos`. CPU tensors take the
    compiled kernels, others Triton's where it is installed, else the torch implementation of the same rules.
    """
    if color.device.type == "cpu":
        from dsr_fit.render.ops_cpu import OutlineBlend

        return OutlineBlend.apply(color, rast, pos, tri, topology, True)  # type: ignore[no-any-return]
    if _has_triton():
        from dsr_fit.render import ops_triton

        return ops_triton.outline(color, rast, pos, tri, topology)
    from dsr_fit.render.outline_torch import outline_torch

    return outline_torch(color, rast, pos, tri, topology)


@cache
def _has_triton() -> bool:
    return find_spec("triton") is not None
