"""Images of a batch in parallel, in plain threads: our kernels release the GIL."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, cached_property
from threading import RLock
from typing import Any, TypeVar

import torch

T = TypeVar("T")

_kernel_threads: ContextVar[int | None] = ContextVar("kernel_threads", default=None)
"""Threads of our kernels where torch has but one; None: as many as torch has."""


class made_once(cached_property[T]):
    """`functools.cached_property` of an object that several threads use: the first makes it, the others wait."""

    _lock = RLock()

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        with self._lock:
            return super().__get__(instance, owner)


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Torch's own operations on one thread; our kernels, which work image by image, keep as many as before.

    Torch cuts a sum into as many parts as it has threads, or not, by the size of the batch. On one thread a person's
    sums are the same alone and in any batch.
    """
    before = torch.get_num_threads()
    token = _kernel_threads.set(_kernel_threads.get() or before)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        _kernel_threads.reset(token)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="dsr-fit")


def chunks_of(batch: int) -> list[tuple[int, int]]:
    """Ranges of images, one a thread."""
    threads = max(1, min(_kernel_threads.get() or torch.get_num_threads(), batch))
    bounds = [batch * k // threads for k in range(threads + 1)]
    return list(zip(bounds[:-1], bounds[1:], strict=True))


def in_threads(function: Callable[..., T], *arguments: Sequence[Any]) -> list[T]:
    """function(*arguments) over equally long lists of arguments."""
    if len(arguments[0]) == 1:
        return [function(*(a[0] for a in arguments))]
    return list(_pool(len(arguments[0])).map(function, *arguments))


def over_images(kernel: Callable[[int, int], T], batch: int) -> list[T]:
    """kernel(start, stop) over the images of a batch, each range in a thread of its own."""
    return in_threads(kernel, *zip(*chunks_of(batch), strict=True))
