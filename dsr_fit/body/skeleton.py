"""The kinematic tree of a body: joints, and keypoints that follow them without a vertex."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dsr_fit.compilation import kernel
from dsr_fit.tensors import Tensors


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
class Skeleton(Tensors):
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

    def joints_at_rest(self, betas: Tensor) -> Tensor:
        """(B, 10) -> (B, J, 3) metres."""
        return self.rest_joints + by_row(betas, self.rest_joints_dirs)

    def height(self, betas: Tensor) -> Tensor:
        """(B, 10) -> (B,) metres from sole to crown in the T-pose."""
        # No matrix product: it rounds a row by its place in memory.
        return self.stature[0] + (betas * self.stature[1:]).sum(1)

    def world_rotations(self, rotations: Tensor) -> Tensor:
        """Local joint rotations (B, J, 3, 3), root first -> rotations to the camera frame, (B, J, 3, 3)."""
        if rotations.device.type == "cpu" and not rotations.requires_grad:
            world = torch.empty(rotations.shape, dtype=rotations.dtype)
            _chain(rotations.detach().contiguous().numpy(), np.array(self.parents), world.numpy())
            return world
        local = rotations.unbind(1)
        turned: list[Tensor] = [local[0]] * len(self.parents)
        for joints, parents in _levels(self.parents):
            above, own = ([of[joint] for joint in which] for of, which in ((turned, parents), (local, joints)))
            product = torch.stack(above, 1) @ torch.stack(own, 1)
            for slot, joint in enumerate(joints):
                turned[joint] = product[:, slot]
        return torch.stack(turned, 1)

    def of_parents(self, values: Tensor, dim: int) -> Tensor:
        """The values of each joint's parent, the root left out; `dim` goes over the joints.

        By views: an index made from a list would be copied to a GPU each time.
        """
        each = values.unbind(dim)
        return torch.stack([each[parent] for parent in self.parents[1:]], dim)

    def positions(self, world: Tensor, rest: Tensor) -> Tensor:
        """Posed joints (B, J, 3), without `cam_t`, of world rotations (B, J, 3, 3) and rest joints (B, J, 3).

        Linear in `rest`: each joint adds its parent's rotated offset to all that hang below it.
        """
        apart = rest[:, 1:] - self.of_parents(rest, 1)
        offsets = torch.einsum("bjrc,bjc->bjr", self.of_parents(world, 1), apart)
        steps = torch.cat([rest[:, :1], offsets], 1)
        return self.tree.T @ steps

    def moments(self, rotations: Tensor, betas: Tensor) -> Tensor:
        """(B, K, J, 4) coefficients of the keypoints for this shape (and pose, where the body has `posedirs`)."""
        shaped = by_row(betas, self.keypoint_moments_dirs)
        if self.keypoint_moments_pose is not None:
            shaped = shaped + by_row(pose_feature(rotations), self.keypoint_moments_pose)
        return self.keypoint_moments + torch.nn.functional.pad(shaped, (0, 1))

    def transforms(self, rotations: Tensor, rest: Tensor) -> Tensor:
        """(B, J, 3, 4) each joint's rigid transform relative to the rest pose of joints `rest`, without `cam_t`."""
        world = self.world_rotations(rotations)
        moved = self.positions(world, rest) - torch.einsum("bjrc,bjc->bjr", world, rest)
        return torch.cat([world, moved[..., None]], -1)

    def keypoints(self, rotations: Tensor, betas: Tensor, transforms: Tensor | None = None) -> Tensor:
        """(B, K, 3) metres, without `cam_t`; keypoints that the body does not define stay at zero."""
        if transforms is None:
            transforms = self.transforms(rotations, self.joints_at_rest(betas))
        return torch.einsum("bkjc,bjrc->bkr", self.moments(rotations, betas), transforms)


@kernel
def _chain(local, parents, world):
    """`world_rotations`, a joint after its parent."""
    for b in range(len(local)):
        world[b, 0] = local[b, 0]
        for j in range(1, len(parents)):
            above, own, product = world[b, parents[j]], local[b, j], world[b, j]
            for r in range(3):
                for c in range(3):
                    product[r, c] = above[r, 0] * own[0, c] + above[r, 1] * own[1, c] + above[r, 2] * own[2, c]


def by_row(coefficients: Tensor, dirs: Tensor) -> Tensor:
    """(B, S) coefficients of blendshapes (..., S) -> (B, ...), on a CPU each person's sum taken alone.

    One matrix product for the batch would round a person's sums by how many others there are, and a fit, whose pixels
    change by jumps, would carry that to millimetres. A GPU, which rounds by the batch elsewhere too, gets that product:
    each one that it has to begin takes it as long.
    """
    flat = dirs.flatten(0, -2)
    if coefficients.device.type == "cpu":
        summed = torch.stack([flat @ row for row in coefficients.unbind(0)])
    else:
        summed = coefficients @ flat.T
    return summed.unflatten(1, dirs.shape[:-1])


def pose_feature(rotations: Tensor) -> Tensor:
    """SMPL's input of the pose blendshapes: (B, 24, 3, 3) local rotations -> (B, 207)."""
    eye = torch.eye(3, dtype=rotations.dtype, device=rotations.device)
    return (rotations[:, 1:] - eye).flatten(1)
