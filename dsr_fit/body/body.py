"""SMPL-format bodies: kinematics, keypoints and skinning, batched and differentiable.

Linear blend skinning (SMPL, Loper et al. 2015) moves vertex v by sum_j w_vj A_j, A_j the transform of joint j
relative to the rest pose. A keypoint that is a linear combination of vertices is therefore a combination of the
joints' transforms too, with coefficients that are linear in betas: the 49 keypoints are computed without a vertex.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from dsr_fit.body.kinematics import transforms
from dsr_fit.body.skinning import SkinningWeights, skin


def _levels(parents: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Joints by depth in the tree, each level with its joints and their parents; the root is left out."""
    depth = [0] * len(parents)
    for joint, parent in enumerate(parents):
        if parent >= 0:
            depth[joint] = depth[parent] + 1
    levels = []
    for level in range(1, max(depth) + 1):
        joints = [joint for joint in range(len(parents)) if depth[joint] == level]
        levels.append((joints, [parents[joint] for joint in joints]))
    return levels


def descendants(parents: tuple[int, ...]) -> Tensor:
    """(J, J) float: entry i, j is 1 where joint j is joint i or hangs below it."""
    matrix = torch.eye(len(parents))
    for joint in range(len(parents) - 1, 0, -1):
        matrix[parents[joint]] += matrix[joint]
    return matrix


@dataclass(frozen=True)
class Skeleton:
    """The joints and keypoints of a body: all that kinematics needs, a few kilobytes. J = 24 joints, K = 49."""

    parents: tuple[int, ...]
    rest_joints: Tensor
    """(J, 3) metres, at betas = 0."""
    rest_joints_dirs: Tensor
    """(J, 3, 10) metres per unit of beta."""
    keypoint_moments: Tensor
    """(K, J, 4): sum over vertices of regressor x skinning weight x (x, y, z, 1) of the template."""
    keypoint_moments_dirs: Tensor
    """(K, J, 3, 10): the same of `shapedirs`."""
    keypoint_moments_pose: Tensor | None
    """(K, J, 3, 207): the same of `posedirs`; None where they are zero."""
    keypoint_valid: Tensor
    """(K,) bool: the body defines this keypoint."""
    stature: Tensor
    """(11,) metres from sole to crown: at betas = 0, and per unit of each beta."""
    tree: Tensor
    """(J, J) see `descendants`."""

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Skeleton:
        """Same skeleton on another device or with another floating-point type."""
        moved = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                moved[field.name] = value.to(device, dtype if value.is_floating_point() else None)
        return replace(self, **moved)

    def joints_at_rest(self, betas: Tensor) -> Tensor:
        """(B, 10) -> (B, J, 3) metres."""
        return self.rest_joints + by_row(betas, self.rest_joints_dirs)

    def height(self, betas: Tensor) -> Tensor:
        """(B, 10) -> (B,) metres from sole to crown in the T-pose."""
        return self.stature[0] + betas @ self.stature[1:]

    def world_rotations(self, rotations: Tensor) -> Tensor:
        """Local joint rotations (B, J, 3, 3), root first -> rotations to the camera frame, (B, J, 3, 3)."""
        world: list[Tensor] = [rotations[:, 0]] * len(self.parents)
        for joints, parents in _levels(self.parents):
            product = torch.stack([world[parent] for parent in parents], 1) @ rotations[:, joints]
            for slot, joint in enumerate(joints):
                world[joint] = product[:, slot]
        return torch.stack(world, 1)

    def positions(self, world: Tensor, rest: Tensor) -> Tensor:
        """Posed joints (B, J, 3), without `cam_t`, of world rotations (B, J, 3, 3) and rest joints (B, J, 3).

        Linear in `rest`: each joint adds its parent's rotated offset to all that hang below it.
        """
        parents = list(self.parents[1:])
        offsets = torch.einsum("bjrc,bjc->bjr", world[:, parents], rest[:, 1:] - rest[:, parents])
        steps = torch.cat([rest[:, :1], offsets], 1)
        return self.tree.T @ steps

    def moments(self, rotations: Tensor, betas: Tensor) -> Tensor:
        """(B, K, J, 4) coefficients of the keypoints for this shape (and pose, where the body has `posedirs`)."""
        shaped = by_row(betas, self.keypoint_moments_dirs)
        if self.keypoint_moments_pose is not None:
            shaped = shaped + by_row(pose_feature(rotations), self.keypoint_moments_pose)
        return self.keypoint_moments + torch.nn.functional.pad(shaped, (0, 1))

    def transforms(self, rotations: Tensor, betas: Tensor) -> Tensor:
        """A (B, J, 3, 4): each joint's rigid transform relative to the rest pose, without `cam_t`."""
        rest = self.joints_at_rest(betas)
        world = self.world_rotations(rotations)
        moved = self.positions(world, rest) - torch.einsum("bjrc,bjc->bjr", world, rest)
        return torch.cat([world, moved[..., None]], -1)

    def keypoints(self, rotations: Tensor, betas: Tensor, transforms: Tensor | None = None) -> Tensor:
        """(B, K, 3) metres, without `cam_t`; keypoints that the body does not define stay at zero."""
        if transforms is None:
            transforms = self.transforms(rotations, betas)
        return torch.einsum("bkjc,bjrc->bkr", self.moments(rotations, betas), transforms)


@dataclass(frozen=True)
class Body:
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

    def to(self, device: torch.device | str) -> Body:
        """Same body on another device."""
        return replace(
            self,
            v_template=self.v_template.to(device),
            shapedirs=self.shapedirs.to(device),
            posedirs=None if self.posedirs is None else self.posedirs.to(device),
            weights=self.weights.to(device),
            faces=self.faces.to(device),
            skeleton=self.skeleton.to(device),
        )

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


def by_row(coefficients: Tensor, dirs: Tensor) -> Tensor:
    """(B, S) coefficients of blendshapes (..., S) -> (B, ...), each person's sum taken alone.

    One matrix product for the batch would round a person's sums by how many others there are, and a fit, whose pixels
    change by jumps, would carry that to millimetres.
    """
    flat = dirs.flatten(0, -2)
    return torch.stack([flat @ row for row in coefficients.unbind(0)]).unflatten(1, dirs.shape[:-1])


def pose_feature(rotations: Tensor) -> Tensor:
    """SMPL's input of the pose blendshapes: (B, 24, 3, 3) local rotations -> (B, 207)."""
    eye = torch.eye(3, dtype=rotations.dtype, device=rotations.device)
    return (rotations[:, 1:] - eye).flatten(1)


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
