"""How far a stage has come for each person of a batch: the best iterate, and why it stopped."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dsr_fit.body.parameters import Parameters

LOOK_EVERY = 10
"""Iterations on a GPU from one look at who has stopped to the next: a look waits for the device. In between, people who
have stopped are rendered, to no effect."""

REASONS = ("", "converged", "keypoints fitted", "diverged", "iteration limit")
"""Why a person stopped; the first stands for not yet."""


@dataclass
class Progress:
    """The state of a stage for B people. The result is the iterate of lowest energy, not the last one."""

    best: Parameters
    lowest: Tensor  # (B,) energy of the best iterate
    iterations: Tensor  # (B,) int64 steps until it stopped
    stopped: Tensor  # (B,) int8 place in `REASONS`

    @property
    def stop_reason(self) -> list[str]:
        """One of `REASONS` for each person."""
        return [REASONS[place] for place in self.stopped.tolist()]

    def running(self) -> Tensor:
        """(B,) bool."""
        return self.stopped == 0

    def stop(self, which: Tensor, reason: str) -> None:
        """Stop those of `which` (B,) bool who still run."""
        self.stopped = self.stopped.masked_fill(which & self.running(), REASONS.index(reason))

    @classmethod
    def begin(cls, parameters: Parameters) -> Progress:
        """Of people who stand at these parameters, whose energy is not known yet."""
        betas = parameters.betas.detach()
        return cls(
            best=parameters.map(lambda tensor: tensor.detach().clone()),
            lowest=torch.full_like(betas[:, 0], torch.inf),
            iterations=torch.zeros(len(betas), dtype=torch.int64, device=betas.device),
            stopped=torch.zeros(len(betas), dtype=torch.int8, device=betas.device),
        )

    def record(self, parameters: Parameters, total: Tensor, iteration: int) -> None:
        """Keep each person's best finite iterate; one whose energy or parameters are no longer finite has diverged."""
        running = self.running()
        finite = total.isfinite()
        for tensor in parameters.tensors():
            finite = finite & tensor.detach().isfinite().all(1)
        better = running & finite & (total < self.lowest)
        self.best = parameters.detach().where(better, self.best)
        self.lowest = torch.where(better, total, self.lowest)
        self.iterations = self.iterations.masked_fill(running, iteration)
        self.stop(~finite, "diverged")


def look_every(device: torch.device) -> int:
    """Iterations from one look at who has stopped to the next: on a CPU, which never waits, one."""
    return 1 if device.type == "cpu" else LOOK_EVERY
