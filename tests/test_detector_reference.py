"""Our landmarks are MediaPipe's own: on twelve pictures, in the regions that MediaPipe looked at.

MediaPipe's crop differs from ours in two ways, and the network answers to both by more than their size suggests, above
all in 3D:

- It takes coordinates that count from corners for OpenCV's, which count from pixels' centres, so that what it sees is
  off by half a pixel of the image less half a pixel of the crop. A region that is moved as much shows our network the
  same crop, and then the answers are the same (`_moved`).
- It samples bilinearly however much it shrinks; we average areas from a factor of two on.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsr_fit.io.images import read_image
from dsr_fit.observe.blazepose import INPUT
from dsr_fit.observe.landmarks import DetectorSize, LandmarkNetwork, Measured, Region
from dsr_fit.observe.ownership import in_image, own_pixels

DATA = Path(__file__).parent / "data" / "detector"
SIZES: tuple[DetectorSize, ...] = ("heavy", "full")


@pytest.fixture(scope="module")
def reference() -> dict[str, np.ndarray]:
    """See `tools/mediapipe_reference.py`."""
    with np.load(DATA / "reference.npz", allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


@pytest.fixture(scope="module")
def pictures(reference: dict[str, np.ndarray]) -> list[np.ndarray]:
    return [read_image(DATA / str(name))[0] for name in reference["names"]]


@pytest.fixture(scope="module", params=SIZES)
def network(request: pytest.FixtureRequest) -> LandmarkNetwork:
    return LandmarkNetwork(request.param)


@pytest.fixture
def size(network: LandmarkNetwork, request: pytest.FixtureRequest) -> int:
    """Second index of the reference's arrays."""
    return SIZES.index(request.node.callspec.params["network"])


def _region(row: np.ndarray) -> Region:
    """Of centre, side and clockwise turn of the square; ours is the turn of the picture."""
    x, y, side, turn = row
    return Region((x, y), side, -turn)


def _moved(region: Region) -> tuple[Region, np.ndarray]:
    """The region in which we see what MediaPipe sees in the given one, and the way back to it."""
    way = np.linalg.solve(region.matrix()[:, :2], (0.5, 0.5)) - 0.5
    x, y = region.center - way
    return Region((x, y), region.side, region.angle), way


def _off(seen: Measured, way: np.ndarray, landmarks: np.ndarray, world: np.ndarray) -> np.ndarray:
    """(33, 2) distances: 2D in pixels of the crop, 3D in millimetres."""
    flat = np.linalg.norm(seen.points[:, :2] + way - landmarks[:, :2], axis=1) * INPUT / seen.region.side
    return np.column_stack([flat, 1000 * np.linalg.norm(seen.world - world, axis=1)])


def test_the_same_crop_gives_mediapipes_landmarks(
    network: LandmarkNetwork, size: int, reference: dict[str, np.ndarray], pictures: list[np.ndarray]
) -> None:
    moved, ways = zip(*[_moved(_region(row)) for row in reference["regions"]], strict=True)
    seen = network.look(list(zip(pictures, moved, strict=True)))
    off = np.array(
        [
            _off(*each)
            for each in zip(seen, ways, reference["landmarks"][:, size], reference["world"][:, size], strict=True)
        ]
    )
    # OpenCV rounded bilinear weights to 1/32 before version 5, as MediaPipe's own does: 3D is off by .3 or 1.3 mm.
    assert (np.median(off, (0, 1)) < (0.05, 2.0)).all()
    averaged = reference["regions"][:, 2] > 2 * INPUT
    assert 1 <= averaged.sum() <= 3
    assert (np.quantile(off[~averaged], 0.99, (0, 1)) < (0.5, 6.0)).all()
    assert (np.median(off[averaged], (0, 1)) < (0.5, 15.0)).all()

    for one, landmarks in zip(seen, reference["landmarks"][:, size], strict=True):
        assert one.presence > 0.5
        tolerance = 0.01 if one.region.side <= 2 * INPUT else 0.1
        np.testing.assert_allclose(one.points[:, 2], landmarks[:, 2], atol=tolerance)


def test_the_same_crop_gives_mediapipes_next_region(
    network: LandmarkNetwork, size: int, reference: dict[str, np.ndarray], pictures: list[np.ndarray]
) -> None:
    for picture, row, next_row in zip(pictures, reference["regions"], reference["following"][:, size], strict=True):
        moved, way = _moved(_region(row))
        if moved.side > 2 * INPUT:
            continue
        (seen,) = network.look([(picture, moved)])
        expected = _region(next_row)
        np.testing.assert_allclose(seen.following.center + way, expected.center, atol=0.002 * expected.side)
        assert seen.following.side == pytest.approx(expected.side, rel=0.002)
        turn = (seen.following.angle - expected.angle + np.pi) % (2 * np.pi) - np.pi
        assert abs(turn) < np.radians(0.2)


def test_masks_are_mediapipes(
    network: LandmarkNetwork, size: int, reference: dict[str, np.ndarray], pictures: list[np.ndarray]
) -> None:
    """Also in our own sampling: MediaPipe puts the mask back in the same way in which it cuts the crop."""
    for picture, row, expected in zip(pictures, reference["regions"], reference["masks"][:, size], strict=True):
        seen = network.look([(picture, _region(row))])
        own, elsewhere = own_pixels(0, seen)
        mask = in_image(own, seen[0], (picture.shape[0], picture.shape[1]))
        small = np.asarray(Image.fromarray(mask).resize(expected.shape, Image.Resampling.BOX))
        ours, theirs = small > 0.5, expected > 127
        assert elsewhere is None
        assert (ours & theirs).sum() > 0.97 * (ours | theirs).sum()


def test_our_own_sampling_moves_landmarks_by_less_than_a_pixel(
    network: LandmarkNetwork, size: int, reference: dict[str, np.ndarray], pictures: list[np.ndarray]
) -> None:
    """Both half pixels together are .3 pixels of the crop in x and in y here; the network follows about so far."""
    seen = network.look([(p, _region(row)) for p, row in zip(pictures, reference["regions"], strict=True)])
    pairs = zip(seen, reference["landmarks"][:, size], reference["world"][:, size], strict=True)
    off = np.array([_off(one, np.zeros(2), *truth) for one, *truth in pairs])
    assert np.median(off[..., 0]) < 0.55
    assert np.percentile(off[..., 0], 90) < 2
    assert np.median(off[..., 1]) < 12
