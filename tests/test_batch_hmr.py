"""HMR in a run over a data set: it looks at the pictures, which perception doesn't pass on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import hmr_files
import numpy as np
import pytest
import torch
from PIL import Image
from scenes import observe, person
from synthetic_smpl import synthetic_smpl

from dsr_fit.config import Eft, FitConfig, LeastSquares, Stage
from dsr_fit.dataset.fitting import BatchFitter
from dsr_fit.dataset.records import PackedObservation, PersonObservation
from dsr_fit.dataset.settings import Settings
from dsr_fit.fitting.fitter import Fitter
from dsr_fit.regressor.hmr import Hmr

QUICK = FitConfig(
    least_squares=LeastSquares(pose_steps=1, steps=1),
    stages=(Stage(56, 1),),
    eft=Eft(layers=("head.decpose",), iterations=1, resolution=56),
)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("licensed")
    np.savez(folder / "smpl.npz", **synthetic_smpl())  # type: ignore[arg-type]
    torch.manual_seed(0)
    weights = {name: value for name, value in Hmr().state_dict().items() if ".init_" not in name}
    torch.save({"model": hmr_files.flat(weights)}, folder / "spin.pt")
    np.save(folder / "prior.npy", np.random.default_rng(0).uniform(0.1, 1, (13776, 20)))
    return Settings(
        config=QUICK,
        body=str(folder / "smpl.npz"),
        regressor=str(folder / "spin.pt"),
        semantic_prior=folder / "prior.npy",
    )


def _seen(folder: Path) -> list[PersonObservation]:
    """One observation of two pictures that differ, but not in what perception says of them."""
    found = PackedObservation.of(observe(person(0)))
    width, height = found.image_size
    shade = np.random.default_rng(0).integers(0, 256, (height, width, 3)).astype(np.uint8)
    for name, picture in (("plain.png", np.full_like(shade, 90)), ("busy.png", shade)):
        Image.fromarray(picture).save(folder / name)
    return [PersonObservation("plain.png", 0, found=found), PersonObservation("busy.png", 0, found=found)]


@pytest.mark.parametrize("mode", ["smplify", "eft"])
def test_each_person_is_estimated_from_its_picture(settings: Settings, tmp_path: Path, mode: str) -> None:
    settings = replace(settings, config=replace(QUICK, mode=mode))  # type: ignore[arg-type]
    fitter = BatchFitter(settings, tmp_path)
    estimates: list[np.ndarray] = []
    ask = fitter.fitter.regressor.__call__

    class Overheard(type(fitter.fitter.regressor)):  # type: ignore[misc]
        def __call__(self, batch):  # type: ignore[no-untyped-def]
            estimate = ask(batch)
            estimates.extend(estimate.parameters.body_pose.numpy())
            return estimate

    fitter.fitter.regressor.__class__ = Overheard
    rows = fitter(_seen(tmp_path)).rows
    assert [row["status"] for row in rows] == ["unjudged", "unjudged"], rows[0]["reason"]
    assert [row["regressor"] for row in rows] == ["spin.pt", "spin.pt"]
    assert len(estimates) == 2
    assert np.abs(estimates[0] - estimates[1]).max() > 1e-6


def test_large_weights_move_one_person_at_a_time(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    fitter = replace(settings, config=replace(QUICK, mode="eft")).fitter()
    assert fitter.regressor.people_at_once == 1
    sizes: list[int] = []
    whole = Fitter._fit_weights
    monkeypatch.setattr(
        Fitter, "_fit_weights", lambda self, batch, *rest: sizes.append(len(batch)) or whole(self, batch, *rest)
    )
    results = fitter.fit([observe(person(seed)) for seed in (0, 1)])
    assert sizes == [1, 1]
    assert len(results) == 2
