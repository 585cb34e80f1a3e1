"""DSR-C: the body stays inside its clothing (DSR, section 3.4). Pulls inwards only."""

from __future__ import annotations

import torch
from torch import Tensor

SMALLEST = 1e-4
"""Floor of a probability: what a body pixel on an impossible label costs is at most -log of this."""


def dsr_c(
    coverage: Tensor,  # (B, S, S) rendered alpha
    seen: Tensor,  # (B, S, S) coverage times the prior's probability of the observed class
    peak: Tensor,  # (B, S, S) coverage times the prior's probability of the point's most likely class
    weights: Tensor,  # (B, S, S) class weight of the observed label, 0 where occluder or unknown
    known: Tensor,  # (B, S, S) 0 where the label is occluder or unknown, else 1
    *,
    excess: bool,
    live: bool,
) -> Tensor:  # (B,)
    """Mean over the covered pixels of -log of the prior's probability for the observed label.

    `excess` measures from the point's most likely label, so that a perfect match costs nothing; without it every
    covered pixel costs something, which shrinks bodies. `live` lets the covered area that it is divided by carry
    gradient; detached, the term shrinks bodies to lower its sum.
    """
    # Where two outlines meet in a pixel, blending may overshoot by a few hundredths: not below zero.
    coverage = coverage.clamp(min=0)
    floor = SMALLEST * coverage + 1e-12
    reference = peak.clamp(min=0) if excess else coverage
    cost = torch.log((reference + floor) / (seen.clamp(min=0) + floor))
    area = (known * coverage).sum((1, 2))
    if not live:
        area = area.detach()
    return (weights * coverage * cost).sum((1, 2)) / area.clamp(min=1e-6)


def dsr_c_released(
    probabilities: Tensor,  # (B, S, S, K) coverage times probability; all zero off the body, the background's too
    classes: Tensor,  # (B, S, S) int64
    weights: Tensor,  # (B, S, S)
) -> Tensor:  # (B,)
    """The released code's loss: class-weighted cross entropy whose softmax runs over the rendered probabilities.

    Kept for comparison. A perfect render still scores 1.27 nats with 8 classes, and off the body each pixel costs a
    constant log K, so that it pulls like a silhouette.
    """
    logp = probabilities - torch.logsumexp(probabilities, -1, keepdim=True)
    cost = -logp.gather(-1, classes[..., None])[..., 0]
    return (weights * cost).sum((1, 2)) / weights.sum((1, 2)).clamp(min=1e-6)
