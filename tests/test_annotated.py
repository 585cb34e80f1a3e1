"""Kept fits of annotated photos: each body, configuration and prior has its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from annotated import AnnotatedPhotos, fit_photos, fitted_parameters
from scenes import observe, open_body, person

from dsr_fit.config import FitConfig, LeastSquares, Stage, Weights
from dsr_fit.fitting.fitter import Fitter
from dsr_fit.observation import Observation

QUICK = FitConfig(least_squares=LeastSquares(pose_steps=2, steps=3), stages=(Stage(56, 2),))


class _Photos(AnnotatedPhotos):
    """One person, who is drawn; notes who was asked for."""

    def __init__(self) -> None:
        super().__init__(Path("/nowhere"))
        self.asked: list[str] = []

    def observe(self, number: str) -> Observation | None:
        self.asked.append(number)
        return observe(person())


def test_fits_are_kept_for_what_made_them_alone(tmp_path: Path) -> None:
    photos, fitter = _Photos(), Fitter(open_body(), QUICK)
    folder = fit_photos(photos, ["0001"], fitter, tmp_path)
    assert [path.name for path in folder.iterdir()] == ["0001.npz"]
    kept = fitted_parameters(folder, "0001")
    assert fit_photos(photos, ["0001"], Fitter(open_body(), QUICK), tmp_path) == folder
    assert photos.asked == ["0001"]

    prior = fitter.semantic_prior
    assert prior.outfits is not None
    others = [
        Fitter(replace(open_body(), sha256="f" * 64), QUICK, semantic_prior=prior),
        Fitter(open_body(), replace(QUICK, weights=Weights(dsr_mc=7.0, pose=5.0)), semantic_prior=prior),
        Fitter(open_body(), QUICK, semantic_prior=replace(prior, probabilities=prior.probabilities.flip(1))),
        Fitter(open_body(), QUICK, semantic_prior=replace(prior, outfits=None)),
        Fitter(
            open_body(), QUICK,
            semantic_prior=replace(prior, outfits=replace(prior.outfits, trunks=prior.outfits.trunks.flip(0))),
        ),
    ]  # fmt: skip
    folders = [fit_photos(photos, [], other, tmp_path) for other in others]
    assert len({folder, *folders}) == 6
    assert {each.parent for each in folders} == {tmp_path}
    assert not any(list(each.iterdir()) for each in folders)

    # A fit of other settings is made, and leaves the first one as it was.
    again = fit_photos(photos, ["0001"], others[1], tmp_path)
    assert photos.asked == ["0001", "0001"]
    assert not torch.equal(fitted_parameters(again, "0001").body_pose, kept.body_pose)
    np.testing.assert_array_equal(fitted_parameters(folder, "0001").body_pose, kept.body_pose)
