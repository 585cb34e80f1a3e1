"""What the open regressor's training is fed with, and that it can be interrupted."""

from __future__ import annotations

import shutil
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scenes import open_body

pytest.importorskip("lightning")

import synthetic_people
import train_regressor

from dsr_fit.camera import Crop, ray_rotation
from dsr_fit.joints import KEYPOINT_INDEX
from dsr_fit.labels import LABEL_INDEX, OCCLUDER, UNKNOWN
from dsr_fit.observe.batch import crop_labels
from dsr_fit.priors.recorded_poses import load_poses
from dsr_fit.regressor.encoders import LABEL_PIXELS
from dsr_fit.regressor.open_network import RegressorInput, RegressorNetwork, Size, in_crop
from dsr_fit.regressor.open_regressor import write_network
from dsr_fit.synthetic import ClothedCase, generate
from dsr_fit.training.open_module import shape_metric
from dsr_fit.training.settings import TrainSettings
from dsr_fit.training.synthetic import detector_errors, samples
from dsr_fit.training.synthetic.augment import CONFUSIONS, corrupt_labels
from dsr_fit.training.synthetic.detector_errors import DetectorErrorBank
from dsr_fit.training.synthetic.people import HELD_OUT_SEED, LABELLED_SEED, People, read_people
from dsr_fit.training.synthetic.samples import Mix, Sampler, Truth, finish, scene_of
from dsr_fit.training.train import train

SMALL = Size(labels=(8, 8), summary=8, first=(24, 1), refinement=(16, 1), refinements=1)
ARRAYS = ("points", "world", "crop", "labels", "labels_seen")


@pytest.fixture(scope="module")
def cases() -> list[ClothedCase]:
    return [generate(3_900_000 + seed, synthetic_people.casting(), painted=False) for seed in range(6)]


@pytest.fixture(scope="module")
def people(cases: list[ClothedCase]) -> People:
    """As a detector without fault sees them."""
    rows = [synthetic_people.record(case, None) for case in cases]
    recorded = People(**{field.name: np.stack([row[field.name] for row in rows]) for field in fields(People)})
    keypoints, world = np.ones((len(cases), 49, 3), np.float32), np.ones((len(cases), 49, 4), np.float32)
    for row, case in enumerate(cases):
        focal, _, cx, cy = (float(value) for value in case.intrinsics)
        keypoints[row, :, :2] = case.joints[:, :2] / case.joints[:, 2:] * focal + (cx, cy)
        turn = ray_rotation(Crop.around(keypoints[row]), focal, (cx, cy)).numpy()
        world[row, :, :3] = (case.joints - case.joints[KEYPOINT_INDEX["MidHip"]]) @ turn.T
    return replace(recorded, keypoints=keypoints, world=world)


@pytest.fixture(autouse=True)
def few_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(detector_errors, "NEIGHBOURS", 3)


def _sampler(people: People, **mix: float) -> Sampler:
    return Sampler(
        people, load_poses().part(held_out=False), open_body().skeleton, replace(Mix(), jitter=(0.0, 0.0), **mix)
    )


def _keypoints(truth: Truth) -> torch.Tensor:
    return open_body().skeleton.keypoints(truth.rotations, truth.betas) + truth.cam_t[:, None]


def _hold_together(inputs: RegressorInput, truth: Truth) -> None:
    """Where nothing went wrong, the true body's keypoints and landmarks are those seen."""
    placed = _keypoints(truth)
    seen = inputs.points[..., 2] > 0
    # The skeleton's keypoints are linear in the pose's matrices; a mirrored body is the other half's to 2 mm.
    off = (in_crop(placed, inputs.crop) - inputs.points[..., :2]).norm(dim=-1)[seen]
    assert float(off.max()) < 0.01
    straight = (placed - placed[:, 8:9]) @ inputs.turns().mT
    assert float((straight - inputs.world[..., :3]).norm(dim=-1)[inputs.world[..., 3] > 0].max()) < 0.006


@pytest.mark.parametrize("mirrored", [False, True])
def test_the_true_body_lies_on_what_is_seen_of_it(people: People, mirrored: bool) -> None:
    inputs, truth = finish(scene_of(people, people.labels), np.full(len(people), mirrored))
    assert bool((inputs.points[..., 2] == 1).all())
    assert bool((inputs.world[..., 3] == 1).all())
    _hold_together(inputs, truth)


def test_a_mirror_exchanges_left_and_right(people: People) -> None:
    (plain, _), (mirrored, _) = (
        finish(scene_of(people, people.labels), np.full(len(people), mirror)) for mirror in (False, True)
    )
    for name, other in (("LWrist", "RWrist"), ("RBigToe", "LBigToe"), ("Left Knee", "Right Knee"), ("Nose", "Nose")):
        here, there = KEYPOINT_INDEX[name], KEYPOINT_INDEX[other]
        x_over = torch.tensor([-1.0, 1, 1, 1])
        torch.testing.assert_close(mirrored.points[:, here], plain.points[:, there] * x_over[:3])
        torch.testing.assert_close(mirrored.world[:, here], plain.world[:, there] * x_over)
    flipped = plain.labels.flip(2)
    for left, right in (("leftArm", "rightArm"), ("leftShoe", "rightShoe")):
        for one, other in ((left, right), (right, left)):
            assert torch.equal(mirrored.labels == LABEL_INDEX[one], flipped == LABEL_INDEX[other])
    for name in ("hair", "pants", "upperclothes"):
        assert torch.equal(mirrored.labels == LABEL_INDEX[name], flipped == LABEL_INDEX[name])


def test_cut_label_maps_lie_under_the_keypoints(people: People, cases: list[ClothedCase]) -> None:
    """As the fit's own cut does; between them lies one more rounding, to the stored map's pixels."""
    inputs, _ = finish(scene_of(people, people.labels), np.zeros(len(people), bool))
    for row, case in enumerate(cases):
        crop = Crop.around(people.keypoints[row])
        ours, theirs = inputs.labels[row].numpy(), crop_labels(case.labels, crop, LABEL_PIXELS)
        both = (ours != UNKNOWN) & (theirs != UNKNOWN)
        assert both.mean() > 0.2  # many people stand at the picture's edge
        assert (ours == theirs)[both].mean() > 0.93
        reach = int(np.ceil(people.window[row, 2] / 112 + crop.side / LABEL_PIXELS))
        for x, y, _ in people.keypoints[row][case.keypoint_visibility]:
            column, line = ((np.array([x, y]) - crop.origin) / crop.side * LABEL_PIXELS).astype(int)
            rows, columns = (slice(max(0, int(at) - reach), int(at) + reach + 1) for at in (y, x))
            assert ours[line, column] in case.labels[rows, columns]


def test_nobody_borrows_more_than_its_own_errors_from_itself(people: People, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    keypoints, world = people.keypoints.copy(), people.world.copy()
    keypoints[..., :2] += rng.normal(0, 4, keypoints[..., :2].shape)
    keypoints[..., 2] = rng.uniform(0.3, 1, keypoints.shape[:2])
    world[..., :3] += rng.normal(0, 0.05, world[..., :3].shape)
    keypoints[:, 11], world[:, 12] = 0, 0
    wrong = replace(people, keypoints=keypoints, world=world)
    monkeypatch.setattr(detector_errors, "NEIGHBOURS", 1)
    rays, confidence, lent = DetectorErrorBank(wrong).apply(rng, people.joints)
    np.testing.assert_array_equal(confidence, keypoints[..., 2])
    pixels = rays * wrong.intrinsics[:, None, :1] + wrong.intrinsics[:, None, 1:]
    seen = confidence > 0
    np.testing.assert_allclose(pixels[seen], keypoints[..., :2][seen], atol=1e-2)
    # An error of 5 cm, carried from the box of what was seen to that of what is true: some degrees at most.
    own = scene_of(wrong, wrong.labels).world
    np.testing.assert_allclose(lent, own, atol=0.02)
    assert (lent[:, 12] == 0).all()


def test_bare_people_stand_before_the_camera_and_fill_the_crop_they_should(people: People) -> None:
    sampler, count = _sampler(people, painted=0, label_only=0, other_detector=0, cut=0), 300
    rng = np.random.default_rng(3)
    pose, betas = sampler._random_poses(count, rng), rng.normal(size=(count, 10)).astype(np.float32)
    _, joints = sampler._before_cameras(pose, betas, np.random.default_rng(4))
    assert joints[..., 2].min() > 0.3
    asked = np.exp(np.random.default_rng(4).uniform(np.log(0.1), np.log(0.6), count))  # the first thing drawn there
    rays = joints[..., :2] / joints[..., 2:]
    side = (rays.max(1) - rays.min(1)).max(1)
    got = 1.2 * side / 2
    assert np.quantile(np.abs(np.log(got / asked)), 0.95) < 0.05
    assert (np.abs(rays).mean(1) < 1).all()


@pytest.mark.parametrize("kind", ["painted", "label_only", "bare"])
def test_whatever_is_hidden_what_is_left_is_true(people: People, kind: str) -> None:
    """Errors that are borrowed are nil here, so that only frames can be wrong: of crops that shrink to what is left."""
    shares = {"painted": float(kind == "painted"), "label_only": float(kind == "label_only")}
    sampler = _sampler(people, **shares, other_detector=0, cut=0.7, sparse=1, sparse_dropout=0.4)
    inputs, truth = sampler.batch(200, np.random.default_rng(5))
    assert len(inputs) == len(truth.betas) == 200
    _hold_together(inputs, truth)
    hidden = 1 - (inputs.points[..., 2] > 0).float().mean()
    assert 0.15 < float(hidden) < 0.6
    assert bool((inputs.labels[inputs.labels_seen == 0] == UNKNOWN).all())
    without_world = float((inputs.world[..., 3] == 0).all(1).float().mean())
    assert abs(without_world - Mix().without_world) < 0.12  # four standard deviations
    if kind == "bare":
        assert float(inputs.labels_seen.max()) == 0


def test_keypoints_of_other_detectors_have_their_slots_and_no_landmarks(people: People) -> None:
    sampler = _sampler(people, painted=0, label_only=0, other_detector=1, cut=0, sparse=0, dropout=0)
    inputs, truth = sampler.batch(90, np.random.default_rng(6))
    assert float(inputs.world.abs().max()) == 0
    slots = {tuple(np.flatnonzero(row > 0)) for row in inputs.points[..., 2].numpy()}
    assert slots == set(map(tuple, map(sorted, samples.SLOTS)))
    off = (in_crop(_keypoints(truth), inputs.crop) - inputs.points[..., :2])[inputs.points[..., 2] > 0]
    assert 0.001 < float(off.std()) < 0.04  # 0.2 to 2 % of the box


def test_of_clothed_people_other_detectors_may_see_only_what_is_in_plain_sight(people: People) -> None:
    hands = [slot for name, slot in KEYPOINT_INDEX.items() if "Wrist" in name]
    handless = replace(people, visible=~np.isin(np.arange(49), hands) & np.ones((len(people), 1), bool))
    sampler = _sampler(handless, painted=0, label_only=1, other_detector=1, cut=0, sparse=0, dropout=0)
    inputs, _ = sampler.batch(200, np.random.default_rng(9))
    given = inputs.points[..., 2].numpy() > 0
    assert 0.35 < given[:, hands].any(1).mean() < 0.65
    assert given[:, KEYPOINT_INDEX["Nose"]].any()
    assert given.any(1).all()


def test_the_same_generator_gives_the_same_batch(people: People) -> None:
    sampler = _sampler(people)
    stored = people.labels.copy()
    first, second, other = (sampler.batch(40, np.random.default_rng(seed)) for seed in (7, 7, 8))
    for name in ARRAYS:
        assert torch.equal(getattr(first[0], name), getattr(second[0], name))
        assert bool(getattr(first[0], name).float().isfinite().all())
    assert torch.equal(first[1].rotations, second[1].rotations)
    assert not torch.equal(first[0].points, other[0].points)
    np.testing.assert_array_equal(people.labels, stored)  # spoilt are copies


@pytest.mark.parametrize("seed", range(20))
def test_spoilt_label_maps_are_the_old_ones_but_for_one_mistake_and_one_rectangle(people: People, seed: int) -> None:
    labels = people.labels[seed % len(people)]
    before = labels.copy()
    wrong, again = (corrupt_labels(labels, np.random.default_rng(seed)) for _ in range(2))
    np.testing.assert_array_equal(labels, before)
    np.testing.assert_array_equal(wrong, again)
    assert (wrong.shape, wrong.dtype) == (labels.shape, labels.dtype)

    def explained(table: dict[int, int]) -> bool:
        mistaken = labels.copy()
        for label, other in table.items():
            mistaken[labels == label] = other
        rows, columns = np.nonzero(wrong != mistaken)
        if not len(rows):
            return True
        lost = wrong[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        return len(np.unique(lost)) == 1 and lost[0, 0] in (0, OCCLUDER, UNKNOWN) and lost.size < labels.size / 9

    assert any(map(explained, CONFUSIONS))


def test_the_shapes_metric_is_the_distance_of_vertices() -> None:
    body, rng = open_body(), np.random.default_rng(0)
    plain, scale_free = shape_metric(body).double().numpy()
    template = (body.v_template - body.v_template.mean(0)).double().numpy().ravel()
    for _ in range(5):
        betas = rng.normal(size=10)
        moved = (body.shapedirs.double().numpy() @ betas).ravel()
        assert betas @ plain @ betas == pytest.approx(moved @ moved / body.num_vertices, rel=1e-4)
        scale = np.linalg.lstsq(template[:, None], moved, rcond=None)[0]
        rest = moved - template * scale
        assert betas @ scale_free @ betas == pytest.approx(rest @ rest / body.num_vertices, rel=1e-4)
        assert betas @ scale_free @ betas < betas @ plain @ betas


# --- On disk, and interrupted -----------------------------------------------------------------------


def test_people_survive_their_shard_which_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(synthetic_people, "SHARD", 2)
    assert synthetic_people.write_shard(tmp_path, LABELLED_SEED)
    assert synthetic_people.write_shard(tmp_path, LABELLED_SEED + 2)
    (first, second), held_out = sorted(tmp_path.iterdir()), tmp_path / f"{HELD_OUT_SEED:07d}.npz"
    content, moment = first.read_bytes(), first.stat().st_mtime_ns
    assert not synthetic_people.write_shard(tmp_path, LABELLED_SEED)
    assert (first.read_bytes(), first.stat().st_mtime_ns) == (content, moment)
    shutil.copy(second, held_out)
    found = read_people(tmp_path, held_out=False)
    rows = [
        synthetic_people.record(generate(LABELLED_SEED + k, synthetic_people.casting(), painted=False), None)
        for k in range(4)
    ]
    assert len(found) == 4
    for field in fields(People):
        stored = getattr(found, field.name)
        np.testing.assert_array_equal(stored, np.stack([row[field.name] for row in rows]))
    assert (found.parsed == UNKNOWN).all()
    assert (found.keypoints == 0).all()
    np.testing.assert_array_equal(read_people(tmp_path, held_out=True).betas, found.betas[2:])


@pytest.mark.filterwarnings("ignore:::lightning")
def test_the_same_seed_gives_the_same_weights(tmp_path: Path, people: People) -> None:
    """Of synthetic people from a folder, with others held out."""
    folder, start = tmp_path / "people", tmp_path / "small.safetensors"
    folder.mkdir()
    for seed in (LABELLED_SEED, HELD_OUT_SEED):
        np.savez(folder / f"{seed:07d}.npz", **{field.name: getattr(people, field.name) for field in fields(People)})
    torch.manual_seed(0)
    write_network(start, RegressorNetwork(SMALL), open_body())
    settings = TrainSettings(
        out=tmp_path, synthetic=folder, regressor=str(start), steps=4, epoch=2, batch=8, threads=1
    )  # fmt: skip

    def run(name: str, **changes: int) -> dict[str, bytes]:
        path = train(replace(settings, out=tmp_path / name, **changes), lines.append)
        return {name: value.numpy().tobytes() for name, value in load_file(path).items()}

    lines: list[str] = []
    whole = run("whole")
    assert [line.split(":")[0] for line in lines] == ["epoch 1 of 2", "epoch 2 of 2"]
    assert all("mpjpe" in line for line in lines)  # of those held out
    assert run("again") == whole
    assert run("other", seed=1) != whole


def test_what_is_said_of_painted_people_is_never_quite_the_same(people: People) -> None:
    mix = Mix(painted=1.0, label_only=0.0, sparse=0.0, dropout=0.0, without_world=0.0, jitter=(0.01, 0.02))
    poses, skeleton = load_poses().part(held_out=False), open_body().skeleton
    noisy, exact = (Sampler(people, poses, skeleton, one) for one in (mix, replace(mix, jitter=(0.0, 0.0))))
    scenes = [sampler._painted(300, np.random.default_rng(0)) for sampler in (noisy, exact)]
    np.testing.assert_array_equal(scenes[0].full_pose, scenes[1].full_pose)
    off = scenes[0].rays - scenes[1].rays
    side = detector_errors.box(scenes[1].rays, scenes[1].confidence > 0.2)[1]
    assert (off / side[:, None, None]).std() == pytest.approx(0.01, rel=0.05)
    assert (scenes[0].world - scenes[1].world)[..., :3].std() == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize("sight", [0, 8])
def test_the_average_of_checkpoints_is_the_mean_of_their_weights(tmp_path: Path, sight: int) -> None:
    networks = []
    for seed, path in enumerate(tmp_path / name for name in ("a.safetensors", "b.ckpt")):
        torch.manual_seed(seed)
        networks.append(RegressorNetwork(Size(sight=sight)))
        if path.suffix == ".ckpt":
            state = {f"network.{name}": value for name, value in networks[-1].state_dict().items()}
            torch.save({"state_dict": state}, path)
        else:
            write_network(path, networks[-1], open_body())
    out = tmp_path / "c.safetensors"
    paths = (tmp_path / "a.safetensors", tmp_path / "b.ckpt")
    train_regressor.average(train_regressor.Average(checkpoints=paths, out=out))
    first, second = (network.state_dict() for network in networks)
    for name, value in load_file(out).items():
        torch.testing.assert_close(value.float(), (first[name] + second[name]) / 2, atol=2e-3, rtol=2e-3)  # in halves
