"""What HMR makes of a few crops, as one picture."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from dsr_fit.body.body import Body
from dsr_fit.body.parameters import Parameters
from dsr_fit.camera import SPIN_FOCAL, SPIN_RESOLUTION, spin_translation
from dsr_fit.regressor.hmr import Seen
from dsr_fit.regressor.hmr_regressor import IMAGENET_MEAN, IMAGENET_STD
from dsr_fit.render.renderer import Renderer
from dsr_fit.rotation import matrix_to_axis_angle, sixd_to_matrix
from dsr_fit.view.overlay import shaded


def picture_of(images: Tensor, seen: Seen, body: Body) -> np.ndarray:
    """(448, B * 224, 3) uint8: the crops (B, 3, 224, 224), and below each the body over it."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    crops = (255 * (images.cpu() * std + mean)).clamp(0, 255).permute(0, 2, 3, 1).numpy()
    pose = matrix_to_axis_angle(sixd_to_matrix(seen.pose.unflatten(1, (24, 6)))).flatten(1)
    parameters = Parameters(pose[:, :3], pose[:, 3:], seen.betas, spin_translation(seen.crop_cam))
    renderer = Renderer(body.faces, body.num_vertices, device="cpu")
    center = SPIN_RESOLUTION / 2
    camera = torch.tensor([SPIN_FOCAL, SPIN_FOCAL, center, center])
    columns = []
    for crop, vertices in zip(crops, parameters.pose(body).vertices(), strict=True):
        colours, alpha = shaded(renderer, vertices, camera, SPIN_RESOLUTION)
        columns.append(np.concatenate([crop, crop * (1 - 0.85 * alpha) + 0.85 * alpha * colours]))
    return np.concatenate(columns, 1).round().clip(0, 255).astype(np.uint8)
