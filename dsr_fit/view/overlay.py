"""`mesh.png`: the photo, its parsing, the body over the photo, and the body from both sides."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dsr_fit.body.normals import vertex_normals
from dsr_fit.camera import Crop
from dsr_fit.labels import COLOURS, OCCLUDER, OTHER_PERSON, UNKNOWN
from dsr_fit.observe.batch import crop_labels
from dsr_fit.observe.crop import cut
from dsr_fit.render.renderer import Renderer

PANEL = 448
"""Pixels of a panel's side."""

BODY_COLOUR = (0.55, 0.72, 0.95)
PAPER = 246


def draw(
    image: np.ndarray,  # (H, W, 3) uint8 RGB
    labels: np.ndarray,  # (H, W) uint8
    vertices: np.ndarray,  # (V, 3) metres, camera frame
    faces: np.ndarray,  # (F, 3)
    focal_length: float,
    principal_point: tuple[float, float],
    crop: Crop,
) -> np.ndarray:
    """(PANEL, 5 * PANEL, 3) uint8 RGB: photo, labels, overlay, the body from its right and from its left."""
    renderer = Renderer(torch.from_numpy(faces), len(vertices), device="cpu")
    window = Crop(crop.center, crop.side * 1.1)
    photo = cut(image, window, PANEL, PAPER).astype(np.float32)
    body = torch.from_numpy(vertices)
    focal, center = torch.full((2,), focal_length), torch.tensor(principal_point)
    intrinsics = torch.cat([focal, center - torch.tensor(window.origin)]) * (PANEL / window.side)
    seen, alpha = shaded(renderer, body, intrinsics, PANEL)
    overlay = photo * (1 - 0.85 * alpha) + seen * 0.85 * alpha
    sides = [_side_view(renderer, body, sign) for sign in (1.0, -1.0)]
    panels = [photo, _parsing(photo, crop_labels(labels, window, PANEL)), overlay, *sides]
    return np.concatenate(panels, 1).clip(0, 255).astype(np.uint8)


def shaded(renderer: Renderer, vertices: Tensor, intrinsics: Tensor, resolution: int) -> tuple[np.ndarray, np.ndarray]:
    """Colours (S, S, 3) 0..255 and coverage (S, S, 1) of (V, 3) vertices under fx, fy, cx, cy, lit from the viewer."""
    colours = lit(vertices, renderer.faces)
    render = renderer(vertices[None], intrinsics[None], resolution, attributes=colours)
    alpha = render.alpha[0, ..., None].numpy()
    return 255 * render.attributes[0].numpy() / np.maximum(alpha, 1e-6), alpha


def lit(vertices: Tensor, faces: Tensor, colour: tuple[float, float, float] = BODY_COLOUR) -> Tensor:
    """(V, 3) colours 0..1 of a body in the camera's frame, lit from the viewer and a little from above."""
    normals = vertex_normals(vertices, faces.long())
    facing = (-normals[:, 2]).clamp(min=0)
    from_above = (-normals[:, 1]).clamp(min=0)
    light = (0.25 + 0.65 * facing + 0.2 * from_above).clamp(max=1)
    return light[:, None] * torch.tensor(colour)


def _side_view(renderer: Renderer, vertices: Tensor, sign: float) -> np.ndarray:
    """The body turned by a right angle about the vertical, seen from far enough to fit the panel."""
    centered = vertices - (vertices.amax(0) + vertices.amin(0)) / 2
    turned = torch.stack([-sign * centered[:, 2], centered[:, 1], sign * centered[:, 0]], 1)
    extent = float((turned.amax(0) - turned.amin(0))[:2].max())
    turned[:, 2] += 4 * extent
    focal = 0.86 * 4 * PANEL
    intrinsics = torch.tensor([focal, focal, PANEL / 2, PANEL / 2])
    colours, alpha = shaded(renderer, turned, intrinsics, PANEL)
    return PAPER * (1 - alpha) + colours * alpha


def _parsing(photo: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Labels in Graphonomy's colours over a pale photo; occluders grey, other people dark grey."""
    table = np.zeros((256, 3), np.float32)
    table[: len(COLOURS)] = COLOURS
    table[OTHER_PERSON], table[OCCLUDER] = 64, 128
    pale = 0.35 * photo.mean(-1, keepdims=True) + 120
    drawn = ((labels > 0) & (labels != UNKNOWN))[..., None]
    return np.where(drawn, 0.25 * photo + 0.75 * table[labels], pale)
