"""Outfits told from label maps whose areas are known, and the wardrobe that each image gets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from scenes import open_body

from dsr_fit.config import FitConfig, Semantics
from dsr_fit.errors import InputError
from dsr_fit.fitting.fitter import Fitter
from dsr_fit.labels import LABEL_INDEX, LABEL_SETS, OCCLUDER, UNKNOWN
from dsr_fit.priors.outfits import BARE_ARMS, BARE_LEGS, SLEEVES, TOPS, TRUNKS, Outfit, on_arms, outfit_of
from dsr_fit.priors.semantic import load_semantic_prior


def shown(**percent: float) -> np.ndarray:
    """(100, 100) label map with these percentages of the area; `occluder` and `unknown` too, background the rest."""
    codes = LABEL_INDEX | {"occluder": OCCLUDER, "unknown": UNKNOWN}
    pixels = np.concatenate(
        [np.empty(0), *(np.full(round(100 * share), codes[name]) for name, share in percent.items())]
    )
    labels = np.zeros(10_000, np.uint8)
    labels[: len(pixels)] = pixels
    return np.random.default_rng(0).permutation(labels).reshape(100, 100)


TROUSERS = {"pants": 10, "leftShoe": 0.5, "rightShoe": 0.5}


@pytest.mark.parametrize(
    ("labels", "trunk", "sleeves"),
    [
        (shown(upperclothes=6, leftArm=0.2, rightArm=0.1, **TROUSERS), 0, 0),
        (shown(upperclothes=10, coat=3, leftArm=0.6, rightArm=0.6, **TROUSERS), 1, 1),
        (shown(coat=30, rightArm=1, **TROUSERS), 2, 0),
        (shown(upperclothes=6, leftArm=2, rightArm=2, pants=5, leftLeg=3, rightLeg=3), 3, 2),
        (shown(upperclothes=14, skirt=5, leftLeg=2, rightLeg=2, leftArm=2, rightArm=2), 4, 2),
        (shown(dress=20, leftLeg=3, rightLeg=3, leftArm=3, rightArm=3, hair=2, face=2), 5, 2),
        (shown(dress=20, socks=6, hair=30, face=2), 2, 0),
        (shown(upperclothes=20, leftArm=1, rightArm=1, hair=5), None, 1),  # the picture ends at the waist
        (shown(pants=10, leftShoe=1, hat=5), 0, None),  # it begins there
        (shown(face=10, hair=10), None, None),
        (shown(), None, None),
        (shown(occluder=50, unknown=30, upperclothes=6, leftArm=0.2, rightArm=0.1, pants=10), 0, 0),
    ],
)
def test_areas_tell_the_outfit(labels: np.ndarray, trunk: int | None, sleeves: int | None) -> None:
    assert outfit_of(labels) == Outfit(trunk, sleeves)
    assert outfit_of(labels.repeat(2, 0).repeat(2, 1)) == Outfit(trunk, sleeves)  # at any resolution
    assert outfit_of(labels[:, ::-1]) == Outfit(trunk, sleeves)


def test_thresholds_bound_the_classes() -> None:
    assert (len(TRUNKS), len(SLEEVES)) == (2 * (len(TOPS) + 1), len(BARE_ARMS) + 1)
    for length, share in enumerate(TOPS):
        below = outfit_of(shown(upperclothes=40 * share - 0.1, pants=40 * (1 - share) + 0.1))
        above = outfit_of(shown(upperclothes=40 * share + 0.1, pants=40 * (1 - share) - 0.1))
        assert (below.trunk, above.trunk) == (length, length + 1)
    for number, share in enumerate(BARE_ARMS):
        below = outfit_of(shown(coat=40 * (1 - share) + 0.1, leftArm=40 * share - 0.1))
        above = outfit_of(shown(coat=40 * (1 - share) - 0.1, leftArm=40 * share + 0.1))
        assert (below.sleeves, above.sleeves) == (number, number + 1)
    covered = outfit_of(shown(dress=40, leftLeg=40 * BARE_LEGS))
    bare = outfit_of(shown(dress=40, leftLeg=40 * BARE_LEGS / (1 - BARE_LEGS) + 0.1))
    assert (covered.trunk, bare.trunk) == (2, 5)


def wardrobes() -> dict[str, np.ndarray]:
    """Arrays of a prior file whose every table is another."""
    rng, count, arms = np.random.default_rng(0), open_body().num_vertices, int(on_arms(open_body()).sum())
    return {
        "probabilities": rng.dirichlet(np.ones(20), count),
        "trunks": rng.dirichlet(np.ones(20), (len(TRUNKS), count)),
        "sleeves": rng.dirichlet(np.ones(20), (len(SLEEVES), arms)),
        "body_sha256": np.array(open_body().sha256),
    }


def test_each_image_gets_its_own_wardrobe(tmp_path: Path) -> None:
    arrays, arms = wardrobes(), on_arms(open_body())
    np.savez(tmp_path / "prior.npz", **arrays)  # type: ignore[arg-type]
    prior = load_semantic_prior(open_body(), tmp_path / "prior.npz")
    images = [
        shown(dress=20, leftLeg=3, rightLeg=3, leftArm=3, rightArm=3),
        shown(face=10, hair=10),
        shown(upperclothes=20, leftArm=1, rightArm=1),
    ]
    worn = prior.dressed(images)
    found = worn.probabilities.numpy()
    np.testing.assert_allclose(found[0, ~arms], arrays["trunks"][5, ~arms], atol=1e-6)
    np.testing.assert_allclose(found[0, arms], arrays["sleeves"][2], atol=1e-6)
    np.testing.assert_allclose(found[1], arrays["probabilities"], atol=1e-6)
    np.testing.assert_allclose(found[2, ~arms], arrays["probabilities"][~arms], atol=1e-6)
    np.testing.assert_allclose(found[2, arms], arrays["sleeves"][1], atol=1e-6)
    merged = worn.merged(LABEL_SETS["code8"])
    np.testing.assert_allclose(merged.sum(-1).numpy(), 1, atol=1e-5)
    valid = torch.tensor([[True] * 5, [False, True, False, False, False], [False] * 5])
    minimal = worn.minimally_clothed(valid).numpy()
    np.testing.assert_allclose(minimal[1], found[1, :, LABEL_INDEX["rightArm"]], atol=1e-6)
    assert not minimal[2].any()
    np.testing.assert_array_equal(prior.dressed(images).probabilities, found)  # the tables are left as they were


@pytest.mark.parametrize("name", ["trunks", "sleeves"])
def test_wardrobes_of_another_shape_are_refused(tmp_path: Path, name: str) -> None:
    arrays = wardrobes()
    arrays[name] = arrays[name][:, :-1]
    np.savez(tmp_path / "prior.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=f"`{name}` has shape"):
        load_semantic_prior(open_body(), tmp_path / "prior.npz")


def test_a_configuration_can_do_without_outfits() -> None:
    assert Fitter(open_body()).semantic_prior.outfits is not None
    plain = Fitter(open_body(), FitConfig(semantics=Semantics(outfits=False))).semantic_prior
    assert plain.outfits is None
    assert plain.dressed([shown(dress=20)]) is plain
