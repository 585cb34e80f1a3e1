"""The window that the parser sees: pixel centres stay in place, whatever its size and place; and boxes of keypoints."""

from __future__ import annotations

import numpy as np
import pytest

from dsr_fit.boxes import keypoint_box
from dsr_fit.camera import Crop
from dsr_fit.joints import empty_keypoints
from dsr_fit.observe.crop import cut, put_back

SIZE = 64


def _ramps(height: int, width: int) -> np.ndarray:
    """(H, W, 3) float32: x, y and 0 of each pixel's centre."""
    y, x = np.mgrid[:height, :width] + 0.5
    return np.stack([x, y, 0 * x], -1).astype(np.float32)


@pytest.mark.parametrize("side", [40.0, 64.0, 300.0, 900.0])
def test_a_window_shows_what_lies_there(side: float) -> None:
    """Linear ramps stay linear under bilinear samples and averages: shrunk at once, in two steps, or enlarged."""
    window = Crop((601.3, 540.8), side)
    seen = cut(_ramps(1100, 1200), window, SIZE, 0)
    places = (np.arange(SIZE) + 0.5) * side / SIZE
    x, y = window.origin[0] + places, window.origin[1] + places
    # OpenCV interpolates at 32nds of a pixel, of the image or of what it was shrunk to.
    pixel = max(1.0, side / (2 * SIZE))
    np.testing.assert_allclose(seen[..., 0], np.broadcast_to(x, (SIZE, SIZE)), atol=0.1 * pixel)
    np.testing.assert_allclose(seen[..., 1], np.broadcast_to(y[:, None], (SIZE, SIZE)), atol=0.1 * pixel)


def test_the_matrix_is_the_cuts() -> None:
    window = Crop((50.0, 40.0), 32.0)
    # The window's first pixel has its centre a quarter of a pixel from the corner (34, 24).
    assert np.allclose(window.matrix(SIZE) @ [34.25, 24.25, 1], [0.5, 0.5])


def test_beyond_the_image_is_the_border() -> None:
    seen = cut(np.full((20, 30), 200, np.uint8), Crop((0.0, 10.0), 40.0), SIZE, 7)
    assert (seen[:, :30] == 7).all()
    assert (seen[20:44, 36:] == 200).all()
    assert (cut(np.zeros((20, 30, 3), np.uint8), Crop((-500.0, 10.0), 40.0), SIZE, 7) == 7).all()


@pytest.mark.parametrize("shape", [(40, 40_000), (33_000, 3)])
def test_panoramas_and_outlying_windows(shape: tuple[int, int]) -> None:
    """Sides that OpenCV can't warp, and a window so large that the image shrinks to nothing."""
    image = np.full((*shape, 3), 90, np.uint8)
    assert (cut(image, Crop((shape[1] / 2, shape[0] / 2), 20.0), SIZE, 0)[20:44, 32:34] == 90).any()
    assert cut(image, Crop((5e5, 5e5), 1e6), SIZE, 0).shape == (SIZE, SIZE, 3)


def test_labels_go_back_to_where_they_were_seen() -> None:
    labels = np.arange(1, 17, dtype=np.uint8).reshape(4, 4)
    full = put_back(labels, Crop((10.0, 6.0), 8.0).matrix(len(labels)), (12, 14))
    np.testing.assert_array_equal(full[2:10, 6:14], np.repeat(np.repeat(labels, 2, 0), 2, 1))
    full[2:10, 6:14] = 0
    assert not full.any()


def test_a_box_of_keypoints() -> None:
    keypoints = empty_keypoints()
    assert keypoint_box(keypoints) == (0, 0, 0, 0)
    keypoints[3] = (5, 6, 0.1)
    assert keypoint_box(keypoints) == (5, 6, 0, 0)  # the unsure count where there are no others
    keypoints[4], keypoints[5] = (10, 40, 0.9), (30, 20, 0.9)
    assert keypoint_box(keypoints) == (10, 20, 20, 20)
