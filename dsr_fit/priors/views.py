"""One look at a clothed person whose body is known: a label map, the body's surface and the camera."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dsr_fit.body.body import Body
from dsr_fit.labels import LABELS
from dsr_fit.priors.counting import count_labels, observations_of, prior_from
from dsr_fit.priors.outfits import SLEEVES, TRUNKS, on_arms, outfit_of
from dsr_fit.render.renderer import Renderer

TOWARDS_AVERAGE = 3.0
"""Observations that the average wardrobe counts for in that of an outfit."""


@dataclass(frozen=True)
class View:
    """A label map and the body behind it."""

    labels: np.ndarray
    """(H, W) uint8: 0..19 of `labels.LABELS`, 254 occluder, 255 unknown."""
    vertices: Tensor
    """(V, 3) metres in the camera's frame."""
    intrinsics: Tensor
    """(4,) fx, fy, cx, cy, pixels of `labels`."""

    @torch.no_grad()
    def rasterise(self, renderer: Renderer) -> np.ndarray:
        """(H, W, 4) the renderer's buffer of the body: u, v, z/w, triangle + 1."""
        height, width = self.labels.shape
        return renderer(self.vertices[None], self.intrinsics[None], (height, width)).rast[0].cpu().numpy()


def learn(views: Iterable[View], body: Body) -> dict[str, np.ndarray]:
    """The arrays of a prior's file from many views, those of its outfits included.

    Raises InputError when no view shows a label on the body.
    """
    renderer = Renderer(body.faces, body.num_vertices, device="cpu", outline="none")
    faces = body.faces.cpu().numpy()
    everyone = np.zeros((body.num_vertices, len(LABELS)))
    trunks = np.zeros((len(TRUNKS), *everyone.shape))
    sleeves = np.zeros((len(SLEEVES), *everyone.shape))
    trunk_views, sleeve_views = np.zeros(len(TRUNKS), np.int64), np.zeros(len(SLEEVES), np.int64)
    for view in views:
        said = observations_of(count_labels(view.rasterise(renderer), view.labels, faces, body.num_vertices))
        outfit = outfit_of(view.labels)
        everyone += said
        if outfit.trunk is not None:
            trunks[outfit.trunk] += said
            trunk_views[outfit.trunk] += 1
        if outfit.sleeves is not None:
            sleeves[outfit.sleeves] += said
            sleeve_views[outfit.sleeves] += 1
    average = prior_from(everyone, body)
    shared = {"towards": average, "strength": TOWARDS_AVERAGE}
    return {
        "probabilities": _rounded(average),
        "trunks": np.stack([_rounded(prior_from(seen, body, **shared)) for seen in trunks]),
        "sleeves": np.stack([_rounded(prior_from(seen, body, **shared)) for seen in sleeves])[:, on_arms(body)],
        "observations": everyone.sum(1).astype(np.float32),
        "trunk_views": trunk_views,
        "sleeve_views": sleeve_views,
        "labels": np.array(LABELS),
        "body_sha256": np.array(body.sha256),
    }


def _rounded(probabilities: np.ndarray) -> np.ndarray:
    """Steps of 1/4096 as float16: files stay small."""
    return (np.round(probabilities * 4096) / 4096).astype(np.float16)
