"""HMR as a regressor of official SMPL: crops of the images in, full-image parameters out; and its weights for EFT.

HMR predicts a body in its crop, under SPIN's camera. The prediction is converted to the full image's camera: the
orientation is rotated from the crop's viewing ray to the optical axis, and the translation is the least-squares one for
the projections of SMPL's 24 joints.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from dsr_fit.assets import sha256
from dsr_fit.body.body import Body
from dsr_fit.body.parameters import Parameters
from dsr_fit.body.skeleton import Skeleton
from dsr_fit.camera import SPIN_RESOLUTION, project, ray_rotation, spin_translation, translation_from_keypoints
from dsr_fit.errors import UsageError
from dsr_fit.observe.batch import Batch, crop_camera_of
from dsr_fit.observe.crop import cut
from dsr_fit.optimise.least_squares import State
from dsr_fit.regressor.checkpoints import load_hmr_checkpoint
from dsr_fit.regressor.hmr import CropEstimate, Hmr
from dsr_fit.regressor.protocol import Estimate, with_prefixes
from dsr_fit.rotation import matrix_to_axis_angle, sixd_to_matrix

SMPL_VERTICES, SMPL_FACES = 6890, 13776
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Cameras:
    """The cameras of B crops and their images. Double precision: SPIN's camera is some 50 m away."""

    full: Tensor  # (B, 4) fx, fy, cx, cy of the full image
    crop: Tensor  # (B, 4) SPIN's camera of the crop, in the full image's pixels
    turns: Tensor  # (B, 3, 3) from the full image's camera frame to that which looks at the crop's centre

    @classmethod
    def of(cls, batch: Batch, device: torch.device) -> Cameras:
        views = zip(batch.crops, batch.focal_lengths, batch.principal_points, strict=True)
        turns = torch.stack([ray_rotation(*view) for view in views])
        pairs = (zip(batch.focal_lengths, batch.principal_points, strict=True), map(crop_camera_of, batch.crops))
        full, crop = (torch.tensor([[f, f, *c] for f, c in pair], dtype=torch.float64, device=device) for pair in pairs)
        return cls(full, crop, turns.to(device))


def to_full_image(seen: CropEstimate, cameras: Cameras, skeleton: Skeleton) -> Parameters:
    """Predictions in crops as full-image parameters, in single precision; `skeleton` in double."""
    rotations = sixd_to_matrix(seen.pose.double().unflatten(1, (24, 6)))
    rest = skeleton.joints_at_rest(seen.betas.double())
    joints = skeleton.positions(skeleton.world_rotations(rotations), rest)
    pixels = project(joints + spin_translation(seen.crop_cam.double())[:, None], cameras.crop)
    rotations = torch.cat([cameras.turns.transpose(1, 2)[:, None] @ rotations[:, :1], rotations[:, 1:]], 1)
    turned = skeleton.positions(skeleton.world_rotations(rotations), rest)
    cam_t = translation_from_keypoints(turned, pixels, torch.ones_like(turned[..., 0]), cameras.full)
    pose = matrix_to_axis_angle(rotations).flatten(1)
    return Parameters(pose[:, :3], pose[:, 3:], seen.betas, cam_t).map(Tensor.float)


def crop_images(batch: Batch) -> Tensor:
    """(B, 3, 224, 224) HMR's input: RGB crops, black beyond the image, normalised as for ImageNet."""
    pictures = [
        cut(item.image, crop, SPIN_RESOLUTION, border=0)
        for item, crop in zip(batch.observations, batch.crops, strict=True)
    ]
    return normalised(np.stack(pictures))


def normalised(pictures: np.ndarray) -> Tensor:
    """(B, H, W, 3) RGB of 0..255 -> (B, 3, H, W)."""
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return ((images - mean) / std).contiguous()


class WeightVariables:
    """Each person's copy of some of the network's weights (`Variables`)."""

    def __init__(
        self, network: Hmr, images: Tensor, names: list[str], to_parameters: Callable[[CropEstimate], Parameters]
    ) -> None:
        """`names` of the weights to fine-tune; the others are shared."""
        whole = any(name.startswith("backbone.") for name in names)
        with torch.no_grad():
            # A backbone that is not fine-tuned runs once.
            self._inputs = images if whole else network.backbone(images)
        self._part: nn.Module = network if whole else network.head
        self._to_parameters = to_parameters
        weights = dict(network.named_parameters())
        self._weights = [
            {
                name if whole else name.removeprefix("head."): weights[name].detach().clone().requires_grad_()
                for name in names
            }
            for _ in range(len(images))
        ]

    def tensors(self) -> list[Tensor]:
        return [weight for own in self._weights for weight in own.values()]

    def decode(self) -> Parameters:
        seen = [
            cast(CropEstimate, torch.func.functional_call(self._part, own, (self._inputs[row : row + 1],)))
            for row, own in enumerate(self._weights)
        ]
        return self._to_parameters(CropEstimate(*(torch.cat(values) for values in zip(*seen, strict=True))))


class HmrRegressor:
    """See `dsr_fit.regressor.protocol.Regressor`."""

    needs_image = True
    people_at_once = 1
    """As in EFT: a person's copy of all weights, with Adam and the gradient, takes .43 GB."""
    eft_learning_rate = 5e-6
    """EFT's, as released."""
    fingerprint = ""

    def __init__(self, network: Hmr, body: Body, name: str) -> None:
        """The network is put in evaluation mode, without gradients. Raises UsageError for a body that isn't SMPL."""
        check_body(body, name)
        self.name = name
        self._network = network.eval().requires_grad_(False)
        self._device = network.head.init_pose.device
        self._skeleton = body.skeleton.to(self._device, torch.float64)

    @torch.no_grad()
    def __call__(self, batch: Batch) -> Estimate:
        seen = self._network(crop_images(batch).to(self._device))
        return Estimate(to_full_image(seen, Cameras.of(batch, self._device), self._skeleton))

    def start(self, batch: Batch, estimate: Estimate) -> State:
        return State.of(estimate.parameters)

    def variables(self, batch: Batch, layers: tuple[str, ...] = ()) -> WeightVariables:
        """Raises UsageError where one of `layers` is no prefix of a weight's name.

        A person's copy of all layers is 108 MB, and Adam and the gradient make that four times as much.
        """
        return WeightVariables(
            self._network,
            crop_images(batch).to(self._device),
            self.movable(layers),
            partial(to_full_image, cameras=Cameras.of(batch, self._device), skeleton=self._skeleton),
        )

    def movable(self, layers: tuple[str, ...]) -> list[str]:
        """Names of the weights with one of the prefixes `layers`, or all; never batch norm's."""
        frozen = {
            f"{module_name}.{name}"
            for module_name, module in self._network.named_modules()
            if isinstance(module, nn.BatchNorm2d)
            for name, _ in module.named_parameters()
        }
        names = [name for name, _ in self._network.named_parameters() if name not in frozen]
        known = dict.fromkeys(".".join(name.split(".")[:2]) for name in names)
        return with_prefixes(names, layers or ("",), self.name, known)


def check_body(body: Body, name: str) -> None:
    """Raises UsageError unless the body has as many vertices and faces as official SMPL, which `name` predicts."""
    counts = (body.num_vertices, len(body.faces))
    if counts != (SMPL_VERTICES, SMPL_FACES):
        raise UsageError(
            f"{name}: HMR's bodies are official SMPL ({SMPL_VERTICES} vertices, {SMPL_FACES} faces), and the body "
            f"{body.name} has {counts[0]} and {counts[1]}; give an official SMPL file with --body"
        )


def load_hmr_regressor(
    path: Path, body: Body, mean_params: str | Path | None = None, device: torch.device | str = "cpu"
) -> HmrRegressor:
    """The regressor of a checkpoint; raises as `load_hmr_checkpoint` and `check_body` do."""
    check_body(body, path.name)  # before the large file is read
    regressor = HmrRegressor(load_hmr_checkpoint(path, mean_params).to(device), body, path.name)
    regressor.fingerprint = sha256(path)
    return regressor
