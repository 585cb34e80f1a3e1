"""One picture of several people's fits: photo, all bodies over it, each from the side, and the group from above."""

from __future__ import annotations

import math
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

Hue = tuple[float, float, float]

COLOURS: tuple[Hue, ...] = (
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
    """(h, w, 3) uint8 RGB: (H, W, 3) photo, bodies over it, each of them from the photo's left, the group from above.

    `focal` is the image's own, in pixels; bodies are told apart by colour, in their order.
    """
    height, width = image.shape[:2]
    scale = LONGEST / max(height, width)
    shape = (max(1, round(scale * height)), max(1, round(scale * width)))
    method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    photo = cv2.resize(image, shape[::-1], interpolation=method).astype(np.float32)
    scene = _Scene(Renderer(faces, len(bodies[0].vertices), device="cpu", outline="none"))
    cameras = [np.array([*[one.focal_length] * 2, *one.principal_point]) * scale for one in bodies]
    hues = [COLOURS[number % len(COLOURS)] for number in range(len(bodies))]
    colours, covered = scene.drawn([one.vertices for one in bodies], hues, cameras, shape)
    overlay = photo * (1 - 0.85 * covered) + colours * 0.85
    together = [one.under(focal, (width / 2, height / 2)) for one in bodies]
    size = shape[0] // columns(len(bodies))
    aside = [_cell(scene, [each], [hue], FROM_LEFT, size) for each, hue in zip(together, hues, strict=True)]
    views = [_grid(aside, shape[0]), _cell(scene, together, hues, FROM_ABOVE, shape[0])]
    return np.concatenate([photo, overlay, *views], 1).clip(0, 255).astype(np.uint8)


FROM_LEFT = np.array([[0, 0, -1], [0, 1, 0], [1, 0, 0]], np.float32)
"""The photo's left is nearest, and what was near the camera is on the right."""

FROM_ABOVE = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]], np.float32)
"""What was up is nearest, and what was near the camera is below."""


def columns(count: int) -> int:
    """Of the square grid with room for so many."""
    return math.ceil(math.sqrt(count))


def _grid(cells: Sequence[np.ndarray], side: int) -> np.ndarray:
    """(side, side, 3) of square cells, row by row."""
    paper = np.full((side, side, 3), PAPER, np.float32)
    across, size = columns(len(cells)), len(cells[0])
    for number, cell in enumerate(cells):
        y, x = size * (number // across), size * (number % across)
        paper[y : y + size, x : x + size] = cell
    return paper


def _cell(scene: _Scene, bodies: Sequence[np.ndarray], hues: Sequence[Hue], turn: np.ndarray, side: int) -> np.ndarray:
    """(side, side, 3) of bodies turned about their middle, from far enough to see all of them."""
    middle = (np.max([each.max(0) for each in bodies], 0) + np.min([each.min(0) for each in bodies], 0)) / 2
    turned = [(each - middle) @ turn.T for each in bodies]
    extent = 2 * max(float(np.abs(each[:, :2]).max()) for each in turned)
    near = min(float(each[:, 2].min()) for each in turned)
    away = np.array([0, 0, 4 * extent - near], np.float32)
    camera = np.array([0.9 * 4 * side, 0.9 * 4 * side, side / 2, side / 2])
    colours, covered = scene.drawn([each + away for each in turned], hues, [camera] * len(bodies), (side, side))
    return PAPER * (1 - covered) + colours


@dataclass(frozen=True)
class _Scene:
    renderer: Renderer

    @torch.no_grad()
    def drawn(
        self,
        bodies: Sequence[np.ndarray],
        hues: Sequence[Hue],
        cameras: Sequence[np.ndarray],
        shape: tuple[int, int],
    ) -> tuple[np.ndarray, np.ndarray]:
        """Colours (h, w, 3) 0..255 times coverage, and coverage (h, w, 1), of bodies (V, 3) under fx, fy, cx, cy each;
        the nearest is seen."""
        fine = (FINER * shape[0], FINER * shape[1])
        nearest = np.full(fine, np.inf, np.float32)
        picture = np.zeros((*fine, 4), np.float32)
        for body, hue, camera in zip(bodies, hues, FINER * np.asarray(cameras), strict=True):
            seen = body[:, :2] / body[:, 2:] * camera[:2] + camera[2:]
            left, top = np.clip(seen.min(0) - 1, 0, fine[::-1]).astype(int)
            right, bottom = np.clip(seen.max(0) + 2, 0, fine[::-1]).astype(int)
            if left >= right or top >= bottom:
                continue
            vertices = torch.from_numpy(body)
            window = torch.from_numpy(camera - (0, 0, left, top)).float()
            colours = lit(vertices, self.renderer.faces, hue)
            render = self.renderer(vertices[None], window[None], (bottom - top, right - left), attributes=colours)
            # Cameras may differ: what counts is how large a metre is seen.
            depth = torch.where(render.mask, render.depth / float(camera[0]), torch.inf)[0].numpy()
            part = slice(top, bottom), slice(left, right)
            first = depth < nearest[part]
            nearest[part][first] = depth[first]
            picture[part][first, :3] = 255 * render.attributes[0].numpy()[first]
            picture[part][first, 3] = 1
        small = cv2.resize(picture, shape[::-1], interpolation=cv2.INTER_AREA)
        return small[..., :3], small[..., 3:]
