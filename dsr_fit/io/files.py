"""Files written so that no half-written one is seen, and numpy's files read with one kind of refusal."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np

from dsr_fit.errors import InputError

MESH_SUFFIXES = (".obj", ".ply", ".stl", ".glb")
"""Mesh files that a fit can write."""

BESIDE_MESH = (".npz", ".json", ".png")
"""Suffixes of the files that a fit writes beside its mesh."""


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, with the same suffix, renamed to it when the block succeeds.

    Raises InputError when the folder can't be written.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=path.suffix, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise InputError(f"{path}: can't write there ({error.strerror}); choose another --out") from None
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"{path}: can't write there ({error.strerror or error}); choose another --out") from None
    finally:
        temporary.unlink(missing_ok=True)


def beneath(folder: Path, name: str) -> Path:
    """`folder/name` for a name from a stranger's list, forward slashes in it: never outside `folder`."""
    parts = PurePosixPath(name).parts  # the root is "/", or "//"
    return folder.joinpath(*(part for part in parts if part.strip("/") not in ("", ".", "..")))


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
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
