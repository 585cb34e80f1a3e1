"""Where the shipped files (body, priors, presets) and the user's licensed files are found."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dsr_fit.errors import InputError, UsageError

PACKAGE = Path(__file__).resolve().parent


def shipped(relative: str) -> Path:
    """Path of a file of `priors/` or `configs/`: inside an installed wheel, else in the checkout around us."""
    for root in (PACKAGE / "_assets", PACKAGE.parent):
        if (root / relative).exists():
            return root / relative
    raise InputError(f"the shipped file {relative} is missing: reinstall dsr-fit")


@cache
def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content; bodies, regressors and priors are bound to each other by it."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class LicensedFile:
    """A file that its owners license to each user, so that it can't ship with us."""

    flag: str
    variable: str
    what: str
    source: str


LICENSED: dict[str, LicensedFile] = {
    file.flag: file
    for file in (
        LicensedFile(
            "body",
            "DSR_FIT_BODY",
            "official SMPL body (.pkl or .npz)",
            "https://smpl.is.tue.mpg.de (SMPL for Python) or https://smplify.is.tue.mpg.de (neutral)",
        ),
        LicensedFile(
            "joint_regressor_extra",
            "DSR_FIT_JOINT_REGRESSOR_EXTRA",
            "J_regressor_extra.npy (9 x 6890), nine more keypoints for SMPL",
            "SPIN's data (https://github.com/nkolot/SPIN, fetch_data.sh)",
        ),
        LicensedFile(
            "semantic_prior",
            "DSR_FIT_SEMANTIC_PRIOR",
            "semantic_prior.npy of DSR (13776 faces x 20 labels)",
            "DSR's data (https://dsr.is.tue.mpg.de)",
        ),
    )
}


def licensed(flag: str, given: str | None) -> Path | None:
    """The user's file for `flag`: as given, else from its environment variable, else None.

    Raises InputError, saying where the file is obtained and how it is named to us, when it is named but missing.
    """
    if flag not in LICENSED:
        raise UsageError(f"no licensed file is called {flag!r}; known: {', '.join(LICENSED)}")
    entry = LICENSED[flag]
    value = given if given is not None else os.environ.get(entry.variable)
    if not value:
        return None
    path = Path(value).expanduser()
    if not path.is_file():
        option = "--" + flag.replace("_", "-")
        raise InputError(
            f"{path}: no such file. {entry.what} is obtained from {entry.source}; name it with {option} PATH or the "
            f"environment variable {entry.variable}"
        )
    return path
