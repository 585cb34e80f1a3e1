"""A posed body on which garments are laid, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from dsr_fit.synthetic.surface import Surface, open_surface, vertex_normals


@dataclass
class Wearer:
    """One person's body in the camera frame and, in `outer`, what has been put on it so far."""

    surface: Surface
    shaped: np.ndarray  # (V, 3) T-pose of this shape, metres
    transforms: np.ndarray  # (24, 3, 4) from the T-pose to the camera frame
    vertices: np.ndarray  # (V, 3) camera frame
    normals: np.ndarray  # (V, 3)
    down: np.ndarray  # (3,) gravity
    outer: np.ndarray  # (V, 3) the outermost cloth over each vertex, the body itself where bare
    hanging: np.ndarray = field(default_factory=lambda: np.zeros((0, 6)))  # points and normals of skirts worn

    def obstacle(self, without: list[int]) -> tuple[np.ndarray, np.ndarray]:
        """What cloth rests on: points and unit normals (N, 3), but for what moves with the joints `without`."""
        solid = self.surface.weights[:, without].sum(1) < 0.5
        normals = vertex_normals(self.outer, self.surface.faces)
        points, hung = np.split(self.hanging, 2, axis=1)
        return np.concatenate([self.outer[solid], points]), np.concatenate([normals[solid], hung])

    def carried(self, offsets: np.ndarray) -> np.ndarray:
        """Offsets (V, 3) from the T-pose's axes to the camera frame's, turned as the skin there is."""
        turned = np.einsum("jrc,vc->vjr", self.transforms[..., :3], offsets)
        return np.einsum("vj,vjr->vr", self.surface.weights, turned)

    def posed(self, points: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Points (N, 3) of the T-pose bound to the joints by weights (N, 24), in the camera frame."""
        blended = np.einsum("nj,jrc->nrc", weights, self.transforms)
        return np.einsum("nrc,nc->nr", blended[..., :3], points) + blended[..., 3]


def wearer_of(
    global_orient: np.ndarray, body_pose: np.ndarray, betas: np.ndarray, cam_t: np.ndarray, down: np.ndarray
) -> tuple[Wearer, np.ndarray]:
    """The bare wearer and its keypoints (49, 3) in the camera frame."""
    surface = open_surface()
    body = surface.body
    with torch.no_grad():
        arrays = (torch.from_numpy(np.asarray(a, np.float32))[None] for a in (global_orient, body_pose, betas, cam_t))
        posed = body(*arrays)
        vertices = posed.vertices()[0].numpy().astype(np.float64)
        shaped = (body.v_template + body.shapedirs @ torch.from_numpy(np.asarray(betas, np.float32))).numpy()
        transforms = posed.transforms[0].numpy().astype(np.float64)
        keypoints = posed.keypoints[0].numpy()
    transforms[..., 3] += cam_t
    normals = vertex_normals(vertices, surface.faces)
    return Wearer(surface, shaped.astype(np.float64), transforms, vertices, normals, down, vertices.copy()), keypoints
