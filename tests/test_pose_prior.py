"""The pose prior: a proper mixture, the same for a rotation's every name and for mirror images, and of human bends."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from dsr_fit.assets import shipped
from dsr_fit.errors import InputError
from dsr_fit.evaluate.metrics import implausible_joints, joint_angles
from dsr_fit.joints import SMPL_JOINTS
from dsr_fit.priors.pose import PosePrior, load_pose_prior, read_pose_prior, wrapped
from dsr_fit.priors.recorded_poses import load_poses
from dsr_fit.rotation import axis_angle_to_matrix
from dsr_fit.terms.priors import BENDS, bending
from dsr_fit.terms.residual import Dual

KINDS = ("learned", "ranges")


def _poses(held_out: bool, step: int = 10) -> torch.Tensor:
    return torch.from_numpy(load_poses().part(held_out).full_pose[::step, 3:])


def _mirrored(poses: torch.Tensor) -> torch.Tensor:
    names = SMPL_JOINTS[1:]
    swapped = [name.replace("left", "@").replace("right", "left").replace("@", "right") for name in names]
    order = [names.index(name) for name in swapped]
    return (poses.unflatten(1, (23, 3))[:, order] * torch.tensor([1.0, -1.0, -1.0])).flatten(1)


def test_the_energy_is_the_mixtures_density() -> None:
    generator = torch.Generator().manual_seed(0)
    mean = 0.3 * torch.randn(3, 69, generator=generator, dtype=torch.float64)
    root = torch.randn(3, 69, 69, generator=generator, dtype=torch.float64)
    covariance = root @ root.transpose(1, 2) / 69 + 0.1 * torch.eye(69, dtype=torch.float64)
    weights = torch.tensor([0.5, 0.2, 0.3], dtype=torch.float64)
    normal = torch.distributions.MultivariateNormal(mean, covariance)
    peaks = weights.log() + torch.stack([each.log_prob(m) for each, m in _components(mean, covariance)])
    whitening = torch.linalg.inv(torch.linalg.cholesky(covariance))
    prior = PosePrior(mean, whitening, 2 * (peaks.max() - peaks))
    poses = 0.2 * torch.randn(5, 69, generator=generator, dtype=torch.float64)
    mixture = torch.distributions.MixtureSameFamily(torch.distributions.Categorical(weights), normal)
    torch.testing.assert_close(prior.energy(poses), -2 / 69 * (mixture.log_prob(poses) - peaks.max()))
    torch.testing.assert_close(prior.component_weights(), weights)
    cost, best = (prior.deviations(poses).square().sum(2) + prior.offset).min(1)
    above = cost - 69 * prior.energy(poses)  # the nearest component alone, in squared units
    assert (above >= -1e-9).all()
    assert (above <= 2 * math.log(3)).all()
    deviations, nearest = prior.nearest(poses)
    torch.testing.assert_close(deviations.square().sum(1) + prior.offset[best], cost)
    torch.testing.assert_close(nearest, whitening[best])


def _components(mean: torch.Tensor, covariance: torch.Tensor):
    return [(torch.distributions.MultivariateNormal(m, c), m) for m, c in zip(mean, covariance, strict=True)]


def test_one_gaussian_is_the_mean_squared_deviation() -> None:
    prior = load_pose_prior("ranges")
    torch.testing.assert_close(prior.energy((prior.center + 2 * prior.std)[None]), torch.tensor([4.0]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_rotation_costs_the_same_by_whatever_vector(kind) -> None:
    poses = _poses(held_out=False, step=400)
    vectors = poses.unflatten(1, (23, 3))
    angle = vectors.norm(dim=-1, keepdim=True)
    long_way = vectors * (1 - 2 * math.pi / angle.clamp(min=0.1))
    other = torch.where(angle > 0.1, long_way, vectors).flatten(1)
    torch.testing.assert_close(axis_angle_to_matrix(other.reshape(-1, 3)), axis_angle_to_matrix(poses.reshape(-1, 3)),
                               atol=1e-5, rtol=0)  # fmt: skip
    prior = load_pose_prior(kind).to(dtype=torch.float64)
    torch.testing.assert_close(prior.energy(other.double()), prior.energy(poses.double()), rtol=1e-3, atol=1e-3)
    assert float(wrapped(other).unflatten(1, (23, 3)).norm(dim=-1).max()) <= math.pi + 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_mirror_images_cost_the_same(kind) -> None:
    prior, poses = load_pose_prior(kind).to(dtype=torch.float64), _poses(held_out=True).double()
    torch.testing.assert_close(prior.energy(_mirrored(poses)), prior.energy(poses), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("component", "forwards"), BENDS)
def test_knees_and_elbows_bent_backwards_cost_ever_more(kind, component: int, forwards: float) -> None:
    prior, poses = load_pose_prior(kind), _poses(held_out=True)
    back = torch.deg2rad(torch.arange(0.0, 91.0, 10))
    bent = poses[:, None].repeat(1, len(back), 1)
    bent[..., component] = -forwards * back
    energy = prior.energy(bent.flatten(0, 1)).unflatten(0, (len(poses), len(back)))
    rises = energy[:, 1:] > energy[:, :-1]
    assert float(rises.all(1).float().mean()) > 0.98  # a crouch may ask for a little less than a straight knee
    total = energy + bending(Dual(bent.flatten(0, 1))).energy().unflatten(0, energy.shape)
    assert (total[:, 1:] > total[:, :-1]).all()


def test_people_never_seen_are_preferred_to_perturbed_ones() -> None:
    prior, poses = load_pose_prior("learned"), _poses(held_out=True)
    rng = np.random.default_rng(0)
    axis = torch.from_numpy(rng.normal(size=(len(poses), 17, 3))).float()
    moved = [row for row, name in enumerate(SMPL_JOINTS[1:]) if not name.endswith(("collar", "foot", "hand"))]
    turned = poses.unflatten(1, (23, 3)).clone()
    turned[:, moved] += math.radians(30) * torch.nn.functional.normalize(axis, dim=-1)
    assert float((prior.energy(poses) < prior.energy(turned.flatten(1))).float().mean()) > 0.95


def test_usual_poses_cost_about_one() -> None:
    with np.load(shipped("priors/pose/photo_poses.npz"), allow_pickle=False) as file:
        photos = torch.from_numpy(file["body_pose"].astype(np.float32))
    prior = load_pose_prior("learned")
    assert 0.3 < float(prior.energy(photos).mean()) < 2
    assert 1 < float(prior.energy(_poses(held_out=False)).mean()) < 4  # motion capture tumbles as well


@pytest.mark.parametrize("held_out", [False, True])
def test_few_joints_of_recorded_people_are_implausible(held_out: bool) -> None:
    poses = _poses(held_out)
    assert float(implausible_joints(poses).mean()) < (0.02 if not held_out else 0.1)
    broken = poses.clone()
    for component, forwards in BENDS:
        broken[:, component] = -forwards * math.radians(60)
    torch.testing.assert_close(implausible_joints(broken), implausible_joints(broken).clamp(min=4 / 17 - 1e-6))


def test_swing_and_twist_compose_to_the_rotation() -> None:
    poses = torch.randn(4, 69, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    angles = torch.deg2rad(joint_angles(poses))
    rotation = axis_angle_to_matrix(poses.unflatten(1, (23, 3)))
    arms = ("collar", "shoulder", "elbow", "wrist", "hand")
    for row, name in enumerate(SMPL_JOINTS[1:]):
        bone = torch.eye(3, dtype=torch.float64)[0 if name.endswith(arms) else 1]
        vector = angles[:, row, :3]
        swing, twist = vector * (1 - bone), vector * bone
        torch.testing.assert_close(axis_angle_to_matrix(swing) @ axis_angle_to_matrix(twist), rotation[:, row])
    torch.testing.assert_close(angles[..., 3].cos(), (rotation.diagonal(dim1=2, dim2=3).sum(-1) - 1) / 2)


@pytest.mark.parametrize(
    "shapes",
    [
        {"mean": (2, 69)},
        {"mean": (2, 3), "whitening": (2, 69, 69), "offset": (2,)},
        {"mean": (2, 69), "whitening": (2, 69, 69), "offset": (3,)},
        {"mean": (2, 69), "whitening": (2, 69, 69), "offset": ()},
    ],
)
def test_other_files_are_refused(tmp_path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    np.savez(tmp_path / "other.npz", **{name: np.zeros(shape) for name, shape in shapes.items()})  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"other\.npz: not a pose prior"):
        read_pose_prior(tmp_path / "other.npz")
