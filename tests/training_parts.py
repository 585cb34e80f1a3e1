"""A small open regressor to be trained, its settings, and the truth as it would say it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from scenes import open_body

from dsr_fit.priors.semantic import load_semantic_prior
from dsr_fit.regressor.open_network import Placed, RegressorNetwork, Size
from dsr_fit.training.open_module import OpenTraining
from dsr_fit.training.settings import TrainSettings
from dsr_fit.training.synthetic.samples import Truth

SMALL = Size(labels=(8, 8), summary=8, first=(24, 1), refinement=(16, 1), refinements=1)


def settings_of(out: Path = Path("out"), **changes: Any) -> TrainSettings:
    return replace(TrainSettings(out=out), **changes)


def small_training(**changes: Any) -> OpenTraining:
    torch.manual_seed(0)
    settings = settings_of(**changes)
    return OpenTraining(RegressorNetwork(SMALL).eval(), open_body(), load_semantic_prior(open_body()), settings)


def placed_truth(truth: Truth) -> Placed:
    keypoints = open_body().skeleton.keypoints(truth.rotations, truth.betas) + truth.cam_t[:, None]
    return Placed(truth.rotations, truth.betas, truth.cam_t, keypoints)
