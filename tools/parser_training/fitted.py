"""Photos that nobody has annotated, labelled by the parser that ships, as far as the person's fit bears it out.

The fit comes in twice: photos whose fit misses the keypoints, or leaves the clothing, are left out; and where the body
is drawn, what its semantic prior rules out there (a left arm on the right one, a trouser leg on a shoulder, background)
is called unknown. So is what the parser is unsure of.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from annotated import LEAST_CONTAINMENT, WORST_KEYPOINTS, AnnotatedPhotos
from torch import Tensor

from dsr_fit.body.body import Body
from dsr_fit.body.files import load_body
from dsr_fit.body.parameters import Parameters
from dsr_fit.camera import crop_intrinsics
from dsr_fit.dataset.run import read_results
from dsr_fit.dataset.schema import Row
from dsr_fit.evaluate import ccp
from dsr_fit.evaluate.cached_source import row_parameters
from dsr_fit.io.images import read_image
from dsr_fit.labels import LABELS, OCCLUDER, UNKNOWN
from dsr_fit.observe.crop import put_back, window_around
from dsr_fit.observe.network_parser import CLASSES, NetworkParser
from dsr_fit.priors.semantic import SemanticPrior, load_semantic_prior
from dsr_fit.render.renderer import Renderer
from parser_training.photos import KEPT_SIDE, Photo, shrunk

SURE = 0.6
"""Probability of a label below which the parser's word does not count."""
RULED_OUT = 0.01
"""P(label | vertex) below which the fit contradicts a label."""


def load_fitted_photos(folder: Path, fits: Path, findings: Path | None) -> list[Photo]:
    """Training photos without annotation whose fit in `fits`, a folder of `dsr-fit batch`, can be trusted."""
    annotated = set(ccp.photo_numbers(folder, "train"))
    numbers = set(ccp.photo_numbers(folder, "train", annotated=False)) - annotated
    body = load_body("open")
    labeller = Labeller(body, load_semantic_prior(body))
    seen, photos = AnnotatedPhotos(folder, findings), []
    for row in read_results(fits):
        number, fit = Path(row["imgname"]).stem, row_parameters(row)
        if number not in numbers or row["person"] > 0 or fit is None or not trusted(row, body):
            continue
        found = seen.detection(number)
        if found is not None and found.person_mask is not None:
            image, _ = read_image(ccp.photo_path(folder, number))
            shape = image.shape[0], image.shape[1]
            window = window_around(found, shape)
            probabilities = labeller.parser.probabilities(image, found, window)
            focal, (x, y) = row["focal_length"], row["principal_point"]
            drawn_with = crop_intrinsics(torch.tensor([[focal, focal, x, y]]), [window], KEPT_SIDE)
            labels = put_back(labeller(probabilities, fit, drawn_with), window, shape)
            photos.append(shrunk(number, image, labels, found))
    return photos


def trusted(row: Row, body: Body) -> bool:
    """Whether a fit is of this body, meets the keypoints and lies inside the clothing."""
    missed, inside = row["keypoint_error_rel"], row["containment"]
    if row["body"][1] != body.sha256 or missed is None or inside is None:
        return False
    return missed <= WORST_KEYPOINTS and inside >= LEAST_CONTAINMENT


class Labeller:
    """Turns the parser's probabilities and a fit into labels to learn from."""

    def __init__(self, body: Body, prior: SemanticPrior) -> None:
        self.body, self.prior = body, prior
        self.parser = NetworkParser(protocol="paper")
        self.renderer = Renderer(body.faces, body.num_vertices, device="cpu", outline="none")

    def __call__(self, probabilities: Tensor, fit: Parameters, intrinsics: Tensor) -> np.ndarray:
        """Labels of a window (KEPT_SIDE, KEPT_SIDE), 255 where they can't be trusted.

        `probabilities` (21, S, S) by the parser; `intrinsics` (1, 4) of the window at KEPT_SIDE pixels.
        """
        fine = F.interpolate(probabilities[None], (KEPT_SIDE, KEPT_SIDE), mode="bilinear", align_corners=False)[0]
        chance, classes = (each.numpy() for each in fine.max(0))
        labels = np.where(classes == CLASSES - 1, OCCLUDER, classes).astype(np.uint8)
        drawn, expected = self.expected(labels, fit, intrinsics)
        of_label = np.take_along_axis(expected, np.minimum(classes, len(LABELS) - 1)[..., None], 2)[..., 0]
        contradicted = drawn & (classes < len(LABELS)) & ((classes == 0) | (of_label < RULED_OUT))
        return np.where((chance > SURE) & ~contradicted, labels, np.uint8(UNKNOWN))

    @torch.no_grad()
    def expected(self, labels: np.ndarray, fit: Parameters, intrinsics: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Where the fitted body is drawn in the window (S, S), and P(label) there (S, S, 20), by the outfit seen."""
        vertices = fit.pose(self.body).vertices()
        rast = self.renderer(vertices, intrinsics, (KEPT_SIDE, KEPT_SIDE)).rast[0]
        worn = self.prior.dressed([labels]).probabilities.reshape(-1, len(LABELS))
        triangle = rast[..., 3].long()
        corners = self.body.faces.long()[(triangle - 1).clamp(min=0)]
        u, v = rast[..., 0], rast[..., 1]
        expected = (worn[corners] * torch.stack([u, v, 1 - u - v], -1)[..., None]).sum(-2)
        return (triangle > 0).numpy(), expected.numpy()
