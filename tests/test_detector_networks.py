"""The detector's networks: TensorFlow's padding and doubling, weights, shapes, batches, precision, and MoveNet's own
decoding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dsr_fit.assets import shipped
from dsr_fit.errors import InputError
from dsr_fit.io.images import read_image
from dsr_fit.observe.blazepose import FULL, HEAVY, INPUT, LANDMARKS, BlazePose, Size
from dsr_fit.observe.finder import PersonFinder
from dsr_fit.observe.landmarks import LandmarkNetwork, Region
from dsr_fit.observe.layers import Convolution, doubled, with_weights
from dsr_fit.observe.movenet import KEYPOINTS, STRIDE, MoveNet

DATA = Path(__file__).parent / "data" / "detector"
FINDER = "priors/detector/finder.safetensors"


@pytest.fixture(scope="module")
def movenet() -> MoveNet:
    return with_weights(MoveNet, shipped(FINDER))


@pytest.fixture(scope="module")
def crowd() -> np.ndarray:
    """(256, 608, 3): four people side by side."""
    return read_image(DATA / "crowd.jpg")[0]


def _noise(batch: int, height: int, width: int) -> Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)


# --- Layers ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "side"), [(3, 3), (3, 6), (5, 5), (5, 7)])
def test_even_padding_is_tensorflows_same_where_the_stride_is_1(size: int, side: int) -> None:
    _compare(Convolution(2, 3, size, activation=None, same=True), side, before=size // 2)


@pytest.mark.parametrize("side", [4, 6, 10])
def test_same_pads_the_end_of_an_even_input(side: int) -> None:
    """TensorFlow: in all (out - 1) x 2 + 3 - side = 1 of padding, of which the smaller half, none, comes first."""
    _compare(Convolution(2, 3, 3, 2, activation=None, same=True), side, before=0)
    _compare(Convolution(2, 3, 3, 2, activation=None), side, before=1)


def _compare(layer: Convolution, side: int, before: int) -> None:
    """With sums by hand, over an input with so many zeros before it and as many as are needed behind."""
    conv = layer.conv
    x = _noise(1, side, side)[:, :2].double()
    layer.double()
    size, stride = conv.kernel_size[0], conv.stride[0]
    wide = np.zeros((2, side + 2 * size, side + 2 * size))
    wide[:, before : before + side, before : before + side] = x[0]
    count = -(-side // stride)
    expected = np.zeros((3, count, count))
    for row in range(count):
        for column in range(count):
            patch = wide[:, stride * row : stride * row + size, stride * column : stride * column + size]
            expected[:, row, column] = (conv.weight.detach().numpy() * patch).sum((1, 2, 3))
    assert conv.bias is not None
    expected += conv.bias.detach().numpy()[:, None, None]
    np.testing.assert_allclose(layer(x)[0].detach().numpy(), expected, atol=1e-12)


def test_doubling_counts_from_corners() -> None:
    """Centres of the doubled pixels are at quarters of the old ones: 3/4 of the nearer and 1/4 of the other; the first
    and the last, which have no other, are repeated."""
    line = torch.tensor([0.0, 4.0, 12.0])
    expected = torch.tensor([0.0, 1.0, 3.0, 6.0, 10.0, 12.0])
    torch.testing.assert_close(doubled(line[None, None, None].expand(1, 1, 3, 3))[0, 0, 2], expected)
    torch.testing.assert_close(doubled(line[None, None, :, None].expand(1, 1, 3, 3))[0, 0, :, 2], expected)


# --- Weights --------------------------------------------------------------------------------------


def _refused(make: Callable[[], nn.Module], path: Path) -> str:
    with pytest.raises(InputError) as caught:
        with_weights(make, path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    return line


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no weights", (8).to_bytes(8, "little") + b"{}      "])
def test_damaged_weights_are_one_line(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    _refused(MoveNet, path)


def test_cut_and_missing_files_are_one_line(tmp_path: Path) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(shipped(FINDER).read_bytes()[:100_000])
    assert "not readable weights" in _refused(MoveNet, cut)
    assert "not readable weights" in _refused(MoveNet, tmp_path / "missing.safetensors")


def test_weights_of_another_network_are_one_line(tmp_path: Path) -> None:
    assert "not the weights of MoveNet" in _refused(MoveNet, shipped("priors/detector/full.safetensors"))
    assert "not the weights of BlazePose" in _refused(
        lambda: BlazePose(HEAVY), shipped("priors/detector/full.safetensors")
    )
    weights = load_file(shipped(FINDER))
    name = "deepest.conv.bias"
    save_file({**weights, name: weights[name][:-1].clone()}, tmp_path / "shape.safetensors")
    assert "(1 arrays differ)" in _refused(MoveNet, tmp_path / "shape.safetensors")
    del weights[name]
    save_file(weights, tmp_path / "fewer.safetensors")
    assert "(1 arrays differ)" in _refused(MoveNet, tmp_path / "fewer.safetensors")


# --- Shapes, batches, precision -------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("batch", "height", "width"), [(1, 32, 32), (3, 64, 32), (2, 96, 160)])
def test_movenet_takes_sides_in_multiples_of_32(batch: int, height: int, width: int, dtype: torch.dtype) -> None:
    network = with_weights(MoveNet, shipped(FINDER)).to(dtype)
    with torch.inference_mode():
        maps = network(_noise(batch, height, width).to(dtype))
    grid = (height // STRIDE, width // STRIDE)
    assert [tuple(each.shape) for each in maps] == [
        (batch, *grid),
        (batch, 2, *grid),
        (batch, 2, *grid),
        (batch, KEYPOINTS, *grid),
        (batch, KEYPOINTS, 2, *grid),
        (batch, KEYPOINTS, 2, *grid),
    ]
    assert all(each.dtype == dtype and each.isfinite().all() for each in maps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("name", "size"), [("heavy", HEAVY), ("full", FULL)])
def test_blazepose_has_landmarks_for_each_crop(name: str, size: Size, dtype: torch.dtype) -> None:
    network = with_weights(lambda: BlazePose(size), shipped(f"priors/detector/{name}.safetensors")).to(dtype)
    with torch.inference_mode():
        seen = network(_noise(2, INPUT, INPUT).abs().to(dtype))
    assert [tuple(each.shape) for each in seen] == [
        (2, LANDMARKS, 5),
        (2,),
        (2, INPUT, INPUT),
        (2, LANDMARKS, INPUT // 4, INPUT // 4),
        (2, LANDMARKS, 3),
        (2, 1152),
    ]
    assert all(each.dtype == dtype and each.isfinite().all() for each in seen)


@pytest.mark.parametrize(("dtype", "pixels"), [(torch.float16, 0.5), (torch.bfloat16, 4.0)])
def test_half_precision_moves_landmarks_little(dtype: torch.dtype, pixels: float, crowd: np.ndarray) -> None:
    """Weights are stored in half precision, so only activations are rounded: to 11 bits, or to 8."""
    network = LandmarkNetwork("heavy")
    person = (crowd, Region((312.0, 120.0), 250.0, 0.0))
    (exact,) = network.look([person])
    network.network.to(dtype)
    (rounded,) = network.look([person])
    assert exact.presence > 0.5
    off = np.linalg.norm(exact.points[:, :2] - rounded.points[:, :2], axis=1) * INPUT / 250
    assert np.median(off) < pixels


def test_a_picture_among_others_is_the_same(movenet: MoveNet) -> None:
    """Not always to the bit: oneDNN splits a batch between threads in another way (it is to the bit with one thread on
    AVX2), and sums in another order differ in the last digits of 32 bits. The finder's batches are of one picture."""
    pictures = _noise(4, 64, 96)
    with torch.inference_mode():
        together = movenet(pictures)
        for number in range(4):
            alone = movenet(pictures[number : number + 1])
            for one, other in zip(together, alone, strict=True):
                torch.testing.assert_close(one[number], other[0], rtol=0, atol=1e-3)


def test_a_person_among_others_has_the_same_landmarks(crowd: np.ndarray) -> None:
    """To the bit on a CPU, where each has a forward pass of its own; a batch would change the last digit."""
    network = LandmarkNetwork("full")
    people = [(crowd, Region((x, 120.0), 250.0, 0.0)) for x in (90.0, 160.0, 312.0, 490.0)]
    for together, person in zip(network.look(people), people, strict=True):
        (alone,) = network.look([person])
        assert together.presence == alone.presence
        for one, other in ((together.points, alone.points), (together.world, alone.world), (together.mask, alone.mask)):
            np.testing.assert_array_equal(one, other)


# --- MoveNet's own decoding -----------------------------------------------------------------------


def test_the_people_are_the_originals(crowd: np.ndarray) -> None:
    """`tools/movenet_reference.py` ran the original, with its own decoding; 1e-3 is a quarter of a pixel's share."""
    rows = np.load(DATA / "crowd.npy", allow_pickle=False)
    height, width = crowd.shape[:2]
    expected = sorted((row for row in rows if row[55] > 0.1), key=lambda row: -row[55])
    found = sorted(PersonFinder().look(crowd, [(0, 0, width, height)], width), key=lambda one: -one.score)
    assert len(expected) == 4
    assert len(found) >= 4
    assert all(one.score < 0.1 for one in found[4:])
    for one, row in zip(found[:4], expected, strict=True):
        y, x, score = row[:51].reshape(KEYPOINTS, 3).T
        np.testing.assert_allclose(one.keypoints[:, :2] / (width, height), np.column_stack([x, y]), atol=1e-3)
        np.testing.assert_allclose(one.keypoints[:, 2], score, atol=1e-2)
        top, left, bottom, right = row[51:55] * (height, width, height, width)
        np.testing.assert_allclose(one.box, (left, top, right - left, bottom - top), atol=0.5)
        assert one.score == pytest.approx(row[55], abs=1e-2)
