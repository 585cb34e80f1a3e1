"""The perspective camera of the full image, the crop window in it, and SPIN's weak camera of the crop."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dsr_fit.rotation import axis_angle_to_matrix, matrix_to_axis_angle, rotation_between

SPIN_FOCAL = 5000.0
"""Focal length of SPIN's and DSR's camera, pixels of the 224 px crop."""

SPIN_RESOLUTION = 224
FOCAL_RANGE = (0.1, 100.0)
"""Focal lengths in image diagonals that are taken for a camera's: a 4 mm to a 4,300 mm lens on 35 mm film."""

CROP_MARGIN = 1.2
"""Side of the crop over the longer side of the keypoints' box."""


@dataclass(frozen=True)
class Crop:
    """A square window of the full image: an affine change of the intrinsics, nothing more."""

    center: tuple[float, float]
    """Pixels of the full image."""

    side: float
    """Pixels of the full image; SPIN's `scale` is side / 200."""

    @property
    def origin(self) -> tuple[float, float]:
        """Upper left corner, pixels of the full image."""
        return self.center[0] - self.side / 2, self.center[1] - self.side / 2

    def matrix(self, size: int, angle: float = 0.0, mirrored: bool = False) -> np.ndarray:
        """(2, 3) from pixels of the image to those of the crop shown at (size, size), turned by `angle` radians, then
        mirrored.

        As in all of this package a pixel's centre is at halves: the first covers 0..1. Libraries that count from
        its centre (OpenCV's warps) are told so where they are called, by half a pixel on both sides.
        """
        scale = size / self.side
        cos, sin = scale * np.cos(angle), scale * np.sin(angle)
        turn = np.array([[cos, -sin], [sin, cos]])
        if mirrored:
            turn[0] *= -1
        return np.column_stack([turn, size / 2 - turn @ self.center])

    @classmethod
    def around(cls, keypoints: np.ndarray, min_confidence: float = 0.2) -> Crop:
        """The crop around the observed of (49, 3) keypoints: 1.2 times the longer side of their box."""
        points = keypoints[keypoints[:, 2] > min_confidence, :2]
        if len(points) == 0:
            raise ValueError("no keypoint is confident enough to crop around")
        low, high = points.min(0), points.max(0)
        center = (low + high) / 2
        side = CROP_MARGIN * max(float((high - low).max()), 1.0)
        return cls((float(center[0]), float(center[1])), side)


def possible_focal(focal: float, image_size: tuple[int, int]) -> bool:
    """Whether a camera of an image of (width, height) can have this focal length, both in pixels."""
    diagonal = math.hypot(*image_size)
    return FOCAL_RANGE[0] * diagonal <= focal <= FOCAL_RANGE[1] * diagonal


def crop_intrinsics(intrinsics: Tensor, crops: list[Crop], resolution: int) -> Tensor:
    """(B, 4) fx, fy, cx, cy of full images -> those of the crops' windows rendered at `resolution` pixels."""
    origin = torch.tensor([crop.origin for crop in crops], dtype=intrinsics.dtype, device=intrinsics.device)
    side = torch.tensor([crop.side for crop in crops], dtype=intrinsics.dtype, device=intrinsics.device)
    scale = (resolution / side)[:, None]
    return torch.cat([intrinsics[:, :2] * scale, (intrinsics[:, 2:] - origin) * scale], 1)


def project(points: Tensor, intrinsics: Tensor) -> Tensor:
    """(B, N, 3) metres in the camera frame -> (B, N, 2) pixels: f * X / Z + principal point."""
    return points[..., :2] / points[..., 2:] * intrinsics[:, None, :2] + intrinsics[:, None, 2:]


def translation_from_keypoints(points: Tensor, pixels: Tensor, weights: Tensor, intrinsics: Tensor) -> Tensor:
    """Translation that carries body points onto their pixels, by linear least squares.

    `points` (B, N, 3) metres without translation, `pixels` (B, N, 2), `weights` (B, N), `intrinsics` (B, 4) ->
    (B, 3) metres. Each point gives two equations linear in t: f (X + tx) = (u - c) (Z + tz). Points in a wrong
    pose may fit best at no depth at all, so the depth stays within a factor of two of that at which they
    scatter over the image as widely as the pixels, and in front of the camera.
    """
    rays = (pixels - intrinsics[:, None, 2:]) / intrinsics[:, None, :2]
    ones, zeros = torch.ones_like(rays[..., 0]), torch.zeros_like(rays[..., 0])
    rows = torch.stack(
        [torch.stack([ones, zeros, -rays[..., 0]], -1), torch.stack([zeros, ones, -rays[..., 1]], -1)], -2
    )  # (B, N, 2, 3)
    right = rays * points[..., 2:] - points[..., :2]
    weighted = rows * weights[..., None, None]
    normal = torch.einsum("bnri,bnrj->bij", weighted, rows)
    normal = normal + 1e-9 * torch.eye(3, dtype=normal.dtype, device=normal.device)
    cam_t = torch.linalg.solve(normal, torch.einsum("bnri,bnr->bi", weighted, right))
    share = (weights / weights.sum(1, keepdim=True).clamp(min=1e-9))[..., None]
    middle = (share * points).sum(1)
    wide = (share * (points - middle[:, None])[..., :2].square()).sum((1, 2)).sqrt()
    seen = (share * (rays - (share * rays).sum(1, keepdim=True)).square()).sum((1, 2)).sqrt()
    scattered = wide / seen.clamp(min=1e-9)
    nearest = torch.maximum(0.3 - points[..., 2].amin(1), scattered / 2 - middle[:, 2])
    depth = torch.maximum(torch.minimum(cam_t[:, 2], 2 * scattered - middle[:, 2]), nearest)
    sideways = (share * (rays * (points[..., 2:] + depth[:, None, None]) - points[..., :2])).sum(1)
    return torch.cat([sideways, depth[:, None]], 1)


def ray_rotation(crop: Crop, focal_length: float, principal_point: tuple[float, float]) -> Tensor:
    """(3, 3) rotation of the full image's camera frame into that of a camera that looks along the crop's centre.

    A body that keeps its look in the crop has `global_orient` = this @ (its orientation in the full image).
    """
    ray = torch.tensor(
        [
            (crop.center[0] - principal_point[0]) / focal_length,
            (crop.center[1] - principal_point[1]) / focal_length,
            1.0,
        ],
        dtype=torch.float64,
    )
    return rotation_between(ray, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))


def spin_translation(crop_cam: Tensor) -> Tensor:
    """SPIN's and DSR's crop camera (..., 3) s, tx, ty -> translation (..., 3) for the focal length of 5000."""
    depth = 2 * SPIN_FOCAL / (SPIN_RESOLUTION * crop_cam[..., :1] + 1e-9)
    return torch.cat([crop_cam[..., 1:], depth], -1)


def fit_crop_camera(points: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """The least-squares crop camera of SPIN for a body.

    `points` (N, 3) metres without translation, already turned into the crop's viewing frame (see
    `ray_rotation`); `pixels` (N, 2) their places in the crop, -1..1 from side to side. Returns `crop_cam` (3,)
    s, tx, ty and the root mean square residual in pixels of the 224 px crop. SPIN's camera is another camera than
    the full image's perspective one: a residual remains.
    """
    focal = SPIN_FOCAL / (SPIN_RESOLUTION / 2)
    intrinsics = points.new_tensor([[focal, focal, 0.0, 0.0]])
    weights = points.new_ones(1, len(points))
    cam_t = translation_from_keypoints(points[None], pixels[None], weights, intrinsics)[0]
    projected = project((points + cam_t)[None], intrinsics)[0]
    residual = ((projected - pixels).square().sum(-1).mean()).sqrt() * (SPIN_RESOLUTION / 2)
    scale = 2 * SPIN_FOCAL / (SPIN_RESOLUTION * cam_t[2])
    return torch.stack([scale, cam_t[0], cam_t[1]]), residual


def crop_camera(
    joints: np.ndarray,
    pelvis: np.ndarray,
    cam_t: np.ndarray,
    global_orient: np.ndarray,
    crop: Crop,
    focal: float,
    center: tuple[float, float],
) -> tuple[np.ndarray, np.ndarray, float]:
    """SPIN's camera (3,), the orientation (3,) that goes with it, and the residual in pixels at 224 px.

    A camera of SPIN's looks straight at the crop, so the body is turned by the rotation between the image's
    optical axis and the ray to the crop's centre, about the root joint as `global_orient` turns it.
    """
    points = torch.from_numpy(joints).double()
    pixels = points[:, :2] / points[:, 2:] * focal + torch.tensor(center)
    pixels = (pixels - torch.tensor(crop.center)) / (crop.side / 2)
    turn = ray_rotation(crop, focal, center)
    root = torch.from_numpy(pelvis).double()
    turned = (points - root) @ turn.T + root - torch.from_numpy(cam_t).double()
    crop_cam, residual = fit_crop_camera(turned, pixels)
    orient = axis_angle_to_matrix(torch.from_numpy(global_orient).double())
    return crop_cam.float().numpy(), matrix_to_axis_angle(turn @ orient).float().numpy(), float(residual)
