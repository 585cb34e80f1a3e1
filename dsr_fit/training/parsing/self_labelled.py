"""Photos without annotation, labelled by the parser itself, as far as scales, mirror images and fits bear it out.

The average over scales and mirror images must be sure of a label, and a single look agree with it. The fit comes in
twice: photos whose fit misses the keypoints, or leaves the clothing, are left out; and where the body is drawn, what
its semantic prior rules out there (a left arm on the right one, a trouser leg on a shoulder, background) is unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dsr_fit.body.body import Body
from dsr_fit.body.files import load_body
from dsr_fit.body.parameters import Parameters
from dsr_fit.camera import Crop, crop_intrinsics
from dsr_fit.dataset.names import image_path
from dsr_fit.dataset.run import open_store, read_results
from dsr_fit.dataset.schema import Row
from dsr_fit.evaluate.cached_source import row_parameters
from dsr_fit.io.images import read_image
from dsr_fit.labels import LABELS, UNKNOWN
from dsr_fit.observation import Detection
from dsr_fit.observe.crop import put_back
from dsr_fit.observe.detector import PersonDetector
from dsr_fit.observe.network_parser import NetworkParser
from dsr_fit.observe.parsing_network import CLASS_LABELS
from dsr_fit.priors.semantic import SemanticPrior, load_semantic_prior
from dsr_fit.render.renderer import Renderer
from dsr_fit.training.parsing.examples import KEPT_SIDE, KEPT_WIDE, Example, example_of, read_examples, write_examples
from dsr_fit.training.parsing.photos import region_of_look

SURE = 0.6
"""Probability of a label below which the parser's word does not count."""

RULED_OUT = 0.01
"""P(label | vertex) below which the fit contradicts a label."""

WORST_KEYPOINTS, LEAST_CONTAINMENT = 0.02, 0.85
"""Fits with a larger keypoint error (share of the box) or less containment are rejected."""


def self_labelled_examples(
    fits: Path, weights: Path | None, cache: Path, wanted: Callable[[str], bool]
) -> list[Example]:
    """People of a folder of `dsr-fit batch` whose fits can be trusted, of photos whose names are `wanted`.

    They are labelled once, by a parser of these weights, and kept in the folder `cache`. Raises InputError where the
    folder or a photo can't be read.
    """
    cache.mkdir(parents=True, exist_ok=True)
    images = Path(open_store(fits).manifest.images)
    rows: dict[str, list[Row]] = {}
    for row in read_results(fits):
        if wanted(Path(row["imgname"]).stem):
            rows.setdefault(row["imgname"], []).append(row)
    labeller: Labeller | None = None
    examples: list[Example] = []
    for name, people in rows.items():
        path = cache / f"{Path(name).stem}.npz"
        if not path.exists():
            labeller = labeller or Labeller(load_body("open"), weights=weights)
            write_examples(path, list(labeller.people(image_path(images, name), people)))
        examples += read_examples(path)
    return examples


def trusted(row: Row, body: Body) -> bool:
    """Whether a fit is of this body, meets the keypoints and lies inside the clothing."""
    missed, inside = row["keypoint_error_rel"], row["containment"]
    if row["body"][1] != body.sha256 or missed is None or inside is None:
        return False
    return missed <= WORST_KEYPOINTS and inside >= LEAST_CONTAINMENT


class Labeller:
    """Turns the parser's word and a fit into labels to learn from."""

    def __init__(self, body: Body, prior: SemanticPrior | None = None, weights: Path | None = None) -> None:
        self.body = body
        self.prior = prior or load_semantic_prior(body)
        self.parser = NetworkParser(weights, "paper")
        self.detector = PersonDetector()
        self.renderer = Renderer(body.faces, body.num_vertices, device="cpu", outline="none")

    def people(self, path: Path, rows: list[Row]) -> Iterator[Example]:
        """Those of a photo's fitted people who are found again and whose fits are trusted."""
        image, _ = read_image(path)
        found = self.detector.detect(image)
        for row in rows:
            fit, number = row_parameters(row), row["person"]
            if fit is None or not trusted(row, self.body) or number >= len(found):
                continue
            detection = found[number]
            if detection.look is None or not _same(detection, row):
                continue
            region = region_of_look(detection.look)
            example = example_of(path.stem, image, self.sure_labels(image, detection), detection.keypoints, region)
            window = Crop(region.center, KEPT_WIDE * region.side)
            focal, (x, y) = row["focal_length"], row["principal_point"]
            intrinsics = crop_intrinsics(torch.tensor([[focal, focal, x, y]]), [window], KEPT_SIDE)
            example.labels[self.contradicted(example.labels, fit, intrinsics)] = UNKNOWN
            yield example

    def sure_labels(self, image: np.ndarray, detection: Detection) -> np.ndarray:
        """(H, W) labels of which the parser is sure, 255 elsewhere."""
        assert detection.look is not None
        seen = image, detection.keypoints, detection.look
        logits = self.parser.logits(*seen)
        chance, classes = logits.softmax(0).max(0)
        quick = self.parser.logits(*seen, protocol="fast").argmax(0)
        labels = CLASS_LABELS[classes.numpy()]
        labels[((chance < SURE) | (quick != classes)).numpy()] = UNKNOWN
        size = (image.shape[0], image.shape[1])
        return put_back(labels, detection.look.matrix * (len(labels) / len(detection.look.mask)), size)

    def contradicted(self, labels: np.ndarray, fit: Parameters, intrinsics: Tensor) -> np.ndarray:
        """(S, S) bool: where a window's labels are none that the fitted body may show there.

        `intrinsics` (1, 4) of the window at S pixels.
        """
        drawn, expected = self.expected(labels, fit, intrinsics)
        of_label = np.take_along_axis(expected, np.minimum(labels, len(LABELS) - 1)[..., None].astype(int), 2)[..., 0]
        return drawn & (labels < len(LABELS)) & ((labels == 0) | (of_label < RULED_OUT))

    @torch.no_grad()
    def expected(self, labels: np.ndarray, fit: Parameters, intrinsics: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Where the fitted body is drawn in the window (S, S), and P(label) there (S, S, 20), by the outfit seen."""
        vertices = fit.pose(self.body).vertices()
        rast = self.renderer(vertices, intrinsics, labels.shape).rast[0]
        worn = self.prior.dressed([labels]).probabilities.reshape(-1, len(LABELS))
        triangle = rast[..., 3].long()
        corners = self.body.faces.long()[(triangle - 1).clamp(min=0)]
        u, v = rast[..., 0], rast[..., 1]
        expected = (worn[corners] * torch.stack([u, v, 1 - u - v], -1)[..., None]).sum(-2)
        return (triangle > 0).numpy(), expected.numpy()


def _same(detection: Detection, row: Row) -> bool:
    """Whether a row's fit is of the person found now."""
    before = np.array(row["keypoints"], np.float32).reshape(-1, 3)
    both = (before[:, 2] > 0.5) & (detection.keypoints[:, 2] > 0.5)
    if both.sum() < 4:
        return False
    apart = np.linalg.norm(before[both, :2] - detection.keypoints[both, :2], axis=1)
    return bool(np.median(apart) < 0.03 * np.ptp(before[both, 1]))
