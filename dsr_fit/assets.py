"""Where the shipped files (body, priors, presets) and the user's licensed files are found."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import yaml

from dsr_fit.errors import InputError, UsageError, one_line

PACKAGE = Path(__file__).resolve().parent


def shipped(relative: str) -> Path:
    """Path of a file of `priors/` or `configs/`: in an installed wheel, else in the checkout around us."""
    for root in (PACKAGE / "_assets", PACKAGE.parent):
        if (root / relative).exists():
            return root / relative
    raise InputError(f"the shipped file {relative} is missing: reinstall dsr-fit")


@cache
def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content; bodies, regressors and priors are bound by it."""
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
        LicensedFile(
            "regressor",
            "DSR_FIT_REGRESSOR",
            "checkpoint of DSR, SPIN or EFT (.pt, .ckpt), the regressor of official SMPL",
            "DSR (https://dsr.is.tue.mpg.de), SPIN or EFT (https://github.com/facebookresearch/eft)",
        ),
        LicensedFile(
            "joint_regressor_h36m",
            "DSR_FIT_JOINT_REGRESSOR_H36M",
            "J_regressor_h36m.npy (17 x 6890), Human3.6M's joints of SMPL's vertices",
            "SPIN's data (https://github.com/nkolot/SPIN, fetch_data.sh)",
        ),
        LicensedFile(
            "smpl_mean_params",
            "DSR_FIT_SMPL_MEAN_PARAMS",
            "smpl_mean_params.npz, the mean pose, shape and camera that HMR starts from",
            "SPIN's data (https://github.com/nkolot/SPIN, fetch_data.sh)",
        ),
        LicensedFile(
            "body_male",
            "DSR_FIT_BODY_MALE",
            "official male SMPL body (.pkl or .npz)",
            "https://smpl.is.tue.mpg.de (SMPL for Python)",
        ),
        LicensedFile(
            "body_female",
            "DSR_FIT_BODY_FEMALE",
            "official female SMPL body (.pkl or .npz)",
            "https://smpl.is.tue.mpg.de (SMPL for Python)",
        ),
    )
}


def user_file() -> Path:
    """The user's own list of licensed files: lines such as `body: ~/smpl/basicmodel_neutral.pkl`."""
    folder = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(folder).expanduser() / "dsr-fit" / "files.yaml"


def licensed_setting(flag: str) -> tuple[str, str] | None:
    """Where `flag` is set once for all, as (value, who says so): its environment variable, else `user_file`.

    Raises InputError when the user's file is no such list.
    """
    variable, path = LICENSED[flag].variable, user_file()
    value = os.environ.get(variable)
    if value:
        return value, variable
    if not path.is_file():
        return None
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8-sig")) or {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path}: not readable YAML ({one_line(error)})") from None
    if not isinstance(entries, dict) or not all(isinstance(entry, str) for entry in entries.values()):
        raise InputError(f"{path}: expected lines `flag: path`; flags: {', '.join(LICENSED)}")
    unknown = [str(name) for name in entries if name not in LICENSED]
    if unknown:
        raise InputError(f"{path}: unknown flag `{unknown[0]}`; flags: {', '.join(LICENSED)}")
    return (entries[flag], str(path)) if flag in entries else None


def required(flag: str, given: str | None, why: str) -> Path:
    """`licensed`, where nothing works without the file; `why` starts the sentence of the InputError then."""
    path = licensed(flag, given)
    if path is None:
        entry = LICENSED[flag]
        raise InputError(
            f"{why} needs {entry.what}, from {entry.source}; name it with --{flag.replace('_', '-')} PATH, the "
            f"environment variable {entry.variable} or in {user_file()}"
        )
    return path


def licensed(flag: str, given: str | None) -> Path | None:
    """The user's file for `flag`: as given, else as set in the environment or `user_file`, else None.

    Raises InputError when it is named but missing, saying where it is obtained and how it is named to us.
    """
    if flag not in LICENSED:
        raise UsageError(f"no licensed file is called {flag!r}; known: {', '.join(LICENSED)}")
    entry, option = LICENSED[flag], "--" + flag.replace("_", "-")
    value, origin = (given, option) if given is not None else licensed_setting(flag) or (None, "")
    if not value:
        return None
    path = Path(value).expanduser()
    if path.is_dir():
        raise InputError(f"{path}: is a folder (named by {origin}); name a file, the {entry.what}")
    if not path.is_file():
        raise InputError(
            f"{path}: no such file (named by {origin}); {entry.what} comes from {entry.source}, "
            f"name it with {option} PATH, the environment variable {entry.variable} or in {user_file()}"
        )
    return path
