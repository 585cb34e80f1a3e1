"""What a regressor is: it predicts pose, shape and translation in one forward pass; a fit may move its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from dsr_fit.body.parameters import Parameters
from dsr_fit.observe.batch import Batch
from dsr_fit.optimise.descent import Variables
from dsr_fit.optimise.least_squares import State


@dataclass(frozen=True)
class Estimate:
    """A regressor's bodies of B people, and how sure it is of them."""

    parameters: Parameters
    """In the full image's camera frame."""
    spread: Tensor | None = None
    """(B, 24) expected error of each joint's rotation, radians, root first; None where the regressor doesn't say."""
    joint_error_m: Tensor | None = None
    """(B,) expected mean distance of SMPL's 24 joints from the truth, pelvises on each other, metres; None likewise."""


class Regressor(Protocol):
    """Estimates SMPL parameters of one body, the one whose file it was trained for."""

    @property
    def name(self) -> str:
        """What reports call it: `open`, or the checkpoint's file name."""
        ...

    @property
    def fingerprint(self) -> str:
        """SHA-256 of its weights' file; its name where it has none. What was made with another is of another kind."""
        ...

    @property
    def needs_image(self) -> bool:
        """Whether the observations' pictures matter to it, or only what perception made of them."""
        ...

    @property
    def people_at_once(self) -> int | None:
        """How many people's weights a fit may move together, for memory's sake; None for any number."""
        ...

    @property
    def eft_learning_rate(self) -> float:
        """Adam's step that suits its weights when a fit moves them."""
        ...

    def __call__(self, batch: Batch) -> Estimate:
        """The estimate, without gradient; on the device of the regressor."""
        ...

    def start(self, batch: Batch, estimate: Estimate) -> State:
        """Where a fit of parameters starts from its estimate of that batch."""
        ...

    def movable(self, layers: tuple[str, ...]) -> list[str]:
        """Names of the weights that `variables` moves. Raises UsageError where there are none such."""
        ...

    def variables(self, batch: Batch, layers: tuple[str, ...]) -> Variables:
        """The weights as what a fit moves: a copy for each person, decoded to full-image parameters.

        `layers` are beginnings of parameter names; none means the regressor's own choice. Its own weights stay as
        they are. Batch norm and dropout act as in evaluation, and batch norm's affine weights stay too.
        """
        ...
