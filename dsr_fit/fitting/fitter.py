"""From observations to fitted bodies: initial estimate, least squares, then all terms from coarse to fine."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from dsr_fit.body.body import Body
from dsr_fit.body.parameters import Parameters
from dsr_fit.camera import CROP_MARGIN, SPIN_RESOLUTION, crop_camera
from dsr_fit.config import FitConfig, Stage
from dsr_fit.errors import InputError, UsageError
from dsr_fit.fitting.metrics import RESOLUTION, keypoint_errors, metrics
from dsr_fit.fitting.result import DIVERGED, FitResult
from dsr_fit.observation import Observation
from dsr_fit.observe.batch import Batch
from dsr_fit.optimise.anchor import Anchor
from dsr_fit.optimise.descent import ResizedVariables, Variables, descend
from dsr_fit.optimise.least_squares import Problem, State, solve
from dsr_fit.optimise.objective import TERMS, Objective, Term, certainty, weights_of
from dsr_fit.optimise.progress import Progress
from dsr_fit.optimise.quasi_newton import minimise
from dsr_fit.priors.pose import PosePrior, load_pose_prior
from dsr_fit.priors.semantic import SemanticPrior, load_semantic_prior
from dsr_fit.regressor.kinematic import KinematicRegressor
from dsr_fit.regressor.kinematic import estimate as kinematic_estimate
from dsr_fit.regressor.load import load_regressor
from dsr_fit.regressor.protocol import Estimate, Regressor
from dsr_fit.render.renderer import Renderer
from dsr_fit.threads import one_torch_thread

OnIteration = Callable[[int, Tensor], None] | None


@dataclass(frozen=True)
class FitState:
    """The parameters of B people after the stages so far."""

    parameters: Parameters
    iterations: Tensor  # (B,) int64
    stop_reasons: list[str]  # of the last stage; "diverged" stays

    @classmethod
    def start(cls, parameters: Parameters, iterations: int) -> FitState:
        """Raises InputError where the parameters aren't finite."""
        if not all(bool(tensor.isfinite().all()) for tensor in parameters.tensors()):
            raise InputError(DIVERGED)
        count = len(parameters.betas)
        return cls(parameters, torch.full((count,), iterations), ["converged"] * count)

    def after(self, stage: Progress) -> FitState:
        """After one more stage."""
        pairs = zip(self.stop_reasons, stage.stop_reason, strict=True)
        reasons = ["diverged" if "diverged" in pair else pair[1] for pair in pairs]
        return FitState(stage.best, self.iterations + stage.iterations.cpu(), reasons)


class Fitter:
    """Fits batches of people with one body, one set of priors and one configuration."""

    def __init__(
        self,
        body: Body,
        config: FitConfig | None = None,
        *,
        semantic_prior: SemanticPrior | None = None,
        pose_prior: PosePrior | None = None,
        regressor: Regressor | None = None,
        device: Literal["cpu", "cuda"] = "cpu",
        crop_camera: bool = False,
        terms: tuple[Term, ...] = TERMS,
    ) -> None:
        """Priors and regressor default to what ships for the body.

        `crop_camera` fits with SPIN's camera (f = 5000 on the crop). `terms` may be `TERMS` and further ones, each with
        a weight of its own. Raises UsageError for a mode that fits weights where the regressor has none, and where no
        term has a weight.
        """
        self.config = config or FitConfig()
        self.body = body.to(device)
        semantic_prior = semantic_prior or load_semantic_prior(body)
        if not self.config.semantics.outfits:
            semantic_prior = replace(semantic_prior, outfits=None)
        self.semantic_prior = semantic_prior.to(device)
        self.pose_prior = (pose_prior or load_pose_prior(self.config.pose_prior)).to(device)
        self.regressor = regressor or load_regressor(None, self.body, self.config)
        if isinstance(self.regressor, KinematicRegressor):
            # Its estimate is made of a fit's own terms: to stay close to it would count them twice.
            self.config = replace(self.config, weights=replace(self.config.weights, initial=0.0, initial_points=0.0))
        if not any(weights_of(self.config.weights, terms).values()):
            raise UsageError("all weights are 0, so that nothing would be fitted; leave at least one of them")
        if self.config.mode != "smplify":
            try:
                self.regressor.movable(self.config.eft.layers)
            except UsageError as error:
                raise UsageError(f"--mode {self.config.mode}: {error}") from None
        self.renderer = Renderer(body.faces, body.num_vertices, device=device, outline=self.config.outline)
        self.device = device
        self.crop_camera = crop_camera
        self.terms = terms

    def fit(self, observations: list[Observation], on_iteration: OnIteration = None) -> list[FitResult]:
        """Fit every observed person, in one loop for the whole batch; results in the same order.

        Where the regressor's weights are fine-tuned, at most its `people_at_once` are fitted together.
        Raises InputError where a fit diverges to values that are not finite.
        """
        few = self.regressor.people_at_once if self.config.mode != "smplify" else None
        if few is not None and len(observations) > few:
            parts = [observations[start : start + few] for start in range(0, len(observations), few)]
            return [result for part in parts for result in self.fit(part, on_iteration)]
        batch = Batch(
            observations, crop_camera=self.crop_camera, keypoint_valid=self.body.skeleton.keypoint_valid.cpu()
        )
        started = time.perf_counter()
        estimate = self._estimate(batch)
        regressed = time.perf_counter()
        anchor = Anchor.of(estimate.parameters, self.body.skeleton, estimate.spread)
        fit = self._fit_parameters if self.config.mode == "smplify" else self._fit_weights
        state = fit(batch, estimate, anchor, on_iteration)
        timings = {"regress": regressed - started, "fit": time.perf_counter() - regressed}
        return self._results(batch, estimate, anchor, state, timings)

    def fit_each(self, observations: list[Observation]) -> list[FitResult | Exception]:
        """The same, and an exception in the place of those who can't be fitted, or whose fit has a flaw
        (`FitResult.flaw`): nobody costs the others their fit."""
        try:
            results = self.fit(observations)
        except Exception as error:
            if len(observations) == 1:
                return [error]
            return [outcome for observation in observations for outcome in self.fit_each([observation])]
        return [InputError(flaw) if (flaw := result.flaw()) else result for result in results]

    def _estimate(self, batch: Batch) -> Estimate:
        """The regressor's, brought to the heights that are known."""
        estimate, height = self.regressor(batch), batch.points.height
        if height is None:
            return estimate
        return replace(estimate, parameters=estimate.parameters.resized(self.body, height.to(self.device)))

    def _weights(self, batch: Batch) -> Variables:
        """The regressor's, whose bodies have the heights that are known."""
        variables, height = self.regressor.variables(batch, self.config.eft.layers), batch.points.height
        return variables if height is None else ResizedVariables(variables, self.body, height.to(self.device))

    @one_torch_thread()
    def _fit_parameters(self, batch: Batch, estimate: Estimate, anchor: Anchor, on_iteration: OnIteration) -> FitState:
        """Least squares, then all terms, on the body's parameters."""
        settings = self.config.least_squares
        problem = self._problem(batch, anchor)
        solved = solve(problem, self.regressor.start(batch, estimate), settings.steps, settings.damping)
        solved = self._led_by_points(batch, problem, solved)
        state = FitState.start(solved.parameters(), settings.steps)
        return self._through(self.config.stages, state, problem, batch, anchor, on_iteration)

    def _led_by_points(self, batch: Batch, problem: Problem, solved: State) -> State:
        """Whose points are surer than a detector's is also solved from what these alone say, without the regressor: a
        limb that it turns the wrong way may be stuck there. The lower energy wins."""
        rows = (certainty(batch.points, self.config.scales) > 1).nonzero()[:, 0].to(self.device)
        if not len(rows) or isinstance(self.regressor, KinematicRegressor):
            return solved
        settings = self.config.least_squares
        kinematic = KinematicRegressor(self.body, self.config).problem(batch).rows(rows)
        start = solve(kinematic, kinematic_estimate(kinematic, settings), settings.steps, settings.damping)
        part, ours = problem.rows(rows), solved.rows(rows)
        theirs = solve(part, start, settings.steps, settings.damping)
        first, second = (part.energy(each).nan_to_num(nan=torch.inf) for each in (ours, theirs))
        return solved.updated(rows, theirs.where(second < first, ours))

    @one_torch_thread()
    def _fit_weights(self, batch: Batch, estimate: Estimate, anchor: Anchor, on_iteration: OnIteration) -> FitState:
        """All terms on the regressor's weights, and in `eft+smplify` then on the body's parameters."""
        eft, points = self.config.eft, batch.points.to(self.device)
        state = FitState.start(estimate.parameters, 0)

        @torch.no_grad()
        def fitted(parameters: Parameters) -> Tensor:
            relative = keypoint_errors(parameters.pose(self.body).keypoints, points)[1]
            return relative * (SPIN_RESOLUTION / CROP_MARGIN) < eft.keypoint_px

        progress = descend(
            self._weights(batch),
            self._objective(batch, eft.resolution, anchor),
            Stage(eft.resolution, eft.iterations),
            self.regressor.eft_learning_rate if eft.learning_rate is None else eft.learning_rate,
            self.config,
            on_iteration,
            fitted,
        )
        state = state.after(progress)
        if self.config.mode == "eft":
            return state
        return self._through(eft.refinement, state, self._problem(batch, anchor), batch, anchor, on_iteration)

    def _through(
        self,
        stages: tuple[Stage, ...],
        state: FitState,
        problem: Problem,
        batch: Batch,
        anchor: Anchor,
        on_iteration: OnIteration,
    ) -> FitState:
        """All terms on the body's parameters, stage after stage."""
        for stage in stages:
            objective, improvement = self._objective(batch, stage.resolution, anchor), self.config.stop_improvement
            state = state.after(minimise(state.parameters, problem, objective, stage, improvement, on_iteration))
        return state

    def _problem(self, batch: Batch, anchor: Anchor) -> Problem:
        return Problem.of(batch, self.body.skeleton, self.pose_prior, self.config, anchor, self.terms)

    def _objective(self, batch: Batch, resolution: int, anchor: Anchor, config: FitConfig | None = None) -> Objective:
        return Objective.of(
            self.body, batch, self.renderer, self.semantic_prior, self.pose_prior, config or self.config, resolution,
            anchor, self.terms,
        )  # fmt: skip

    @torch.no_grad()
    @one_torch_thread()
    def _results(
        self,
        batch: Batch,
        estimate: Estimate,
        anchor: Anchor,
        state: FitState,
        timings: dict[str, float],
    ) -> list[FitResult]:
        initial, final = estimate.parameters, state.parameters
        # As of a detector's points: energies say how far they are missed, whatever they weigh.
        scales = replace(self.config.scales, agreement=0.0)
        objective = self._objective(batch, RESOLUTION, anchor, replace(self.config, scales=scales))
        judged = {
            "initial": {name: value.tolist() for name, value in objective(initial, every_term=True).items()},
            "final": {name: value.tolist() for name, value in objective(final, every_term=True).items()},
        }
        measured = {
            when: {
                name: value.tolist()
                for name, value in metrics(parameters, self.body, batch, self.renderer, self.semantic_prior).items()
            }
            for when, parameters in (("before", initial), ("after", final))
        }
        posed = final.pose(self.body)
        vertices, joints = posed.vertices().cpu().numpy(), posed.keypoints.cpu().numpy()
        pelvis = posed.joints()[:, 0].cpu().numpy()
        faces = self.body.faces.cpu().numpy()
        change = _change(initial.pose(self.body).joints(), posed.joints()).tolist()
        values = {name: tensor.cpu().numpy() for name, tensor in vars(final).items()}
        results = []
        for row, observation in enumerate(batch.observations):
            focal, center = batch.focal_lengths[row], batch.principal_points[row]
            crop_cam, crop_orient, residual = crop_camera(
                joints[row], pelvis[row], values["cam_t"][row], values["global_orient"][row],
                batch.crops[row], focal, center,
            )  # fmt: skip
            results.append(
                FitResult(
                    observation=observation,
                    vertices=vertices[row],
                    faces=faces,
                    joints=joints[row],
                    pelvis=pelvis[row],
                    **{name: value[row] for name, value in values.items()},
                    focal_length=focal,
                    principal_point=center,
                    crop=batch.crops[row],
                    crop_cam=crop_cam,
                    crop_global_orient=crop_orient,
                    crop_residual_px=residual,
                    energies={name: {when: judged[when][name][row] for when in judged} for name in judged["initial"]},
                    metrics={
                        name: {when: measured[when][name][row] for when in measured} for name in measured["before"]
                    },
                    change_m=change[row],
                    regressor=self.regressor.name,
                    spread=None if estimate.spread is None else estimate.spread[row].cpu().numpy(),
                    expected_error_m=None if estimate.joint_error_m is None else float(estimate.joint_error_m[row]),
                    iterations=int(state.iterations[row]),
                    stop_reason=state.stop_reasons[row],
                    timings_s={
                        **observation.timings_s,
                        **{name: seconds / len(batch) for name, seconds in timings.items()},
                    },
                    body_name=self.body.name,
                    body_sha256=self.body.sha256,
                    config=self.config,
                    device=self.device,
                    renderer=str(self.renderer.backend),
                )
            )
        return results


def _change(first: Tensor, second: Tensor) -> Tensor:
    """(B,) mean distance of joints (B, 24, 3), the pelvises on each other, metres."""
    return ((first - first[:, :1]) - (second - second[:, :1])).norm(dim=-1).mean(1)
