"""The interface of regressors: one forward pass predicts pose, shape and translation; EFT fine-tunes the weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from dsr_fit.body.parameters import Parameters
from dsr_fit.errors import UsageError
from dsr_fit.observe.batch import Batch
from dsr_fit.optimise.descent import Variables
from dsr_fit.optimise.least_squares import State


@dataclass(frozen=True)
class Estimate:
    """A regressor's bodies of B people, and their expected errors."""

    parameters: Parameters
    """In the full image's camera frame."""
    spread: Tensor | None = None
    """(B, 24) expected error of each joint's rotation, radians, root first; None where not predicted."""
    joint_error_m: Tensor | None = None
    """(B,) expected mean distance of SMPL's 24 joints from the truth, pelvises on each other, metres; None likewise."""


def with_prefixes(names: list[str], layers: tuple[str, ...], regressor: str, known: Iterable[str]) -> list[str]:
    """Names of weights with one of the prefixes `layers`. Raises UsageError, listing `known`, for a prefix of none."""
    for layer in layers:
        if not any(name.startswith(layer) for name in names):
            raise UsageError(f"{regressor}: no weights that may move begin with {layer!r}; known: {', '.join(known)}")
    return [name for name in names if name.startswith(layers)]


class Regressor(Protocol):
    """Estimates SMPL parameters of one body, the one whose file it was trained for."""

    @property
    def name(self) -> str:
        """In reports: `open`, or the checkpoint's file name."""
        ...

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the weights' file; the name where there is none. Results of different ones are not mixed."""
        ...

    @property
    def needs_image(self) -> bool:
        """Whether it takes the image, or only keypoints, landmarks and label map."""
        ...

    @property
    def people_at_once(self) -> int | None:
        """How many people's weights are fine-tuned together, limited by memory; None for any number."""
        ...

    @property
    def eft_learning_rate(self) -> float:
        """Adam's learning rate for fine-tuning."""
        ...

    def __call__(self, batch: Batch) -> Estimate:
        """The estimate, without gradient, on the regressor's device."""
        ...

    def start(self, batch: Batch, estimate: Estimate) -> State:
        """Where least squares starts, from the estimate of that batch."""
        ...

    def movable(self, layers: tuple[str, ...]) -> list[str]:
        """Names of the weights that `variables` fine-tunes. Raises UsageError where there are none."""
        ...

    def variables(self, batch: Batch, layers: tuple[str, ...]) -> Variables:
        """A copy of the weights for each person, decoded to full-image parameters.

        `layers` are prefixes of parameter names; none means the regressor's default. The regressor itself stays
        unchanged. Batch norm and dropout are in evaluation mode, and batch norm's affine weights are not fine-tuned.
        """
        ...
