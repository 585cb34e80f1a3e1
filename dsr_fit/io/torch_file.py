"""Reads `torch.save`'s files without running any code that they carry.

A checkpoint is a pickle, in which whatever its trainer kept lies beside the tensors: options, optimisers, callbacks.
`torch.load(weights_only=True)` refuses such files as a whole: Lightning's of DSR hold yacs dictionaries, whose items it
sets on nothing but plain ones, whatever stands in for their class. So torch reads the file here with an unpickler that
knows tensors and plain containers, and makes an inert stand-in of every other class and function.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import _utils

from dsr_fit.errors import InputError

_KNOWN = {
    ("collections", "OrderedDict"): OrderedDict,
    **{
        # Their `__call__`, on which a file can set nothing.
        ("torch._utils", name): getattr(_utils, name).__call__
        for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter", "_rebuild_parameter_with_state")
    },
}


class _Inert:
    """Swallows whatever a pickle does with an object of a class that we don't know."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Inert:
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __call__(self, *args: Any, **kwargs: Any) -> _Inert:
        return self

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, value: Any) -> None: ...

    extend = add = append


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        return _KNOWN.get((module, name), _Inert)


def _load(file: Any, **options: Any) -> Any:
    return _Unpickler(file, **options).load()


def read_torch_file(path: Path) -> Any:
    """What was saved in the file. Tensors of the zip format stay in the file until they are used.

    Look at a tensor's shape before its numbers: a small file may claim a large one, all of whose numbers are the same.
    Raises InputError when the file is missing, damaged, or not of `torch.save`.
    """
    try:
        with path.open("rb") as file:
            zipped = zipfile.is_zipfile(file)
        if zipped and not any(name.endswith("data.pkl") for name in zipfile.ZipFile(path).namelist()):
            raise ValueError("a zip without data.pkl")
        module = SimpleNamespace(Unpickler=_Unpickler, load=_load, __name__="dsr_fit.io.torch_file")
        return torch.load(
            path, map_location="cpu", pickle_module=module, weights_only=False, mmap=zipped,
            encoding="latin1",  # some are Python 2's
        )  # fmt: skip
    except Exception as error:  # a damaged or malicious file makes torch, pickle and zipfile raise anything
        reason = error.strerror if isinstance(error, OSError) else None
        reason = " ".join((reason or str(error)).split()) or type(error).__name__
        raise InputError(f"{path}: not a readable file of torch.save ({reason[:300]})") from None
