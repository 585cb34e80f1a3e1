"""The open body's semantic prior on other bodies: looked up at the same places, in any order, size and shape."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scenes import open_body

from dsr_fit.body.body import Body
from dsr_fit.body.skinning import SkinningWeights
from dsr_fit.joints import SMPL_JOINTS
from dsr_fit.labels import LABEL_INDEX
from dsr_fit.priors.semantic import SemanticPrior, carry_over, load_semantic_prior

ORDER = np.random.default_rng(0).permutation(open_body().num_vertices)


def _shaped(betas: torch.Tensor, size: float = 1.0) -> Body:
    """The open body as another one: other proportions at rest, and vertices in another order."""
    body = open_body()
    vertices = size * (body.v_template + torch.einsum("vcs,s->vc", body.shapedirs, betas))
    weights = SkinningWeights.from_dense(body.weights.dense().numpy()[ORDER])
    skeleton = replace(body.skeleton, rest_joints=size * body.skeleton.joints_at_rest(betas[None])[0])
    place = np.argsort(ORDER)
    faces = torch.from_numpy(place[body.faces.numpy()].astype(np.int32))
    other = {"v_template": vertices[ORDER], "weights": weights, "faces": faces, "skeleton": skeleton}
    return replace(body, name="another", sha256="1" * 64, **other)


@pytest.fixture(scope="module")
def own() -> SemanticPrior:
    return load_semantic_prior(open_body())


def test_the_same_body_in_another_order_and_size_has_the_same_rows(own: SemanticPrior) -> None:
    carried = carry_over(own, open_body(), _shaped(torch.zeros(10), size=1.3))
    torch.testing.assert_close(carried.probabilities, own.probabilities[ORDER])
    assert carried.outfits is not None
    assert own.outfits is not None
    torch.testing.assert_close(carried.outfits.trunks, own.outfits.trunks[:, ORDER])
    place = {vertex: row for row, vertex in enumerate(own.outfits.on_arms.tolist())}
    theirs = [place[int(ORDER[vertex])] for vertex in carried.outfits.on_arms]
    torch.testing.assert_close(carried.outfits.sleeves, own.outfits.sleeves[:, theirs])


@pytest.mark.parametrize("seed", range(3))
def test_people_of_another_shape_wear_the_same_at_the_same_places(own: SemanticPrior, seed: int) -> None:
    betas = 2 * torch.randn(10, generator=torch.Generator().manual_seed(seed))
    rows = carry_over(own, open_body(), _shaped(betas)).probabilities
    torch.testing.assert_close(rows.sum(1), torch.ones(len(rows)))
    truth = own.probabilities[ORDER]
    assert (rows.argmax(1) == truth.argmax(1)).float().mean() > 0.95
    assert (rows - truth).abs().sum(1).mean() < 0.1
    for left, right in (("leftArm", "rightArm"), ("leftLeg", "rightLeg"), ("leftShoe", "rightShoe")):
        for side, other in ((left, right), (right, left)):
            sure = truth[:, LABEL_INDEX[side]] > 0.3
            assert rows[sure][:, LABEL_INDEX[other]].max() < 0.05


def test_where_the_spine_has_its_joints_moves_no_clothes(own: SemanticPrior) -> None:
    """The same surface with spine and collars placed as differently as bodies of this format do."""
    body = open_body()
    joints, height = body.skeleton.rest_joints.clone(), float(body.skeleton.stature[0])
    for name, up in (("spine1", 0.01), ("spine2", -0.03), ("spine3", -0.05), ("left_collar", -0.03), ("head", 0.02)):
        joints[SMPL_JOINTS.index(name), 1] += up * height
    moved = replace(body, sha256="2" * 64, skeleton=replace(body.skeleton, rest_joints=joints))
    rows = carry_over(own, body, moved).probabilities
    part = body.weights.dense().numpy().argmax(1)
    for name in ("pelvis", "spine1", "spine2", "spine3", "left_collar", "neck", "head"):
        own_rows, here = own.probabilities[part == SMPL_JOINTS.index(name)], rows[part == SMPL_JOINTS.index(name)]
        assert (here.argmax(1) == own_rows.argmax(1)).float().mean() > 0.98, name


def test_a_body_without_a_prior_of_its_own_takes_the_open_ones_and_says_so(
    own: SemanticPrior, caplog: pytest.LogCaptureFixture
) -> None:
    prior = load_semantic_prior(_shaped(torch.zeros(10)))
    torch.testing.assert_close(prior.probabilities, own.probabilities[ORDER])
    assert "body 'another' takes the open body's semantic prior" in caplog.text
    assert "dsr.is.tue.mpg.de" in caplog.text
