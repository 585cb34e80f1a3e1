"""Reads `torch.save`'s files without running any code that they carry.

A checkpoint pickles whatever its trainer kept beside the tensors: options, optimisers, callbacks. `torch.load` parses
both formats (the zip, and the stream before torch 1.6), but with this module in pickle's place: only plain containers
and tensors are made, every other class or function becomes an inert stand-in, and nothing is imported.
`weights_only=True` can't read such files: it fills no unknown dictionary (yacs's `CfgNode`) and knows protocol 2 alone.
"""

from __future__ import annotations

import pickle
import sys
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import IO, Any

import torch

from dsr_fit.errors import InputError


class _Inert:
    """Swallows whatever a pickle does with an object of a class that we don't know."""

    dtype = torch.uint8  # where it stands for a storage of unknown numbers
    dump_patches = False  # where it stands for a module that was saved with its source

    def __new__(cls, *args: Any, **kwargs: Any) -> _Inert:
        del args, kwargs
        return object.__new__(cls)

    def __call__(self, *args: Any, **kwargs: Any) -> _Inert:
        del args, kwargs
        return self

    def __setstate__(self, state: Any) -> None: ...

    def _swallow(self, *args: Any, **kwargs: Any) -> None: ...

    __init__ = __setitem__ = append = extend = add = _swallow


class Unpickler(pickle.Unpickler):
    """Makes containers and tensors; `torch.load` adds the storages."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return self._tensor  # methods: a pickle could set attributes on a function
        if module == "torch._utils" and name in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
            return self._parameter
        return _Inert

    def _tensor(self, storage: Any, offset: int, shape: Any, stride: Any, *rest: Any) -> Any:
        """A view of the storage; as torch's own, but never beyond its end. `rest`: gradient, hooks, metadata."""
        del rest
        if isinstance(storage, _Inert):
            return storage
        return torch.empty(0, dtype=storage.dtype).set_(storage._untyped_storage).as_strided(shape, stride, offset)

    def _parameter(self, data: Any, *rest: Any) -> Any:
        del rest
        return data


def load(file: IO[bytes], **options: Any) -> Any:
    """One pickle of the stream format."""
    return Unpickler(file, **options).load()


def load_torch(path: Path) -> Any:
    """What was saved in the file, tensors on the CPU; a tensor may be far larger than the file, all of one number.

    Raises InputError when the file is missing, damaged, or not of `torch.save`.
    """
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a module's source has changed
            _check_format(file)
            module: Any = sys.modules[__name__]
            return torch.load(file, "cpu", pickle_module=module, weights_only=False, encoding="latin1")
    except Exception as error:  # a damaged or malicious file makes torch and pickle raise anything
        reason = error.strerror if isinstance(error, OSError) else None
        reason = " ".join((reason or str(error)).split()) or type(error).__name__
        raise InputError(f"{path}: not a readable file of torch.save ({reason})") from None


def _check_format(file: IO[bytes]) -> None:
    """Keep torch from TorchScript, which is code, and from torch 0.1's tar archives. Raises ValueError."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            names = {name.rpartition("/")[2] for name in archive.namelist()}
        if "data.pkl" not in names:
            raise ValueError("a zip without data.pkl")
        if "constants.pkl" in names:
            raise ValueError("a TorchScript archive")
    else:
        file.seek(0)
        if file.read(1) != pickle.PROTO:
            raise ValueError("neither of its two formats")
    file.seek(0)
