"""One stage of gradient descent (Adam) on SMPL parameters or network weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from dsr_fit.body.parameters import Parameters
from dsr_fit.config import FitConfig, Stage
from dsr_fit.optimise.objective import Objective

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8

LOOK_EVERY = 10
"""Iterations on a GPU from one look at who has stopped to the next: a look waits for the device. In between, people who
have stopped are rendered, to no effect."""

REASONS = ("", "converged", "keypoints fitted", "diverged", "iteration limit")
"""Why a person stopped; the first stands for not yet."""


class Variables(Protocol):
    """The unknowns: SMPL parameters, or a network's weights."""

    def tensors(self) -> list[Tensor]:
        """Leaf tensors that carry gradient."""
        ...

    def decode(self) -> Parameters:
        """The bodies of their current values."""
        ...


class ParameterVariables:
    """SMPL parameters; betas in units of `betas_step`, which multiplies Adam's step for them."""

    def __init__(self, start: Parameters, betas_step: float = 1.0) -> None:
        self.betas_step = betas_step
        scaled = replace(start, betas=start.betas / betas_step)
        self.scaled = scaled.map(lambda tensor: tensor.detach().clone().requires_grad_())

    def tensors(self) -> list[Tensor]:
        return self.scaled.tensors()

    def decode(self) -> Parameters:
        return replace(self.scaled, betas=self.scaled.betas * self.betas_step)


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


def descend(
    variables: Variables,
    objective: Objective,
    stage: Stage,
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
    optimiser = Adam(variables.tensors(), stage.learning_rate)
    history: list[Tensor] = []
    parameters = variables.decode()
    progress = _begin(parameters)
    total, rows = progress.lowest, torch.arange(len(progress.lowest), device=progress.lowest.device)
    every = look_every(total.device)
    for iteration in range(stage.iterations + 1):
        energy = objective.total(objective(parameters.rows(rows)))
        total = torch.where(progress.running(), total.index_copy(0, rows, energy.detach()), total)
        _record(progress, parameters, total, iteration)
        history.append(progress.lowest.clone())
        if on_iteration is not None:
            on_iteration(iteration, total)
        if fitted is not None:
            done = fitted(parameters) & progress.running()
            progress.best = parameters.detach().where(done, progress.best)  # what `fitted` asks for
            progress.stop(done, "keypoints fitted")
        if len(history) > config.stop_window:
            before, now = history[-1 - config.stop_window], history[-1]
            progress.stop(before - now < config.stop_improvement * now.abs(), "converged")
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


def look_every(device: torch.device) -> int:
    """Iterations from one look at who has stopped to the next: on a CPU, which never waits, one."""
    return 1 if device.type == "cpu" else LOOK_EVERY


def _begin(parameters: Parameters) -> Progress:
    betas = parameters.betas.detach()
    return Progress(
        best=parameters.map(lambda tensor: tensor.detach().clone()),
        lowest=torch.full_like(betas[:, 0], torch.inf),
        iterations=torch.zeros(len(betas), dtype=torch.int64, device=betas.device),
        stopped=torch.zeros(len(betas), dtype=torch.int8, device=betas.device),
    )


def _record(progress: Progress, parameters: Parameters, total: Tensor, iteration: int) -> None:
    """Keep each person's best finite iterate; one whose energy or parameters are no longer finite has diverged."""
    running = progress.running()
    finite = total.isfinite()
    for tensor in parameters.tensors():
        finite = finite & tensor.detach().isfinite().all(1)
    better = running & finite & (total < progress.lowest)
    progress.best = parameters.detach().where(better, progress.best)
    progress.lowest = torch.where(better, total, progress.lowest)
    progress.iterations = progress.iterations.masked_fill(running, iteration)
    progress.stop(~finite, "diverged")
