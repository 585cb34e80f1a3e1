"""The arithmetic of the benchmarks of people who stand and of people who are cut off by the picture."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import cropped
import numpy as np
import pytest
import standing
import torch
from scenes import open_body
from standing import Found, bends, casting, gravity, tilts
from tables import standing as tables

from dsr_fit.body.parameters import Parameters
from dsr_fit.joints import KEYPOINT_INDEX, SMPL_JOINTS
from dsr_fit.labels import OCCLUDER
from dsr_fit.synthetic import ClothedCase, generate
from dsr_fit.synthetic.staging import random_stance, stage

SEED = 10_000


@cache
def case() -> ClothedCase:
    """Black, with a white spot at the neck and at the middle of the hips."""
    made = generate(SEED, painted=False)
    rows, columns = np.indices(made.labels.shape) + 0.5
    for x, y in made.keypoints[_rows("Neck", "MidHip"), :2]:
        spot = 255 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / 8)
        np.maximum(made.image, spot[..., None].astype(np.uint8), out=made.image)
    return made


def _rows(*names: str) -> list[int]:
    return [KEYPOINT_INDEX[name] for name in names]


def _found(truth: torch.Tensor, fit: torch.Tensor) -> Found:
    return Found([1], {}, {}, {"truth": truth, "fit": fit}, None, torch.tensor([[0.0, 1.0, 0.0]]))


def test_bends_by_bins_of_the_true_flexion() -> None:
    report = bends(torch.tensor([[0.0, 10.0], [20.0, 100.0]]), torch.tensor([[6.0, 8.0], [22.0, 90.0]]))
    assert report["bins"]["0-15"] == {"count": 2, "bias": 2.0, "error": 4.0}
    assert report["bins"]["15-30"] == {"count": 1, "bias": 2.0, "error": 2.0}
    assert report["bins"]["30-60"] == {"count": 0, "bias": None, "error": None}
    assert report["bins"]["90-140"]["bias"] == -10.0
    true = torch.rand(8, 2) * 90
    assert bends(true, 0.5 * true + 3)["slope"] == pytest.approx(0.5, abs=1e-3)  # rounded to 3 digits


def test_tilts_are_angles_to_gravity() -> None:
    def towards(degrees: float, turn: float = 0.0) -> torch.Tensor:
        lean, about = np.radians([degrees, turn])
        return torch.tensor([[np.sin(lean) * np.cos(about), np.cos(lean), np.sin(lean) * np.sin(about)]]).float()

    down = torch.tensor([[0.0, 1.0, 0.0]])
    assert tilts(towards(30), towards(10), down) == pytest.approx(
        {"error": 20.0, "tilt_bias": 20.0, "tilt_error": 20.0}, abs=0.01
    )
    turned = tilts(towards(10, 90), towards(10), down)  # another direction, but as far from gravity
    assert turned["error"] > 14
    assert turned["tilt_error"] == pytest.approx(0, abs=0.01)


def test_gravity_is_the_camera_s() -> None:
    stance = random_stance(np.random.default_rng([SEED, 0]), casting("ordinary"))
    camera = stage(stance, case().betas, case().cropped, np.random.default_rng([SEED, 1]), casting("ordinary"))[1]
    np.testing.assert_allclose(gravity(case(), "ordinary"), camera.down, atol=1e-5)  # orientations are float32
    with pytest.raises(SystemExit, match="another version"):
        gravity(replace(case(), body_pose=case().body_pose + 0.1), "ordinary")


def test_a_cut_is_the_same_camera_turned() -> None:
    row = cropped.lines(case())["thighs"]
    made = cropped.cut(case(), row, open_body())
    posed = made.parameters().pose(open_body())
    np.testing.assert_allclose(posed.vertices()[0].numpy(), made.vertices, atol=1e-5)  # float32 at some metres
    np.testing.assert_allclose(np.linalg.norm(made.joints, axis=1), np.linalg.norm(case().joints, axis=1), rtol=1e-5)
    up = (case().joints[1] - case().joints[8]) @ gravity(case(), "ordinary")
    assert (made.joints[1] - made.joints[8]) @ gravity(made, "ordinary") == pytest.approx(up, abs=1e-5)
    for x, y in made.keypoints[_rows("Neck", "MidHip"), :2]:
        top, left = int(y) - 8, int(x) - 8
        spot = made.image[top : top + 17, left : left + 17, 0].astype(float)
        rows, columns = np.indices(spot.shape) + 0.5
        centre = left + (spot * columns).sum() / spot.sum(), top + (spot * rows).sum() / spot.sum()
        assert centre == pytest.approx((x, y), abs=0.2)  # pixels, by rounding of the spot to bytes
    assert made.labels.shape == made.image.shape[:2]
    assert made.keypoints[_rows("MidHip"), 1] < made.labels.shape[0] < made.keypoints[_rows("LKnee"), 1]


def test_a_cut_goes_where_it_should() -> None:
    rows = cropped.lines(case())
    assert rows["waist"] < rows["thighs"] < rows["knees"]
    upside_down = replace(case(), joints=case().joints * np.array([1, -1, 1], np.float32))
    assert cropped.lines(upside_down) == {}
    assert not cropped.usable(replace(case(), occluded="box"))


def test_what_the_counter_hides_is_not_in_sight() -> None:
    joints = case().parameters().pose(open_body()).joints()
    row = cropped.lines(case())["thighs"]
    for made in (cropped.behind(case(), row), cropped.cut(case(), row, open_body())):
        seen = cropped.in_sight(made.parameters().pose(open_body()).joints(), [made])[0]
        shown = {name for name, one in zip(SMPL_JOINTS, seen, strict=True) if one}
        assert {"neck", "pelvis", "left_shoulder"} <= shown
        assert not shown & {"left_knee", "right_knee", "left_ankle", "right_ankle"}
    assert (cropped.behind(case(), row).labels[int(row) :] == OCCLUDER).all()
    assert cropped.in_sight(joints, [replace(case(), labels=np.zeros_like(case().labels))]).all()


def test_a_rotation_is_in_sight_with_what_hangs_on_the_joint() -> None:
    seen = torch.ones(1, 24, dtype=torch.bool)
    seen[0, SMPL_JOINTS.index("left_ankle")] = False
    hidden = {SMPL_JOINTS[number] for number in (~cropped.turns_in_sight(seen)[0]).nonzero().flatten()}
    assert hidden == {"left_ankle", "left_knee"}


def test_distances_are_about_the_joints_in_common() -> None:
    truth = torch.rand(1, 24, 3)
    common = torch.arange(24)[None] < 4
    fit = truth + torch.tensor([1.0, 2.0, 3.0])
    fit[0, 23, 0] += 0.1
    errors = cropped.distances(_found(truth, fit), "fit", common)
    expected = torch.zeros(1, 24)
    expected[0, 23] = 100
    torch.testing.assert_close(errors, expected, atol=1e-2, rtol=0)  # mm, float32 metres
    assert cropped.per_person(torch.tensor([[1.0, 5.0, 9.0]]), torch.tensor([[True, True, False]])).item() == 3


def test_expected_errors_against_true_ones() -> None:
    report = cropped.expectations(torch.tensor([0.1, 0.1]), torch.tensor([0.05, 0.35]))
    assert report == {"count": 2, "expected_deg": 5.73, "error_deg": 11.46, "ratio": 2.0, "within_twice": 0.5}


def _fitted_exactly(count: int = 6) -> Found:
    """People whose fits are the truth; estimates bend the left knee by about 0.2 radians more."""
    pose = 0.1 * torch.randn(count, 69, generator=torch.Generator().manual_seed(0))
    truth = Parameters(
        torch.tensor([[np.pi, 0, 0]] * count).float(), pose, torch.zeros(count, 10), torch.ones(count, 3)
    )
    bent = pose.clone()
    bent[:, 3 * (SMPL_JOINTS.index("left_knee") - 1)] += 0.2
    bodies = {"truth": truth, "fit": truth, "estimate": replace(truth, body_pose=bent)}
    joints = {who: body.pose(open_body()).joints() for who, body in bodies.items()}
    down = torch.tensor([[0.0, 1.0, 0.0]]).expand(count, 3)
    return Found(list(range(count)), {99: "nobody"}, bodies, joints, torch.full((count, 24), 0.1), down)


def test_reports_and_tables_of_exact_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _fitted_exactly()
    seen = torch.arange(24)[None].expand(6, 24) != SMPL_JOINTS.index("left_ankle")
    whole = standing.measured(open_body(), found)
    assert whole["errors"]["pve"]["fit"]["mean"] == pytest.approx(0, abs=0.01)
    assert whole["errors"]["pve"]["difference"]["mean"] < 0
    assert whole["knee"]["fit"]["slope"] == pytest.approx(1, abs=1e-3)
    assert whole["trunk"]["fit"]["error"] == pytest.approx(0, abs=0.05)  # degrees, of float32 directions
    part = cropped.measured(found, found.rows([0, 2, 1]), seen, {seed: seen[seed] for seed in range(6)})
    assert part["joints that every cut shows"]["people"] == 3
    assert part["joints that every cut shows"]["fit"]["difference_mm"]["mean"] == pytest.approx(0, abs=0.01)
    assert part["segments"]["shins"]["unseen"]["count"] == 6
    assert part["rotations"]["unseen"]["fit"]["count"] == 12  # knee and ankle
    assert part["rotations"]["unseen"]["estimate"]["ratio"] == pytest.approx(1, abs=0.05)  # 0.2 and 0, against 0.1 each
    assert part["rotations"]["seen"]["estimate"]["ratio"] == pytest.approx(0, abs=0.02)
    results = {
        "standing": {"groups": {"standing": whole}},
        "cropped": {"groups": {"standing": dict.fromkeys(cropped.KINDS, part)}},
    }
    monkeypatch.setattr(tables, "result", results.__getitem__)
    assert "Standing: 6 found, 1 not." in tables.standing_whole()
    assert "| standing | cut at the waist | 6 of 7 | 3 |" in tables.cropped()
    assert "| standing | behind a counter | unseen | 5.7 |" in tables.cropped_rotations()
