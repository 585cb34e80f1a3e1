"""Metrics in closed form: errors of shifted points, overlaps of masks whose pixels are counted by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scenes import observe, open_body, person

from dsr_fit.body.parameters import Parameters
from dsr_fit.camera import crop_intrinsics, project
from dsr_fit.fitting.metrics import RESOLUTION, Masks, hard_masks, keypoint_errors, metrics
from dsr_fit.labels import LABEL_INDEX, MC_LABELS, OCCLUDER, UNKNOWN
from dsr_fit.observation import Observation
from dsr_fit.observe.batch import Batch, crop_labels
from dsr_fit.priors.semantic import SemanticPrior, load_semantic_prior
from dsr_fit.render.renderer import Renderer

FACE, DRESS = LABEL_INDEX["face"], LABEL_INDEX["dress"]


@pytest.fixture(scope="module")
def renderer() -> Renderer:
    return Renderer(open_body().faces, open_body().num_vertices, device="cpu")


@pytest.fixture(scope="module")
def prior() -> SemanticPrior:
    return load_semantic_prior(open_body())


@pytest.fixture(scope="module")
def scene() -> tuple[Parameters, Observation]:
    truth = person(0)
    return truth, observe(truth)


def _batch(*observations: Observation) -> Batch:
    valid = open_body().skeleton.keypoint_valid
    return Batch(list(observations), crop_camera=False, keypoint_valid=valid)


def _labelled(scene: tuple[Parameters, Observation], labels: np.ndarray) -> Observation:
    return replace(scene[1], labels=labels)


def _certain(label: int) -> SemanticPrior:
    """A prior that is sure of one label everywhere."""
    probabilities = torch.zeros(open_body().num_vertices, 20)
    probabilities[:, label] = 1
    return SemanticPrior(probabilities, per_face=False)


def _body_mask(truth: Parameters, batch: Batch, renderer: Renderer) -> torch.Tensor:
    window = crop_intrinsics(batch.points.intrinsics, batch.crops, RESOLUTION)
    return renderer(truth.pose(open_body()).vertices(), window, RESOLUTION).mask


def test_keypoint_errors_are_the_mean_shift_of_the_confident(scene: tuple[Parameters, Observation]) -> None:
    """Half of the confident points are moved by 3, 4 px; a doubtful one is far off and doesn't count."""
    truth, observation = scene
    keypoints = observation.detection.keypoints.copy()
    keypoints[:12, :2] += [3, 4]
    keypoints[24] += [500, 500, 0]
    keypoints[24, 2] = 0.3
    detection = replace(observation.detection, keypoints=keypoints)
    batch = _batch(replace(observation, detection=detection))
    pixels, relative = keypoint_errors(truth.pose(open_body()).keypoints, batch.points)
    assert float(pixels) == pytest.approx(5 * 12 / 24, abs=1e-3)
    assert float(relative) == pytest.approx(float(pixels) / float(batch.points.box))


def test_no_confident_keypoint_has_no_error(scene: tuple[Parameters, Observation]) -> None:
    truth, observation = scene
    points = replace(_batch(observation).points, confidence=torch.full((1, 49), 0.25))
    assert bool(torch.isnan(keypoint_errors(truth.pose(open_body()).keypoints, points)[0]).all())


def test_the_truth_scores_perfectly(
    scene: tuple[Parameters, Observation], renderer: Renderer, prior: SemanticPrior
) -> None:
    """Labels are the truth's own, drawn at half the crop's resolution: outlines differ by a pixel."""
    truth, observation = scene
    judged = metrics(truth, open_body(), _batch(observation), renderer, prior)
    assert float(judged["keypoint_error_px"]) < 1e-3
    assert float(judged["containment"]) > 0.98
    assert float(judged["silhouette_iou"]) > 0.95
    assert float(judged["mc_iou"]) > 0.88


def test_masks_and_metrics_where_everything_is_one_label(
    scene: tuple[Parameters, Observation], renderer: Renderer
) -> None:
    """All pixels of the image show a face: the body is contained, and covers its own share of the known."""
    truth, observation = scene
    batch = _batch(_labelled(scene, np.full_like(observation.labels, FACE)))
    body = _body_mask(truth, batch, renderer)
    known = torch.from_numpy(crop_labels(batch.observations[0].labels, batch.crops[0], 224) == FACE)[None]
    masks = hard_masks(truth, open_body(), batch, renderer, _certain(FACE))
    for mask, expected in (
        (masks.body, body & known), (masks.person, known), (masks.body_mc, body & known),
        (masks.observed_mc, known),
    ):  # fmt: skip
        assert torch.equal(mask, expected)
    share = float((body & known).sum() / known.sum())
    judged = metrics(truth, open_body(), batch, renderer, _certain(FACE))
    assert float(judged["containment"]) == 1
    assert float(judged["silhouette_iou"]) == pytest.approx(share)
    assert float(judged["mc_iou"]) == pytest.approx(share)


def test_only_the_most_likely_label_counts_as_minimally_clothed(
    scene: tuple[Parameters, Observation], renderer: Renderer
) -> None:
    _, observation = scene
    batch = _batch(_labelled(scene, np.full_like(observation.labels, FACE)))
    masks = hard_masks(scene[0], open_body(), batch, renderer, _certain(DRESS))
    assert not masks.body_mc.any()
    assert masks.observed_mc.any()
    assert float(metrics(scene[0], open_body(), batch, renderer, _certain(DRESS))["mc_iou"]) == 0


def test_half_a_person_contains_half_of_the_body(
    scene: tuple[Parameters, Observation], renderer: Renderer, prior: SemanticPrior
) -> None:
    truth, observation = scene
    labels = np.zeros_like(observation.labels)
    labels[:160] = DRESS
    batch = _batch(_labelled(scene, labels))
    body = _body_mask(truth, batch, renderer)
    person = torch.from_numpy(crop_labels(labels, batch.crops[0], 224) == DRESS)[None]
    judged = metrics(truth, open_body(), batch, renderer, prior)
    known = torch.from_numpy(crop_labels(labels, batch.crops[0], 224) != UNKNOWN)[None]
    inside, covered = (body & person).sum(), (body & known).sum()
    assert 0.2 < float(judged["containment"]) < 0.8
    assert float(judged["containment"]) == pytest.approx(float(inside / covered))
    assert float(judged["silhouette_iou"]) == pytest.approx(float(inside / (covered + person.sum() - inside)))
    assert math.isnan(float(judged["mc_iou"]))  # a dress is no minimal clothing


def test_occluded_and_unknown_pixels_are_left_out_of_every_mask(
    scene: tuple[Parameters, Observation], renderer: Renderer, prior: SemanticPrior
) -> None:
    truth, observation = scene
    labels = observation.labels.copy()
    labels[:120], labels[200:] = OCCLUDER, UNKNOWN
    batch = _batch(_labelled(scene, labels))
    cropped = crop_labels(labels, batch.crops[0], 224)
    hidden = torch.from_numpy((cropped == OCCLUDER) | (cropped == UNKNOWN))[None]
    assert hidden.any()
    masks: Masks = hard_masks(truth, open_body(), batch, renderer, prior)
    for mask in vars(masks).values():
        assert not (mask & hidden).any()
    assert float(metrics(truth, open_body(), batch, renderer, prior)["containment"]) > 0.98


def test_a_small_label_is_no_valid_one(scene: tuple[Parameters, Observation], renderer: Renderer) -> None:
    """Under 60 px of the 224 px crop a minimally clothed label is dropped, from the body as well."""
    truth, observation = scene
    batch = _batch(observation)
    pixel = (224 / batch.crops[0].side) ** 2  # pixels of the crop that one of the image covers
    x, y = (int(value) for value in observation.principal_point)
    for area, valid in ((int(40 / pixel), False), (int(90 / pixel), True)):
        labels = np.zeros_like(observation.labels)
        side = max(1, area // 4)
        labels[y : y + side, x : x + 4] = FACE
        small = _batch(_labelled(scene, labels))
        assert bool(small.mc_valid[0, MC_LABELS.index(FACE)]) == valid
        masks = hard_masks(truth, open_body(), small, renderer, _certain(FACE))
        assert bool(masks.observed_mc.any()) == valid
        assert bool(masks.body_mc.any()) == valid
        assert bool(masks.person.any())


def test_a_prior_per_face_is_looked_up_by_face(scene: tuple[Parameters, Observation], renderer: Renderer) -> None:
    batch = _batch(_labelled(scene, np.full_like(scene[1].labels, FACE)))
    sure = torch.zeros(len(open_body().faces), 20)
    sure[:, FACE] = 1
    masks = hard_masks(scene[0], open_body(), batch, renderer, SemanticPrior(sure, per_face=True))
    assert torch.equal(masks.body_mc, masks.body)
    assert masks.body.any()


def test_people_of_a_batch_are_judged_one_by_one(renderer: Renderer, prior: SemanticPrior) -> None:
    people = [person(seed) for seed in (1, 2)]
    together = Parameters(*(torch.cat(pair) for pair in zip(*(p.tensors() for p in people), strict=True)))
    seen = [observe(p, noise_px=2, seed=seed) for seed, p in enumerate(people)]
    judged = metrics(together, open_body(), _batch(*seen), renderer, prior)
    for row, (one, observation) in enumerate(zip(people, seen, strict=True)):
        alone = metrics(one, open_body(), _batch(observation), renderer, prior)
        for name, values in judged.items():
            # A batch shares its depth planes: single pixels at grazing angles may differ.
            assert float(values[row]) == pytest.approx(float(alone[name]), abs=2e-3), name


def test_projection_puts_the_errors_in_full_image_pixels(scene: tuple[Parameters, Observation]) -> None:
    """A body 1 % farther away shrinks about the principal point by 1 %."""
    truth, observation = scene
    batch = _batch(observation)
    keypoints = truth.pose(open_body()).keypoints
    farther = keypoints * torch.tensor([1.0, 1.0, 1.01])
    pixels, _ = keypoint_errors(farther, batch.points)
    offset = project(keypoints, batch.points.intrinsics)[0, :25] - torch.tensor(observation.principal_point)
    assert float(pixels) == pytest.approx(float(offset.norm(dim=1).mean()) * (1 - 1 / 1.01), rel=1e-3)
