"""Gradient descent (Adam) on a network's weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dsr_fit.body.body import Body
from dsr_fit.body.parameters import Parameters
from dsr_fit.config import FitConfig, Stage
from dsr_fit.optimise.objective import Objective
from dsr_fit.optimise.progress import Progress, look_every

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class Variables(Protocol):
    """The unknowns."""

    def tensors(self) -> list[Tensor]:
        """Leaf tensors that carry gradient."""
        ...

    def decode(self) -> Parameters:
        """The bodies of their current values."""
        ...


@dataclass(frozen=True)
class ResizedVariables:
    """Unknowns whose bodies are brought to the heights that are known, see `Parameters.resized`."""

    own: Variables
    body: Body
    height: Tensor  # (B,)

    def tensors(self) -> list[Tensor]:
        return self.own.tensors()

    def decode(self) -> Parameters:
        return self.own.decode().resized(self.body, self.height)


class Adam:
    """Adam (Kingma and Ba 2015) with the defaults of `torch.optim`, whose import takes longer than a fit."""

    def __init__(self, tensors: list[Tensor], learning_rate: float) -> None:
        self.tensors, self.learning_rate, self.steps = tensors, learning_rate, 0
        self.mean = [torch.zeros_like(tensor) for tensor in tensors]
        self.square = [torch.zeros_like(tensor) for tensor in tensors]

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor | None]) -> None:
        """Move the tensors; a missing gradient or a part that is not finite counts as zero."""
        self.steps += 1
        rate = self.learning_rate / (1 - BETA1**self.steps)
        unbias = (1 - BETA2**self.steps) ** -0.5
        for tensor, gradient, mean, square in zip(self.tensors, gradients, self.mean, self.square, strict=True):
            if gradient is None:
                continue
            gradient = gradient.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
            mean.lerp_(gradient, 1 - BETA1)
            square.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
            tensor.addcdiv_(mean, (square.sqrt() * unbias).add_(EPSILON), value=-rate)


def descend(
    variables: Variables,
    objective: Objective,
    stage: Stage,
    learning_rate: float,
    config: FitConfig,
    on_iteration: Callable[[int, Tensor], None] | None = None,
    fitted: Callable[[Parameters], Tensor] | None = None,
) -> Progress:
    """Minimise the objective from the variables' current values.

    Nothing in an iteration waits for the device, but for a look at who has stopped: at each one on a CPU, else at every
    `LOOK_EVERY`th.
    `on_iteration` is called with the number and the totals (B,) of each iteration, of people who stopped their last;
    `fitted` returns (B,) bool, true for people who are done.
    """
    optimiser = Adam(variables.tensors(), learning_rate)
    lowest: list[Tensor] = []  # (B,) of each iteration, the energy of the best iterate so far
    totals: list[Tensor] = []  # (B,) its own
    parameters = variables.decode()
    progress = Progress.begin(parameters)
    total, rows = progress.lowest, torch.arange(len(progress.lowest), device=progress.lowest.device)
    every = look_every(total.device)
    for iteration in range(stage.iterations + 1):
        energy = objective.total(objective(parameters.rows(rows)))
        total = torch.where(progress.running(), total.index_copy(0, rows, energy.detach()), total)
        progress.record(parameters, total, iteration)
        lowest.append(progress.lowest)
        totals.append(total)
        if on_iteration is not None:
            on_iteration(iteration, total)
        if fitted is not None:
            done = fitted(parameters) & progress.running()
            progress.best = parameters.detach().where(done, progress.best)  # what `fitted` asks for
            progress.stop(done, "keypoints fitted")
        if iteration >= config.stop_window:
            flat = _flat(lowest[-1 - config.stop_window], lowest[-1], config)
            progress.stop(flat & ~_falling(totals[-config.stop_window :], config), "converged")
        still = progress.running()[rows]
        left = int(still.sum()) if iteration % every == every - 1 else len(rows)
        if iteration == stage.iterations or left == 0:
            break
        # People who stopped add nothing to the loss and are rendered no more; their best iterates are kept.
        optimiser.step(torch.autograd.grad(energy, optimiser.tensors, still.to(energy.dtype), allow_unused=True))
        if left < len(rows):
            rows, objective = rows[still], objective.rows(still)
        parameters = variables.decode()
    progress.stop(progress.running(), "iteration limit")
    return progress


def _flat(before: Tensor, now: Tensor, config: FitConfig) -> Tensor:
    """(B,) bool, energies that have not fallen from one to the other."""
    return before - now < config.stop_improvement * now.abs()


def _falling(totals: Sequence[Tensor], config: FitConfig) -> Tensor:
    """(B,) bool, whether the energies of the later half of these iterations are below those of the earlier half.

    Adam's first steps are as long as its last ones and can raise the energy far above the start's; who comes down from
    there has not converged.
    """
    half = (len(totals) + 1) // 2
    early, late = (torch.stack(list(part)).mean(0) for part in (totals[:half], totals[-half:]))
    return ~_flat(early, late, config)
