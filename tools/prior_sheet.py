"""Draws the semantic prior on the body, front and back: each label of DSR-MC and each class of DSR-C.

    python tools/prior_sheet.py

Colour runs from 0 (dark) to 1 (bright); writes `priors/semantic/prior.png` and, with the wardrobe of each outfit,
`priors/semantic/outfits.png`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import matplotlib
import numpy as np
import torch
from torch import Tensor

from dsr_fit.body.body import Body
from dsr_fit.body.files import load_body
from dsr_fit.body.normals import vertex_normals
from dsr_fit.labels import COLOURS, LABEL_SETS, LABELS, MC_LABELS
from dsr_fit.priors.outfits import SLEEVES, TRUNKS, Outfit
from dsr_fit.priors.semantic import load_semantic_prior
from dsr_fit.render.renderer import Renderer

SIDE = 360
ARMS_DOWN = 0.9  # radians


def posed(body: Body) -> Tensor:
    """(2, V, 3) the body with its arms lowered, from the front and from the back, in the camera's frame."""
    pose = torch.zeros(1, 69)
    pose[0, 3 * 15 + 2], pose[0, 3 * 16 + 2] = -ARMS_DOWN, ARMS_DOWN  # left and right shoulder, about z
    zeros = torch.zeros(1, 3)
    points = body(zeros, pose, torch.zeros(1, 10), zeros).vertices()[0]
    points = points - (points.amin(0) + points.amax(0)) / 2
    front = points * torch.tensor([1.0, -1.0, -1.0])
    back = points * torch.tensor([-1.0, -1.0, 1.0])
    return torch.stack([front, back]) + torch.tensor([0, 0, 8.0])


def draw(body: Body, colours: np.ndarray) -> np.ndarray:
    """(SIDE, W, 3) uint8 front and back of the body with a colour (V, 3) 0..1 a vertex."""
    renderer = Renderer(body.faces, body.num_vertices, device="cpu", outline="dense")
    width = int(0.62 * SIDE)
    focal = 8.0 * SIDE / 1.95
    intrinsics = torch.tensor([[focal, focal, width / 2, SIDE / 2]]).repeat(2, 1)
    vertices = posed(body)
    facing = -vertex_normals(vertices, body.faces.long())[..., 2]
    shade = 0.55 + 0.45 * facing.clamp(min=0)
    picture = renderer(vertices, intrinsics, (SIDE, width), torch.from_numpy(colours).float() * shade[..., None])
    image = picture.attributes.numpy() + (1 - picture.alpha.numpy()[..., None])
    return np.concatenate([(255 * np.clip(each, 0, 1)).astype(np.uint8) for each in image], 1)


def titled(image: np.ndarray, title: str) -> np.ndarray:
    """The picture under a line of text."""
    line = np.full((26, image.shape[1], 3), 255, np.uint8)
    cv2.putText(line, title, (8, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return np.concatenate([line, image], 0)


def grid(cells: list[np.ndarray], columns: int) -> np.ndarray:
    """Pictures of one size in rows."""
    cells = cells + [np.full_like(cells[0], 255)] * (-len(cells) % columns)
    rows = [np.concatenate(cells[at : at + columns], 1) for at in range(0, len(cells), columns)]
    return np.concatenate(rows, 0)


def shares(values: np.ndarray) -> np.ndarray:
    """(V, 3) colours of probabilities (V,)."""
    return matplotlib.colormaps["viridis"](values)[:, :3]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", type=Path, help="default: the shipped one")
    parser.add_argument("--out", type=Path, default=Path("priors/semantic"))
    arguments = parser.parse_args()
    body = load_body("open")
    prior = load_semantic_prior(body, arguments.prior)
    rows = prior.probabilities.numpy()
    cells = [titled(draw(body, shares(rows[:, label])), LABELS[label]) for label in MC_LABELS]
    merged = prior.merged(LABEL_SETS["code8"]).numpy()
    names = list(LABEL_SETS["code8"].classes)
    cells += [titled(draw(body, shares(merged[:, number])), f"code8: {names[number]}") for number in range(1, 8)]
    _write(arguments.out / "prior.png", grid(cells, 4))

    if prior.outfits is not None:
        palette = COLOURS / 255
        cells = [titled(draw(body, rows @ palette), "average")]
        for number, name in enumerate(TRUNKS):
            worn = prior.outfits.of([Outfit(number, None)])[0].numpy()
            cells.append(titled(draw(body, worn @ palette), name))
        for number, name in enumerate(SLEEVES):
            worn = prior.outfits.of([Outfit(None, number)])[0].numpy()
            cells.append(titled(draw(body, worn @ palette), name))
        _write(arguments.out / "outfits.png", grid(cells, 5))


def _write(path: Path, image: np.ndarray) -> None:
    cv2.imwrite(str(path), cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_PNG_COMPRESSION, 9])
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
