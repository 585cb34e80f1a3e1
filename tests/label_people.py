"""Pseudo-labels of people whose bodies are known, seen by a chosen camera."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scenes import FOCAL, HEIGHT, WIDTH, observe, open_body, person

from dsr_fit.body.parameters import Parameters
from dsr_fit.camera import SPIN_FOCAL, SPIN_RESOLUTION, Crop, project, ray_rotation
from dsr_fit.dataset.records import pack_labels
from dsr_fit.labels import COLOURS
from dsr_fit.observation import Detection, Observation
from dsr_fit.training.pseudo_labels import PseudoLabels


def known_people(folder: Path, seeds: Sequence[int] = (0, 1, 2)) -> PseudoLabels:
    """The people of `scenes`, all 49 keypoints and landmarks without error; their pictures are their label maps."""
    truths = [person(seed) for seed in seeds]
    seen = [observe(truth) for truth in truths]
    for seed, one in zip(seeds, seen, strict=True):
        Image.fromarray(COLOURS[one.labels]).save(folder / f"{seed}.png")
    intrinsics = np.tile(np.array([[FOCAL, WIDTH / 2, HEIGHT / 2]], np.float32), (len(seeds), 1))
    return _labels(folder, [f"{seed}.png" for seed in seeds], truths, intrinsics, [one.labels for one in seen])


def observation_of(people: PseudoLabels, row: int, *, with_image: bool = False) -> Observation:
    """What a fit would be given of a person, landmarks along the ray to the crop's centre; the image black, unless it
    is asked for."""
    width, height = people.image_size[row]
    image = people.image(row) if with_image else np.zeros((height, width, 3), np.uint8)
    focal, x, y = (float(value) for value in people.intrinsics[row])
    world = people.world[row].copy()
    world[:, :3] = world[:, :3] @ ray_rotation(people.crop(row), focal, (x, y)).numpy().T
    detection = Detection(people.keypoints[row], world if world[:, 3].any() else None, None, "pseudo-labels")
    return Observation(image, detection, people.labels(row), "pseudo-labels", focal)


def by_the_crops_camera(people: PseudoLabels) -> PseudoLabels:
    """The same bodies some 50 m away, seen by SPIN's camera of a crop that isn't quite theirs."""
    truths, cameras = [], []
    for row in range(len(people)):
        crop = people.crop(row)
        crop = Crop((crop.center[0] + 7, crop.center[1] - 4), 1.1 * crop.side)
        truth = people.parameters([row])
        far = truth.cam_t.new_tensor([[0.03, -0.05, 48.0 + row]])
        truths.append(Parameters(truth.global_orient, truth.body_pose, truth.betas, far))
        cameras.append([SPIN_FOCAL * crop.side / SPIN_RESOLUTION, *crop.center])
    intrinsics = np.array(cameras, np.float32)
    maps = [people.labels(row) for row in range(len(people))]
    return _labels(people.images, people.imgname, truths, intrinsics, maps)


def _labels(
    folder: Path,
    names: Sequence[str],
    truths: Sequence[Parameters],
    intrinsics: np.ndarray,
    maps: Sequence[np.ndarray],
) -> PseudoLabels:
    together = Parameters(*(torch.cat(values) for values in zip(*(one.tensors() for one in truths), strict=True)))
    keypoints = together.pose(open_body()).keypoints
    pixels = project(keypoints, torch.from_numpy(intrinsics[:, [0, 0, 1, 2]])).numpy()
    ones = np.ones((len(truths), 49, 1), np.float32)
    return PseudoLabels(
        images=folder,
        imgname=tuple(names),
        keypoints=np.concatenate([pixels, ones], 2),
        world=np.concatenate([(keypoints - keypoints[:, 8:9]).numpy(), ones], 2),
        full_pose=together.full_pose.numpy(),
        betas=together.betas.numpy(),
        cam_t=together.cam_t.numpy(),
        intrinsics=intrinsics,
        image_size=np.tile([WIDTH, HEIGHT], (len(truths), 1)),
        has_body=np.ones(len(truths), bool),
        quality=np.linspace(0.4, 0.8, len(truths), dtype=np.float32),
        accepted=np.ones(len(truths), bool),
        unjudged=np.zeros(len(truths), bool),
        label_maps=tuple(pack_labels(one) for one in maps),
    )
