"""Build `priors/pose/density.npz`, how people bend, from motion capture and photos; and the ranges of joints.

    python tools/build_pose_prior.py

Reads `poses.npz` (training clips only) and, of photos, `photo_poses.npz` beside it. A mixture of Gaussians is fitted by
expectation maximisation over the rotation vectors of the joints that motion capture moves; every component is joined
by its mirror image, so that left and right cost the same. Collars, hands and toes keep the hand-written ranges. Beside
it come the peaks of straight knees and elbows (`learn_straight`) and the density of the upward direction given the pose
(`learn_tilt`), both from motion capture alone, each pose as often as it was recorded.

The photos' fits bend the knees of people who stand, since the picture can't tell: their legs are straightened as motion
capture's are (`tools/mocap/legs.py`).
`benchmarks/pose_prior.py` measures it and holds the table by which its size was chosen. Also writes
`joint_limits.json`, the ranges that `dsr_fit.evaluate.metrics` calls plausible, and `samples.png`.
"""

from __future__ import annotations

import argparse
import json
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mocap.legs import excess_length, flexion, shortened_legs
from mocap.retarget import SIDES, our_positions
from scipy.spatial.transform import Rotation
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from dsr_fit.evaluate.metrics import LIMITED_JOINTS, joint_angles
from dsr_fit.io.files import read_arrays, replacing
from dsr_fit.joints import SMPL_JOINTS, mirrored_pose
from dsr_fit.priors.pose import PosePrior, load_pose_prior, read_pose_prior
from dsr_fit.priors.recorded_poses import PoseSet, load_poses
from dsr_fit.priors.tilt import FEATURES, TiltPrior
from dsr_fit.terms.priors import BENDS

ROOT = Path(__file__).resolve().parents[1]
BODY_JOINTS = SMPL_JOINTS[1:]
UNKNOWN = tuple(f"{side}_{name}" for side in ("left", "right") for name in ("collar", "foot", "hand"))
"""Joints that motion capture hardly moves, or not in every source."""
LEARNED = [row for row, name in enumerate(BODY_JOINTS) if name not in UNKNOWN]
COLUMNS = np.array([3 * row + axis for row in LEARNED for axis in range(3)])

COMPONENTS = 4  # and their mirror images; see the table of benchmarks/pose_prior.py
RESOLUTION = np.radians(0.57) ** 2
"""Variance added to every direction: differences below half a degree mean nothing."""
SAMPLES = 6000
LIMIT_RANGE = 99.5
"""Per cent of the poses within the limits of one quantity."""
PHOTO_SHARE = 0.25
SEED = 0

TILTS = 4  # components of the tilt's mixture, and their mirror images
LEAST_BEND = np.radians(12.0)
"""Width of the peak of straight limbs: bends near straight are known no better, half a per cent of a leg's length."""
LEAST_TILT = np.radians(3.0)
"""Spread of the upward direction: pelvises are marked no better."""


@dataclass(frozen=True)
class Examples:
    """Poses to learn from, with the source that each is balanced by."""

    poses: np.ndarray  # (N, 69)
    source: np.ndarray  # (N,) clip, or -1 for photos

    def draw(self, count: int, random: np.random.Generator) -> np.ndarray:
        """(count, 69) poses: photos by their share, clips by the root of their length, a half of each mirrored."""
        photo = self.source < 0
        lengths = np.bincount(self.source[~photo])
        weight = np.zeros(len(self.source))
        weight[~photo] = lengths[self.source[~photo]] ** -0.5
        weight[~photo] *= (1 - PHOTO_SHARE if photo.any() else 1) / weight[~photo].sum()
        weight[photo] = PHOTO_SHARE / max(photo.sum(), 1)
        drawn = self.poses[random.choice(len(weight), count, p=weight)]
        return np.where(random.random(count)[:, None] < 0.5, drawn, mirrored_pose(drawn))


def examples(poses: PoseSet, photos: np.ndarray) -> Examples:
    """Motion capture (what is held out must be gone already) and photos (M, 69)."""
    source = np.concatenate([poses.clip, np.full(len(photos), -1)])
    return Examples(np.concatenate([poses.full_pose[:, 3:], photos]).astype(np.float64), source)


def fit_mixture(given: Examples, components: int, resolution: float, seed: int = SEED) -> PosePrior:
    """Expectation maximisation on balanced examples, mirrored, and completed by the hand-written ranges."""
    import torch

    drawn = given.draw(SAMPLES, np.random.default_rng(seed))[:, COLUMNS]
    mixture = GaussianMixture(components, reg_covar=resolution, max_iter=30, init_params="k-means++", random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 30 rounds are enough
        mixture.fit(drawn)
    ranges = load_pose_prior("ranges")
    mean = np.tile(ranges.mean.numpy(), (components, 1)).astype(np.float64)
    mean[:, COLUMNS] = mixture.means_
    covariance = np.tile(np.diag(ranges.std.numpy().astype(np.float64) ** 2), (components, 1, 1))
    covariance[:, COLUMNS[:, None], COLUMNS] = mixture.covariances_
    mirror = mirrored_pose(np.eye(69))  # its rows mirror the axes, so x @ mirror is the mirrored x
    mean = np.concatenate([mean, mean @ mirror])
    covariance = np.concatenate([covariance, mirror.T @ covariance @ mirror])
    whitening = np.linalg.inv(np.linalg.cholesky(covariance))
    log_peak = np.tile(np.log(np.asarray(mixture.weights_)), 2) + np.log(whitening.diagonal(axis1=1, axis2=2)).sum(1)
    offset = 2 * (log_peak.max() - log_peak)
    tensors = [torch.from_numpy(value.astype(np.float32)) for value in (mean, whitening, offset)]
    return PosePrior(tensors[0], tensors[1], tensors[2])


def straightened(photo_poses: np.ndarray, rest_joints: np.ndarray) -> np.ndarray:
    """(M, 69) poses of people of whom most stand on one leg at least, with legs as long as theirs."""
    pose = np.concatenate([np.zeros((len(photo_poses), 3)), photo_poses], 1).reshape(-1, 24, 3)
    joints = our_positions(pose, rest_joints)
    straighter = np.stack([flexion(joints, side) for side in SIDES]).min(0)
    return shortened_legs(pose, excess_length(float(np.median(straighter))), rest_joints).reshape(-1, 72)[:, 3:]


def as_recorded(poses: PoseSet) -> np.ndarray:
    """(N,) weights: clips by the root of their length, poses of a clip as often as they were recorded."""
    frames = np.ones(len(poses)) if poses.frames is None else poses.frames.astype(np.float64)
    weight = frames * np.bincount(poses.clip, frames)[poses.clip] ** -0.5
    return weight / weight.sum()


def learn_tilt(poses: PoseSet, components: int = TILTS, seed: int = SEED) -> TiltPrior:
    """A mixture over joint angles and the upward direction in the pelvis's frame, as its conditional."""
    import torch

    up = Rotation.from_rotvec(poses.full_pose[:, :3].astype(np.float64)).as_matrix()[:, 1]  # R^T (0, 1, 0)
    random = np.random.default_rng(seed)
    drawn, turned = random.choice(len(poses), SAMPLES, p=as_recorded(poses)), random.random((SAMPLES, 1)) < 0.5
    body, up = poses.full_pose[drawn, 3:].astype(np.float64), up[drawn]
    body, up = np.where(turned, mirrored_pose(body), body), np.where(turned, up * [-1, 1, 1], up)
    mixture = GaussianMixture(components, reg_covar=1e-3, max_iter=100, init_params="k-means++", random_state=seed)
    mixture.fit(np.concatenate([body[:, FEATURES], up], 1))
    mirror = mirrored_pose(np.eye(69))[np.ix_(FEATURES, FEATURES)]
    count, side = len(FEATURES), np.diag([-1.0, 1.0, 1.0])
    parts: list[list[np.ndarray]] = []
    for weight, mean, covariance in zip(mixture.weights_, mixture.means_, mixture.covariances_, strict=True):
        inside, across = covariance[:count, :count], covariance[count:, :count]
        slope = across @ np.linalg.inv(inside)
        left = covariance[count:, count:] - slope @ across.T
        spread = np.hypot(np.sqrt(np.trace(left) / 2), LEAST_TILT)
        precision = np.linalg.inv(inside)
        height = np.log(weight / 2) + np.linalg.slogdet(precision)[1] / 2
        parts.append([mean[:count], precision, height, mean[count:], slope, spread])
        turned_over = [mean[:count] @ mirror, mirror @ precision @ mirror, height]
        parts.append([*turned_over, side @ mean[count:], side @ slope @ mirror, spread])
    return TiltPrior(*(torch.from_numpy(np.stack(column).astype(np.float32)) for column in zip(*parts, strict=True)))


def learn_straight(poses: PoseSet, photos: np.ndarray) -> np.ndarray:
    """(2, 2) of knees and elbows: height and width of the peak of straight ones.

    One half of the poses is motion capture, as recorded, the other photos (M, 69).

    Bends are a mixture of two half-normals, by expectation maximisation; the height is that of the narrow one over the
    wide one where a limb is straight.
    """
    every = np.concatenate([poses.full_pose[:, 3:].astype(np.float64), photos])
    weight = np.concatenate([as_recorded(poses), np.full(len(photos), 1 / len(photos))])
    peaks = []
    for limb in (BENDS[:2], BENDS[2:]):
        bends = np.concatenate([sign * every[:, column] for column, sign in limb]).clip(0)
        each = np.tile(weight / weight.sum(), 2)
        shares, widths = np.array([0.5, 0.5]), np.array([0.1, 1.0])
        for _ in range(200):
            density = shares / widths * np.exp(-((bends[:, None] / widths) ** 2) / 2)
            chance = each[:, None] * density / density.sum(1, keepdims=True)
            shares = chance.sum(0)
            widths = np.sqrt((chance * bends[:, None] ** 2).sum(0) / shares).clip(LEAST_BEND)
        height = shares / widths
        peaks.append([height[0] / height[1], widths[0]])
    return np.array(peaks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shipped = ROOT / "priors" / "pose"
    parser.add_argument("--photo-poses", type=Path, default=shipped / "photo_poses.npz")
    parser.add_argument("--folder", type=Path, default=shipped, help="of what is written")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)

    poses = load_poses(shipped / "poses.npz").part(held_out=False)
    photos = read_arrays(arguments.photo_poses)
    assert isinstance(photos, dict)
    standing = straightened(photos["body_pose"].astype(np.float64), body_joints())
    prior = fit_mixture(examples(poses, standing), COMPONENTS, RESOLUTION)
    tilt = {f"tilt_{name}": value.numpy() for name, value in vars(learn_tilt(poses)).items()}
    straight = learn_straight(poses, standing).astype(np.float32)
    with replacing(folder / "density.npz") as path:
        np.savez_compressed(
            path, mean=prior.mean, whitening=prior.whitening, offset=prior.offset, straight=straight, **tilt
        )
    with replacing(folder / "joint_limits.json") as path:
        path.write_text(json.dumps(learn_limits(poses.full_pose[:, 3:]), indent=1) + "\n")
    with replacing(folder / "samples.png") as path:
        draw_samples(path, read_pose_prior(folder / "density.npz"))


def body_joints() -> np.ndarray:
    """(24, 3) the mean open body's joints at rest."""
    from dsr_fit.body.files import load_body

    return load_body().skeleton.rest_joints.double().numpy()


def learn_limits(body_pose: np.ndarray) -> dict[str, list[list[float]]]:
    """Joint -> [lowest, highest] degrees of its four `joint_angles`, over (N, 69) poses and their mirror images."""
    import torch

    angles = joint_angles(torch.from_numpy(np.asarray(body_pose, np.float64))).numpy()
    tail = (100 - LIMIT_RANGE) / 2
    limits = {}
    for name in LIMITED_JOINTS:
        other = name.replace("left", "other").replace("right", "left").replace("other", "right")
        sign = np.array([1.0, -1.0, -1.0, 1.0])
        rows = [SMPL_JOINTS.index(each) - 1 for each in (name, other)]
        both = np.concatenate([angles[:, rows[0]], angles[:, rows[1]] * sign])
        limits[name] = np.percentile(both, [tail, 100 - tail], axis=0).T.round(2).tolist()
    return limits


def draw_samples(path: Path, prior: PosePrior, rows: int = 3, columns: int = 8) -> None:
    """Bodies in poses drawn from the mixture."""
    import cv2
    import torch

    from dsr_fit.body.files import load_body
    from dsr_fit.render.renderer import Renderer

    generator, size = torch.Generator().manual_seed(SEED), 240
    body, count = load_body(), rows * columns
    chance = prior.component_weights()
    chosen = torch.multinomial(chance, count, replacement=True, generator=generator)
    noise = torch.randn(count, 69, 1, generator=generator)
    pose = prior.mean[chosen] + torch.linalg.solve(prior.whitening[chosen], noise)[..., 0]
    orient = torch.tensor([[np.pi, 0.0, 0.0]]).expand(count, 3)
    vertices = body(orient, pose, torch.zeros(count, 10), torch.tensor([[0.0, -0.2, 5.0]]).expand(count, 3)).vertices()
    corners = vertices[:, body.faces.long()]
    normal = torch.linalg.cross(corners[:, :, 1] - corners[:, :, 0], corners[:, :, 2] - corners[:, :, 0])
    shade = torch.nn.functional.normalize(normal, dim=-1) @ torch.tensor([0.3, -0.5, -0.8])
    window = torch.tensor([[450.0, 450.0, size / 2, size / 2]]).expand(count, 4)
    renderer = Renderer(body.faces, body.num_vertices, device="cpu", outline="none")
    tiles = []
    for each in range(count):
        colours = (0.35 + 0.6 * shade[each].clamp(min=0))[:, None].contiguous()
        render = renderer(vertices[each : each + 1], window[:1], size, face_attributes=colours)
        tiles.append(torch.where(render.mask[0], render.attributes[0, ..., 0], torch.ones(())).numpy())
    sheet = np.concatenate([np.concatenate(tiles[row * columns : (row + 1) * columns], 1) for row in range(rows)])
    cv2.imwrite(str(path), (255 * sheet).astype(np.uint8))


if __name__ == "__main__":
    main()
