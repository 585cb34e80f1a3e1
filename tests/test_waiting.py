"""Nothing in an iteration waits for a GPU, shown without one: on torch's `meta` device, of shapes without numbers.

There every function takes its path for a GPU, and what would read a number back can't. Guards refuse what `meta` lets
pass: copies from the CPU, and operations whose result's size depends on numbers. Of Triton's operators all but the
kernels run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from scenes import observe, open_body, person
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from dsr_fit.body.parameters import Parameters
from dsr_fit.config import FitConfig, Stage
from dsr_fit.fitting.fitter import Fitter
from dsr_fit.observe.batch import Batch
from dsr_fit.optimise import progress, quasi_newton
from dsr_fit.optimise.anchor import Anchor
from dsr_fit.optimise.least_squares import Problem, State, solve
from dsr_fit.optimise.objective import Objective
from dsr_fit.optimise.quasi_newton import minimise
from dsr_fit.priors.pose import load_pose_prior
from dsr_fit.priors.semantic import load_semantic_prior
from dsr_fit.render.renderer import Renderer
from tests.render_backends import NEEDS_TRITON, triton_ops

META: Any = "meta"
READS = ("item", "tolist", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__")
MADE_ON_CPU = ("tensor", "as_tensor", "new_tensor", "from_numpy")
SIZED_BY_NUMBERS = (
    "_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "_unique2", "_linalg_check_errors",
)  # fmt: skip


class Waits(AssertionError):
    """Something that waits for the device."""


class Calls(TorchFunctionMode):
    """Refuses to read numbers back, and tensors that are made of Python's or numpy's numbers."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in READS or name in MADE_ON_CPU:
            raise Waits(name)
        if name in ("__getitem__", "__setitem__"):
            index = args[1] if isinstance(args[1], tuple) else (args[1],)
            if any(isinstance(each, list) for each in index):
                raise Waits(f"{name} of a list")
        return func(*args, **(kwargs or {}))


class Operations(TorchDispatchMode):
    """Refuses operations whose result's size depends on numbers, and copies between devices; counts the others."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        if name in SIZED_BY_NUMBERS:
            raise Waits(name)
        if name.startswith("index") and any(
            isinstance(one, Tensor) and one.dtype == torch.bool for one in _indices(args)
        ):
            raise Waits(f"{name} by a mask")
        result = func(*args, **(kwargs or {}))
        devices = {each.device for each in (*args, result) if isinstance(each, Tensor) and each.dim()}
        if name in ("_to_copy", "copy_") and len(devices) > 1:
            raise Waits(f"{name} between devices")
        self.count += 1
        return result


def _indices(args: Any) -> list[Any]:
    return list(args[1]) if len(args) > 1 and isinstance(args[1], (list, tuple)) else []


@contextmanager
def nothing_waits() -> Iterator[Operations]:
    with Calls(), Operations() as operations:
        yield operations


@pytest.mark.parametrize(
    "waits",
    [lambda x: float(x.sum()), lambda x: x[x > 0], lambda x: x.tolist(), lambda x: x.cpu(), lambda x: x[[0, 2]],
     lambda x: x.new_tensor([1.0]), lambda x: torch.zeros(3).to(x.device), lambda x: bool((x > 0).any()),
     lambda x: torch.linalg.solve(torch.stack([x, x, x]), x), lambda x: (x > 0).nonzero()],
)  # fmt: skip
def test_the_guards_refuse_what_waits(waits: Callable[[Tensor], object]) -> None:
    with nothing_waits(), pytest.raises(Waits):
        waits(torch.empty(3, device=META))


Made = Callable[[FitConfig, int], tuple[Objective, Parameters]]


@pytest.fixture
def objective(monkeypatch: pytest.MonkeyPatch) -> Made:
    monkeypatch.setattr(triton_ops(), "_launch", lambda *_, **__: None)

    def made(config: FitConfig, count: int) -> tuple[Objective, Parameters]:
        """Of so many people, and where they start."""
        body = open_body().to(META)
        batch = Batch(
            [observe(person(1))] * count, crop_camera=False, keypoint_valid=open_body().skeleton.keypoint_valid
        )
        renderer = Renderer(open_body().faces, open_body().num_vertices, device=META)
        renderer.backend = "triton"
        start = person(1).map(lambda tensor: tensor.repeat(count, 1)).to(META)
        prior, worn = load_pose_prior("learned").to(META), load_semantic_prior(open_body()).to(META)
        return Objective.of(body, batch, renderer, worn, prior, config, 32, Anchor.of(start, body.skeleton)), start

    return made


def descended(objective: Objective, start: Parameters, iterations: int) -> int:
    """Operations of so many iterations."""
    assert iterations < progress.LOOK_EVERY
    problem = problem_of(objective, FitConfig())
    with nothing_waits() as operations:
        minimise(start, problem, objective, Stage(32, iterations), 1e-3)
    return operations.count


def problem_of(objective: Objective, config: FitConfig) -> Problem:
    """Of the same people."""
    given, double = objective.given, torch.float64
    assert given.anchor is not None
    return Problem(
        objective.body.skeleton.to(dtype=double), given.points.to(dtype=double), given.pose_prior.to(META, double),
        config.weights, config.scales, given.anchor.to(dtype=double),
    )  # fmt: skip


def solved(objective: Objective, start: Parameters, config: FitConfig) -> int:
    """Operations of three steps of least squares."""
    problem, state = problem_of(objective, config), State.of(start)
    with nothing_waits() as operations:
        solve(problem, state, 3, 1e-3)
    return operations.count


@NEEDS_TRITON
def test_an_iteration_of_descent_does_not_wait(objective: Made) -> None:
    config = FitConfig()
    descended(*objective(config, 2), 5)


@NEEDS_TRITON
def test_a_step_of_least_squares_does_not_wait(objective: Made) -> None:
    config = FitConfig()
    solved(*objective(config, 2), config)


@NEEDS_TRITON
def test_neither_takes_more_operations_for_more_people(objective: Made) -> None:
    config = FitConfig()
    few, many = ((descended(*objective(config, n), 3), solved(*objective(config, n), config)) for n in (2, 5))
    assert few == many


def test_the_result_is_the_same_however_seldom_it_is_looked(monkeypatch: pytest.MonkeyPatch) -> None:
    """People who have stopped are rendered in between, to no effect."""
    seen, config = (
        [observe(person(n), noise_px=3 * (n - 1)) for n in (1, 2, 3)],
        FitConfig(stages=(Stage(32, 25), Stage(56, 15)), stop_improvement=0.01),
    )
    results = []
    for every in (1, 7):
        monkeypatch.setattr(quasi_newton, "look_every", lambda _, every=every: every)
        results.append(Fitter(open_body(), config).fit(seen))
    for one, other in zip(*results, strict=True):
        assert np.array_equal(one.vertices, other.vertices)
        assert (one.iterations, one.stop_reason) == (other.iterations, other.stop_reason)
    assert len({one.iterations for one in results[0]}) > 1  # somebody stopped before the others
