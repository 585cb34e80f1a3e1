"""The landmark network's features: what they hold, how they reach the regressor, and what it makes of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from command_line import PERSON
from label_people import known_people
from scenes import observe, open_body, person

pytest.importorskip("lightning")

import synthetic_people

from dsr_fit.assets import shipped
from dsr_fit.errors import InputError
from dsr_fit.io.images import read_image
from dsr_fit.joints import mirrored_pose
from dsr_fit.labels import UNKNOWN
from dsr_fit.observation import Detection, Observation
from dsr_fit.observe import pose_features
from dsr_fit.observe.batch import Batch
from dsr_fit.observe.blazepose import HEAVY, INPUT, Encoder, Landmarks
from dsr_fit.observe.detector import PersonDetector
from dsr_fit.observe.perception import Perception
from dsr_fit.observe.pose_features import LENGTH, LEVELS, PARTS, POINTS, parts
from dsr_fit.regressor.open_network import RegressorInput, RegressorNetwork
from dsr_fit.regressor.open_regressor import ASSET, read_network, regressor_input
from dsr_fit.rotation import axis_angle_to_matrix
from dsr_fit.synthetic import generate
from dsr_fit.training import photo_features
from dsr_fit.training.open_photos import PhotoAugmentation, Photos
from dsr_fit.training.synthetic.people import read_features, read_people
from dsr_fit.training.synthetic.samples import Mix, Scene, drop_observations


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return read_image(PERSON)[0]


@pytest.fixture(scope="module")
def seen(image: np.ndarray) -> Observation:
    return Perception().observe(image)


def _drawn_features() -> tuple[tuple[torch.Tensor, ...], Landmarks]:
    generator = torch.Generator().manual_seed(0)
    maps = tuple(
        torch.randn(width, INPUT >> level + 1, INPUT >> level + 1, generator=generator).half()
        for level, width in enumerate(Encoder.widths_of(HEAVY))
    )
    points = torch.zeros(39, 5)
    points[:, :2] = 24.0  # the corner of four cells of 8 pixels, the middle of one of 16
    head = torch.randn(4 * 288, generator=generator)
    empty = torch.zeros(0)
    return maps, Landmarks(points, torch.tensor(1.0), empty, empty, empty, head)


def test_features_are_those_at_the_landmarks() -> None:
    maps, landmarks = _drawn_features()
    vector = pose_features.pose_features(landmarks, maps, 0.5)
    assert vector.shape == (LENGTH,)
    assert vector.dtype == np.float16
    found = {name: part[0] for name, part in parts(torch.from_numpy(vector)[None]).items()}
    assert {name: tuple(part.shape) for name, part in found.items()} == PARTS
    fine, coarse = (maps[level] for level in LEVELS)
    between = fine[:, 2:4, 2:4].float().mean((1, 2))
    expected = torch.cat([between, coarse[:, 1, 1].float()])
    torch.testing.assert_close(found["joints"].float(), expected.expand(len(POINTS), -1), atol=2e-3, rtol=2e-3)
    assert torch.equal(found["deep"], maps[-1])
    np.testing.assert_allclose(found["turn"], [np.cos(0.5), np.sin(0.5)], atol=1e-3)


def test_features_come_with_whoever_the_accurate_network_has_seen(image: np.ndarray, seen: Observation) -> None:
    features = seen.detection.features
    assert features is not None
    assert np.isfinite(features).all()
    (everybody,) = Perception().observe_all(image)
    assert isinstance(everybody, Observation)
    np.testing.assert_array_equal(everybody.detection.features, features)
    (fast,) = PersonDetector("fast").detect(image)
    assert fast.features is None


def test_keypoints_from_elsewhere_get_features_too(image: np.ndarray, seen: Observation) -> None:
    given = Detection(seen.detection.keypoints, source="openpose")
    completed = PersonDetector().complete(image, given)
    assert completed.features is not None
    ours = seen.detection.features
    assert ours is not None
    alike = np.corrcoef(ours.astype(float), completed.features.astype(float))[0, 1]
    assert alike > 0.9  # another look at the same person


def _inputs(features: bool) -> RegressorInput:
    observations = []
    for number in range(3):
        one = observe(person(number))
        drawn = np.random.default_rng(number).normal(size=LENGTH).astype(np.float16) if features else None
        observations.append(replace(one, detection=replace(one.detection, features=drawn)))
    return regressor_input(Batch(observations, crop_camera=False, keypoint_valid=open_body().skeleton.keypoint_valid))


def _blind() -> RegressorNetwork:
    """What ships, without its eyes, if it has them."""
    network = read_network(shipped(ASSET))[0]
    if network.sight is None:
        return network
    blind = RegressorNetwork(replace(network.size, sight=0)).eval()
    old = 49 * 7 + 4 + network.size.summary
    for name, value in blind.state_dict().items():
        known = network.state_dict()[name]
        if name.endswith("entry.weight"):
            known = torch.cat([known[:, :old], known[:, old + network.size.sight + 1 :]], 1)
        value.copy_(known)
    return blind


def test_a_network_that_learns_to_see_begins_as_it_was() -> None:
    blind = _blind()
    seeing = blind.seeing(8).eval()
    assert seeing.sight is not None
    for inputs in (_inputs(True), _inputs(False)):
        for ours, theirs in zip(seeing(inputs, open_body().skeleton), blind(inputs, open_body().skeleton), strict=True):
            torch.testing.assert_close(ours.pose, theirs.pose, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(ours.camera, theirs.camera, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_features_reach_each_persons_own_row() -> None:
    network = RegressorNetwork(replace(_blind().size, sight=8)).eval()
    inputs = _inputs(True)
    features = network.features(inputs)
    for row in range(3):
        alone = network.features(inputs.rows(torch.tensor([row])))
        assert torch.equal(alone[0], features[row])
    hidden = network.features(replace(inputs, features_seen=torch.tensor([1.0, 0.0, 1.0])))
    assert torch.equal(hidden[[0, 2]], features[[0, 2]])
    assert float(hidden[1, -9:].abs().max()) == 0
    assert float(features[1, -9:].abs().max()) > 0


def test_people_lose_their_features_in_a_share_of_the_samples() -> None:
    count = 2000
    rng = np.random.default_rng(0)
    scene = Scene(
        np.zeros((count, 72)), np.zeros((count, 10)), np.zeros((count, 3)),
        np.zeros((count, 49, 2), np.float32), np.ones((count, 49)), np.ones((count, 49, 4)),
        np.ones((count, 3)), np.zeros((count, 2, 2), np.uint8), np.zeros(count, bool),
        np.ones((count, 3), np.float16), np.arange(count) < 1000,
    )  # fmt: skip
    drop_observations(scene, Mix(without_features=0.4), rng)
    assert 0.55 < scene.features_seen[:1000].mean() < 0.65
    assert not scene.features_seen[1000:].any()


# --- In training ----------------------------------------------------------------------------------------


class _Looks:
    """A network that sees where it looks."""

    def __init__(self, size: str) -> None:
        assert size == "heavy"

    def look(self, people):
        return [
            SimpleNamespace(presence=0.9, pose_features=np.full(LENGTH, region.center[0] / 100, np.float16))
            for _, region in people
        ]


def test_photos_are_looked_at_once_as_they_are_and_mirrored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    people = known_people(tmp_path, range(2))
    monkeypatch.setattr(photo_features, "LandmarkNetwork", _Looks)
    features = photo_features.photo_features(people, tmp_path / "kept")
    width = people.image_size[0, 0]
    np.testing.assert_allclose(features[:, 0, 0] + features[:, 1, 0], width / 100, atol=0.02)
    monkeypatch.setattr(photo_features, "LandmarkNetwork", None)
    again = photo_features.photo_features(people, tmp_path / "kept")
    np.testing.assert_array_equal(again, features)
    photos = Photos(people, open_body().skeleton.keypoint_valid, by_quality=True, features=features)
    batch = photos.batch(40, PhotoAugmentation(), np.random.default_rng(0))
    shown = batch.inputs.features_seen > 0
    assert 0.5 < float(shown.float().mean()) < 1
    # Every row has the features of its own photo, from the side that it is shown.
    left = torch.isclose(batch.inputs.features[:, :1].float(), torch.from_numpy(features[:, 0, 0]).float(), atol=0.02)
    right = torch.isclose(batch.inputs.features[:, :1].float(), torch.from_numpy(features[:, 1, 0]).float(), atol=0.02)
    assert torch.where(batch.mirror, right.any(1), left.any(1)).all()
    unread = replace(people, images=tmp_path / "nowhere")
    monkeypatch.setattr(photo_features, "LandmarkNetwork", _Looks)
    assert not photo_features.photo_features(unread, tmp_path / "other").any()


def test_painted_people_are_seen_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic_people, "SHARD", 1)
    assert synthetic_people.write_shard(tmp_path, 1_000_003)
    assert not synthetic_people.write_shard(tmp_path, 1_000_003)
    people, features = read_people(tmp_path, held_out=False), read_features(tmp_path, held_out=False)
    assert len(people) == len(features) == 2
    assert features.any(1).all()
    assert not np.array_equal(*features)
    np.testing.assert_array_equal(people.full_pose[1], mirrored_pose(people.full_pose)[0])
    truths = torch.from_numpy(people.full_pose).unflatten(1, (24, 3))
    placed = open_body().skeleton.keypoints(axis_angle_to_matrix(truths), torch.from_numpy(people.betas)).numpy()
    for row in range(2):
        # The mirrored body's own keypoints are the mirrored keypoints, but for what a body lacks in symmetry.
        np.testing.assert_allclose(placed[row] + people.cam_t[row], people.joints[row], atol=0.012)
    found = people.keypoints[..., 2] > 0.5
    true = (
        people.joints[..., :2] / people.joints[..., 2:] * people.intrinsics[:, None, :1]
        + people.intrinsics[:, None, 1:]
    )
    off = np.linalg.norm(people.keypoints[..., :2] - true, axis=2) / np.ptp(true[..., 1], axis=1, keepdims=True)
    assert found.sum() > 20
    assert np.median(off[found]) < 0.05


def test_a_picture_that_ends_early_keeps_its_camera() -> None:
    case = generate(3_900_000, synthetic_people.casting(), painted=False)
    ends = []
    for seed in range(5):
        short = synthetic_people.cut(case, np.random.default_rng(seed))
        end = len(short.image)
        assert short.intrinsics == case.intrinsics
        np.testing.assert_array_equal(short.joints, case.joints)
        assert not (short.keypoint_visibility & (short.keypoints[:, 1] >= end)).any()
        kept = short.keypoints[:, 1] < end
        np.testing.assert_array_equal(short.keypoint_visibility[kept], case.keypoint_visibility[kept])
        np.testing.assert_array_equal(short.labels[:end], case.labels[:end])
        assert (short.labels[end:] == UNKNOWN).all()
        ends.append(end)
    assert len(set(ends)) > 3
    assert max(ends) < len(case.image)


def test_features_are_those_of_their_own_people(tmp_path: Path) -> None:
    """Also where some files of people came without."""
    (tmp_path / "features").mkdir()
    for seed, count in ((1_000_000, 2), (1_000_050, 3), (2_000_000, 4), (3_000_000, 1)):
        np.savez(tmp_path / f"{seed}.npz", betas=np.zeros((count, 10)))
    assert read_features(tmp_path, held_out=False).shape == (0, LENGTH)
    np.save(tmp_path / "features" / "1000050.npy", np.full((3, LENGTH), 0.5, np.float16))
    found = read_features(tmp_path, held_out=False)
    assert found.any(1).tolist() == [False, False, True, True, True]
    assert read_features(tmp_path, held_out=True).shape == (0, LENGTH)
    np.save(tmp_path / "features" / "1000000.npy", np.ones((3, LENGTH), np.float16))
    with pytest.raises(InputError, match="not the features of the 2 people in 1000000.npz"):
        read_features(tmp_path, held_out=False)
