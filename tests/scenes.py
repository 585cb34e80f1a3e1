"""Observations with known truth: the open body rendered with the most likely labels of the outfit that they show."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch

from dsr_fit.body.body import Body
from dsr_fit.body.files import load_body
from dsr_fit.body.parameters import Parameters
from dsr_fit.camera import Crop, project, ray_rotation
from dsr_fit.observation import Detection, Observation
from dsr_fit.priors.pose import load_pose_prior
from dsr_fit.priors.semantic import load_semantic_prior
from dsr_fit.render.renderer import Renderer

WIDTH, HEIGHT = 240, 320
FOCAL = 400.0


@cache
def open_body() -> Body:
    return load_body("open")


@cache
def _renderer() -> Renderer:
    return Renderer(open_body().faces, open_body().num_vertices, device="cpu", outline="none")


def person(seed: int = 0, spread: float = 0.3, aside: float = 0.05) -> Parameters:
    """One person who stands about 3.4 m from the camera and `aside` metres to its right, roughly facing it."""
    generator = torch.Generator().manual_seed(seed)
    prior = load_pose_prior("ranges")
    body_pose = prior.center + spread * prior.std * torch.randn(1, 69, generator=generator)
    turn = 0.3 * float(torch.randn(1, generator=generator))
    orient = math.pi * torch.tensor([[math.cos(turn / 2), 0.0, math.sin(turn / 2)]])
    betas = spread * torch.randn(1, 10, generator=generator)
    return Parameters(orient, body_pose, betas, torch.tensor([[aside, 0.0, 3.4]]))


def _painted(vertices: torch.Tensor, intrinsics: torch.Tensor, worn: torch.Tensor) -> np.ndarray:
    """(HEIGHT, WIDTH) most likely label of the body, background elsewhere."""
    render = _renderer()(vertices, intrinsics, (HEIGHT, WIDTH), attributes=worn)
    return np.where(render.mask[0].numpy(), render.attributes[0].argmax(-1).numpy(), 0).astype(np.uint8)


def observe(truth: Parameters, noise_px: float = 0.0, world: bool = True, seed: int = 0) -> Observation:
    """What a perfect detector and parser would see of it, with chosen noise on the keypoints."""
    body, prior = open_body(), load_semantic_prior(open_body())
    posed = truth.pose(body)
    intrinsics = torch.tensor([[FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2]])
    labels = _painted(posed.vertices(), intrinsics, prior.probabilities)
    for _ in range(3):  # until the outfit painted is the outfit told
        labels = _painted(posed.vertices(), intrinsics, prior.dressed([labels]).probabilities)
    keypoints = np.zeros((49, 3), np.float32)
    keypoints[:25, :2] = project(posed.keypoints, intrinsics)[0, :25].numpy()
    keypoints[:25, :2] += noise_px * np.random.default_rng(seed).normal(size=(25, 2))
    keypoints[:25, 2] = 1
    landmarks = None
    if world:
        landmarks = np.zeros((49, 4), np.float32)
        straight = ray_rotation(Crop.around(keypoints), FOCAL, (WIDTH / 2, HEIGHT / 2)).numpy()
        landmarks[:25, :3] = (posed.keypoints[0, :25].numpy() - posed.keypoints[0, 8].numpy()) @ straight.T
        landmarks[:25, 3] = 1
    image = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
    return Observation(image, Detection(keypoints, landmarks, source="truth"), labels, "truth", FOCAL)
