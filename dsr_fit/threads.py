"""Images of a batch in parallel: our kernels release the GIL, so plain threads do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

import torch

T = TypeVar("T")


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="dsr-fit")


def chunks_of(batch: int) -> list[tuple[int, int]]:
    """Ranges of images, one for each of torch's threads."""
    threads = max(1, min(torch.get_num_threads(), batch))
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
