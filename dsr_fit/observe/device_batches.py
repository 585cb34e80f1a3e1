"""A network on a device that many threads ask at once: rows of different images go through it in one batch."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock

import torch
from torch import Tensor

Network = Callable[..., Sequence[Tensor]]
"""From tensors of B rows, on the device or on a CPU, to tensors of B rows."""

BATCH = 16
"""Rows of a batch on a GPU. All batches are full, with zeros where there are fewer rows: libraries choose kernels, and
with them the order of sums, by the size of a batch, and so each row's answer depends on that row alone."""

AHEAD = 2
"""Batches in the device's hands: one is computed while another is copied, and others gather meanwhile."""


def batched(network: Network, device: str, batch: int | None = None) -> Network:
    """The network, for inputs and outputs on the CPU.

    `batch`: rows that go through it together, whoever asks for them. None: `BATCH` on a GPU; on a CPU, where a batch
    costs as much a row, the network is called as it is.
    """
    if batch is None and device == "cpu":
        return torch.inference_mode()(network)
    return DeviceBatches(network, device, batch or BATCH)


@dataclass(eq=False)
class _Row:
    """One row that a thread asks for."""

    inputs: tuple[Tensor, ...]
    answer: tuple[Batch, int] | Exception | None = None
    """The batch that it is in and its number there; None until it is in one."""

    @cached_property
    def kind(self) -> list[object]:
        """Rows of one kind can share a batch."""
        return [(each.shape, each.dtype) for each in self.inputs]


@dataclass(frozen=True, eq=False)
class Batch:
    """Outputs on their way to the CPU."""

    outputs: Sequence[Tensor]
    copied: torch.cuda.Event | None

    def wait(self) -> None:
        """Until the outputs are there; other threads go on."""
        if self.copied is not None:
            self.copied.synchronize()


class DeviceBatches:
    """Calls a network for several threads, none of them its own: who asks while the device has room launches a batch of
    everything that waits, and the others find their rows done. Nobody waits for a batch to fill."""

    def __init__(self, network: Network, device: str, size: int) -> None:
        self.network, self.device, self.size = network, device, size
        self._waiting: list[_Row] = []
        self._list, self._turn = Lock(), Lock()
        self._launched: deque[Batch] = deque()

    def __call__(self, *inputs: Tensor) -> Sequence[Tensor]:
        """`network(*inputs)` of any number of rows, at least one. Raises what the network raises on one of their
        batches."""
        rows = [_Row(row) for row in zip(*inputs, strict=True)]
        with self._list:
            self._waiting += rows
        for row in rows:
            with self._turn:
                if row.answer is None:
                    self._launch(row)
        found = [self._found(row) for row in rows]
        return [torch.stack(column) for column in zip(*found, strict=True)]

    @staticmethod
    def _found(row: _Row) -> list[Tensor]:
        if isinstance(row.answer, Exception):
            raise row.answer
        assert row.answer is not None
        batch, number = row.answer
        batch.wait()
        return [each[number] for each in batch.outputs]

    @torch.inference_mode()
    def _launch(self, first: _Row) -> None:
        """A batch of `first` and those of its kind that have waited longest, once the device has room for it."""
        rows = [first]
        try:
            while len(self._launched) >= AHEAD:
                self._launched.popleft().wait()
            rows = self._with_others(first)
            columns = zip(*(row.inputs for row in rows), strict=True)
            batch = self._sent_back(self.network(*map(self._gathered, columns)))
            self._launched.append(batch)
            for number, row in enumerate(rows):
                row.answer = batch, number
        except Exception as error:
            for row in rows:
                row.answer = error

    def _with_others(self, first: _Row) -> list[_Row]:
        """The rows of a batch, which wait no longer."""
        with self._list:
            waiting = [row for row in self._waiting if row.answer is None and row is not first]
            rows = [first, *[row for row in waiting if row.kind == first.kind][: self.size - 1]]
            self._waiting = [row for row in waiting if row not in rows]
        return rows

    def _gathered(self, column: Sequence[Tensor]) -> Tensor:
        """(size, ...) on the device: rows, and zeros. From pinned memory, so that nobody waits for the copy."""
        first = column[0]
        whole = torch.empty(self.size, *first.shape, dtype=first.dtype, pin_memory=self.device == "cuda")
        torch.stack(list(column), out=whole[: len(column)])
        whole[len(column) :] = 0
        return whole.to(self.device, non_blocking=True)

    def _sent_back(self, outputs: Sequence[Tensor]) -> Batch:
        """To pinned memory, of which torch keeps a pool."""
        here = [each.to("cpu", non_blocking=True) for each in outputs]
        if self.device != "cuda":
            return Batch(here, None)
        copied = torch.cuda.Event(blocking=True)
        copied.record()
        return Batch(here, copied)
