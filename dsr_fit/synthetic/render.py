"""Rendering of pieces: the piece, label and lit colour at each pixel."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

from dsr_fit.compilation import kernel
from dsr_fit.labels import LABEL_INDEX
from dsr_fit.render.raster_kernels import project_screen, visible_triangles
from dsr_fit.synthetic import paint, regions, shading
from dsr_fit.synthetic.garments import Piece
from dsr_fit.synthetic.staging import Camera
from dsr_fit.synthetic.surface import vertex_normals

SUPERSAMPLING = 2


@dataclass(frozen=True)
class Scene:
    """All pieces as one mesh; each belongs to a figure (0 the main person, 1 the second person, 2 the occluder)."""

    pieces: list[Piece]
    figure: np.ndarray  # (P,) int
    vertices: np.ndarray  # (N, 3)
    faces: np.ndarray  # (F, 3) int32
    piece_of_face: np.ndarray  # (F,) int32
    attributes: np.ndarray  # (N, 11) float32


def assemble(groups: list[list[Piece]]) -> Scene:
    """Combine the pieces of each figure into one mesh."""
    pieces = [piece for group in groups for piece in group]
    figure = np.concatenate([np.full(len(group), k) for k, group in enumerate(groups)])
    starts = np.cumsum([0, *(len(piece.vertices) for piece in pieces)])
    faces = np.concatenate([piece.faces + start for piece, start in zip(pieces, starts[:-1], strict=True)])
    normals = [vertex_normals(piece.vertices, piece.faces) for piece in pieces]
    attributes = [
        np.concatenate([piece.rest, piece.uv, normal, piece.vertices], 1)
        for piece, normal in zip(pieces, normals, strict=True)
    ]
    return Scene(
        pieces, figure, np.concatenate([piece.vertices for piece in pieces]), faces.astype(np.int32),
        np.repeat(np.arange(len(pieces), dtype=np.int32), [len(piece.faces) for piece in pieces]),
        np.concatenate(attributes).astype(np.float32),
    )  # fmt: skip


def triangle_ids(camera: Camera, vertices: np.ndarray, faces: np.ndarray, scale: int) -> np.ndarray:
    """(scale * H, scale * W) int32: index + 1 of the triangle visible at each pixel's centre, 0 for none."""
    pos = camera.clip(vertices)
    height, width = scale * camera.height, scale * camera.width
    screen = np.empty((len(pos), 3))
    project_screen(pos, height, width, screen)
    ids = np.empty((height, width), np.int32)
    visible_triangles(pos, faces, screen, ids, np.empty((height, width)))
    return ids


@kernel(quick=True)
def _gather(ids, height, width, scale, focal, faces, attributes, pixel, out, facing):
    """Interpolate attributes at covered pixels (flat indices `pixel`) into out (P, 11); facing: 1 for front faces."""
    cx, cy, f = 0.5 * scale * width, 0.5 * scale * height, focal * scale
    columns = ids.shape[1]
    for k in range(len(pixel)):
        i, j = pixel[k] // columns, pixel[k] % columns
        face = ids[i, j] - 1
        a, b, c = faces[face, 0], faces[face, 1], faces[face, 2]
        rx, ry = (j + 0.5 - cx) / f, (i + 0.5 - cy) / f
        ax, ay, az = attributes[a, 8], attributes[a, 9], attributes[a, 10]
        bx, by, bz = attributes[b, 8], attributes[b, 9], attributes[b, 10]
        dx, dy, dz = attributes[c, 8], attributes[c, 9], attributes[c, 10]
        # Weights of the corners where the ray meets the triangle: triple products ray . (q x r).
        wa = rx * (by * dz - bz * dy) + ry * (bz * dx - bx * dz) + (bx * dy - by * dx)
        wb = rx * (dy * az - dz * ay) + ry * (dz * ax - dx * az) + (dx * ay - dy * ax)
        wc = rx * (ay * bz - az * by) + ry * (az * bx - ax * bz) + (ax * by - ay * bx)
        total = wa + wb + wc
        facing[k] = -1.0 if total > 0.0 else 1.0
        if total == 0.0:
            wa, wb, wc, total = 1.0, 1.0, 1.0, 3.0
        wa, wb, wc = max(wa / total, 0.0), max(wb / total, 0.0), max(wc / total, 0.0)
        for n in range(11):
            out[k, n] = wa * attributes[a, n] + wb * attributes[b, n] + wc * attributes[c, n]


@dataclass(frozen=True)
class Pixels:
    """The covered pixels of an id image: flat index, piece, and interpolated attributes."""

    index: np.ndarray  # (P,)
    piece: np.ndarray  # (P,)
    place: np.ndarray  # (P, 3)
    uv: np.ndarray  # (P, 2)
    normal: np.ndarray  # (P, 3)
    position: np.ndarray  # (P, 3)
    facing: np.ndarray  # (P,)


def look_up(camera: Camera, scene: Scene, ids: np.ndarray, scale: int) -> Pixels:
    index = np.flatnonzero(ids)
    out = np.empty((len(index), 11), np.float32)
    facing = np.empty(len(index), np.float32)
    _gather(ids, camera.height, camera.width, scale, camera.focal, scene.faces, scene.attributes, index, out, facing)
    piece = scene.piece_of_face[ids.ravel()[index] - 1]
    return Pixels(index, piece, out[:, :3], out[:, 3:5], out[:, 5:8], out[:, 8:11], facing)


def labels_of(scene: Scene, pixels: Pixels) -> np.ndarray:
    """(P,) uint8 label of each covered pixel, whichever figure it belongs to."""
    labels = np.zeros(len(pixels.index), np.uint8)
    for number, piece in enumerate(scene.pieces):
        on = pixels.piece == number
        if piece.label is not None:
            labels[on] = piece.label
        elif piece.name == "shoes":
            left = pixels.place[on, 0] > 0
            labels[on] = np.where(left, LABEL_INDEX["leftShoe"], LABEL_INDEX["rightShoe"])
        else:
            labels[on] = regions.skin_labels(pixels.place[on])
    return labels


def albedo(scene: Scene, pixels: Pixels, looks: list[paint.Look]) -> tuple[np.ndarray, np.ndarray]:
    """Unlit colours (P, 3) float32 and gloss (P,)."""
    colour = np.empty((len(pixels.index), 3), np.float32)
    gloss = np.zeros(len(pixels.index), np.float32)
    order = np.argsort(pixels.piece, kind="stable")
    bounds = np.searchsorted(pixels.piece[order], np.arange(len(scene.pieces) + 1))
    for number, piece in enumerate(scene.pieces):
        on = order[bounds[number] : bounds[number + 1]]
        look = looks[scene.figure[number]]
        if not len(on):
            continue
        if piece.material == "skin":
            assert look.skin is not None
            colour[on], gloss[on] = paint.paint_skin(pixels.place[on].astype(np.float64), look.skin)
        else:
            material = look.materials[piece.material]
            # Only the top itself has a print.
            printed = material if piece.name == "top" else replace(material, badge=None)
            colour[on] = paint.paint_cloth(pixels.uv[on], pixels.place[on], printed)
            gloss[on] = material.gloss
    return colour, gloss


def compose(
    camera: Camera, scene: Scene, looks: list[paint.Look], lights: shading.Lights, shadow: shading.ShadowMap,
    background: np.ndarray,
) -> np.ndarray:  # fmt: skip
    """The image (H, W, 3) float32, 0..255, of the lit scene in front of the background (H, W, 3)."""
    ids = triangle_ids(camera, scene.vertices, scene.faces, SUPERSAMPLING)
    pixels = look_up(camera, scene, ids, SUPERSAMPLING)
    colour, gloss = albedo(scene, pixels, looks)

    depth = np.zeros(ids.size, np.float32)
    depth[pixels.index] = pixels.position[:, 2]
    coarse = depth.reshape(ids.shape)[::4, ::4]
    nearness = camera.focal * SUPERSAMPLING / 4 / float(np.median(pixels.position[:, 2]))
    hollow = shading.ambient_occlusion(coarse, coarse > 0, nearness)
    hollow = cv2.resize(hollow, (ids.shape[1], ids.shape[0]), interpolation=cv2.INTER_LINEAR)
    reached = shading.lit(pixels.position, shadow)
    sight = pixels.position / np.linalg.norm(pixels.position, axis=1, keepdims=True)
    lit_colour = np.empty_like(colour)
    occlusion = hollow.ravel()[pixels.index]
    shading.shade(colour, gloss, pixels.normal, sight, pixels.facing, reached, occlusion, lights, lit_colour)
    layer = np.zeros((ids.size, 4), np.float32)
    layer[pixels.index, :3], layer[pixels.index, 3] = lit_colour, 1
    layer = cv2.resize(layer.reshape(*ids.shape, 4), (camera.width, camera.height), interpolation=cv2.INTER_AREA)
    return layer[..., :3] + (1 - layer[..., 3:]) * background
