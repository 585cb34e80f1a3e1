"""DSR-MC: the rendered body matches the minimally clothed regions (DSR, section 3.3). And the silhouette baseline."""

from __future__ import annotations

from torch import Tensor


def dsr_mc(
    probability: Tensor,  # (B, S, S) coverage times the prior's probability of the image's valid MC labels
    mask: Tensor,  # (B, S, S) 1 where the observed label is one of them
    known: Tensor,  # (B, S, S) 0 where the label is occluder or unknown, else 1
) -> Tensor:  # (B,)
    """One minus the soft intersection over union; 0 where the image shows no valid MC label."""
    matched = known * probability
    intersection = (matched * mask).sum((1, 2))
    area = (known * mask).sum((1, 2))
    union = matched.sum((1, 2)) + area - intersection
    return (1 - intersection / union.clamp(min=1e-6)) * (area > 0)


def dsr_mc_distance(
    probability: Tensor,  # (B, S, S) as in `dsr_mc`
    distance: Tensor,  # (B, S, S) pixels to the nearest pixel of the mask, 0 inside it
    known: Tensor,  # (B, S, S)
    valid: Tensor,  # (B,) 1 where the image shows a valid MC label
) -> Tensor:  # (B,)
    """The released code's distance form, `DistM`: pulls from far away, where masks do not overlap yet."""
    matched = known * probability
    return valid * (matched * distance).sum((1, 2)) / (matched.sum((1, 2)) ** 1.5 + 1e-6)


def silhouette(coverage: Tensor, person: Tensor, known: Tensor) -> Tensor:
    """The baseline, 1 - soft IoU of the rendered body and the person's mask, (B, S, S) each -> (B,).

    It fills the clothed outline with body, and so inflates the body.
    """
    return dsr_mc(coverage, person, known)
