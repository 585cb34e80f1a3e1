"""The differentiable renderer: camera-frame vertices in, attributes and coverage per pixel out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from types import ModuleType
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dsr_fit.errors import InputError
from dsr_fit.render.device import check_gpu, choose_device, gpu_backend
from dsr_fit.render.outline import outline
from dsr_fit.render.topology import checked_faces, mesh_topology

NEAREST = 0.05  # metres; what lies closer to the camera is cut away


@dataclass(frozen=True)
class Render:
    """The result of a `Renderer`; B images of H x W pixels."""

    attributes: Tensor
    """(B, H, W, C) attributes, blended over the outline; zero background, so premultiplied by the
    coverage."""
    alpha: Tensor
    """(B, H, W) coverage 0..1, differentiable at the outline."""
    rast: Tensor
    """(B, H, W, 4) nvdiffrast's buffer: u, v, z/w, triangle index + 1."""
    depth_range: Tensor
    """(B, 2) metres at which z/w is -1 and 1."""

    @cached_property
    def mask(self) -> Tensor:
        """(B, H, W) bool: the pixel's centre is covered."""
        return self.rast[..., 3] > 0

    @cached_property
    def depth(self) -> Tensor:
        """(B, H, W) metres at the covered pixels' centres, zero elsewhere. Carries no gradient."""
        slope, offset = (value[..., None] for value in _depth_to_clip(self.depth_range))
        return torch.where(self.mask, offset / (self.rast[..., 2].detach() - slope), 0.0).float()


class Renderer:
    """Renders one mesh topology. The same call runs on either device; see `docs/rendering.md` for the
    conventions."""

    def __init__(
        self,
        faces: Tensor | NDArray[np.integer],  # (F, 3) vertex indices
        num_vertices: int,
        *,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        outline: Literal["dense", "antialias", "none"] = "dense",
    ) -> None:
        """Prepare the topology once.

        `outline` chooses what blends across the outline: the dense operator, nvdiffrast's antialias, or
        nothing. Raises InputError for faces that aren't (F, 3) indices below `num_vertices`, and on a GPU for what
        is missing there.
        """
        faces = faces.cpu().numpy() if isinstance(faces, Tensor) else np.asarray(faces)
        faces = checked_faces(faces, num_vertices)
        device = choose_device(device) if device == "auto" else device
        if device == "cuda":
            check_gpu()
        self.device = torch.device(device)
        self.backend = "cpu" if device == "cpu" else gpu_backend()
        self.outline = outline
        if self.backend == "triton" and outline == "antialias":
            raise InputError("Triton has no antialias: outline dense, the default, and none; or install nvdiffrast")
        if device == "cuda":
            self._operators().ready(self.device)
        self.num_vertices = num_vertices
        self.topology = mesh_topology(faces)
        self.topology.on(self.device)  # copied now, not in an iteration
        self.faces = torch.from_numpy(faces).to(self.device)
        # Attributes per face are attributes per vertex of a mesh whose triangles repeat their own row.
        self._own_row = torch.arange(len(faces), dtype=torch.int32, device=self.device)[:, None].repeat(1, 3)

    def __call__(
        self,
        vertices: Tensor,  # (B, V, 3) metres, camera frame: x right, y down, z forward
        intrinsics: Tensor,  # (B, 4) fx, fy, cx, cy in pixels of the rendered window
        resolution: int | tuple[int, int],  # H, W
        attributes: Tensor | None = None,  # (V, C) or (B, V, C)
        face_attributes: Tensor | None = None,  # (F, C) or (B, F, C)
    ) -> Render:
        """Render a batch. Pixel (0, 0) has its centre at (0.5, 0.5); x_pixel = fx X / Z + cx.

        Gradients reach vertices, intrinsics and attributes. Raises InputError for wrong shapes, for values
        that are not finite, and where both kinds of attributes are given. Values that are on a GPU already
        are not looked at, which would wait for it: what is not finite there is not drawn.
        """
        height, width = (resolution, resolution) if isinstance(resolution, int) else resolution
        vertices, intrinsics = self._checked(vertices, intrinsics)
        attr, attr_tri = self._attributes(vertices, attributes, face_attributes)
        depth_range = _depth_range(vertices)
        if self.device.type == "cpu" and self.outline == "dense":
            from dsr_fit.render.fused import Draw, Projection

            pos = Projection.apply(vertices, intrinsics, depth_range.numpy(), height, width)
            image, alpha, rast = Draw.apply(
                pos, attr, self.faces.numpy(), attr_tri.numpy(), self.topology, height, width
            )
        else:
            pos = clip_positions(vertices, intrinsics, depth_range, (height, width))
            image, alpha, rast = self._compose(pos, attr, attr_tri, (height, width))
        return Render(image, alpha, rast, depth_range)

    def _compose(
        self, pos: Tensor, attr: Tensor, attr_tri: Tensor, resolution: Sequence[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The operators one after the other, on either device."""
        ops = self._operators()
        rast, _ = ops.rasterize(pos, self.faces, resolution, grad_db=False)
        mask = (rast[..., 3:] > 0).to(attr.dtype)
        image = ops.interpolate(attr, rast, attr_tri)[0] if attr.shape[2] else mask[..., :0]
        image = torch.cat([image, mask], dim=-1)
        if self.outline == "dense":
            image = outline(image, rast, pos, self.faces, self.topology)
        elif self.outline == "antialias":
            image = ops.antialias(image, rast, pos, self.faces)
        return image[..., :-1], image[..., -1], rast

    def _operators(self) -> ModuleType:
        """The module of operators: what it needs is imported here, for the backend that was chosen alone."""
        if self.backend == "cpu":
            from dsr_fit.render import ops_cpu as ops
        elif self.backend == "nvdiffrast":
            from dsr_fit.render import ops_cuda as ops
        else:
            from dsr_fit.render import ops_triton as ops
        return ops

    def _checked(self, vertices: Tensor, intrinsics: Tensor) -> tuple[Tensor, Tensor]:
        shape, count = tuple(vertices.shape), self.num_vertices
        if len(shape) != 3 or shape[1:] != (count, 3):
            raise InputError(f"vertices must have shape (B, {count}, 3), not {shape}")
        if intrinsics.shape != (len(vertices), 4):
            shape = tuple(intrinsics.shape)
            raise InputError(f"intrinsics must have shape ({len(vertices)}, 4), not {shape}")
        return self._finite(vertices, "vertices"), self._finite(intrinsics, "intrinsics")

    def _finite(self, tensor: Tensor, name: str) -> Tensor:
        """The tensor as float32 on the renderer's device. One NaN or infinity makes the sum one: a cheap look
        first."""
        if tensor.device.type == "cpu":
            # torch's sums over large CPU tensors start its threads, which then spin on the cores that the kernels want.
            with np.errstate(over="ignore", invalid="ignore"):
                total = float(tensor.detach().numpy().sum())
            if not math.isfinite(total) and not bool(torch.isfinite(tensor).all()):
                raise InputError(f"{name} to render hold values that are not finite (NaN or infinity)")
        return tensor.to(self.device, torch.float32)

    def _attributes(
        self, vertices: Tensor, attributes: Tensor | None, face_attributes: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Attribute rows (B or 1, N, C) and the rows at each triangle's corners (F, 3)."""
        if attributes is not None and face_attributes is not None:
            raise InputError("give attributes per vertex or per face, not both")
        if face_attributes is not None:
            name, values, rows, corners = "face_attributes", face_attributes, len(self.faces), self._own_row
        elif attributes is not None:
            name, values, rows, corners = "attributes", attributes, self.num_vertices, self.faces
        else:
            return vertices.new_zeros((1, self.num_vertices, 0)), self.faces
        values = values[None] if values.ndim == 2 else values
        if values.ndim != 3 or values.shape[1] != rows or len(values) not in (1, len(vertices)):
            wanted = f"({rows}, C) or ({len(vertices)}, {rows}, C)"
            raise InputError(f"{name} must have shape {wanted}, not {tuple(values.shape)}")
        return self._finite(values, name), corners


def clip_positions(
    vertices: Tensor,  # (B, V, 3) metres, camera frame
    intrinsics: Tensor,  # (B, 4) fx, fy, cx, cy pixels
    depth_range: Tensor,  # (B, 2) metres
    resolution: tuple[int, int],
) -> Tensor:
    """Clip positions (B, V, 4) with w = depth in metres. y points down in both, so row 0 is the top: no
    flip."""
    x, y, z = vertices.unbind(dim=-1)
    height, width = resolution
    fx, fy, cx, cy = intrinsics[:, :, None].unbind(dim=1)
    slope, offset = _depth_to_clip(depth_range)
    return torch.stack(
        [2 / width * fx * x + (2 / width * cx - 1) * z, 2 / height * fy * y + (2 / height * cy - 1) * z,
         (slope * z + offset).float(), z],
        dim=-1,
    )  # fmt: skip


def _depth_range(vertices: Tensor) -> Tensor:
    """(B, 2) near and far plane, closely around each body in front of the camera: float32 z/w resolves micrometres.

    Each its own: what is seen of one body never depends on who else is in the batch.
    """
    if vertices.shape[1] == 0:
        return torch.tensor([NEAREST, 1.1 * NEAREST], dtype=torch.float64).expand(len(vertices), 2)
    depth = vertices.detach()[..., 2]
    if depth.device.type == "cpu":
        low, high = (torch.from_numpy(limit) for limit in (depth.numpy().min(1), depth.numpy().max(1)))
    else:
        low, high = depth.amin(1), depth.amax(1)
    near = (0.9 * low.double()).clamp(min=NEAREST)
    return torch.stack([near, 1.1 * torch.maximum(high.double(), near)], 1)


def _depth_to_clip(depth_range: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 1) slope and offset of clip z = slope * depth + offset."""
    near, far = depth_range[:, :1], depth_range[:, 1:]
    return (far + near) / (far - near), -2 * far * near / (far - near)
