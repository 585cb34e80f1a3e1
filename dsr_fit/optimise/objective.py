"""The objective of a fit: the list of all terms, and their weighted sum for a batch of people.

The least-squares stage, gradient descent on parameters and on a regressor's weights, reports and training all read
`TERMS`. A new term is one more entry: a function of `dsr_fit.terms`, and its arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from dsr_fit.body.body import Body
from dsr_fit.body.parameters import Parameters
from dsr_fit.camera import crop_intrinsics
from dsr_fit.config import FitConfig, Scales, Semantics, Weights
from dsr_fit.labels import LABEL_SETS
from dsr_fit.observe.batch import Batch, Points, Targets
from dsr_fit.optimise.anchor import Anchor
from dsr_fit.priors import tilt
from dsr_fit.priors.pose import PosePrior
from dsr_fit.priors.semantic import SemanticPrior
from dsr_fit.render.renderer import Render, Renderer
from dsr_fit.rotation import log_jacobian
from dsr_fit.tensors import Tensors
from dsr_fit.terms import points, priors
from dsr_fit.terms.channels import read_channels
from dsr_fit.terms.dsr_c import dsr_c_released
from dsr_fit.terms.dsr_mc import dsr_mc_distance
from dsr_fit.terms.pixels import Observed, PixelTerms, pixel_terms
from dsr_fit.terms.residual import Dual, Residual


@dataclass(frozen=True)
class Given(Tensors):
    """Observations and priors of B people, for the terms on points and parameters."""

    points: Points
    scales: Scales
    pose_prior: PosePrior
    anchor: Anchor | None = None
    """The initial estimate; None for none."""
    vertical: tilt.Vertical | None = None
    """Which way is up; None where nothing is known of it."""


@dataclass(frozen=True)
class Bodies:
    """B bodies, for the terms on points and parameters; in least squares with derivatives by the unknowns."""

    rotations: Tensor  # (B, 24, 3, 3) local, root first
    body_pose: Dual  # (B, 69)
    betas: Dual  # (B, 10)
    height: Dual  # (B, 1) metres from sole to crown
    keypoints: Dual  # (B, 49, 3) metres, camera frame

    def turned_from(self, start: Tensor) -> Dual:
        """(B, 24, 3) axis-angle from the local rotations (B, 24, 3, 3) `start` to these."""
        turn = priors.turned(self.rotations, start)
        return Dual(turn, None if self.betas.slope is None else joint_slope(turn, 0, self.betas.slope.shape[-1]))


@dataclass(frozen=True)
class Rendered:
    """B rendered bodies and their label maps, for the terms on pixels."""

    render: Render
    targets: Targets
    semantics: Semantics

    @cached_property
    def channels(self) -> tuple[Tensor, Tensor, Tensor]:
        """Observed, most likely, and minimally clothed probability of each pixel; see `read_channels`."""
        return read_channels(self.render.attributes, self.targets.classes)

    @cached_property
    def pixel_terms(self) -> PixelTerms:
        """The usual forms of the rendered terms, which share a pass over the pixels."""
        targets, form = self.targets, self.semantics
        maps = (targets.classes, targets.known, targets.class_weights, targets.person, targets.mc_mask)
        return pixel_terms(
            self.render.alpha, self.render.attributes, Observed(*maps),
            excess=form.c_form == "excess", live=form.c_normaliser == "live",
        )  # fmt: skip


@dataclass(frozen=True)
class Term:
    """One term. Its weight is that of its name in `Weights`, or its own `weight` where that has none."""

    name: str
    residual: Callable[[Bodies, Given], Residual | None] | None = None
    """Of points and parameters; least squares uses it. None where nothing was observed."""
    energy: Callable[[Bodies, Given], Tensor | None] | None = None
    """(B,) where the energy is not the residual's own, or where there is no residual."""
    rendered: Callable[[Rendered], Tensor] | None = None
    """(B,) of a term that needs a render."""
    weight: float = 0.0

    def value(self, bodies: Bodies, given: Given) -> Tensor | None:
        """(B,) unweighted energy of a term on points or parameters; None where nothing was observed."""
        if self.energy is not None:
            return self.energy(bodies, given)
        residual = None if self.residual is None else self.residual(bodies, given)
        return None if residual is None else residual.energy()


def certainty(seen: Points, scales: Scales) -> Tensor:
    """(B,) by how much more the points weigh than a detector's."""
    if seen.disagreement is None:
        return torch.ones_like(seen.box)
    return points.certainty(seen.disagreement, scales.agreement)


def _keypoints(bodies: Bodies, given: Given) -> Residual:
    seen, scales = given.points, given.scales
    target = (seen.intrinsics, seen.pixels, seen.confidence, seen.box, certainty(seen, scales))
    return points.keypoints(bodies.keypoints, *target, scales.unit, scales.robust)


def _world_landmarks(bodies: Bodies, given: Given) -> Residual:
    seen = given.points
    target = (seen.world, seen.world_confidence, certainty(seen, given.scales))
    return points.world_landmarks(bodies.keypoints, *target, given.scales.world_unit)


def _stature(bodies: Bodies, given: Given) -> Residual:
    known = given.points.height
    return priors.stature(bodies.height, None if known is None else known[:, None])


def _pose(bodies: Bodies, given: Given) -> Residual:
    """The nearest component of the mixture, whose energy is an upper bound of the mixture's."""
    pose = bodies.body_pose
    deviations, whitening = given.pose_prior.nearest(pose.value)
    return Residual(Dual(deviations, None if pose.slope is None else whitening @ pose.slope), 1 / deviations.shape[1])


def _straight(bodies: Bodies, given: Given) -> Residual | None:
    peaks = given.pose_prior.straight
    return None if peaks is None else priors.straight(bodies.body_pose, peaks)


def _straight_energy(bodies: Bodies, given: Given) -> Tensor | None:
    peaks = given.pose_prior.straight
    return None if peaks is None else priors.straight_energy(bodies.body_pose.value, peaks)


def _tilt(bodies: Bodies, given: Given) -> Residual | None:
    prior, vertical = given.pose_prior.tilt, given.vertical
    if prior is None or vertical is None:
        return None
    return tilt.residual(prior, vertical, bodies.rotations[:, 0], bodies.body_pose)


def _tilt_energy(bodies: Bodies, given: Given) -> Tensor | None:
    prior, vertical = given.pose_prior.tilt, given.vertical
    if prior is None or vertical is None:
        return None
    return tilt.energy(prior, vertical, bodies.rotations[:, 0], bodies.body_pose.value)


def _initial(bodies: Bodies, given: Given) -> Residual | None:
    anchor = given.anchor
    if anchor is None:
        return None
    return priors.initial(bodies.turned_from(anchor.rotations), anchor.spread, bodies.betas - anchor.betas)


def _initial_points(bodies: Bodies, given: Given) -> Residual | None:
    anchor = given.anchor
    if anchor is None:
        return None
    return priors.initial_points(bodies.keypoints, anchor.keypoints, anchor.shares, given.scales.world_unit)


def _dsr_mc(seen: Rendered) -> Tensor:
    if seen.semantics.mc_form == "niou":
        return seen.pixel_terms.dsr_mc
    targets = seen.targets
    return dsr_mc_distance(seen.channels[2], targets.mc_distance, targets.known, targets.mc_seen)


def _dsr_c(seen: Rendered) -> Tensor:
    if seen.semantics.c_form == "released":
        targets = seen.targets
        return dsr_c_released(seen.render.attributes[..., :-1], targets.classes, targets.class_weights)
    return seen.pixel_terms.dsr_c


TERMS: tuple[Term, ...] = (
    Term("keypoints", residual=_keypoints),
    Term("world_landmarks", residual=_world_landmarks),
    Term("dsr_mc", rendered=_dsr_mc),
    Term("dsr_c", rendered=_dsr_c),
    Term("silhouette", rendered=lambda seen: seen.pixel_terms.silhouette),
    Term("betas", residual=lambda bodies, given: priors.betas(bodies.betas)),
    Term("stature", residual=_stature),
    Term("pose", residual=_pose, energy=lambda bodies, given: given.pose_prior.energy(bodies.body_pose.value)),
    Term("bending", residual=lambda bodies, given: priors.bending(bodies.body_pose)),
    Term("straight", residual=_straight, energy=_straight_energy),
    Term("tilt", residual=_tilt, energy=_tilt_energy),
    Term("initial", residual=_initial),
    Term("initial_points", residual=_initial_points),
)
"""Every term of a fit, in the order of `Weights`."""


def weights_of(weights: Weights, terms: Sequence[Term] = TERMS) -> dict[str, float]:
    """Name -> weight of each term."""
    own = asdict(weights)
    return {term.name: own.get(term.name, term.weight) for term in terms}


def joint_slope(vectors: Tensor, first: int, unknowns: int) -> Tensor:
    """(B, J, 3, U) derivative of rotation vectors (B, J, 3) of joints `first`... by turns of the joints on the right.

    Unknowns 3j .. 3j + 2 turn joint j: R <- R exp(delta).
    """
    count = vectors.shape[1]
    slope = vectors.new_zeros(*vectors.shape, unknowns)
    joints = torch.arange(count, device=vectors.device)
    blocks = slope[..., 3 * first : 3 * (first + count)].unflatten(-1, (count, 3))  # (B, J, 3, J, 3), a view
    blocks[:, joints, :, joints] = log_jacobian(vectors).transpose(0, 1)
    return slope


@dataclass(frozen=True)
class Canvas(Tensors):
    """Renders B crops at one resolution, beside their label maps."""

    renderer: Renderer
    targets: Targets
    window: Tensor  # (B, 4) intrinsics of the crops
    channels: Tensor  # (B, V or F, K + 1), see `channels_of`
    per_face: bool
    semantics: Semantics

    @classmethod
    def of(
        cls, batch: Batch, renderer: Renderer, prior: SemanticPrior, semantics: Semantics, resolution: int
    ) -> Canvas:
        device = renderer.device
        targets = batch.targets(resolution, semantics.label_set, semantics.class_weights).to(device)
        window = crop_intrinsics(batch.points.intrinsics.to(device), batch.crops, resolution)
        channels = channels_of(prior, batch.labels, batch.mc_valid.to(device), semantics.label_set)
        return cls(renderer, targets, window, channels, prior.per_face, semantics)

    def __call__(self, vertices: Tensor) -> Rendered:
        channels = {"face_attributes" if self.per_face else "attributes": self.channels}
        render = self.renderer(vertices, self.window, self.targets.resolution, **channels)
        return Rendered(render, self.targets, self.semantics)


@dataclass(frozen=True)
class Objective:
    """All terms of a batch of B people at one resolution."""

    body: Body
    given: Given
    canvas: Canvas
    weights: dict[str, float]
    terms: tuple[Term, ...] = TERMS
    active: dict[str, float] = field(init=False)
    """Name -> weight of the terms that have one."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "active", {name: weight for name, weight in self.weights.items() if weight})

    @classmethod
    def of(
        cls,
        body: Body,
        batch: Batch,
        renderer: Renderer,
        semantic_prior: SemanticPrior,
        pose_prior: PosePrior,
        config: FitConfig,
        resolution: int,
        anchor: Anchor,
        terms: tuple[Term, ...] = TERMS,
    ) -> Objective:
        """The objective of a batch under a configuration, on the body's device."""
        device = body.v_template.device
        vertical = tilt.Vertical.of(batch.axes.to(device), config.camera_tilt, config.pitch, config.roll)
        given = Given(batch.points.to(device), config.scales, pose_prior, anchor, vertical)
        canvas = Canvas.of(batch, renderer, semantic_prior, config.semantics, resolution)
        return cls(body, given, canvas, weights_of(config.weights, terms), terms)

    def rows(self, index: Tensor) -> Objective:
        """Of some of the people."""
        return replace(self, given=self.given.rows(index), canvas=self.canvas.rows(index))

    def total(self, energies: dict[str, Tensor]) -> Tensor:
        """(B,) weighted sum."""
        total = torch.zeros_like(next(iter(energies.values())))
        for name, weight in self.active.items():  # one after the other: the same sum whatever the batch's size
            total = total + weight * energies[name]
        return total

    def __call__(self, parameters: Parameters, *, every_term: bool = False) -> dict[str, Tensor]:
        """Name -> (B,) unweighted energy of the terms that have a weight, or of every one for a report."""
        wanted = set(self.weights if every_term else self.active)
        posed = parameters.pose(self.body)
        height = self.body.skeleton.height(parameters.betas)[:, None]
        bodies = Bodies(
            posed.rotations, Dual(parameters.body_pose), Dual(parameters.betas), Dual(height), Dual(posed.keypoints)
        )
        energies = {
            term.name: value
            for term in self.terms
            if term.name in wanted and (value := term.value(bodies, self.given)) is not None
        }
        if any(term.rendered is not None and term.name in wanted for term in self.terms):
            energies |= rendered_energies(self.canvas(posed.vertices()), wanted, self.terms)
        return energies


def rendered_energies(seen: Rendered, wanted: Collection[str], terms: Sequence[Term] = TERMS) -> dict[str, Tensor]:
    """Those of the rendered terms that are wanted: name -> (B,) unweighted."""
    return {term.name: term.rendered(seen) for term in terms if term.rendered is not None and term.name in wanted}


def channels_of(prior: SemanticPrior, labels: Sequence[np.ndarray], mc_valid: Tensor, label_set: str) -> Tensor:
    """(B, V or F, K + 1) rendered attributes of B people: the classes' probabilities, then the summed probability of
    each image's valid MC labels. `labels` are the label maps cut to the crops, `mc_valid` (B, 5)."""
    worn = prior.dressed(labels)
    classes = worn.merged(LABEL_SETS[label_set])
    minimal = worn.minimally_clothed(mc_valid)
    return torch.cat([classes.expand(len(labels), -1, -1), minimal[..., None]], -1)
