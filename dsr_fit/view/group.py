"""One picture of several people's fits: the photo, all bodies over it, and the group from its side and from above."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from dsr_fit.render.renderer import Renderer
from dsr_fit.view.overlay import BODY_COLOUR, PAPER, lit

LONGEST = 640
"""Pixels of the photo's longer side in the picture."""

FINER = 2
"""Bodies are drawn so many times larger and then shrunk, for smooth outlines."""

COLOURS = (
    BODY_COLOUR, (0.96, 0.66, 0.42), (0.56, 0.82, 0.52), (0.90, 0.55, 0.70), (0.95, 0.86, 0.45), (0.68, 0.58, 0.90),
    (0.45, 0.84, 0.84), (0.80, 0.68, 0.56),
)  # fmt: skip


@dataclass(frozen=True)
class Placed:
    """A fitted body under the camera of its fit."""

    vertices: np.ndarray  # (V, 3) metres, camera frame
    pelvis: np.ndarray  # (3,)
    focal_length: float
    principal_point: tuple[float, float]

    def under(self, focal: float, center: tuple[float, float]) -> np.ndarray:
        """(V, 3) vertices of the body where another camera sees it at the same pixel and equally large."""
        away = self.pelvis[2] * focal / self.focal_length
        pixel = self.pelvis[:2] / self.pelvis[2] * self.focal_length + self.principal_point
        there = np.array([*((pixel - center) * away / focal), away])
        return self.vertices + (there - self.pelvis).astype(np.float32)


def draw_group(image: np.ndarray, bodies: Sequence[Placed], faces: np.ndarray, focal: float) -> np.ndarray:
    """(h, w, 3) uint8 RGB: the (H, W, 3) photo, the bodies over it, and both views of the group, side by side.

    `focal` is the image's own, in pixels; bodies are told apart by colour, in their order.
    """
    height, width = image.shape[:2]
    scale = LONGEST / max(height, width)
    shape = (max(1, round(scale * height)), max(1, round(scale * width)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    photo = cv2.resize(image, shape[::-1], interpolation=method).astype(np.float32)
    scene = _Scene(Renderer(faces, len(bodies[0].vertices), device="cpu", outline="none"))
    cameras = [np.array([*[one.focal_length] * 2, *one.principal_point]) * scale for one in bodies]
    colours, covered = scene.drawn([one.vertices for one in bodies], cameras, shape)
    overlay = photo * (1 - 0.85 * covered) + colours * 0.85
    together = [one.under(focal, (width / 2, height / 2)) for one in bodies]
    middle = (np.max([each.max(0) for each in together], 0) + np.min([each.min(0) for each in together], 0)) / 2
    views = [
        _seen(scene, [(each - middle) @ turn.T for each in together], shape[0]) for turn in (FROM_RIGHT, FROM_ABOVE)
    ]
    return np.concatenate([photo, overlay, *views], 1).clip(0, 255).astype(np.uint8)


FROM_RIGHT = np.array([[0, 0, -1], [0, 1, 0], [1, 0, 0]], np.float32)
"""The photo's right side is nearest; what was near the camera is on the right."""

FROM_ABOVE = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]], np.float32)
"""The photo's upper side is nearest; what was near the camera is below."""


def _seen(scene: _Scene, bodies: Sequence[np.ndarray], side: int) -> np.ndarray:
    """(side, side, 3) of bodies about the origin, from far enough to see all of them."""
    extent = 2 * max(float(np.abs(each[:, :2]).max()) for each in bodies)
    near = min(float(each[:, 2].min()) for each in bodies)
    away = np.array([0, 0, 4 * extent - near], np.float32)
    camera = np.array([0.9 * 4 * side, 0.9 * 4 * side, side / 2, side / 2])
    colours, covered = scene.drawn([each + away for each in bodies], [camera] * len(bodies), (side, side))
    return PAPER * (1 - covered) + colours


@dataclass(frozen=True)
class _Scene:
    renderer: Renderer

    @torch.no_grad()
    def drawn(
        self, bodies: Sequence[np.ndarray], cameras: Sequence[np.ndarray], shape: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Colours (h, w, 3) 0..255 times coverage, and coverage (h, w, 1), of bodies (V, 3) under fx, fy, cx, cy each;
        the nearest is seen."""
        fine = (FINER * shape[0], FINER * shape[1])
        nearest = np.full(fine, np.inf, np.float32)
        picture = np.zeros((*fine, 4), np.float32)
        for number, (body, camera) in enumerate(zip(bodies, cameras, strict=True)):
            vertices = torch.from_numpy(body)
            colours = lit(vertices, self.renderer.faces, COLOURS[number % len(COLOURS)])
            window = torch.from_numpy(FINER * camera).float()
            render = self.renderer(vertices[None], window[None], fine, attributes=colours)
            # Cameras may differ: what counts is how large a metre is seen.
            depth = torch.where(render.mask, render.depth / float(camera[0]), torch.inf)[0].numpy()
            first = depth < nearest
            nearest[first] = depth[first]
            picture[first, :3] = 255 * render.attributes[0].numpy()[first]
            picture[first, 3] = 1
        small = cv2.resize(picture, shape[::-1], interpolation=cv2.INTER_AREA)
        return small[..., :3], small[..., 3:]
