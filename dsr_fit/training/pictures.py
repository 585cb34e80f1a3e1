"""Pictures of a training after each epoch: a few people with their input, labels and estimates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from lightning import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image
from torch import Tensor

from dsr_fit.body.body import Body
from dsr_fit.body.parameters import Parameters
from dsr_fit.errors import InputError
from dsr_fit.io.files import replacing
from dsr_fit.labels import COLOURS, OCCLUDER, UNKNOWN
from dsr_fit.render.renderer import Renderer
from dsr_fit.view.overlay import PAPER, shaded

PANEL = 224
ACROSS = 2
"""People in a row."""
PICTURED = 6
"""Synthetic people, and people in photos, drawn after each epoch."""


def drawn_people(
    body: Body,
    parameters: Parameters,
    windows: Tensor,
    photos: Sequence[np.ndarray | None],
    points: Tensor,
    labels: Sequence[np.ndarray],
) -> np.ndarray:
    """(H, W, 3) uint8 RGB: for each of N people the photo with keypoints, the label map, and the body over the photo.

    Everything is in the crop: `windows` (N, 4) fx, fy, cx, cy at `PANEL` pixels, `photos` (PANEL, PANEL, 3) uint8 or
    None, `points` (N, 49, 3) -1..1 and confidence, `labels` of any size.
    """
    body = body.to("cpu")
    renderer = Renderer(body.faces, body.num_vertices, device="cpu")
    vertices = parameters.map(lambda tensor: tensor.detach().cpu().float()).pose(body).vertices()
    people = []
    for row, photo in enumerate(photos):
        ground = np.full((PANEL, PANEL, 3), PAPER, np.uint8) if photo is None else photo
        seen, alpha = shaded(renderer, vertices[row], windows[row], PANEL)
        over = (ground * (1 - 0.85 * alpha) + 0.85 * alpha * seen).clip(0, 255).astype(np.uint8)
        people.append(np.concatenate([_dotted(ground, points[row].numpy()), _coloured(labels[row]), over], 1))
    people += [np.full_like(people[0], PAPER)] * (-len(people) % ACROSS)
    rows = [np.concatenate(people[start : start + ACROSS], 1) for start in range(0, len(people), ACROSS)]
    return np.concatenate(rows)


def save_picture(folder: Path, picture: np.ndarray, trainer: Trainer) -> None:
    """Write `FOLDER/epoch-0007.png` after the seventh epoch, and add it to TensorBoard's log if there is one.

    Raises InputError if the folder can't be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: can't make this folder ({error.strerror}); choose another --out") from None
    with replacing(folder / f"epoch-{trainer.current_epoch + 1:04d}.png") as temporary:
        Image.fromarray(picture).save(temporary)
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image("people", picture, trainer.global_step, dataformats="HWC")


def crop_window(place: Tensor) -> Tensor:
    """(N, 3) `Sight.place` -> (N, 4) fx, fy, cx, cy of the crop at `PANEL` pixels."""
    focal = PANEL / 2 / place[:, 2:]
    return torch.cat([focal, focal, PANEL / 2 - place[:, :2] * focal], 1)


def _dotted(picture: np.ndarray, points: np.ndarray) -> np.ndarray:
    picture = picture.copy()
    for x, y in (points[points[:, 2] > 0.2, :2] + 1) * (PANEL / 2):
        cv2.circle(picture, (round(x * 16), round(y * 16)), 40, (230, 40, 40), -1, cv2.LINE_AA, shift=4)
    return picture


def _coloured(labels: np.ndarray) -> np.ndarray:
    """Graphonomy's colours; occluders grey, unknown as paper."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(COLOURS)] = COLOURS
    table[OCCLUDER], table[UNKNOWN] = 128, PAPER
    return cv2.resize(table[labels], (PANEL, PANEL), interpolation=cv2.INTER_NEAREST)
