"""How long parts of a fit take: one iteration, its operators, least squares, the regressor, whole fits; and memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import step
import torch
from clock import finish, least
from torch import Tensor

from dsr_fit.body.files import load_body
from dsr_fit.body.parameters import Parameters
from dsr_fit.config import FitConfig, Stage
from dsr_fit.fitting.fitter import Fitter
from dsr_fit.observation import Observation
from dsr_fit.observe.batch import Batch
from dsr_fit.optimise.anchor import Anchor
from dsr_fit.optimise.least_squares import Problem, State, solve
from dsr_fit.optimise.objective import TERMS, Canvas, Rendered, rendered_energies
from dsr_fit.regressor.open_network import RegressorInput, RegressorNetwork
from dsr_fit.regressor.open_regressor import regressor_input
from dsr_fit.render.outline import outline
from dsr_fit.render.renderer import _depth_range, clip_positions
from gpu_steps.agreement import backends
from gpu_steps.setup import Results, Setup, regressor_of


def _fitter(setup: Setup, config: FitConfig | None = None) -> Fitter:
    config = config or FitConfig()
    body = load_body()
    return Fitter(body, config, regressor=regressor_of(body.to(setup.device), config), device=setup.device)


def _grown(setup: Setup) -> int:
    """MB that the device's memory held at most since the last call; 0 on a CPU."""
    if setup.device == "cpu":
        return 0
    most = torch.cuda.max_memory_allocated() >> 20
    torch.cuda.reset_peak_memory_stats()
    return most


def iterations(setup: Setup) -> Results:
    """One iteration of a gradient stage with every term, and what it is made of: milliseconds, images a second, MB."""
    fitter = _fitter(setup, step.every_term(FitConfig()))
    seen, start = step.observation(Fitter(load_body(), fitter.config, regressor=fitter.regressor))
    for backend in backends(setup):
        fitter.renderer.backend = backend  # type: ignore[assignment]
        for resolution in setup.resolutions:
            for count in setup.batches:
                _grown(setup)
                found = step.breakdown(fitter, seen, start, count, resolution, seconds=setup.seconds)
                whole = float(found.pop("step_ms"))  # type: ignore[arg-type]
                parts = _operators(fitter, seen, start, count, resolution, setup)
                yield {
                    f"{backend}, {count} x {resolution} px": {
                        **found,
                        "step_ms": round(whole, 3),
                        "images_a_second": round(1000 * count / whole, 1),
                        "operators_ms": {name: round(value, 3) for name, value in parts.items()},
                        "memory_mb": _grown(setup),
                    }
                }


def _operators(
    fitter: Fitter, seen: Observation, start: Parameters, count: int, resolution: int, setup: Setup
) -> dict[str, float]:
    """Milliseconds, forward and backward, of skinning, of the renderer's operators one by one, as a GPU calls them, and
    of the rendered terms."""
    renderer, body = fitter.renderer, fitter.body
    batch = step.batch_of(fitter, seen, count)
    canvas = Canvas.of(batch, renderer, fitter.semantic_prior, fitter.config.semantics, resolution)
    many = start.map(lambda tensor: tensor.repeat(count, 1)).to(setup.device)
    many = many.map(lambda tensor: tensor.requires_grad_())
    vertices = many.pose(body).vertices().detach().requires_grad_()
    ops, size = renderer._operators(), (resolution, resolution)
    pos = clip_positions(vertices, canvas.window, _depth_range(vertices), size).detach().requires_grad_()
    rast = ops.rasterize(pos, renderer.faces, size, grad_db=False)[0].detach().requires_grad_()
    image = ops.interpolate(canvas.channels, rast, renderer.faces)[0].detach()
    image = torch.cat([image, (rast[..., 3:] > 0).to(image.dtype)], -1).detach().requires_grad_()
    render = renderer(vertices, canvas.window, resolution, canvas.channels)
    drawn = replace(render, attributes=render.attributes.detach().requires_grad_(), alpha=render.alpha.detach())

    def terms() -> Tensor:
        rendered = Rendered(drawn, canvas.targets, canvas.semantics)
        return torch.stack(list(rendered_energies(rendered, vars(fitter.config.weights)).values())).sum()

    def there_and_back(function: Callable[[], Tensor], leaf: Tensor) -> float:
        return least(
            lambda: torch.autograd.grad(function().sum(), leaf), setup.device, repeats=30, seconds=setup.seconds
        )

    return {
        "skinning": there_and_back(lambda: many.pose(body).vertices(), many.body_pose),
        "rasterise": there_and_back(lambda: ops.rasterize(pos, renderer.faces, size, grad_db=False)[0][..., :2], pos),
        "interpolate": there_and_back(lambda: ops.interpolate(canvas.channels, rast, renderer.faces)[0], rast),
        "outline": there_and_back(lambda: outline(image, rast.detach(), pos, renderer.faces, renderer.topology), pos),
        "terms": there_and_back(terms, drawn.attributes),
    }


def stages(setup: Setup) -> Results:
    """Least squares, the regressor's network, and whole default fits, by the size of the batch."""
    config = FitConfig(stages=(Stage(56, 10),)) if setup.quick else FitConfig()
    fitter, people = _fitter(setup, config), setup.observations()
    network = RegressorNetwork().eval().to(setup.device)  # weights change nothing about its time
    for count in setup.batches:
        chosen = [people[n % len(people)] for n in range(count)]
        batch = Batch(chosen, crop_camera=False, keypoint_valid=fitter.body.skeleton.keypoint_valid.cpu())
        estimate = fitter.regressor(batch)
        anchor = Anchor.of(estimate.parameters, fitter.body.skeleton, estimate.spread)
        problem = Problem.of(batch, fitter.body.skeleton, fitter.pose_prior, config, anchor, TERMS)
        start = State.of(estimate.parameters)
        inputs = regressor_input(batch).to(setup.device)
        found = {
            "least squares": lambda p=problem, s=start: _solved(p, s, config),
            "regressor": lambda i=inputs: _predicted(network, i, fitter),
        }
        row: dict[str, float] = {
            f"{name}, ms": round(least(function, setup.device, repeats=10, seconds=setup.seconds), 3)
            for name, function in found.items()
        }
        yield {str(count): row}
        _grown(setup)
        started = time.perf_counter()
        fitter.fit(chosen)
        finish(setup.device)
        seconds = time.perf_counter() - started
        yield {str(count): {**row, "fit, s": round(seconds, 3), "people_a_second": round(count / seconds, 2),
                            "memory_mb": _grown(setup)}}  # fmt: skip


@torch.no_grad()
def _predicted(network: RegressorNetwork, inputs: RegressorInput, fitter: Fitter) -> object:
    return network(inputs, fitter.body.skeleton)


def _solved(problem: Problem, start: State, config: FitConfig) -> State:
    return solve(problem, start, config.least_squares.steps, config.least_squares.damping)
