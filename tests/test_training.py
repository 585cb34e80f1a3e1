"""Trainings: what the open regressor is shown of people in photos, what it is judged by, and that it can be resumed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from label_people import known_people, observation_of
from scenes import open_body
from torch import Tensor
from training_parts import placed_truth, settings_of, small_training

pytest.importorskip("lightning")

from dsr_fit.camera import project
from dsr_fit.config import Semantics
from dsr_fit.errors import InputError
from dsr_fit.joints import BODY_25
from dsr_fit.labels import UNKNOWN
from dsr_fit.observe.batch import Batch, crop_labels
from dsr_fit.optimise.anchor import Anchor
from dsr_fit.optimise.objective import Objective
from dsr_fit.priors.recorded_poses import load_poses
from dsr_fit.regressor.open_network import Placed, in_crop
from dsr_fit.training import open_photos, splits
from dsr_fit.training.open_data import OpenData
from dsr_fit.training.open_module import RECIPE, OpenTraining
from dsr_fit.training.open_photos import PhotoAugmentation, PhotoBatch, Photos, mirrored
from dsr_fit.training.pictures import PANEL, crop_window
from dsr_fit.training.pseudo_labels import PseudoLabels
from dsr_fit.training.settings import RESOLUTION, LossWeights
from dsr_fit.training.splits import concatenated, is_held_out, read_splits
from dsr_fit.training.synthetic.detector_errors import NOISE, RandomDetectorErrors
from dsr_fit.training.synthetic.samples import Mix, Sampler, finish

RENDERED = ("dsr_mc", "dsr_c", "silhouette")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("photos")


@pytest.fixture(scope="module")
def people(folder: Path) -> PseudoLabels:
    return known_people(folder, range(5))


@pytest.fixture(scope="module")
def photos(people: PseudoLabels) -> Photos:
    return Photos(people, open_body().skeleton.keypoint_valid, by_quality=True)


# --- What is shown, and what it is judged by ----------------------------------------------------------


def test_what_a_mirror_shows_is_turned_back_to_what_it_is(photos: Photos) -> None:
    """`finish` mirrors the fitted bodies too: turned back they are themselves."""
    mirror = np.array([True, False, True, True, False])
    scene, _ = photos._scene(np.arange(5), mirror)
    (_, shown), (_, plain) = finish(scene, mirror), finish(scene, np.zeros(5, bool))
    back, expected = mirrored(placed_truth(shown), torch.from_numpy(mirror)), placed_truth(plain)
    torch.testing.assert_close(back.rotations, expected.rotations, atol=1e-5, rtol=0)
    torch.testing.assert_close(back.cam_t, expected.cam_t)
    assert float((back.keypoints - expected.keypoints).norm(dim=-1).max()) < 0.006  # a body isn't quite symmetric
    assert not torch.allclose(placed_truth(shown).rotations[0], expected.rotations[0], atol=0.1)
    again = mirrored(mirrored(expected, torch.from_numpy(mirror)), torch.from_numpy(mirror))
    torch.testing.assert_close(again.keypoints, expected.keypoints)


def test_the_true_body_costs_nothing_whatever_is_hidden_or_mirrored(photos: Photos) -> None:
    batch = photos.batch(40, PhotoAugmentation(), np.random.default_rng(0))
    assert 5 < int(batch.mirror.sum()) < 35
    losses = small_training().photo_losses(placed_truth(batch.truth), batch)
    assert set(losses) == {"keypoints", "points", "rotations", "root", "shape", "depth"}
    for name, loss in losses.items():
        assert loss.shape == (40,)
        assert float(loss.max()) < 0.02, name  # keypoints without vertices are good to 2 mm; see `Skeleton.keypoints`


@pytest.mark.parametrize("mirror", [False, True])
def test_the_input_of_a_photo_shows_the_true_body(photos: Photos, mirror: bool) -> None:
    """Crops that move to what is left of the keypoints: places, landmarks and labels stay consistent."""
    augmentation = PhotoAugmentation(
        replace(Mix(), sparse_dropout=0.3, corrupted_labels=0), noise=0, cut=0.7, mirrored=mirror
    )
    batch = photos.batch(60, augmentation, np.random.default_rng(1))
    shown = mirrored(placed_truth(batch.truth), batch.mirror)  # as the network should say it
    inputs, turns = batch.inputs, batch.inputs.turns()
    seen = inputs.points[..., 2] > 0
    assert 0.2 < 1 - float(seen.float().mean()) < 0.8
    off = (in_crop(shown.keypoints, inputs.crop) - inputs.points[..., :2]).norm(dim=-1)
    assert float(off[seen].max()) < 0.02  # 2 mm, and as much of asymmetry, of crops that may show a head and shoulders
    straight = (shown.keypoints - shown.keypoints[:, 8:9]) @ turns.mT
    there = inputs.world[..., 3] > 0
    assert float((straight - inputs.world[..., :3]).norm(dim=-1)[there].max()) < 0.008
    sides = inputs.crop[:, 2] / torch.tensor([crop.side for crop in batch.observed.crops])
    assert float(sides.std() / sides.mean()) > 0.1


def test_noise_stays_within_its_measure(photos: Photos) -> None:
    scene, _ = photos._scene(np.arange(5).repeat(100), np.zeros(500, bool))
    before = scene.rays.copy()
    augmentation = PhotoAugmentation(
        replace(Mix(), sparse_dropout=0, dropout=0, without_world=0, without_labels=0), noise=0.01, cut=0
    )
    open_photos.augment(scene, augmentation, np.random.default_rng(2))
    side = np.ptp(before, axis=1).max(1)
    share = (scene.rays - before).std((1, 2)) / side
    assert share.max() < 0.01 * 1.3  # 98 numbers tell a deviation to 7 %
    assert np.quantile(share, 0.1) < 0.003
    assert bool(scene.labels_seen.all())


def test_the_same_generator_gives_the_same_photos(photos: Photos) -> None:
    first, second, other = (photos.batch(20, PhotoAugmentation(), np.random.default_rng(seed)) for seed in (3, 3, 4))
    for name, value in vars(first.inputs).items():
        assert torch.equal(value, getattr(second.inputs, name))
    assert torch.equal(first.truth.cam_t, second.truth.cam_t)
    assert not torch.equal(first.inputs.points, other.inputs.points)
    kept = photos.whole(np.arange(5)).inputs
    photos.batch(20, PhotoAugmentation(), np.random.default_rng(5))  # spoils copies
    assert torch.equal(photos.whole(np.arange(5)).inputs.labels, kept.labels)


def test_the_rendered_terms_are_those_of_a_fit(photos: Photos, people: PseudoLabels) -> None:
    """Label maps that were cut and packed once cost a body what those of the full images do."""
    body, rows = open_body(), [0, 1, 2, 3, 4]
    batch = photos.whole(np.array(rows))
    observed = Batch([observation_of(people, row) for row in rows], crop_camera=False, keypoint_valid=torch.ones(49))
    parameters = people.parameters(rows)
    wide = replace(parameters, betas=parameters.betas + 1)
    # Whose top is just long enough is told at 112 px here, and at 224 px there: everybody wears the average.
    training = small_training(weights=LossWeights(silhouette=1), semantics=Semantics(outfits=False))
    assert training.semantic_prior is not None
    objective = Objective.of(
        body, observed, training.renderer, training.semantic_prior, training.pose_prior, training.config, RESOLUTION,
        Anchor.of(parameters, body.skeleton),
    )  # fmt: skip
    for row in rows:
        np.testing.assert_array_equal(
            crop_labels(batch.observed.observations[row].labels, batch.observed.crops[row], RESOLUTION),
            crop_labels(people.labels(row), people.crop(row), RESOLUTION),
        )
    for given in (parameters, wide):
        posed = given.pose(body)
        placed = Placed(posed.rotations, given.betas, given.cam_t, posed.keypoints)
        ours, theirs = training.rendered_losses(placed, batch), objective(given)
        assert set(ours) == set(theirs) == set(RENDERED)
        for name in ours:
            torch.testing.assert_close(ours[name], getattr(RECIPE, name) * theirs[name], atol=1e-4, rtol=1e-3)
        assert float(ours["dsr_c"].min()) > 0


def test_cut_label_maps_and_crops_without_a_label_map(people: PseudoLabels) -> None:
    blank = Photos(replace(people, label_maps=(None,) * 5), open_body().skeleton.keypoint_valid, by_quality=True)
    batch = blank.whole(np.arange(5))
    assert float(batch.inputs.labels_seen.max()) == 0
    assert bool((batch.inputs.labels == UNKNOWN).all())
    losses = small_training(weights=LossWeights(silhouette=1)).rendered_losses(placed_truth(batch.truth), batch)
    for name, loss in losses.items():
        assert float(loss.abs().max()) < 1e-3, name  # nothing is known: nothing is asked


def test_the_camera_of_a_picture_is_the_crops(photos: Photos) -> None:
    inputs = photos.whole(np.arange(5)).inputs
    points = placed_truth(photos.whole(np.arange(5)).truth).keypoints
    pixels = project(points, crop_window(inputs.crop))
    torch.testing.assert_close(pixels / (PANEL / 2) - 1, in_crop(points, inputs.crop), atol=1e-4, rtol=1e-4)


# --- What counts ------------------------------------------------------------------------------------


def _loss(
    training: OpenTraining, batch: PhotoBatch, monkeypatch: pytest.MonkeyPatch
) -> tuple[float, dict[str, Tensor]]:
    logged: dict[str, Tensor] = {}
    monkeypatch.setattr(training, "log", lambda name, value, **how: logged.update({name: value.detach()}))
    monkeypatch.setattr(type(training), "global_step", property(lambda self: 10_000))
    return float(training._on_photos(batch).detach()), logged


def test_a_body_without_quality_does_not_count(photos: Photos, monkeypatch: pytest.MonkeyPatch) -> None:
    training = small_training(weights=LossWeights(keypoints=0, dsr_mc=0, dsr_c=0))
    alone, others = photos.whole(np.array([1])), [photos.whole(np.array([1, other])) for other in (2, 3)]
    unlike = [replace(batch, weight=torch.tensor([0.4, 0.0])) for batch in others]
    expected = _loss(training, alone, monkeypatch)[0]
    for batch in unlike:
        assert _loss(training, batch, monkeypatch)[0] == pytest.approx(expected, rel=1e-4)
    both = [_loss(training, batch, monkeypatch)[0] for batch in others]
    assert abs(both[0] - expected) > 1e-3
    # Weighted by the labels' quality, or not at all.
    weights = photos.weight[[1, 2]] / photos.weight[[1, 2]].sum()
    each = [_loss(training, photos.whole(np.array([row])), monkeypatch)[0] for row in (1, 2)]
    assert both[0] == pytest.approx(float(weights @ each), rel=1e-4)
    alike = Photos(photos.labels, photos.keypoint_valid, by_quality=False)
    assert float(alike.whole(np.arange(5)).weight.min()) == 1


def test_bodies_of_others_are_not_learnt_from_but_what_was_observed(
    people: PseudoLabels, monkeypatch: pytest.MonkeyPatch
) -> None:
    strangers = replace(people, has_body=np.array([True, False, True, False, True]))
    photos = Photos(strangers, open_body().skeleton.keypoint_valid, by_quality=True)
    batch, training = photos.whole(np.arange(5)), small_training(weights=LossWeights(dsr_mc=0, dsr_c=0))
    known = torch.from_numpy(strangers.has_body)

    def changed(rows: Tensor) -> float:
        betas = batch.truth.betas + 1.0 * rows[:, None]
        return _loss(training, replace(batch, truth=batch.truth._replace(betas=betas)), monkeypatch)[0]

    as_it_is = changed(torch.zeros(5))
    assert changed(~known) == pytest.approx(as_it_is, rel=1e-5)
    assert changed(known) > as_it_is + 1e-3
    moved = replace(placed_truth(batch.truth), keypoints=placed_truth(batch.truth).keypoints + 0.1)
    assert bool((training.photo_losses(moved, batch)["keypoints"] > 1e-3).all())


def test_a_weight_of_zero_drops_the_term_and_the_rendering(photos: Photos, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = photos.whole(np.arange(3))
    keypoints = small_training(weights=LossWeights(parameters=0, dsr_mc=0, dsr_c=0))
    assert keypoints.semantic_prior is not None

    def no_rendering(*arguments: object, **named: object) -> None:
        raise AssertionError("rendered")

    monkeypatch.setattr(keypoints, "renderer", no_rendering)
    total, logged = _loss(keypoints, batch, monkeypatch)
    assert set(logged) == {"loss_photo_keypoints"}
    assert total > float(logged["loss_photo_keypoints"])  # earlier predictions count too
    some = small_training(weights=LossWeights(keypoints=0, parameters=0, dsr_mc=2, dsr_c=0))
    assert set(_loss(some, batch, monkeypatch)[1]) == {"loss_photo_dsr_mc"}
    once = small_training(weights=LossWeights(keypoints=0, parameters=0, dsr_mc=1, dsr_c=0))
    assert _loss(some, batch, monkeypatch)[0] == pytest.approx(2 * _loss(once, batch, monkeypatch)[0], rel=1e-5)


def test_rendered_terms_begin_late_and_take_the_forms_that_are_named(
    photos: Photos, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = photos.whole(np.arange(2))
    training = small_training(steps=100, dsr_after=0.3)
    logged: dict[str, Tensor] = {}
    monkeypatch.setattr(training, "log", lambda name, value, **how: logged.update({name: value}))
    for step, begun in ((29, False), (30, True)):
        monkeypatch.setattr(type(training), "global_step", property(lambda self, step=step: step))
        logged.clear()
        training._on_photos(batch)
        assert ("loss_photo_dsr_c" in logged) == begun
    released = small_training(semantics=Semantics(c_form="released", class_weights=True))
    assert released.config.semantics.c_form == "released"
    placed = placed_truth(batch.truth)
    ours, theirs = (each.rendered_losses(placed, batch)["dsr_c"] for each in (training, released))
    assert float(theirs.min()) > 0.2 * 1.2  # a perfect render costs 1.27 nats in the released form
    assert float(ours.max()) < 0.2 * 0.5


def test_a_step_lowers_what_photos_cost(photos: Photos, monkeypatch: pytest.MonkeyPatch) -> None:
    """The gradient reaches the weights through the mirror, the camera and the renderer."""
    training = small_training()
    batch = photos.batch(12, PhotoAugmentation(), np.random.default_rng(6))
    monkeypatch.setattr(training, "log", lambda *arguments, **named: None)
    monkeypatch.setattr(type(training), "global_step", property(lambda self: 10_000))
    optimizer = torch.optim.Adam(training.network.parameters(), 1e-3)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = training._on_photos(batch)
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.9 * losses[0]


# --- Who is learnt from -------------------------------------------------------------------------------


def test_bodies_of_refused_people_are_left_out_or_not(people: PseudoLabels, monkeypatch: pytest.MonkeyPatch) -> None:
    mixed = replace(people, accepted=np.array([True, False, True, False, False]))
    monkeypatch.setattr(splits, "read_pseudo_labels", lambda path, body, images: mixed)
    settings = settings_of(labels=(Path("a"),), held_out=0.0)
    told: list[str] = []
    train_set, held_out = read_splits(settings, open_body(), told.append)
    assert told == ["5 people in photos, 2 of them with a body to learn; 0 held out"]
    assert train_set.has_body.tolist() == [True, False, True, False, False]
    assert len(held_out) == 0
    assert bool(read_splits(replace(settings, gate="all"), open_body(), told.append)[0].has_body.all())
    monkeypatch.setattr(
        splits, "read_pseudo_labels", lambda path, body, images: replace(mixed, accepted=np.zeros(5, bool))
    )
    with pytest.raises(InputError, match=r"^a: the gate accepted nobody; --gate all learns from every fit$"):
        read_splits(settings, open_body(), told.append)
    with pytest.raises(InputError, match=r"^a: all photos are held out; give a smaller --held-out$"):
        read_splits(replace(settings, gate="all", held_out=1.0), open_body(), told.append)


def test_bodies_without_a_verdict_are_learnt_from_on_request(
    people: PseudoLabels, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody, unjudged = np.zeros(5, bool), np.array([True, True, False, False, False])
    for accepted in (nobody, ~unjudged & [True, True, True, False, False]):
        mixed = replace(people, accepted=accepted, unjudged=unjudged)
        monkeypatch.setattr(splits, "read_pseudo_labels", lambda path, body, images, mixed=mixed: mixed)
        settings = settings_of(labels=(Path("a"),), held_out=0.0)
        if accepted.any():
            assert read_splits(settings, open_body(), print)[0].has_body.tolist() == accepted.tolist()
        else:
            with pytest.raises(InputError, match="--gate unjudged learns from the 2 fits that it could not judge"):
                read_splits(settings, open_body(), print)
        both = read_splits(replace(settings, gate="unjudged"), open_body(), print)[0]
        assert both.has_body.tolist() == (accepted | unjudged).tolist()


def test_photos_are_held_out_by_their_names() -> None:
    names = [f"folder/{number:06d}.jpg" for number in range(4000)]
    few, more = ({name for name in names if is_held_out(name, share)} for share in (0.05, 0.3))
    assert few < more
    assert abs(len(few) - 200) < 4 * 14  # four standard deviations
    assert abs(len(more) - 1200) < 4 * 29
    assert not any(is_held_out(name, 0.0) for name in names)
    assert all(is_held_out(name, 1.0) for name in names)


def test_several_sets_are_one_with_each_its_own_photos(folder: Path, tmp_path: Path, people: PseudoLabels) -> None:
    other = known_people(tmp_path, [7])
    both = concatenated([people, other])
    assert len(both) == 6
    for row, (source, of) in enumerate([*((people, row) for row in range(5)), (other, 0)]):
        np.testing.assert_array_equal(both.image(row), source.image(of))
        np.testing.assert_array_equal(both.labels(row), source.labels(of))
        np.testing.assert_array_equal(both.full_pose[row], source.full_pose[of])
    assert concatenated([people]) is people


def test_a_batch_has_its_share_of_each(photos: Photos) -> None:
    sampler = Sampler(None, load_poses().part(held_out=False), open_body().skeleton, Mix())

    def counts(sampler: Sampler | None, photos: Photos | None, share: float) -> tuple[int, int]:
        batch = OpenData(sampler, photos, settings_of(batch=20, synthetic_share=share)).batch(0, 1)
        return (
            len(batch.synthetic[0]) if batch.synthetic is not None else 0,
            len(batch.photos) if batch.photos is not None else 0,
        )

    assert counts(sampler, photos, 0.75) == (15, 5)
    assert counts(sampler, photos, 0.0) == (0, 20)
    assert counts(None, photos, 0.75) == (0, 20)
    assert counts(sampler, None, 0.75) == (20, 0)
    data = OpenData(sampler, photos, settings_of(batch=20, synthetic_share=0.5))
    first, second = (data.batch(0, step) for step in (1, 2))
    assert first.synthetic is not None
    assert second.synthetic is not None
    assert not torch.equal(first.synthetic[0].points, second.synthetic[0].points)


def test_an_epoch_ends_where_the_steps_do() -> None:
    settings = settings_of(steps=7, epoch=3)
    assert settings.epochs == 3
    assert [settings.steps_of(epoch) for epoch in range(3)] == [3, 3, 1]


# --- Bare bodies --------------------------------------------------------------------------------------


def test_invented_detections_lie_about_the_truth_as_detectors_do() -> None:
    skeleton = open_body().skeleton
    sampler = Sampler(
        None,
        load_poses().part(held_out=False),
        skeleton,
        replace(Mix(), other_detector=0, cut=0, sparse_dropout=0, dropout=0),
    )
    inputs, truth = sampler.batch(300, np.random.default_rng(7))
    keypoints = skeleton.keypoints(truth.rotations, truth.betas) + truth.cam_t[:, None]
    seen = inputs.points[..., 2] > 0
    assert set(map(tuple, seen.tolist())) == {tuple(slot < len(BODY_25) for slot in range(49))}
    # Crops hang on the noisy points; their half is 0.6 of the box.
    off = (in_crop(keypoints, inputs.crop) - inputs.points[..., :2])[seen]
    assert float(off.std()) == pytest.approx(NOISE / 0.6, rel=0.1)
    straight = (keypoints - keypoints[:, 8:9]) @ inputs.turns().mT
    there = inputs.world[..., 3] > 0
    wrong = (straight - inputs.world[..., :3]).norm(dim=-1)[there]
    assert 0.06 < float(wrong.mean()) < 0.15  # 4.5 cm an axis scattered, and turned by ten degrees
    assert float(inputs.labels_seen.max()) == 0
    again, _ = sampler.batch(300, np.random.default_rng(7))
    assert torch.equal(again.world, inputs.world)


def test_landmarks_are_seen_along_the_ray_to_the_person(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without errors the invented landmarks are the true ones in the image's axes."""
    for name in ("TURN_SD", "SCALE_SD", "SCATTER_SD"):
        monkeypatch.setattr(f"dsr_fit.training.synthetic.detector_errors.{name}", 0.0)
    rng = np.random.default_rng(8)
    joints = rng.normal(size=(6, 49, 3)).astype(np.float32) * 0.3 + [1.0, 0.5, 4.0]
    rays, confidence, world = RandomDetectorErrors().apply(rng, joints)
    given = confidence[0] > 0
    np.testing.assert_allclose(world[:, given, :3], (joints - joints[:, 8:9])[:, given], atol=1e-5)
    np.testing.assert_allclose(rays, joints[..., :2] / joints[..., 2:], atol=0.05)
