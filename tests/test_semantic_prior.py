"""The semantic priors that ship: made for the body that ships, and refused on any other."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from scenes import open_body

from dsr_fit.assets import shipped
from dsr_fit.errors import InputError
from dsr_fit.joints import SMPL_JOINTS
from dsr_fit.labels import LABEL_INDEX, LABEL_SETS, LABELS, MC_LABELS, MIRRORED_LABELS
from dsr_fit.priors.counting import allowed_labels, mirror_of
from dsr_fit.priors.outfits import SLEEVES, TRUNKS, on_arms
from dsr_fit.priors.semantic import load_semantic_prior

TOOL = Path(__file__).resolve().parents[1] / "tools" / "rule_semantic_prior.py"


def test_the_prior_by_rule_is_what_its_tool_builds_for_this_body() -> None:
    spec = importlib.util.spec_from_file_location("rule_semantic_prior", TOOL)
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    with np.load(shipped("priors/semantic/rules.npz"), allow_pickle=False) as file:
        assert str(file["body_sha256"]) == open_body().sha256
        assert file["labels"].tolist() == list(LABELS)
        # Another processor may round a blend of parts in another way.
        np.testing.assert_allclose(file["probabilities"], tool.semantic_prior(open_body()), atol=1e-5)


@pytest.mark.parametrize("name", ["rules", "prior"])
def test_rows_are_probabilities_and_sides_are_kept(name: str) -> None:
    rows = load_semantic_prior(open_body(), shipped(f"priors/semantic/{name}.npz")).probabilities.numpy()
    assert rows.shape == (open_body().num_vertices, 20)
    assert rows.min() >= 0
    np.testing.assert_allclose(rows.sum(1), 1, atol=1e-6)
    assert (rows[:, 0] > 0).all()  # every vertex may be background: a log of it is finite
    x = open_body().v_template[:, 0].numpy()
    for part in ("Arm", "Leg", "Shoe"):
        left, right = (rows[:, LABEL_INDEX[side + part]] for side in ("left", "right"))
        assert x[left > 0.15].min() > 0 > x[right > 0.15].max()  # x runs to the body's left


def test_the_learned_prior_keeps_its_counts_and_what_a_part_may_wear() -> None:
    body = open_body()
    with np.load(shipped("priors/semantic/prior.npz"), allow_pickle=False) as file:
        arrays = dict(file)
    assert arrays["labels"].tolist() == list(LABELS)
    count, arms = body.num_vertices, int(on_arms(body).sum())
    assert arrays["observations"].shape == (count,)
    assert (
        0 <= arrays["observations"].min() < 0.05 * arrays["photos"] < arrays["observations"].max() <= arrays["photos"]
    )
    assert arrays["trunk_views"].sum() <= arrays["photos"]
    assert arrays["trunks"].shape == (len(TRUNKS), count, len(LABELS))
    assert arrays["sleeves"].shape == (len(SLEEVES), arms, len(LABELS))
    allowed, mirror, order = allowed_labels(body), mirror_of(body), MIRRORED_LABELS[:20]
    for table in (arrays["probabilities"], *arrays["trunks"]):
        assert not table[~allowed].any()
        np.testing.assert_allclose(table[mirror][:, order], table, atol=1e-3)  # rounded to 1/4096
    assert not arrays["sleeves"][:, ~allowed[on_arms(body)]].any()


def test_the_learned_prior_puts_things_where_they_are_worn() -> None:
    """Shoes on feet, hair on top of the head, faces in front, sleeves that fade towards the hand."""
    body = open_body()
    rows = load_semantic_prior(body).probabilities.numpy()
    weights, joints = body.weights.dense().numpy(), body.skeleton.rest_joints.numpy()
    parts = weights.argmax(1)

    def mean(label: str, *names: str) -> float:
        chosen = np.isin(parts, [SMPL_JOINTS.index(name) for name in names])
        return float(rows[chosen, LABEL_INDEX[label]].mean())

    assert mean("leftShoe", "left_foot") > 0.6
    skin = [mean("leftArm", name) for name in ("left_shoulder", "left_elbow", "left_wrist", "left_hand")]
    assert skin[0] < skin[1] < skin[2]
    assert min(skin[2:]) > 0.5
    head = parts == SMPL_JOINTS.index("head")
    points = body.v_template.numpy()
    nose = body.skeleton.keypoint_moments[0, :, :3].sum(0).numpy()
    near_nose = head & (np.linalg.norm(points - nose, axis=1) < 0.04)
    assert rows[near_nose, LABEL_INDEX["face"]].mean() > 0.7
    crown = head & (points[:, 1] > np.percentile(points[head, 1], 97))
    back = head & (points[:, 2] < joints[SMPL_JOINTS.index("head"), 2] - 0.05) & (points[:, 1] > nose[1])
    for where in (crown, back):
        assert rows[where][:, [LABEL_INDEX["hair"], LABEL_INDEX["hat"]]].sum(1).mean() > 0.6


def test_bare_legs_and_short_sleeves_show_skin() -> None:
    outfits = load_semantic_prior(open_body()).outfits
    assert outfits is not None
    knees = open_body().weights.dense().numpy().argmax(1) == SMPL_JOINTS.index("left_knee")
    legs = outfits.trunks.numpy()[:, knees, LABEL_INDEX["leftLeg"]].mean(1)
    assert legs[:3].max() < 0.25 < 0.4 < legs[3:6].min()
    arms = outfits.sleeves[:, :, [LABEL_INDEX["leftArm"], LABEL_INDEX["rightArm"]]].sum(-1).mean(1)
    assert arms[0] < arms[1] < arms[2]


def test_merged_classes_are_sums() -> None:
    prior = load_semantic_prior(open_body())
    rows = prior.probabilities.numpy()
    for label_set in LABEL_SETS.values():
        merged = prior.merged(label_set).numpy()
        for number, members in enumerate(label_set.classes.values()):
            np.testing.assert_allclose(merged[:, number], rows[:, list(members)].sum(1), atol=1e-6)
    valid = np.array([[True, False, False, True, False], [False] * 5])
    minimal = prior.minimally_clothed(torch.from_numpy(valid)).numpy()
    np.testing.assert_allclose(minimal[0], rows[:, [MC_LABELS[0], MC_LABELS[3]]].sum(1), atol=1e-6)
    assert not minimal[1].any()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"body_sha256": np.array("0" * 64)}, "made for another body than 'open'"),
        ({"probabilities": np.full((5, 20), 0.05)}, r"has shape \(5, 20\), expected \(7000, 20\)"),
        ({"probabilities": np.full((7000, 20), np.nan)}, "not probabilities"),
        ({"probabilities": np.full((7000, 20), -0.1)}, "not probabilities"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, change: dict[str, np.ndarray], words: str) -> None:
    arrays = {"body_sha256": np.array(open_body().sha256), "probabilities": np.full((7000, 20), 0.05)}
    np.savez(tmp_path / "good.npz", **arrays)
    assert not load_semantic_prior(open_body(), tmp_path / "good.npz").per_face
    np.savez(tmp_path / "bad.npz", **{**arrays, **change})
    with pytest.raises(InputError, match=words) as caught:
        load_semantic_prior(open_body(), tmp_path / "bad.npz")
    assert str(caught.value).startswith(str(tmp_path / "bad.npz"))


def test_released_priors_are_per_face_and_normalised(tmp_path: Path) -> None:
    """DSR's file squeezes to (faces, 20); its rows need not sum to one."""
    faces = len(open_body().faces)
    counts = np.random.default_rng(0).uniform(size=(1, faces, 1, 20)).astype(np.float32)
    np.save(tmp_path / "prior.npy", counts)
    prior = load_semantic_prior(open_body(), tmp_path / "prior.npy")
    assert prior.per_face
    expected = counts.reshape(faces, 20) / counts.reshape(faces, 20).sum(1, keepdims=True)
    np.testing.assert_allclose(prior.probabilities.numpy(), expected, atol=1e-6)
