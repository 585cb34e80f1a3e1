"""Reads the arrays of official SMPL pickles without running any code that the file carries.

The files are Python 2 pickles of chumpy arrays and scipy sparse matrices. Their few classes are replaced by inert
ones of ours; any other name in the file is refused, so nothing foreign is ever called.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import numpy as np
from scipy import sparse

from dsr_fit.errors import InputError, one_line

try:
    from numpy._core.multiarray import _reconstruct, scalar  # pyright: ignore[reportAttributeAccessIssue]
except ImportError:  # numpy 1
    from numpy.core.multiarray import _reconstruct, scalar  # type: ignore[assignment]


class _Inert:
    """Takes the state of a pickled object and does nothing with it, but to tell the array that it means."""

    state: Any = MappingProxyType({})

    def __init__(self, *args: Any) -> None:
        del args

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self) -> np.ndarray:
        raise NotImplementedError


class _Chumpy(_Inert):
    """chumpy.ch.Ch: an array in `x`."""

    def array(self) -> np.ndarray:
        return to_array(self.state["x"])


class _ChumpySelect(_Inert):
    """chumpy.reordering.Select: elements `idxs` of the flattened `a`, in `preferred_shape`."""

    def array(self) -> np.ndarray:
        source = to_array(self.state["a"]).ravel()[to_array(self.state["idxs"]).astype(np.int64)]
        shape = self.state.get("preferred_shape")
        return source if shape is None else source.reshape(tuple(int(length) for length in shape))


class _SparseColumns(_Inert):
    """scipy.sparse's matrices compressed by columns: `data`, `indices`, `indptr`, `_shape`."""

    kind: Callable[..., Any] = sparse.csc_matrix

    def array(self) -> np.ndarray:
        parts = tuple(to_array(self.state[name]) for name in ("data", "indices", "indptr"))
        shape = self.state.get("_shape", self.state.get("shape"))
        matrix = self.kind(parts, shape=tuple(int(length) for length in shape))
        matrix.check_format(full_check=True)  # indices come from a stranger's file
        return matrix.toarray()


class _SparseRows(_SparseColumns):
    """Compressed by rows."""

    kind = sparse.csr_matrix


def _reconstruct_object(kind: Any, base: Any, state: Any) -> Any:
    """Python 2's copy_reg._reconstructor for plain objects."""
    if not (isinstance(kind, type) and issubclass(kind, _Inert)) or base is not object:
        raise _Foreign(f"an object of {kind!r}")
    return kind()


def _latin1_bytes(text: str, encoding: str = "latin1") -> bytes:
    """_codecs.encode as numpy's pickles use it."""
    return text.encode("latin1")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("chumpy.ch", "Ch"): _Chumpy,
    ("chumpy", "Ch"): _Chumpy,
    ("chumpy.reordering", "Select"): _ChumpySelect,
    ("copy_reg", "_reconstructor"): _reconstruct_object,
    ("copyreg", "_reconstructor"): _reconstruct_object,
    ("__builtin__", "object"): object,
    ("builtins", "object"): object,
    ("_codecs", "encode"): _latin1_bytes,
    ("collections", "OrderedDict"): OrderedDict,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    **{(module, "_reconstruct"): _reconstruct for module in ("numpy.core.multiarray", "numpy._core.multiarray")},
    **{(module, "scalar"): scalar for module in ("numpy.core.multiarray", "numpy._core.multiarray")},
    **{
        (f"scipy.sparse.{module}", f"{kind}_{form}"): _SparseColumns if kind == "csc" else _SparseRows
        for kind in ("csc", "csr")
        for module in (kind, f"_{kind}")
        for form in ("matrix", "array")
    },
}


class _Foreign(pickle.UnpicklingError):
    """A name that the file has no business with."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise _Foreign(f"{module}.{name}") from None


def to_array(value: Any) -> np.ndarray:
    """The dense array behind a plain, chumpy or sparse value of the file."""
    return value.array() if isinstance(value, _Inert) else np.asarray(value)


def load_pickle(file: IO[bytes], path: Path) -> Any:
    """The object pickled in an open file, made of inert classes only; `path` names it in errors.

    Raises InputError when it is no pickle, or names a class or function beyond the few needed.
    """
    try:
        return _Unpickler(file, encoding="latin1").load()
    except _Foreign as error:
        raise InputError(
            f"{path}: refused, the pickle wants {error}; only numpy, scipy.sparse and chumpy arrays are read"
        ) from None
    except Exception as error:  # whatever the bytes of another file, or of half a file, make of it
        raise InputError(
            f"{path}: not a readable pickle: damaged, cut short, or another kind of file ({one_line(error)})"
        ) from None


def read_pickle(path: Path, keys: tuple[str, ...]) -> dict[str, np.ndarray]:
    """The arrays named `keys` that a pickled dictionary holds; absent keys are left out.

    Raises InputError when the file is no such pickle, or names a class or function beyond the few needed.
    """
    try:
        with path.open("rb") as file:
            content = load_pickle(file, path)
    except OSError as error:
        raise InputError(f"{path}: not a readable pickle ({error})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}, not SMPL's dictionary of arrays")
    try:
        return {key: to_array(content[key]) for key in keys if key in content}
    except Exception as error:  # whatever scipy and numpy make of a damaged or malicious one
        raise InputError(f"{path}: an array of the file can't be read ({one_line(error)})") from None
