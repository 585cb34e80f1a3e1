"""DSR-MC, DSR-C and the silhouette in one pass over the pixels, with their gradients by hand.

In torch the three are some fifty passes over maps in memory, each way, and cost more than the render. On a CPU two
numba kernels do it, which take logarithms where there is body alone; `pixel_terms_reference` is the readable twin, and
what runs on other devices and types.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from dsr_fit.compilation import kernel
from dsr_fit.terms.channels import read_channels_reference
from dsr_fit.terms.dsr_c import SMALLEST, dsr_c
from dsr_fit.terms.dsr_mc import dsr_mc, silhouette
from dsr_fit.threads import over_images

SUMS = 8
"""Of `_measure`: matched, inside and observed of DSR-MC, the same of the silhouette, cost and area of DSR-C."""


class Observed(NamedTuple):
    """The targets at each pixel, (B, S, S) each; see `dsr_fit.observe.batch.Targets`."""

    classes: Tensor  # int64
    known: Tensor
    weights: Tensor
    person: Tensor
    mc_mask: Tensor


class PixelTerms(NamedTuple):
    """(B,) each."""

    dsr_mc: Tensor
    dsr_c: Tensor
    silhouette: Tensor


def pixel_terms_reference(
    alpha: Tensor, attributes: Tensor, observed: Observed, *, excess: bool, live: bool
) -> PixelTerms:
    """The terms of a render: `alpha` (B, S, S), `attributes` (B, S, S, K + 1) as `read_channels` takes them.

    See `dsr_mc`, `dsr_c` for `excess` and `live`, and `silhouette`.
    """
    seen, peak, minimal = read_channels_reference(attributes, observed.classes)
    return PixelTerms(
        dsr_mc(minimal, observed.mc_mask, observed.known),
        dsr_c(alpha, seen, peak, observed.weights, observed.known, excess=excess, live=live),
        silhouette(alpha, observed.person, observed.known),
    )


def pixel_terms(alpha: Tensor, attributes: Tensor, observed: Observed, *, excess: bool, live: bool) -> PixelTerms:
    """`pixel_terms_reference` by the fastest way the device and type have."""
    if alpha.device.type != "cpu" or alpha.dtype != torch.float32:
        return pixel_terms_reference(alpha, attributes, observed, excess=excess, live=live)
    return PixelTerms(*_PixelTerms.apply(alpha, attributes, observed, excess, live))


class _PixelTerms(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, alpha: Tensor, attributes: Tensor, observed: Observed, excess: bool, live: bool
    ) -> tuple[Tensor, ...]:
        count = len(alpha)
        maps = [_flat(alpha), _flat(attributes), *map(_flat, observed)]
        peaks, sums = np.empty(maps[0].shape, np.uint8), np.empty((count, SUMS))
        over_images(lambda start, stop: _measure(start, stop, *maps, excess, peaks, sums), count)
        ctx.saved, ctx.shape = (maps, peaks, sums, excess, live), attributes.shape
        area = np.maximum(sums[:, 7], 1e-6)
        energies = _one_less_iou(sums[:, 0:3]), sums[:, 6] / area, _one_less_iou(sums[:, 3:6])
        return tuple(torch.from_numpy(each.astype(np.float32)) for each in energies)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        maps, peaks, sums, excess, live = ctx.saved
        d_mc, d_c, d_silhouette = (grad.double().numpy() for grad in grads)
        area = np.maximum(sums[:, 7], 1e-6)
        by_area = -d_c * sums[:, 6] / area**2 * (sums[:, 7] > 1e-6) if live else np.zeros_like(d_c)
        slopes = np.column_stack([
            *_slopes_of_iou(sums[:, 0:3], d_mc), *_slopes_of_iou(sums[:, 3:6], d_silhouette), d_c / area, by_area,
        ])  # fmt: skip
        d_alpha, d_attributes = np.empty_like(maps[0]), np.zeros(maps[1].shape, np.float32)
        over_images(
            lambda start, stop: _pull(start, stop, *maps, excess, peaks, slopes, d_alpha, d_attributes), len(peaks)
        )
        return (
            torch.from_numpy(d_alpha).view(ctx.shape[:-1]), torch.from_numpy(d_attributes).view(ctx.shape),
            None, None, None,
        )  # fmt: skip


def _flat(maps: Tensor) -> np.ndarray:
    """(B, S, S[, C]) -> the same memory as (B, S * S[, C])."""
    return maps.detach().contiguous().flatten(1, 2).numpy()


def _one_less_iou(sums: np.ndarray) -> np.ndarray:
    """(B,) of sums (B, 3): matched, inside and observed."""
    matched, inside, observed = sums.T
    return (1 - inside / np.maximum(matched + observed - inside, 1e-6)) * (observed > 0)


def _slopes_of_iou(sums: np.ndarray, gradient: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Its gradients by `matched` and by `inside`, times `gradient` (B,)."""
    matched, inside, observed = sums.T
    union = matched + observed - inside
    free, union = union > 1e-6, np.maximum(union, 1e-6)
    gradient = gradient * (observed > 0)
    by_union = gradient * inside / union**2 * free
    return by_union, -gradient / union - by_union


@kernel
def _measure(start, stop, alpha, attributes, classes, known, weights, person, mc_mask, excess, peaks, sums):
    last = attributes.shape[2] - 1
    for b in range(start, stop):
        mc_matched = mc_inside = mc_observed = matched = inside = observed = cost = area = 0.0
        for i in range(alpha.shape[1]):
            k = float(known[b, i])
            c, minimal = float(alpha[b, i]), float(attributes[b, i, last])
            mc_matched += k * minimal
            mc_inside += k * minimal * mc_mask[b, i]
            mc_observed += k * mc_mask[b, i]
            matched += k * c
            inside += k * c * person[b, i]
            observed += k * person[b, i]
            peaks[b, i] = 0
            if c <= 0.0:
                continue
            best, peak = 0, attributes[b, i, 0]
            for n in range(1, last):
                if attributes[b, i, n] > peak:
                    best, peak = n, attributes[b, i, n]
            peaks[b, i] = best
            area += k * c
            if weights[b, i] > 0:
                floor = SMALLEST * c + 1e-12
                reference = max(float(peak), 0.0) if excess else c
                seen = max(float(attributes[b, i, classes[b, i]]), 0.0)
                cost += weights[b, i] * c * math.log((reference + floor) / (seen + floor))
        sums[b, 0], sums[b, 1], sums[b, 2] = mc_matched, mc_inside, mc_observed
        sums[b, 3], sums[b, 4], sums[b, 5] = matched, inside, observed
        sums[b, 6], sums[b, 7] = cost, area


# Of empty pixels, the most by far, the attributes have no gradient: nothing that they came from could move.
@kernel
def _pull(
    start, stop, alpha, attributes, classes, known, weights, person, mc_mask, excess, peaks, slopes, d_alpha,
    d_attributes,
):  # fmt: skip
    last = attributes.shape[2] - 1
    for b in range(start, stop):
        by_mc_matched, by_mc_inside, by_matched, by_inside, by_cost, by_area = slopes[b]
        for i in range(alpha.shape[1]):
            k = float(known[b, i])
            pulled = k * (by_matched + by_inside * person[b, i])
            c = float(alpha[b, i])
            if c >= 0.0:
                pulled += k * by_area
            if c != 0.0:
                d_attributes[b, i, last] = k * (by_mc_matched + by_mc_inside * mc_mask[b, i])
            if c > 0.0 and weights[b, i] > 0:
                floor = SMALLEST * c + 1e-12
                peak, seen = float(attributes[b, i, peaks[b, i]]), float(attributes[b, i, classes[b, i]])
                above = 1 / ((max(peak, 0.0) if excess else c) + floor)
                below = 1 / (max(seen, 0.0) + floor)
                share = by_cost * weights[b, i]
                slope = SMALLEST * (above - below) + (0.0 if excess else above)
                pulled += share * (math.log(below / above) + c * slope)
                if excess and peak >= 0.0:
                    d_attributes[b, i, peaks[b, i]] += share * c * above
                if seen >= 0.0:
                    d_attributes[b, i, classes[b, i]] -= share * c * below
            d_alpha[b, i] = pulled
