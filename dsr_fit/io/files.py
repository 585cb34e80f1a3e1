"""Files written so that no half-written one is seen, and numpy's files read with one kind of refusal."""

from __future__ import annotations

import errno
import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from dsr_fit.errors import InputError, UsageError, one_line

MESH_SUFFIXES = (".obj", ".ply", ".stl", ".glb")
"""Mesh files that a fit can write."""

BESIDE_MESH = (".npz", ".json", ".png")
"""Suffixes of the files that a fit writes beside its mesh."""


@contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """A hidden path beside `path`, with the same suffix in small letters, renamed to it when the block succeeds.

    The folder is made if need be. `durable` has the file and its name on the disk before the block's end, against a
    loss of power. Raises InputError when it can't be written.
    """
    # Without the stem: a name may be as long as the file system takes.
    temporary = path.with_name(f".{secrets.token_hex(4)}.tmp{path.suffix.lower()}")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        # Made by `open`, so that it has the permissions of the user's umask, which can't be read without a race.
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        try:
            yield temporary
            if durable:
                _sync(temporary)
            temporary.replace(path)
            if durable and os.name != "nt":  # Windows can't open a folder
                _sync(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def temporaries(folder: Path) -> Iterator[Path]:
    """What killed processes have left of `replacing` in a folder."""
    return folder.glob(".*.tmp*")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Operating-system errors of the block as an InputError that says what to do about `path`."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or one_line(error)
        remedy = "choose another place"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "make room, and run the same command again"
        raise InputError(f"{path}: can't write there ({reason}); {remedy}") from None


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_mesh_path(out: Path) -> None:
    """Raises UsageError where `out` has no suffix of `MESH_SUFFIXES`."""
    if out.suffix.lower() not in MESH_SUFFIXES:
        raise UsageError(f"--out {out}: the suffix must be one of {', '.join(MESH_SUFFIXES)}")


def check_file(path: Path, what: str, instead: str = "name one of the files in it") -> None:
    """Raises InputError where there is no file to read a `what` from: missing, a folder, no plain file, or empty."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"no such {what}: {path}") from None
    except (OSError, ValueError) as error:  # a name longer than a file system takes, a null byte in it, a loop of links
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        name = str(path) if len(str(path)) <= 80 else f"{str(path)[:60]}..."
        raise InputError(f"no such {what}: {name!r} ({reason})") from None
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{path} is a folder, not {'an' if what[0] in 'aeiou' else 'a'} {what}; {instead}")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path} is a device or a pipe; save the {what} as a file")
    if status.st_size == 0:
        raise InputError(f"{path} is empty (0 bytes)")


def read_json(path: Path) -> Any:
    """The content of a JSON file in UTF-8, UTF-16 or UTF-32, with a byte order mark or without; NaN and Infinity are
    read. Raises ValueError, with the reason in one line, where it can't be read.
    """
    try:
        return json.loads(path.read_bytes())
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except (OSError, ValueError) as error:  # covers bad JSON, bad UTF-8 and numbers of thousands of digits
        raise ValueError(" ".join(str(error).split(";")[0].split())) from None  # behind it is advice for programmers


def read_arrays(path: Path) -> np.ndarray | dict[str, np.ndarray]:
    """The array of a `.npy` file, or those of a `.npz` by name. Pickled objects are refused.

    Raises ValueError, with the reason in one line, when the file is missing, damaged or something else.
    """
    try:
        with path.open("rb") as file:  # numpy itself leaves a damaged .npz open
            loaded = np.load(file, allow_pickle=False)
            return loaded if isinstance(loaded, np.ndarray) else dict(loaded.items())
    except Exception as error:  # damaged content makes zipfile, zlib and numpy's header parser raise anything
        if "allow_pickle" in str(error):  # numpy's words for pickles, and for whatever it doesn't know
            raise ValueError("neither .npy nor .npz, or with pickled objects in it") from None
        raise ValueError(one_line(error)) from None
