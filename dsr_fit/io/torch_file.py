"""Reads the tensors of `torch.save`'s files without running any code that they carry.

A checkpoint is a pickle: beside the tensors lie options, optimisers, callbacks. Only plain containers and tensors are
made of it; any other class or function becomes an inert object, and nothing is imported. Both formats are read: the
zip of torch 1.6 and later, and the stream before it.

`torch.load` is not trusted with such files. `weights_only=True` refuses every subclass of `dict`, such as the yacs
`CfgNode` in DSR's checkpoints, even with a stub of that name among the safe globals. With an unpickler of ours in
pickle's place it still runs TorchScript archives and extracts tar archives, and a file can look like neither to us but
like one of them to torch's own parsers. So nobody but this module and `zipfile` parses the file.
"""

from __future__ import annotations

import pickle
import struct
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from dsr_fit.errors import InputError, one_line

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_VERSION = 1001

_DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}


def load_torch(path: Path) -> Any:
    """What was saved in the file: containers, numbers and text as they were, and CPU tensors.

    Expanded tensors stay expanded: a small file may claim a large tensor, so look at a shape before copying.
    Raises InputError when the file is missing, damaged, or not written by `torch.save`.
    """
    try:
        with path.open("rb") as file:
            if zipfile.is_zipfile(file):
                with zipfile.ZipFile(file) as archive:
                    return _from_zip(archive)
            file.seek(0)
            return _from_stream(file, path.stat().st_size)
    except Exception as error:  # a damaged or malicious file makes pickle and zipfile raise anything
        reason = (error.strerror if isinstance(error, OSError) else None) or one_line(error)
        raise InputError(f"{path}: not a readable file of torch.save ({reason})") from None


class _Inert:
    """Stands in for an object, class or function that isn't known, and ignores whatever a pickle does with it."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Inert:
        del args, kwargs
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __call__(self, *args: Any, **kwargs: Any) -> _Inert:
        del args, kwargs
        return self

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    append = extend = add = __setstate__


class _Unpickler(pickle.Unpickler):
    """Makes containers and tensors. `storage(key, count, dtype)` gives the numbers of a storage, (count,)."""

    def __init__(self, file: IO[bytes], storage: Callable[[str, int, torch.dtype], Tensor]) -> None:
        super().__init__(file, encoding="latin1")  # some are Python 2's
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        # All of these are immutable, since a pickle may set attributes of whatever it is given.
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module in ("torch", "torch.cuda") and name in _DTYPES:
            return _DTYPES[name]
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return self._tensor
        if module == "torch._utils" and name in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
            return self._parameter
        return _Inert

    def persistent_load(self, pid: Any) -> Any:
        kind, *rest = pid if isinstance(pid, tuple) and pid else (None,)
        if kind == "module" and rest:  # the class of a module that was saved whole
            return rest[0]
        if kind != "storage" or len(rest) not in (4, 5):
            raise pickle.UnpicklingError(f"unknown kind of storage {kind!r}")
        dtype, key, _location, count = rest[:4]
        if rest[4:] not in ([], [None]):
            raise pickle.UnpicklingError("storages that are views of others, as torch 0.3 and older wrote them")
        if not isinstance(dtype, torch.dtype):
            return _Inert()  # quantised numbers, say
        if not isinstance(key, str) or type(count) is not int or count < 0:
            raise pickle.UnpicklingError("a storage without key or size")
        return self._storage(key, count, dtype)

    def _tensor(self, storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> Any:
        del rest  # whether it has gradient, hooks, metadata
        if not isinstance(storage, Tensor):
            return _Inert()
        if not all(type(number) is int and number >= 0 for number in (offset, *shape, *stride)):
            raise pickle.UnpicklingError("a tensor without shape")
        return storage.as_strided(shape, stride, offset)

    def _parameter(self, data: Any, *rest: Any) -> Any:
        del rest
        return data


def _from_zip(archive: zipfile.ZipFile) -> Any:
    names = [name for name in archive.namelist() if name == "data.pkl" or name.endswith("/data.pkl")]
    if not names:
        raise ValueError("a zip without data.pkl")
    if any(name.endswith("/constants.pkl") for name in archive.namelist()):
        raise ValueError("a TorchScript archive")
    folder = names[0].removesuffix("data.pkl")
    if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != sys.byteorder.encode():
        raise ValueError("numbers of another byte order")
    storages: dict[str, Tensor] = {}

    def storage(key: str, count: int, dtype: torch.dtype) -> Tensor:
        entry = archive.getinfo(f"{folder}data/{key}")
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != count * dtype.itemsize:
            raise ValueError(f"storage {key} is not of its size")
        if key not in storages:
            storages[key] = torch.empty(count, dtype=dtype)
            with archive.open(entry) as file:
                _fill(storages[key], file)
        return storages[key]

    with archive.open(names[0]) as file:
        return _Unpickler(file, storage).load()


def _from_stream(file: IO[bytes], length: int) -> Any:
    """Before torch 1.6: pickles (magic, version, system, content, keys of the storages), then each one's numbers."""
    storages: dict[str, Tensor] = {}

    def storage(key: str, count: int, dtype: torch.dtype) -> Tensor:
        if count * dtype.itemsize > length:
            raise ValueError(f"storage {key} is not of its size")
        return storages.setdefault(key, torch.empty(count, dtype=dtype))

    def load() -> Any:
        return _Unpickler(file, storage).load()

    if load() != LEGACY_MAGIC:
        raise ValueError("neither of its two formats")
    if load() != LEGACY_VERSION:
        raise ValueError("an unknown version of the format")
    system = load()
    if isinstance(system, dict) and system.get("little_endian") is not (sys.byteorder == "little"):
        raise ValueError("numbers of another byte order")
    content = load()
    for key in load():
        if key not in storages:
            raise ValueError(f"storage {key} belongs to no tensor of a known type")
        if struct.unpack("<q", file.read(8)) != (len(storages[key]),):
            raise ValueError(f"storage {key} is not of its size")
        _fill(storages.pop(key), file)
    if storages:
        raise ValueError(f"storage {next(iter(storages))} is missing")
    return content


def _fill(storage: Tensor, file: IO[bytes]) -> None:
    room = storage.view(torch.uint8).numpy()
    if file.readinto(room) != len(room):  # type: ignore[attr-defined]
        raise ValueError("the file is cut off")
