"""What is refused before any command's work: missing inputs, outputs that can't be written, options without effect."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import Field, fields, is_dataclass
from pathlib import Path
from typing import Any

from dsr_fit.assets import LICENSED, licensed, licensed_setting
from dsr_fit.config import FitConfig
from dsr_fit.errors import InputError, UsageError

MADE = ("out", "cases_dir", "cache")
"""Options that name what a command makes where it is missing. Every other path is an input."""

Folder = Path
"""Type of an option that names a folder of inputs; those that name a file are checked where it is read."""

NEEDS: dict[str, tuple[Callable[[dict[str, Any]], bool], str]] = {
    "photo_limit": (lambda given: given["photos"] is not None, "is about --photos"),
    "noise": (lambda given: given["perception"] == "perfect", "is for --perception perfect"),
    "body_male": (lambda given: given["truth"] != "joints", "is for --truth bodies"),
    "body_female": (lambda given: given["truth"] != "joints", "is for --truth bodies"),
    "gate": (lambda given: "held_out" not in given or bool(given["labels"]), "is about --labels"),
    "by_quality": (lambda given: bool(given["labels"]), "is about --labels"),
    "held_out": (lambda given: bool(given["labels"]), "is about --labels"),
    "devices": (lambda given: given["device"] != "cpu", "counts GPUs: --device cuda"),
}
"""Option -> whether the others give it an effect, and what it is for."""

LONGEST_NAME = 255
"""Bytes of a file's name, where the system doesn't tell."""


def check(arguments: Any) -> None:
    """What holds for the options of every command. Raises InputError and UsageError."""
    for name, value in _numbers(arguments):
        if not -(2**63) <= value < 2**63:
            raise UsageError(f"--{name.replace('_', '-')} {value}: at most 64 bits")
    for field in fields(arguments):
        for path in _each(getattr(arguments, field.name)):
            if isinstance(path, Path) and field.name not in MADE:
                _check_input(field, path)
    for name in ("cases_dir", "cache"):
        if getattr(arguments, name, None) is not None:
            check_folder(option(name), getattr(arguments, name))
    _check_effect(arguments)


def check_out(arguments: Any, suffixes: Sequence[str], why: str = "", beside: Sequence[Path] = ()) -> None:
    """Find out before the work that the files `arguments.out` and `beside` can be written; folders are made later.

    `suffixes`: those that `out` may have, in any case; `why` ends that refusal.
    Raises UsageError for another suffix and where a file would replace an input, InputError where it can't be written.
    """
    out = arguments.out
    if out.suffix.lower() not in suffixes:
        one_of = "one of " if len(suffixes) > 1 else ""
        raise UsageError(f"--out {out}: the suffix must be {one_of}{', '.join(suffixes)}{why}")
    for path in (out, *beside):
        with _refusing(f"--out {out}"):
            _check_parents(f"--out {out}", path)
            if path.is_dir():
                raise InputError(f"--out {out}: {path} is a folder; choose another name")
            if path.exists() and any(given.exists() and path.samefile(given) for given in _inputs(arguments)):
                raise UsageError(f"--out {out}: would overwrite the input {path}; choose another name")


def check_outside(out: Path, folder: Path, what: str) -> None:
    """Raises UsageError for an output in a folder that is read, among whose files it would be taken for an input."""
    if out.resolve().is_relative_to(folder.resolve()):
        raise UsageError(f"--out {out}: lies in the folder of the {what}; choose a place outside {folder}")


def check_folder(name: str, folder: Path) -> None:
    """The same for the folder that the option `name` makes. Raises InputError."""
    with _refusing(f"{name} {folder}"):
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{name} {folder}: is a file; name a folder")
        _check_parents(f"{name} {folder}", folder / "file")


def check_focal(focal: float | None) -> None:
    """Raises UsageError for a focal length that no camera has."""
    if focal is not None and not 0 < focal < math.inf:
        raise UsageError(f"--focal {focal:g}: expected pixels, a positive number")


def check_idle_settings(given: FitConfig, default: FitConfig) -> None:
    """Raises UsageError where the command line changes settings that the mode has no use for."""
    if given.mode == "smplify" and given.eft != default.eft:
        raise UsageError("--eft: these settings are for --mode eft and eft+smplify; give one, or leave them out")
    if given.mode != "smplify" and given.stages != default.stages:
        instead = "; its stages are --eft.refinement" if given.mode == "eft+smplify" else ""
        raise UsageError(f"--stages: --mode {given.mode} has no use for these settings{instead}; leave them out")


def option(name: str) -> str:
    """A field's name as it is written on the command line: `first_seed` is `--first-seed`."""
    return "--" + name.replace("_", "-")


def _each(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def _numbers(arguments: Any, prefix: str = "") -> Iterator[tuple[str, int]]:
    """Whole numbers by the names of their options, without the dashes."""
    for field in fields(arguments):
        value = getattr(arguments, field.name)
        if is_dataclass(value):
            yield from _numbers(value, "" if field.name == "fit" else f"{prefix}{field.name}.")
        elif isinstance(value, int):
            yield prefix + field.name, value


def _inputs(arguments: Any) -> Iterator[Path]:
    """Every file and folder that is read: a path, a name that may be one, or what the user has set once for all."""
    for field in fields(arguments):
        if field.name not in MADE:
            given = getattr(arguments, field.name)
            if given is None and field.name in LICENSED:
                given = (licensed_setting(field.name) or (None,))[0]
            yield from (Path(each).expanduser() for each in _each(given) if each and isinstance(each, (str, Path)))


def _check_input(field: Field, path: Path) -> None:
    """Raises InputError for a path that isn't there, whether or not it would be used."""
    if field.name in LICENSED:
        licensed(field.name, str(path))
        return
    positional = "Positional" in str(field.type)
    with _refusing(str(path) if positional else f"{option(field.name)} {path}"):
        if path.exists():
            if "Folder" in str(field.type) and not path.is_dir():
                raise InputError(f"{option(field.name)} {path}: is a file; name a folder")
            return
    if positional:
        raise InputError(f"no such {field.name}: {path}")
    raise InputError(f"{option(field.name)} {path}: no such file{'' if path.suffix else ' or folder'}")


@contextmanager
def _refusing(what: str) -> Iterator[None]:
    """The system's errors, such as of a name that is too long, as an InputError."""
    try:
        yield
    except OSError as error:
        raise InputError(f"{what}: {error.strerror or error}") from None


def _check_parents(what: str, path: Path) -> None:
    """Raises InputError where a file can't be made at `path`, its missing folders before it."""
    folder = next(folder for folder in path.parents if folder.exists())
    if not folder.is_dir():
        raise InputError(f"{what}: {folder} is a file, not a folder; choose another")
    limit = os.pathconf(folder, "PC_NAME_MAX") if hasattr(os, "pathconf") else LONGEST_NAME
    for name in path.relative_to(folder).parts:
        if len(os.fsencode(name)) > limit:
            raise InputError(f"{what}: a name of {len(os.fsencode(name))} bytes; at most {limit} can be written there")
    try:
        # Root, read-only mounts and virtual file systems: only trying tells.
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{what}: the folder {folder} can't be written ({reason}); choose another") from None


def _check_effect(arguments: Any) -> None:
    """Raises UsageError for options that would do nothing beside the others."""
    given = {field.name: getattr(arguments, field.name) for field in fields(arguments)}

    def has(name: str) -> bool:
        return given.get(name) is not None

    if has("joint_regressor_extra"):
        if "to_body" in given and not has("to_body"):
            raise UsageError("--joint-regressor-extra goes with --to-body; give that too, or leave it out")
        bodies = any(has(name) for name in ("to_body", "body_male", "body_female"))
        if not bodies and arguments.body_path() is None:
            raise UsageError("--joint-regressor-extra is for official SMPL; name its file with --body, or leave it out")
    if has("smpl_mean_params") and not _is_checkpoint(arguments.regressor_name()):
        raise UsageError(
            "--smpl-mean-params is for checkpoints of DSR, SPIN or EFT; name one with --regressor, or leave it out"
        )
    if has("focal") and given.get("camera") == "crop":
        raise UsageError("--focal: --camera crop has a focal length of its own; leave one of them out")
    for name, (needed, why) in NEEDS.items():
        field = next((field for field in fields(arguments) if field.name == name), None)
        if field is not None and given[name] != field.default and not needed(given):
            raise UsageError(f"{option(name)} {why}; change that, or leave it out")


def _is_checkpoint(regressor: str | None) -> bool:
    return regressor not in (None, "open", "kinematic", "scratch") and not regressor.endswith(".safetensors")
