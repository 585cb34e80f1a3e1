"""The DSR terms' three numbers per pixel, from a render's channels.

On a CPU a numba kernel picks them and scatters their gradients in one pass; `read_channels_reference` is the readable
twin, and what runs on other devices and types.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from dsr_fit.compilation import kernel
from dsr_fit.threads import over_images


def read_channels_reference(attributes: Tensor, classes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Observed, most likely, and minimally clothed probability of each pixel, times its coverage; (B, S, S) each.

    `attributes` (B, S, S, K + 1): K class probabilities and the summed probability of the image's valid MC labels;
    `classes` (B, S, S) int64: the observed class.
    """
    probabilities = attributes[..., :-1]
    return probabilities.gather(-1, classes[..., None])[..., 0], probabilities.amax(-1), attributes[..., -1]


def read_channels(attributes: Tensor, classes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`read_channels_reference` by the fastest way the device and type have."""
    if attributes.device.type != "cpu" or attributes.dtype != torch.float32:
        return read_channels_reference(attributes, classes)
    return _ReadChannels.apply(attributes, classes)


class _ReadChannels(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, attributes: Tensor, classes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        attributes = attributes.detach().contiguous()
        maps = attributes.new_empty(3, *classes.shape)
        peaks = torch.empty_like(classes)
        channels = attributes.shape[-1]
        arrays = (
            attributes.view(-1, channels).numpy(), classes.view(-1).numpy(), maps.view(3, -1).numpy(),
            peaks.view(-1).numpy(),
        )  # fmt: skip
        size = classes[0].numel()
        over_images(lambda start, stop: _read(start * size, stop * size, *arrays), len(classes))
        ctx.save_for_backward(classes, peaks)
        ctx.channels = channels
        seen, peak, minimal = maps
        return seen, peak, minimal

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        classes, peaks = ctx.saved_tensors
        d_seen, d_peak, d_minimal = (grad.contiguous().view(-1).numpy() for grad in grads)
        gradient = grads[0].new_empty(*classes.shape, ctx.channels)
        arrays = (
            classes.view(-1).numpy(), peaks.view(-1).numpy(),
            d_seen, d_peak, d_minimal, gradient.view(-1, ctx.channels).numpy(),
        )  # fmt: skip
        size = classes[0].numel()
        over_images(lambda start, stop: _scatter(start * size, stop * size, *arrays), len(classes))
        return gradient, None


@kernel
def _read(start, stop, attributes, classes, maps, peaks):
    last = attributes.shape[1] - 1
    for pixel in range(start, stop):
        best, value = 0, attributes[pixel, 0]
        for k in range(1, last):
            if attributes[pixel, k] > value:
                best, value = k, attributes[pixel, k]
        peaks[pixel] = best
        maps[0, pixel] = attributes[pixel, classes[pixel]]
        maps[1, pixel] = value
        maps[2, pixel] = attributes[pixel, last]


@kernel
def _scatter(start, stop, classes, peaks, d_seen, d_peak, d_minimal, gradient):
    last = gradient.shape[1] - 1
    for pixel in range(start, stop):
        for k in range(last):
            gradient[pixel, k] = np.float32(0)
        gradient[pixel, last] = d_minimal[pixel]
        gradient[pixel, classes[pixel]] += d_seen[pixel]
        gradient[pixel, peaks[pixel]] += d_peak[pixel]
