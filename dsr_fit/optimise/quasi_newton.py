"""The stages on SMPL parameters: BFGS, which starts from the curvature that least squares knows.

Rendered terms have no residuals and no cheap curvature, but every other term has: 2 J^T J of the least-squares problem
(Gauss-Newton). With it as the first Hessian a dozen renders do what first-order descent needs some fifty for; BFGS
(Nocedal and Wright, Numerical Optimization, 2006, chapter 6) adds what the rendered terms' gradients say.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from dsr_fit.body.parameters import Parameters
from dsr_fit.config import Stage
from dsr_fit.optimise.least_squares import PLACE, POSE, SHAPE, Problem, State
from dsr_fit.optimise.objective import Objective
from dsr_fit.optimise.progress import Progress, look_every
from dsr_fit.rotation import log_jacobian
from dsr_fit.tensors import Tensors

RENDERED = (0.3, 1.0, 1.0)
"""Curvature of the rendered terms as first guessed: energy per square of radians, of betas, and of metres."""

REACH = (0.1, 0.5, 0.1)
"""The farthest that a step moves a number: radians, betas, metres."""

SHORTER, LONGER, SHORTEST = 0.4, 2.0, 0.02
"""Factors of the share of the Newton step that is tried, after one that did not lower the energy and after one that
did, and the least share that is tried."""

BENT = 1e-3
"""Least cosine of a step and its change of gradient that BFGS learns from."""


@dataclass(frozen=True)
class Iterate(Tensors):
    """Where B people stand, in double precision."""

    point: Tensor  # (B, 85) global_orient, body_pose, betas, cam_t
    inverse: Tensor  # (B, 85, 85) of the Hessian, as far as it is known
    share: Tensor  # (B,) of the Newton step that is tried next

    @classmethod
    def of(cls, start: Parameters, problem: Problem) -> Iterate:
        """At these parameters, with the curvature of the problem."""
        point = torch.cat(start.detach().tensors(), 1).double()
        slope = problem.linearise(State.of(start))[1]
        # Least squares turns rotations from the right; here they are axis-angle.
        turns = torch.linalg.inv_ex(log_jacobian(point[:, POSE].unflatten(1, (24, 3))))[0]
        pose = torch.einsum("brji,bjik->brjk", slope[..., POSE].unflatten(2, (24, 3)), turns).flatten(2)
        slope = torch.cat([pose, slope[..., POSE.stop :]], 2)
        hessian = 2 * slope.mT @ slope + torch.diag_embed(_each(RENDERED, point))
        return cls(point, torch.linalg.inv_ex(hessian)[0], torch.ones_like(point[:, 0]))

    def parameters(self) -> Parameters:
        """In single precision."""
        return _parameters(self.point.float())

    def newton(self, gradient: Tensor) -> Tensor:
        """(B, 85) the step to where the energy's slope is expected to vanish."""
        return -(self.inverse @ gradient[..., None])[..., 0]

    def within_reach(self, newton: Tensor) -> Tensor:
        """(B, 85) the part of a Newton step to try."""
        longest = (_each(REACH, newton) / newton.abs().clamp(min=1e-12)).amin(1).clamp(max=1)
        return (self.share * longest)[:, None] * newton

    def after(self, step: Tensor, change: Tensor, better: Tensor) -> Iterate:
        """After a step (B, 85) that changed the gradient by `change`, taken where it was `better` (B,)."""
        longer, shorter = (LONGER * self.share).clamp(max=1), SHORTER * self.share
        return Iterate(
            torch.where(better[:, None], self.point + step, self.point),
            _updated(self.inverse, step, change),
            torch.where(better, longer, shorter),
        )


def minimise(
    start: Parameters,
    problem: Problem,
    objective: Objective,
    stage: Stage,
    improvement: float,
    on_iteration: Callable[[int, Tensor], None] | None = None,
) -> Progress:
    """Minimise the objective from `start`; `problem` is of the same people and terms.

    A step that does not lower a person's energy is not taken, and the next one is shorter. A person has converged when
    a whole Newton step is expected to lower the energy by less than the fraction `improvement` of it, or when the
    shortest step does not lower it. Nothing in an iteration waits for the device, but for looks at who has stopped
    (`look_every`). `on_iteration` is called with the number and the energies (B,) of each iteration.

    The curvature that one render taught is not kept for another: a render's energy jumps as triangles come and go, and
    BFGS learns from jumps, too.
    """
    here = Iterate.of(start, problem)
    rows, every = torch.arange(len(here.point), device=here.point.device), look_every(here.point.device)
    points = here.point
    energy, gradient = _evaluated(objective, here.point)
    progress = Progress.begin(here.parameters())
    for iteration in range(stage.iterations + 1):
        points = points.index_copy(0, rows, here.point)
        total = progress.lowest.index_copy(0, rows, energy.to(progress.lowest.dtype))
        progress.record(_parameters(points.float()), total, iteration)
        if on_iteration is not None:
            on_iteration(iteration, total)
        newton = here.newton(gradient)
        fall = -0.5 * (gradient * newton).sum(1)
        settled = (fall < improvement * energy.abs()) | (here.share < SHORTEST)
        progress.stop(torch.zeros_like(progress.running()).index_copy(0, rows, settled), "converged")
        still = progress.running()[rows]
        left = int(still.sum()) if iteration % every == every - 1 else len(rows)
        if iteration == stage.iterations or left == 0:
            break
        if left < len(rows):
            here, objective, rows = here.rows(still), objective.rows(still), rows[still]
            energy, gradient, newton = energy[still], gradient[still], newton[still]
        step = here.within_reach(newton)
        reached, slope = _evaluated(objective, here.point + step)
        better = reached < energy  # false for NaN as well
        here = here.after(step, slope - gradient, better)
        energy, gradient = torch.where(better, reached, energy), torch.where(better[:, None], slope, gradient)
    progress.stop(progress.running(), "iteration limit")
    return progress


def _parameters(point: Tensor) -> Parameters:
    return Parameters(point[:, :3], point[:, 3:72], point[:, SHAPE], point[:, PLACE])


def _each(values: tuple[float, float, float], like: Tensor) -> Tensor:
    """(85,) the values for pose, betas and translation."""
    return torch.cat([like.new_full((count,), value) for count, value in zip((72, 10, 3), values, strict=True)])


def _evaluated(objective: Objective, point: Tensor) -> tuple[Tensor, Tensor]:
    """Energies (B,) and gradients (B, 85) at these points, in double precision; what is not finite has no gradient."""
    variables = point.float().requires_grad_()
    energy = objective.total(objective(_parameters(variables)))
    (gradient,) = torch.autograd.grad(energy.sum(), variables)
    return energy.detach().double(), gradient.double().nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


def _updated(inverse: Tensor, step: Tensor, change: Tensor) -> Tensor:
    """The inverse Hessian (B, 85, 85) by BFGS, after a step and its change of gradient, both (B, 85)."""
    bend = (step * change).sum(1)
    usable = bend > BENT * step.norm(dim=1) * change.norm(dim=1)
    rate = torch.where(usable, 1 / torch.where(usable, bend, 1), 0)[:, None, None]
    bent = (inverse @ change[..., None])[..., 0]
    cross = bent[:, :, None] * step[:, None]
    along = 1 + rate * (change * bent).sum(1)[:, None, None]
    return inverse + rate * (along * step[:, :, None] * step[:, None] - cross - cross.mT)
