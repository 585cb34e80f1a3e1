"""Counts of what is worn where: closed forms, symmetry, and a wardrobe that is painted and found again."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
import torch
from scenes import open_body

from dsr_fit.errors import InputError
from dsr_fit.joints import SMPL_JOINTS
from dsr_fit.labels import LABEL_INDEX, LABELS, MIRRORED_LABELS, OCCLUDER, UNKNOWN
from dsr_fit.priors import counting
from dsr_fit.priors.counting import (
    BACKGROUND,
    View,
    allowed_labels,
    count_labels,
    fronts_of,
    learn,
    mirror_of,
    neighbours_of,
    observations_of,
    prior_from,
)
from dsr_fit.priors.outfits import SLEEVES, TRUNKS, on_arms
from dsr_fit.render.renderer import Renderer

SIZE = 320
INTRINSICS = torch.tensor([2.2 * SIZE, 2.2 * SIZE, SIZE / 2, SIZE / 2])


@cache
def renderer() -> Renderer:
    return Renderer(open_body().faces, open_body().num_vertices, device="cpu", outline="none")


def seen_from(angle: float) -> torch.Tensor:
    """(V, 3) the T-pose in the frame of a camera that has walked `angle` about it; 0 sees its front."""
    cos, sin = np.cos(angle), np.sin(angle)
    turn = torch.tensor([[cos, 0, sin], [0, -1, 0], [sin, 0, -cos]], dtype=torch.float32)
    points = open_body().v_template
    middle = (points.amin(0) + points.amax(0)) / 2
    return (points - middle) @ turn.T + torch.tensor([0, 0, 4.5])


def painted(wardrobe: np.ndarray, angles: list[float], seed: int = 0) -> Iterator[View]:
    """Views whose every pixel draws its label from the wardrobe (V, 20) at the point seen."""
    rng = np.random.default_rng(seed)
    for angle in angles:
        vertices = seen_from(angle)
        render = renderer()(vertices[None], INTRINSICS[None], SIZE, attributes=torch.from_numpy(wardrobe).float())
        total = render.attributes[0].numpy().cumsum(-1)
        drawn = (rng.uniform(size=(SIZE, SIZE, 1)) * total[..., -1:] > total).sum(-1)
        yield View(np.where(render.mask[0].numpy(), drawn, 0).astype(np.uint8), vertices, INTRINSICS)


def smooth_wardrobe() -> np.ndarray:
    """(V, 20) symmetric: shirt below and coat above on the body's trunk by height, the same on both sides."""
    height = open_body().v_template[:, 1].numpy()
    share = 1 / (1 + np.exp(-6 * (height - np.median(height))))
    wardrobe = np.zeros((len(height), len(LABELS)))
    wardrobe[:, LABEL_INDEX["coat"]], wardrobe[:, LABEL_INDEX["jumpsuits"]] = share, 1 - share
    return wardrobe


def test_a_pixel_is_shared_by_its_triangles_corners() -> None:
    rast = np.zeros((1, 5, 4), np.float32)
    rast[0, :4] = [[0.2, 0.3, 0, 1], [1, 0, 0, 1], [0, 0, 0, 1], [0.5, 0.5, 0, 1]]  # the last pixel is empty
    labels = np.array([[9, 9, OCCLUDER, UNKNOWN, 5]], np.uint8)
    counts = count_labels(rast, labels, np.array([[3, 1, 0]]), 4)
    expected = np.zeros((4, 20))
    expected[[3, 1, 0], 9] = [1.2, 0.3, 0.5]
    np.testing.assert_allclose(counts, expected, atol=1e-7)


def test_a_view_says_at_most_one_thing_a_vertex_and_background_is_none() -> None:
    counts = np.zeros((3, 20))
    counts[0, [0, 5, 7]] = [100, 6, 2]
    counts[1, 5] = 0.4
    counts[2, 0] = 7
    said = observations_of(counts)
    np.testing.assert_allclose(said[0, [0, 5, 7]], [0, 0.75, 0.25])
    np.testing.assert_allclose(said.sum(1), [1, 0.4, 0])
    assert counts[0, 0] == 100


def test_counts_find_a_painted_wardrobe() -> None:
    """Counts of independent draws lie about the truth as a binomial's do: the z-scores have variance 1."""
    wardrobe = smooth_wardrobe()
    counts = np.zeros_like(wardrobe)
    for view in painted(wardrobe, list(np.linspace(0, 2 * np.pi, 12, endpoint=False))):
        counts += count_labels(view.rasterise(renderer()), view.labels, open_body().faces.numpy(), len(counts))
    many = counts.sum(1) > 20
    assert many.mean() > 0.3
    found = counts[many] / counts[many].sum(1, keepdims=True)
    truth = wardrobe[many]
    coat = LABEL_INDEX["coat"]
    spread = np.sqrt(truth[:, coat] * (1 - truth[:, coat]) / counts[many].sum(1))
    z = (found - truth)[:, coat] / spread
    assert abs(z.mean()) < 0.1
    assert 0.4 < np.square(z).mean() < 1.2  # below 1, since a shared pixel's shares add up in squares


def test_a_prior_finds_a_painted_wardrobe_on_the_body_parts_that_may_wear_it() -> None:
    wardrobe = smooth_wardrobe()
    arrays = learn(painted(wardrobe, list(np.linspace(0, 2 * np.pi, 40, endpoint=False))), open_body())
    found = arrays["probabilities"].astype(np.float64)
    trunk = allowed_labels(open_body())[:, LABEL_INDEX["coat"]] & allowed_labels(open_body())[:, 10]
    often = trunk & (arrays["observations"] > 10)
    assert often.sum() > 2000
    error = found[often] / (1 - BACKGROUND) - wardrobe[often]
    error[:, 0] = 0
    assert np.sqrt(np.square(error).sum(1).mean()) < 0.06
    assert arrays["observations"].max() <= 40 + 1e-4
    assert arrays["trunks"].shape == (len(TRUNKS), *found.shape)
    assert arrays["sleeves"].shape == (len(SLEEVES), on_arms(open_body()).sum(), 20)
    assert arrays["sleeve_views"].tolist() == [40, 0, 0]  # no pixel of an arm: long sleeves


def test_sides_are_counted_together_and_mirrored() -> None:
    body, mirror, order = open_body(), mirror_of(open_body()), MIRRORED_LABELS[:20]
    np.testing.assert_array_equal(mirror[mirror], np.arange(len(mirror)))
    points = body.v_template.numpy()
    np.testing.assert_allclose(points[mirror], points * (-1, 1, 1), atol=1e-5)
    assert order[LABEL_INDEX["leftArm"]] == LABEL_INDEX["rightArm"]
    observed = np.random.default_rng(0).uniform(size=(body.num_vertices, 20))
    found = prior_from(observed, body)
    np.testing.assert_allclose(found[mirror][:, order], found, atol=1e-6)
    np.testing.assert_allclose(prior_from(observed[mirror][:, order], body), found, atol=1e-6)


def test_rows_are_probabilities_and_parts_wear_what_they_can() -> None:
    body = open_body()
    found = prior_from(np.random.default_rng(0).uniform(size=(body.num_vertices, 20)), body)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(found[:, 0], BACKGROUND)
    allowed = allowed_labels(body)
    assert not found[~allowed].any()
    weights = body.weights.dense().numpy()
    for joint, never in (("left_knee", "leftArm face rightLeg hat"), ("right_hand", "leftArm pants rightLeg")):
        rigid = weights[:, SMPL_JOINTS.index(joint)] > 0.95
        assert rigid.any()
        assert not allowed[rigid][:, [LABEL_INDEX[name] for name in never.split()]].any()
    assert allowed.sum(1).min() >= 5


def test_what_is_never_seen_follows_the_front_and_many_observations_outweigh_neighbours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    body = open_body()
    fronts = fronts_of(body)
    hidden = np.flatnonzero(fronts >= 0)
    points = body.v_template.numpy()
    assert (points[hidden, 2] < points[fronts[hidden], 2]).mean() > 0.9  # not where the outline folds
    assert np.abs(points[hidden, 1] - points[fronts[hidden], 1]).mean() < 0.01
    observed = np.zeros((body.num_vertices, 20))
    top, coat = LABEL_INDEX["upperclothes"], LABEL_INDEX["coat"]
    observed[:, top] = 50
    observed[hidden] = 0
    parts = body.weights.dense().numpy().argmax(1)
    chest = np.flatnonzero((parts == SMPL_JOINTS.index("spine3")) & (fronts < 0))
    observed[chest, top], observed[chest, coat] = 0, 500
    back = hidden[np.isin(fronts[hidden], chest)]
    assert len(back) > 20
    shares = []
    for weight in (0.0, counting.BORROWED, 200.0):
        monkeypatch.setattr(counting, "BORROWED", weight)
        found = prior_from(observed, body)
        shares.append(found[back, coat].mean())
        assert found[chest, coat].mean() > 0.9
        assert found[parts == SMPL_JOINTS.index("left_elbow"), coat].max() < 0.05
    assert shares[0] < 0.8 * shares[1] < 0.8 * shares[2]
    assert shares[2] > 0.85


def test_averages_of_neighbours_are_averages() -> None:
    matrix = neighbours_of(open_body())
    np.testing.assert_allclose(np.asarray(matrix.sum(1)).ravel(), 1)
    assert matrix.min() >= 0


def test_nothing_seen_is_refused_unless_there_is_something_to_fall_back_to() -> None:
    body = open_body()
    nothing = np.zeros((body.num_vertices, 20))
    with pytest.raises(InputError, match="nothing to make a prior of"):
        prior_from(nothing, body)
    average = prior_from(np.random.default_rng(0).uniform(size=nothing.shape), body)
    fallen_back = prior_from(nothing, body, towards=average, strength=1e6)
    fronts = fronts_of(body)
    there, back = fronts < 0, np.flatnonzero(fronts >= 0)
    np.testing.assert_allclose(fallen_back[there], average[there], atol=1e-3)
    coat, top = LABEL_INDEX["coat"], LABEL_INDEX["upperclothes"]
    trunk = back[allowed_labels(body)[back][:, [coat, top]].all(1)]
    ratio = [rows[:, coat] / rows[:, top] for rows in (fallen_back[trunk], average[fronts[trunk]])]
    assert np.median(np.abs(np.log(ratio[0] / ratio[1]))) < 0.1  # backs wear what their fronts do
