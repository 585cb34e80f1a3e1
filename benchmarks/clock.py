"""Times of what runs on a CPU or, asynchronously, on a GPU."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch


def finish(device: str) -> None:
    """Wait until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def least(
    function: Callable[[], object], device: str = "cpu", *, repeats: int = 60, seconds: float = math.inf
) -> float:
    """Milliseconds of the fastest of `repeats` calls, or of those that `seconds` leave time for; one at least, after
    one that warms up."""
    function()
    finish(device)
    times, end = [], time.perf_counter() + seconds
    while not times or (len(times) < repeats and time.perf_counter() < end):
        started = time.perf_counter()
        function()
        finish(device)
        times.append(time.perf_counter() - started)
    return 1000 * min(times)
