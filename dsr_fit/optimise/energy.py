"""The sum of all terms: what the gradient stages minimise and what reports list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
import torch
from torch import Tensor

from dsr_fit.body.body import Body
from dsr_fit.body.parameters import Parameters
from dsr_fit.camera import crop_intrinsics, project
from dsr_fit.config import FitConfig, Semantics
from dsr_fit.labels import LABEL_SETS
from dsr_fit.observe.batch import Batch, Targets
from dsr_fit.optimise.anchor import Anchor
from dsr_fit.priors.pose import PosePrior
from dsr_fit.priors.semantic import SemanticPrior
from dsr_fit.render.renderer import Render, Renderer
from dsr_fit.terms import keypoints as point_terms
from dsr_fit.terms import priors as prior_terms
from dsr_fit.terms.channels import read_channels
from dsr_fit.terms.dsr_c import dsr_c, dsr_c_released
from dsr_fit.terms.dsr_mc import dsr_mc, dsr_mc_distance
from dsr_fit.terms.silhouette import silhouette

RENDERED = ("dsr_mc", "dsr_c", "silhouette")
"""Terms that need a render."""


class Energy:
    """All terms of a batch of B people at one resolution. Call it with parameters: name -> (B,) unweighted."""

    def __init__(
        self,
        body: Body,
        batch: Batch,
        renderer: Renderer,
        semantic_prior: SemanticPrior,
        pose_prior: PosePrior,
        config: FitConfig,
        resolution: int,
        anchor: Anchor,
    ) -> None:
        device = body.v_template.device
        self.body, self.renderer, self.pose_prior, self.config = body, renderer, pose_prior, config
        self.points = batch.points.to(device)
        self.anchor = anchor
        semantics = config.semantics
        self.targets: Targets = batch.targets(resolution, semantics.label_set, semantics.class_weights).to(device)
        self.window = crop_intrinsics(self.points.intrinsics, batch.crops, resolution)
        self.channels = channels_of(semantic_prior, batch.labels, batch.mc_valid.to(device), semantics.label_set)
        self.per_face = semantic_prior.per_face
        self.active = {name: weight for name, weight in asdict(config.weights).items() if weight}

    def total(self, energies: dict[str, Tensor]) -> Tensor:
        """(B,) weighted sum."""
        return torch.stack([weight * energies[name] for name, weight in self.active.items()]).sum(0)

    def __call__(self, parameters: Parameters, *, every_term: bool = False) -> dict[str, Tensor]:
        """The terms that have a weight, or every one for a report."""
        wanted = set(asdict(self.config.weights)) if every_term else set(self.active)
        posed = parameters.pose(self.body)
        energies = self._unrendered(parameters, posed.rotations, posed.keypoints, wanted)
        if wanted & set(RENDERED):
            energies |= self._rendered(posed.vertices(), wanted)
        return energies

    def _unrendered(
        self, parameters: Parameters, rotations: Tensor, keypoints: Tensor, wanted: set[str]
    ) -> dict[str, Tensor]:
        points, scales, prior = self.points, self.config.scales, self.pose_prior
        energies = {}
        if "keypoints" in wanted:
            energies["keypoints"] = point_terms.keypoints(
                project(keypoints, points.intrinsics), points.pixels, points.confidence, points.box,
                scales.unit, scales.robust,
            )  # fmt: skip
        if "world_landmarks" in wanted:
            energies["world_landmarks"] = point_terms.world_landmarks(
                keypoints, points.world, points.world_confidence, scales.world_unit
            )
        if "betas" in wanted:
            energies["betas"] = prior_terms.betas(parameters.betas)
        if "stature" in wanted:
            energies["stature"] = prior_terms.stature(self.body.skeleton.height(parameters.betas))
        if "pose" in wanted:
            energies["pose"] = prior.energy(parameters.body_pose)
        if "bending" in wanted:
            energies["bending"] = prior_terms.bending(parameters.body_pose)
        if "initial" in wanted:
            energies["initial"] = self.anchor.energy(rotations, parameters.betas)
        return energies

    def _rendered(self, vertices: Tensor, wanted: set[str]) -> dict[str, Tensor]:
        channels = {"face_attributes" if self.per_face else "attributes": self.channels}
        render = self.renderer(vertices, self.window, self.targets.resolution, **channels)
        return rendered_energies(render, self.targets, self.config.semantics, wanted)


def channels_of(prior: SemanticPrior, labels: Sequence[np.ndarray], mc_valid: Tensor, label_set: str) -> Tensor:
    """(B, V or F, K + 1) what is rendered of B people: the classes' probabilities, then the summed probability of each
    image's valid MC labels. `labels` are the label maps cut to the crops, `mc_valid` (B, 5)."""
    worn = prior.dressed(labels)
    classes = worn.merged(LABEL_SETS[label_set])
    minimal = worn.minimally_clothed(mc_valid)
    return torch.cat([classes.expand(len(labels), -1, -1), minimal[..., None]], -1)


def rendered_energies(render: Render, targets: Targets, semantics: Semantics, wanted: set[str]) -> dict[str, Tensor]:
    """Those of `RENDERED` that are wanted: name -> (B,) unweighted."""
    seen, peak, minimal = read_channels(render.attributes, targets.classes)
    energies = {}
    if "dsr_mc" in wanted:
        if semantics.mc_form == "niou":
            energies["dsr_mc"] = dsr_mc(minimal, targets.mc_mask, targets.known)
        else:
            energies["dsr_mc"] = dsr_mc_distance(minimal, targets.mc_distance, targets.known, targets.mc_seen)
    if "dsr_c" in wanted:
        if semantics.c_form == "released":
            classes = render.attributes[..., :-1]
            energies["dsr_c"] = dsr_c_released(classes, targets.classes, targets.class_weights)
        else:
            energies["dsr_c"] = dsr_c(
                render.alpha, seen, peak, targets.class_weights, targets.known,
                excess=semantics.c_form == "excess", live=semantics.c_normaliser == "live",
            )  # fmt: skip
    if "silhouette" in wanted:
        energies["silhouette"] = silhouette(render.alpha, targets.person, targets.known)
    return energies
