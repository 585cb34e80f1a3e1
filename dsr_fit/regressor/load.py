"""The regressors by name."""

from __future__ import annotations

from pathlib import Path

from dsr_fit.assets import required, sha256, shipped
from dsr_fit.body.body import Body
from dsr_fit.body.files import OPEN_BODY
from dsr_fit.config import FitConfig
from dsr_fit.regressor.kinematic import KinematicRegressor
from dsr_fit.regressor.protocol import Regressor


def load_regressor(which: str | None, body: Body, config: FitConfig, mean_params: Path | None = None) -> Regressor:
    """The regressor of that name.

    `open` ships, for the open body; `kinematic` is for any; else a file of weights of ours (.safetensors), or a
    checkpoint of DSR, SPIN or EFT, to which `mean_params` is smpl_mean_params.npz. None is `open` for the open body
    and `kinematic` for any other.

    Raises:
        InputError: the file can't be used.
        UsageError: it belongs to another body.
    """
    if which == "kinematic" or (which is None and body.sha256 != sha256(shipped(OPEN_BODY))):
        return KinematicRegressor(body, config)
    if which is None or which == "open" or which.endswith(".safetensors"):
        from dsr_fit.regressor.open_regressor import OpenRegressor

        return OpenRegressor(body, None if which in (None, "open") else Path(which).expanduser())
    from dsr_fit.regressor.hmr_regressor import load_hmr_regressor

    path = required("regressor", which, "this --regressor")
    return load_hmr_regressor(path, body, mean_params, body.v_template.device)
