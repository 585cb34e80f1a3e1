"""Networks that threads ask together, as on a GPU: shown on the CPU, by the same code."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dsr_fit.io.images import read_image
from dsr_fit.observation import Observation
from dsr_fit.observe.detector import PersonDetector
from dsr_fit.observe.device_batches import DeviceBatches, batched
from dsr_fit.observe.landmarks import LandmarkNetwork, Region
from dsr_fit.observe.network_parser import NetworkParser
from dsr_fit.observe.perception import Perception
from dsr_fit.threads import made_once

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "person.png"
SIZE = 3


class _Network:
    """Squares and sums; keeps the batches it was given, and waits in the first until it is told."""

    def __init__(self, *, waits: bool = False) -> None:
        self.batches: list[Tensor] = []
        self.entered, self.go_on = threading.Event(), threading.Event()
        if not waits:
            self.go_on.set()

    def __call__(self, numbers: Tensor, other: Tensor) -> Sequence[Tensor]:
        self.batches.append(numbers.clone())
        self.entered.set()
        assert self.go_on.wait(60)
        if (numbers < 0).any():
            raise ValueError("no negative numbers")
        return numbers.square(), numbers.flatten(1).sum(1) + other


def _asked(ask: DeviceBatches, *numbers: float) -> tuple[list[float], list[float]]:
    rows = torch.tensor(numbers)[:, None].expand(-1, 2)
    squares, sums = ask(rows, torch.ones(len(numbers)))
    return squares[:, 0].tolist(), sums.tolist()


def test_a_batch_is_always_full() -> None:
    network = _Network()
    ask = DeviceBatches(network, "cpu", SIZE)
    assert _asked(ask, 2) == ([4], [5])
    assert _asked(ask, 1, 2, 3, 4, 5) == ([1, 4, 9, 16, 25], [3, 5, 7, 9, 11])
    assert [batch[:, 0].tolist() for batch in network.batches] == [[2, 0, 0], [1, 2, 3], [4, 5, 0]]


def test_what_threads_ask_meanwhile_shares_a_batch_with_its_kind() -> None:
    network = _Network(waits=True)
    ask = DeviceBatches(network, "cpu", SIZE)
    with ThreadPoolExecutor(6) as pool:
        first = pool.submit(_asked, ask, 1)
        assert network.entered.wait(60)
        others = [pool.submit(_asked, ask, number) for number in (2, 3, 4)]
        wide = pool.submit(ask, torch.full((1, 5), 7.0), torch.zeros(1))
        while len(ask._waiting) < 4:
            pass
        network.go_on.set()
        assert [one.result()[0] for one in (first, *others)] == [[1], [4], [9], [16]]
        assert wide.result()[1].tolist() == [35]
    shapes = sorted(tuple(batch.shape) for batch in network.batches)
    assert shapes == [(SIZE, 2), (SIZE, 2), (SIZE, 5)]


def test_an_error_is_that_of_its_batch_alone() -> None:
    ask = DeviceBatches(_Network(), "cpu", SIZE)
    with pytest.raises(ValueError, match="no negative"):
        _asked(ask, 1, 2, 3, -1)
    assert _asked(ask, 2) == ([4], [5])


def test_on_a_cpu_a_network_is_called_as_it_is() -> None:
    network = _Network()
    squares, _ = batched(network, "cpu")(torch.ones(5, 2), torch.ones(5))
    assert squares.shape == (5, 2)
    assert len(network.batches) == 1
    assert isinstance(batched(network, "cpu", SIZE), DeviceBatches)


def test_threads_make_a_thing_once() -> None:
    made = []

    class Thing:
        @made_once
        def part(self) -> object:
            made.append(threading.Event().wait(0.05))
            return object()

    thing = Thing()
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(lambda _: thing.part, range(4)))) == 1
    assert len(made) == 1


# --- The networks ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return read_image(EXAMPLE)[0]


@pytest.fixture(scope="module")
def together() -> Perception:
    """Detector and parser as on a GPU, in batches of three."""
    return Perception(PersonDetector(batch=SIZE), NetworkParser(batch=SIZE))


def test_a_look_is_the_same_alone_and_at_any_place_of_a_batch(photo: np.ndarray) -> None:
    """To the bit: so much is asked of a batch of one size."""
    network = LandmarkNetwork(batch=SIZE)
    height, width = photo.shape[:2]
    regions = [
        Region((x * width, 0.5 * height), side * height, 0.2 * x) for x, side in ((0.5, 1), (0.3, 0.5), (0.8, 2))
    ]
    alone = [network.look([(photo, region)])[0] for region in regions]
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0, 0)):
        for number, seen in zip(order, network.look([(photo, regions[n]) for n in order]), strict=True):
            expected = alone[number]
            for name in ("points", "world", "presence", "mask", "pose_features"):
                np.testing.assert_array_equal(getattr(seen, name), getattr(expected, name), name)
            assert seen.features is not None
            assert expected.features is not None
            assert all(map(torch.equal, seen.features, expected.features))


def _same(first: Observation, second: Observation) -> bool:
    found, other = first.detection, second.detection
    names = ("keypoints", "world_landmarks", "person_mask", "features")
    same = [np.array_equal(getattr(found, name), getattr(other, name)) for name in names]
    return all(same) and np.array_equal(first.labels, second.labels)


def test_pictures_seen_by_several_threads_are_seen_as_by_one(together: Perception, photo: np.ndarray) -> None:
    """To the bit, and nearly as the CPU's own path sees them: other sums, since its batches are smaller."""
    shapes = (photo, np.ascontiguousarray(photo[:, ::-1]), np.concatenate([photo, photo[:, ::-1]], 1))
    expected = [list(together.observe_each(one)) for one in shapes]
    assert [len(people) for people in expected] == [1, 1, 2]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda one: list(together.observe_each(one)), [*shapes, *shapes]))
    for people, others in zip([*expected, *expected], found, strict=True):
        for seen, other in zip(people, others, strict=True):
            assert isinstance(seen, Observation)
            assert isinstance(other, Observation)
            assert _same(seen, other)
    (plain,), (seen,) = Perception().observe_all(photo), expected[0]
    assert isinstance(plain, Observation)
    assert isinstance(seen, Observation)
    np.testing.assert_allclose(plain.detection.keypoints, seen.detection.keypoints, atol=0.05)
    assert (plain.labels == seen.labels).mean() > 0.999


def test_the_papers_protocol_goes_the_same_way(together: Perception, photo: np.ndarray) -> None:
    seen = together.observe(photo)
    plain, shared = (NetworkParser(protocol="paper", batch=batch).parse(photo, seen.detection) for batch in (None, 2))
    assert (plain == shared).mean() > 0.999
