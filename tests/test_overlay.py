"""`mesh.png`: five panels, and the body drawn where the fit says it is."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from scenes import HEIGHT, WIDTH, observe, open_body, person

from dsr_fit.body.normals import vertex_normals
from dsr_fit.camera import Crop
from dsr_fit.config import FitConfig, Stage, Weights
from dsr_fit.fitting.fitter import Fitter
from dsr_fit.fitting.result import FitResult
from dsr_fit.labels import COLOURS, LABEL_INDEX, OCCLUDER, UNKNOWN
from dsr_fit.regressor.kinematic import KinematicRegressor
from dsr_fit.view.overlay import PANEL, PAPER


@pytest.fixture(scope="module")
def result() -> FitResult:
    """A hardly fitted person before a photo of dark noise; no other regressor's weights decide where it stands."""
    noise = np.random.default_rng(0).integers(0, 60, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    image = cv2.resize(noise, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    observation = replace(observe(person(0)), image=image)
    config = FitConfig(weights=Weights(initial=0.0, initial_points=0.0, world_landmarks=0.2), stages=(Stage(56, 1),))
    kinematic = KinematicRegressor(open_body(), config)
    return Fitter(open_body(), config, regressor=kinematic).fit([observation])[0]


@pytest.fixture(scope="module")
def panels(result: FitResult) -> list[np.ndarray]:
    picture = result.overlay()
    assert picture.shape == (PANEL, 5 * PANEL, 3)
    assert picture.dtype == np.uint8
    return [panel.astype(float) for panel in np.split(picture, 5, axis=1)]


def _places(pixels: np.ndarray, window: Crop) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows in a panel of full-image pixels (N, 2)."""
    scaled = (pixels - window.origin) * (PANEL / window.side)
    return scaled[:, 0].astype(int), scaled[:, 1].astype(int)


@pytest.fixture(scope="module")
def window(result: FitResult) -> Crop:
    return Crop(result.crop.center, 1.1 * result.crop.side)


@pytest.fixture(scope="module")
def body_mask(result: FitResult, window: Crop) -> np.ndarray:
    """(PANEL, PANEL) bool: triangles filled one by one, without the renderer."""
    pixels = result.vertices[:, :2] / result.vertices[:, 2:] * result.focal_length + result.principal_point
    columns, rows = _places(pixels, window)
    corners = np.stack([columns, rows], 1)[open_body().faces.numpy()]
    mask = np.zeros((PANEL, PANEL), np.uint8)
    for corner in corners:
        cv2.fillConvexPoly(mask, corner.astype(np.int32), (1,))
    return mask > 0


def test_the_first_panel_is_the_photo(result: FitResult, panels: list[np.ndarray], window: Crop) -> None:
    """Sampled where pixels' centres fall; linear resampling of smooth noise is a few grey levels off."""
    y, x = np.mgrid[60:260:7, 60:180:7]
    columns, rows = _places(np.stack([x.ravel() + 0.5, y.ravel() + 0.5], 1), window)
    inside = (columns >= 0) & (columns < PANEL) & (rows >= 0) & (rows < PANEL)
    assert inside.sum() > 300
    seen = panels[0][rows[inside], columns[inside]]
    expected = result.observation.image[y.ravel()[inside], x.ravel()[inside]]
    assert np.abs(seen - expected).mean() < 3
    assert np.abs(seen - expected[:, ::-1]).mean() > 10  # and not with red and blue exchanged


def test_outside_the_photo_is_paper(result: FitResult, window: Crop) -> None:
    moved = Crop((0.0, result.crop.center[1]), result.crop.side)
    panel = replace(result, crop=moved).overlay()[:, :PANEL]
    assert (panel[:, : PANEL // 2 - 2] == PAPER).all()
    assert (panel[PANEL // 2, PANEL // 2 + 2 :] != PAPER).any()


def test_the_overlay_draws_the_body_where_it_is_and_nothing_else(
    panels: list[np.ndarray], body_mask: np.ndarray
) -> None:
    changed = np.abs(panels[2] - panels[0]).max(-1) > 8
    assert 0.05 < body_mask.mean() < 0.6
    overlap = (changed & body_mask).sum() / (changed | body_mask).sum()
    assert overlap > 0.95  # whole pixels against coverage: the outline differs
    core = cv2.erode(body_mask.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    assert changed[core].all()
    far = cv2.dilate(body_mask.astype(np.uint8), np.ones((7, 7), np.uint8)) == 0
    np.testing.assert_array_equal(panels[2][far], panels[0][far])


def test_the_body_is_lit_from_the_viewer_and_bluish(panels: list[np.ndarray], body_mask: np.ndarray) -> None:
    core = cv2.erode(body_mask.astype(np.uint8), np.ones((9, 9), np.uint8)) > 0
    drawn = panels[2][core]
    assert (drawn[:, 2] > drawn[:, 0]).mean() > 0.95
    assert drawn.mean() > panels[0][core].mean() + 50


def test_the_second_panel_shows_the_labels_colours(result: FitResult) -> None:
    labels = result.observation.labels.copy()
    height = HEIGHT // 4
    for row, label in enumerate((LABEL_INDEX["dress"], LABEL_INDEX["face"], OCCLUDER, UNKNOWN)):
        labels[row * height : (row + 1) * height] = label
    observation = replace(result.observation, labels=labels, image=np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    whole = replace(result, observation=observation, crop=Crop((WIDTH / 2, HEIGHT / 2), HEIGHT / 1.1))
    panel = whole.overlay()[:, PANEL : 2 * PANEL].astype(float)
    middle = panel[[PANEL * (2 * row + 1) // 8 for row in range(4)], PANEL // 2]
    dress, face = (COLOURS[LABEL_INDEX[name]] for name in ("dress", "face"))
    expected = [0.75 * dress, 0.75 * face, [96, 96, 96], [120, 120, 120]]  # over a black photo
    np.testing.assert_allclose(middle, expected, atol=1)


def test_the_side_views_show_the_body_from_right_and_left_on_paper(result: FitResult) -> None:
    standing = person(0, spread=0).pose(open_body()).vertices()[0].numpy()
    picture = replace(result, vertices=standing).overlay().astype(float)
    masks = [np.abs(panel - PAPER).max(-1) > 8 for panel in np.split(picture, 5, axis=1)[3:]]
    for mask in masks:
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert 0.6 * PANEL < rows[-1] - rows[0] < 0.95 * PANEL
        assert abs((rows[0] + rows[-1]) / 2 - PANEL / 2) < 0.03 * PANEL
        assert columns[0] > 0
        assert columns[-1] < PANEL - 1
    # Opposite views of one body are each other's mirror image, up to perspective.
    mirrored = masks[1][:, ::-1]
    assert (masks[0] & mirrored).sum() / (masks[0] | mirrored).sum() > 0.85
    # From its right the person looks to the right of the panel: feet stick out that way from the ankles.
    assert _middle(masks[0], 0, 10) > _middle(masks[0], 25, 35) + 5
    assert _middle(masks[1], 0, 10) < _middle(masks[1], 25, 35) - 5


def _middle(mask: np.ndarray, low: int, high: int) -> float:
    """Mean column of the mask between two heights above its lowest row."""
    bottom = np.flatnonzero(mask.any(1))[-1] + 1
    return float(np.nonzero(mask[bottom - high : bottom - low])[1].mean())


def test_normals_of_an_octahedron_point_along_its_axes() -> None:
    axes = torch.eye(3)
    vertices = torch.cat([axes, -axes])
    faces = torch.tensor([[0, 1, 2], [1, 3, 2], [3, 4, 2], [4, 0, 2], [1, 0, 5], [3, 1, 5], [4, 3, 5], [0, 4, 5]])
    torch.testing.assert_close(vertex_normals(vertices, faces), vertices)
