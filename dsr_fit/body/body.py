"""SMPL-format bodies: kinematics, keypoints and skinning, batched and differentiable.

Linear blend skinning (SMPL, Loper et al. 2015) moves vertex v by sum_j w_vj A_j, A_j the transform of joint j
relative to the rest pose. A keypoint that is a linear combination of vertices is therefore a combination of the
joints' transforms too, with coefficients that are linear in betas: the 49 keypoints are computed without a vertex.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dsr_fit.body.kinematics import transforms
from dsr_fit.body.skeleton import Skeleton, by_row, descendants, pose_feature
from dsr_fit.body.skinning import SkinningWeights, skin
from dsr_fit.tensors import Tensors


@dataclass(frozen=True)
class Body(Tensors):
    """An SMPL-format body. V vertices, F faces; metres, y up in the body's own frame, T-pose at rest."""

    name: str
    sha256: str
    v_template: Tensor  # (V, 3)
    shapedirs: Tensor  # (V, 3, 10)
    posedirs: Tensor | None  # (V, 3, 207), None where zero
    weights: SkinningWeights  # V x 24, sparse
    faces: Tensor  # (F, 3) int32
    skeleton: Skeleton

    @property
    def num_vertices(self) -> int:
        return len(self.v_template)

    def __call__(self, global_orient: Tensor, body_pose: Tensor, betas: Tensor, cam_t: Tensor) -> Posed:
        """Pose the body.

        `global_orient` (B, 3) and `body_pose` (B, 69) axis-angle, `betas` (B, 10), `cam_t` (B, 3) metres.
        """
        pose = torch.cat([global_orient, body_pose], 1).unflatten(1, (24, 3))
        rotations, moved = transforms(pose, self.skeleton.joints_at_rest(betas), self.skeleton)
        keypoints = self.skeleton.keypoints(rotations, betas, moved) + cam_t[:, None]
        return Posed(self, rotations, betas, moved, keypoints, cam_t)


@dataclass(frozen=True)
class Posed:
    """A posed batch: keypoints at once, vertices when asked for (a stage on keypoints alone never skins)."""

    body: Body
    rotations: Tensor  # (B, 24, 3, 3) local
    betas: Tensor  # (B, 10)
    transforms: Tensor  # (B, 24, 3, 4) relative to rest, without cam_t
    keypoints: Tensor  # (B, 49, 3) metres, camera frame
    cam_t: Tensor  # (B, 3)

    def vertices(self) -> Tensor:
        """(B, V, 3) metres, camera frame."""
        body = self.body
        shaped = body.v_template + by_row(self.betas, body.shapedirs)
        if body.posedirs is not None:
            shaped = shaped + by_row(pose_feature(self.rotations), body.posedirs)
        moved = torch.cat([self.transforms[..., :3], self.transforms[..., 3:] + self.cam_t[:, None, :, None]], -1)
        return skin(shaped, moved, body.weights)

    def joints(self) -> Tensor:
        """(B, 24, 3) metres, camera frame: SMPL's own joints."""
        rest = self.body.skeleton.joints_at_rest(self.betas)
        return (
            torch.einsum("bjrc,bjc->bjr", self.transforms[..., :3], rest)
            + self.transforms[..., 3]
            + self.cam_t[:, None]
        )


def build_body(
    *,
    name: str,
    sha256: str,
    v_template: np.ndarray,
    shapedirs: np.ndarray,
    posedirs: np.ndarray | None,
    weights: np.ndarray,
    faces: np.ndarray,
    parents: tuple[int, ...],
    joint_regressor: np.ndarray,
    posed_keypoints: np.ndarray,
    joint_of_keypoint: dict[int, int] | None = None,
) -> Body:
    """Assemble a body from the arrays of a file.

    `joint_regressor` (24, V) gives rest joints; `posed_keypoints` (49, V) regresses keypoints from posed vertices,
    a zero row meaning that the body does not define it; `joint_of_keypoint` names keypoints that are SMPL's own
    joints. Shapes are checked by the caller.
    """
    template = v_template.astype(np.float64)
    dirs = shapedirs.astype(np.float64)
    rest = joint_regressor @ template
    rest_dirs = np.einsum("jv,vcs->jcs", joint_regressor, dirs)

    # Rows of the regressor are short: only the vertices that some keypoint uses take part.
    used = np.flatnonzero(np.any(posed_keypoints != 0, axis=0))
    products = posed_keypoints[:, used, None] * weights[None, used].astype(np.float64)  # (K, U, J)
    moments = np.einsum("kuj,uc->kjc", products, np.pad(template[used], ((0, 0), (0, 1)), constant_values=1))
    moments_dirs = np.einsum("kuj,ucs->kjcs", products, dirs[used])
    moments_pose = None
    if posedirs is not None:
        moments_pose = np.einsum("kuj,ucp->kjcp", products, posedirs[used].astype(np.float64), optimize=True)
    for keypoint, joint in (joint_of_keypoint or {}).items():
        moments[keypoint], moments_dirs[keypoint] = 0, 0
        moments[keypoint, joint] = [*rest[joint], 1]
        moments_dirs[keypoint, joint] = rest_dirs[joint]
        if moments_pose is not None:
            moments_pose[keypoint] = 0

    # From the lowest to the highest vertex of the template; both keep that role on other shapes, to millimetres.
    crown, sole = template[:, 1].argmax(), template[:, 1].argmin()
    stature = np.append(template[crown, 1] - template[sole, 1], dirs[crown, 1] - dirs[sole, 1])

    def single(array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))

    skeleton = Skeleton(
        parents=parents,
        rest_joints=single(rest),
        rest_joints_dirs=single(rest_dirs),
        keypoint_moments=single(moments),
        keypoint_moments_dirs=single(moments_dirs),
        keypoint_moments_pose=None if moments_pose is None else single(moments_pose),
        stature=single(stature),
        keypoint_valid=torch.from_numpy(moments[..., 3].sum(1) > 0.5),
        tree=descendants(parents),
    )
    return Body(
        name=name,
        sha256=sha256,
        v_template=single(v_template),
        shapedirs=single(shapedirs),
        posedirs=None if posedirs is None else single(posedirs),
        weights=SkinningWeights.from_dense(weights),
        faces=torch.from_numpy(np.ascontiguousarray(faces, dtype=np.int32)),
        skeleton=skeleton,
    )
