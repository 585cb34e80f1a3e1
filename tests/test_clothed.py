"""The clothed people: geometry against closed forms, and what each generated case promises."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_erosion, distance_transform_edt
from scipy.spatial.transform import Rotation

from dsr_fit.body.files import load_body
from dsr_fit.errors import InputError
from dsr_fit.labels import LABEL_INDEX, LABELS, OCCLUDER, OTHER_PERSON, UNKNOWN
from dsr_fit.priors.recorded_poses import load_poses
from dsr_fit.synthetic import ClothedCase, generate, read_cases, staging, write_cases
from dsr_fit.synthetic.cloth import hull_ring, support
from dsr_fit.synthetic.dataset import write_case
from dsr_fit.synthetic.dressing import dress
from dsr_fit.synthetic.garments import Piece
from dsr_fit.synthetic.standing import stand
from dsr_fit.synthetic.surface import cut, open_surface
from dsr_fit.synthetic.wardrobe import KINDS, Outfit, random_outfit

SEEDS = tuple(range(16))


@pytest.fixture(scope="module")
def cases() -> list[ClothedCase]:
    return [generate(seed) for seed in SEEDS]


@pytest.fixture(scope="module")
def outfits() -> list[Outfit]:
    return [random_outfit(np.random.default_rng(seed), roomy=True) for seed in range(150)]


def dressed(outfit: Outfit) -> tuple[staging.Placed, dict[str, Piece]]:
    """An outfit on an average body standing in the first held-out pose."""
    pose = staging.held_out_poses().full_pose[0].astype(np.float64)
    stance = staging.Stance("", np.zeros(3), 0.3 * pose[3:], True, "front")
    placed = staging.place(stance, np.zeros(10, np.float32), np.diag([1.0, -1, -1]), np.array([0, 0, 3.0]))
    return placed, {piece.name: piece for piece in dress(placed.wearer, outfit, np.random.default_rng(0))}


def same(a: ClothedCase, b: ClothedCase) -> bool:
    return all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in fields(ClothedCase))


def projected(case: ClothedCase, points: np.ndarray) -> np.ndarray:
    fx, fy, cx, cy = case.intrinsics
    return points[:, :2] / points[:, 2:] * [fx, fy] + [cx, cy]


def outline_excess(case: ClothedCase) -> float:
    """Mean distance in metres from the clothed outline to the body, at the pelvis's depth."""
    inner = np.asarray(binary_erosion(case.clothed_mask, border_value=1))
    edge = case.clothed_mask & (inner == 0)
    distance = np.asarray(distance_transform_edt(~case.body_mask))
    return float(distance[edge].mean() * case.cam_t[2] / case.focal_length)


def test_cut_keeps_exactly_the_inside():
    x, y = np.meshgrid(np.linspace(0, 1, 6), np.linspace(0, 1, 6))
    points = np.stack([x.ravel(), y.ravel(), 0 * x.ravel()], 1)
    index = np.arange(36).reshape(6, 6)
    a, b, c, d = (s.ravel() for s in (index[:-1, :-1], index[:-1, 1:], index[1:, 1:], index[1:, :-1]))
    faces = np.concatenate([np.stack([a, b, c], 1), np.stack([a, c, d], 1)])
    values, kept, inside = cut(points, faces, 0.71 - points[:, 0] - 0.5 * points[:, 1])
    corner = values[kept]
    area = np.linalg.norm(np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]), axis=1).sum() / 2
    assert area == pytest.approx(0.71 - 0.25)  # the integral of 0.71 - y / 2
    assert inside.min() >= 0
    assert np.unique(values.round(9), axis=0).shape == values.shape


def test_hull_ring_is_the_ellipse_that_has_that_support():
    angles = np.linspace(-np.pi, np.pi, 72, endpoint=False)
    ring = hull_ring(np.hypot(0.2 * np.sin(angles), 0.15 * np.cos(angles)), angles)
    # The spectrum is cut at the eighth order, so not to the last digit.
    np.testing.assert_allclose((ring[:, 0] / 0.2) ** 2 + (ring[:, 1] / 0.15) ** 2, 1, atol=1e-3)
    np.testing.assert_allclose(support(ring, angles), np.hypot(0.2 * np.sin(angles), 0.15 * np.cos(angles)), atol=1e-3)


def test_finer_surface_is_closed_and_reproduces_affine_maps():
    surface = open_surface()
    edges = np.sort(surface.fine_faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), 1)
    _, count = np.unique(edges, axis=0, return_counts=True)
    assert (count == 2).all()
    np.testing.assert_allclose(np.asarray(surface.finer.sum(1)).ravel(), 1)
    assert np.abs(surface.finer @ surface.rest - surface.fine_rest).max() == 0
    assert np.abs(surface.fine_rest[: len(surface.rest)] - surface.rest).max() < 0.01


def test_generation_is_deterministic(cases):
    assert same(cases[7], generate(7))


def test_parameters_give_the_vertices_and_joints(cases):
    body = load_body("open")
    case = cases[3]
    posed = body(*(torch.from_numpy(a)[None] for a in (case.global_orient, case.body_pose, case.betas, case.cam_t)))
    np.testing.assert_allclose(posed.vertices()[0].numpy(), case.vertices, atol=1e-5)
    np.testing.assert_allclose(posed.keypoints[0].numpy(), case.joints, atol=1e-5)


def test_sizes_and_types(cases):
    for case in cases:
        height, width = case.labels.shape
        assert 480 <= width <= 640
        assert 640 <= height <= 900
        assert case.image.shape == (height, width, 3)
        assert case.image.dtype == np.uint8
        assert case.body_mask.shape == case.clothed_mask.shape == case.labels.shape
        assert 0.8 <= case.focal_length / np.hypot(width, height) <= 2
        assert set(np.unique(case.labels)) <= {*range(len(LABELS)), OCCLUDER, UNKNOWN}


def test_uncropped_people_are_large_and_inside_the_frame(cases):
    for case in cases:
        points = projected(case, case.vertices)
        size = np.array(case.labels.shape[::-1])
        inside = bool(((points >= 0) & (points <= size)).all())
        assert inside != case.cropped
        if not case.cropped:
            assert (np.ptp(points, axis=0) / size).max() > 0.5


def test_clothes_cover_the_body(cases):
    for case in cases:
        outside = case.body_mask & ~case.clothed_mask
        # Hair presses the ears flat.
        assert outside.sum() < 0.005 * case.body_mask.sum(), case.seed


def test_labels_are_the_seen_part_of_the_clothed_mask(cases):
    for case in cases:
        own = (case.labels > 0) & (case.labels != OCCLUDER)
        assert not (own & ~case.clothed_mask).any()
        assert not (case.clothed_mask & (case.labels == 0)).any()
        if case.occluded is None and not case.second_person:
            assert np.array_equal(own, case.clothed_mask)
        if case.occluded is not None:
            assert (case.clothed_mask & (case.labels == OCCLUDER)).any()
        assert own.sum() > 0.3 * case.clothed_mask.sum()


def test_labels_name_what_is_worn(cases):
    named = {"skirt": "skirt", "coat": "coat", "dress": "dress", "hat": "hat"}
    for case in cases:
        for kind, label in named.items():
            if (case.labels == LABEL_INDEX[label]).any():
                assert kind in case.garments
        assert (case.labels == LABEL_INDEX["skirt"]).any() <= (case.labels != LABEL_INDEX["dress"]).all()


def test_outlines_exceed_bodies_by_millimetres_to_nine_centimetres():
    cases = [generate(seed, painted=False) for seed in range(32)]
    excess = np.array([outline_excess(case) for case in cases])
    assert (excess > 0.001).all()
    assert (excess < 0.09).all()
    assert excess.max() > 0.03
    looseness = np.array([case.looseness for case in cases])
    assert np.corrcoef(excess, looseness)[0, 1] > 0.7


def test_visibility_knows_frame_and_occluders(cases):
    for case in cases:
        pixel = np.floor(projected(case, case.joints)).astype(int)
        height, width = case.labels.shape
        inside = ((pixel >= 0) & (pixel < [width, height])).all(1)
        assert not (case.keypoint_visibility & ~inside).any()
        j, i = pixel[inside].T
        assert not (case.keypoint_visibility[inside] & (case.labels[i, j] == OCCLUDER)).any()
        if case.view == "front" and not case.cropped and case.occluded is None and not case.second_person:
            assert case.keypoint_visibility.sum() > 24


def test_every_kind_of_garment_is_chosen(outfits):
    assert set().union(*(outfit.kinds for outfit in outfits)) == set(KINDS)


def test_every_kind_of_garment_is_a_surface(outfits):
    pieces_by_kind = {
        "loose_trousers": "trousers", "tight_trousers": "trousers", "shorts": "trousers", "skirt": "skirt",
        "dress": "skirt", "coat": "tails", "short_hair": "hair", "big_hair": "hair", "hat": "hat",
        "boots": "shoes",
    }  # fmt: skip
    for kind, name in pieces_by_kind.items():
        outfit = next(o for o in outfits if kind in o.kinds)
        placed, pieces = dressed(outfit)
        piece = pieces[name]
        assert np.isfinite(piece.vertices).all(), kind
        assert len(piece.faces) > 100, kind
        nearest = np.linalg.norm(piece.vertices[::7, None] - placed.wearer.vertices[None, ::3], axis=-1).min(1)
        assert nearest.max() < 0.35, kind


def test_looser_trousers_stand_farther_off(outfits):
    outfit = next(o for o in outfits if "tight_trousers" in o.kinds and o.coat is None)
    assert outfit.trousers is not None
    off = []
    for looseness in (0.005, 0.02, 0.04):
        placed, pieces = dressed(replace(outfit, trousers=replace(outfit.trousers, looseness=looseness)))
        points, body = pieces["trousers"].vertices, placed.wearer.vertices
        off.append(np.linalg.norm(points[::5, None] - body[None], axis=-1).min(1).mean())
    assert off[1] - off[0] > 0.005
    assert off[2] - off[1] > 0.008


def test_only_held_out_clips_are_used(cases):
    poses = load_poses()
    free = {poses.clip_names[k] for k in np.unique(poses.clip[~poses.held_out])}
    clips = {staging.random_stance(np.random.default_rng(k), staging.Casting()).clip for k in range(60)} | {
        c.clip for c in cases
    }
    assert clips.isdisjoint(free)
    assert len(clips) > 4


def test_round_trip(tmp_path: Path, cases):
    for case in cases[:2]:
        write_case(tmp_path, case)
    write_cases(tmp_path, [0, 1])  # there already: nothing is generated again
    read = list(read_cases(tmp_path))
    assert [same(a, b) for a, b in zip(read, cases, strict=False)] == [True, True]
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [
        ".npz",
        ".npz",
        ".png",
        ".png",
        ".png",
        ".png",
    ]


def test_damaged_and_missing_sets_are_named(tmp_path: Path, cases):
    with pytest.raises(InputError, match="no clothed cases"):
        list(read_cases(tmp_path))
    write_case(tmp_path, cases[0])
    (tmp_path / "000000_labels.png").write_bytes(b"")
    with pytest.raises(InputError, match="case 0"):
        list(read_cases(tmp_path))


def test_a_second_person_is_marked_on_request() -> None:
    """As a parser sees it: 253 before and behind, where the truth is occluder or background."""
    seed = next(seed for seed in range(100) if generate(seed, painted=False).second_person)
    plain, marked = (generate(seed, painted=False, others=others) for others in (False, True))
    there = marked.labels == OTHER_PERSON
    assert there.sum() > 100
    assert (plain.labels[~there] == marked.labels[~there]).all()
    assert len(np.unique(plain.labels[there])) == 1
    assert plain.labels[there][0] in (0, OCCLUDER)


def test_standing_people_keep_heading_arms_and_head() -> None:
    poses = load_poses().full_pose[::40]
    stood = stand(poses, np.random.default_rng(0), relaxed=0.5)
    kept = np.r_[15 * 3 : 24 * 3]  # head, arms, hands
    assert np.array_equal(stood[:, kept], poses[:, kept].astype(np.float64))
    before, after = (Rotation.from_rotvec(pose[:, :3]).as_matrix() for pose in (poses, stood))
    heading = [np.arctan2(turn[:, 0, 2], turn[:, 2, 2]) for turn in (before, after)]
    assert np.abs(np.angle(np.exp(1j * (heading[1] - heading[0])))).max() < np.radians(10)
    assert np.degrees(np.arccos(after[:, 1, 1])).max() < 15  # upright
    knees = np.degrees(stood[:, [12, 15]])
    assert (knees >= 0).all()
    assert (knees.min(1) <= 12).all()
    assert 0.2 < (knees.max(1) > 12).mean() < 0.5


def test_a_share_of_people_stands() -> None:
    poses = load_poses().part(held_out=False)
    casting = staging.Casting(poses, standing=0.5)
    rng = np.random.default_rng(0)
    bent = [np.degrees(staging.random_stance(rng, casting).body_pose[[9, 12]]).min() for _ in range(200)]
    moving = [
        np.degrees(staging.random_stance(rng, replace(casting, standing=0.0)).body_pose[[9, 12]]).min()
        for _ in range(200)
    ]
    assert np.mean(np.array(bent) < 12) > np.mean(np.array(moving) < 12) + 0.3
