"""Reads the tensors of `torch.save`'s files without running any code that they carry.

A checkpoint is a pickle, in which whatever its trainer kept lies beside the tensors: options, optimisers, callbacks.
Only plain containers and tensors are made of it. Every other class or function becomes an inert stand-in, and nothing
is imported. `torch.load(weights_only=True)` refuses such files as a whole, and runs code before torch 2.6
(CVE-2025-32434). Both formats are read: the zip of torch 1.6 and later, and the stream before it.
"""

from __future__ import annotations

import pickle
import struct
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch
from torch import Tensor

from dsr_fit.errors import InputError

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


class _Inert:
    """Swallows whatever a pickle does with an object of a class that we don't know."""

    def __new__(cls, *args: Any, **kwargs: Any) -> _Inert:
        del args, kwargs
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        del args, kwargs

    def __call__(self, *args: Any, **kwargs: Any) -> _Inert:
        del args, kwargs
        return self

    def __setstate__(self, state: Any) -> None: ...

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def append(self, value: Any) -> None: ...

    def extend(self, values: Any) -> None: ...

    def add(self, value: Any) -> None: ...


class _Storage(NamedTuple):
    """A block of numbers in the file."""

    dtype: torch.dtype
    key: str
    count: int
    read: Callable[[str, int], bytes]
    """(key, bytes) -> what lies in the file; raises ValueError where there is another number of bytes."""


class StoredTensor(NamedTuple):
    """A tensor that is still in the file: nothing is read of what isn't asked for."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    def read(self) -> Tensor:
        """The tensor, in memory of its own. Raises ValueError where the file is damaged.

        Look at `shape` first: a small file may claim a large one, all of whose numbers are the same.
        """
        storage = self.storage
        data = bytearray(storage.read(storage.key, storage.count * storage.dtype.itemsize))
        try:
            flat = torch.frombuffer(data, dtype=storage.dtype)
            return flat.as_strided(self.shape, self.stride, self.offset).clone(memory_format=torch.contiguous_format)
        except (RuntimeError, TypeError) as error:
            raise ValueError(" ".join(str(error).split())) from None


class _Unpickler(pickle.Unpickler):
    """Makes containers and `StoredTensor`s."""

    def __init__(self, file: IO[bytes], read: Callable[[str, int], bytes]) -> None:
        super().__init__(file, encoding="latin1")  # some are Python 2's
        self._read = read
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
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
        return self.storages.setdefault(key, _Storage(dtype, key, count, self._read))

    def _tensor(self, storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> Any:
        del rest  # whether it has gradient, hooks, metadata
        if not isinstance(storage, _Storage):
            return _Inert()
        numbers = (offset, *shape, *stride)
        if not all(type(number) is int and number >= 0 for number in numbers) or len(shape) != len(stride):
            raise pickle.UnpicklingError("a tensor without shape")
        return StoredTensor(storage, offset, tuple(shape), tuple(stride))

    def _parameter(self, data: Any, *rest: Any) -> Any:
        del rest
        return data


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """What was saved in the file; its tensors are `StoredTensor`s, which can be read while the block runs.

    Raises InputError when the file is missing, damaged, or not of `torch.save`.
    """
    with ExitStack() as stack:
        try:
            file = stack.enter_context(path.open("rb"))
            if zipfile.is_zipfile(file):
                content = _from_zip(stack.enter_context(zipfile.ZipFile(file)))
            else:
                file.seek(0)
                content = _from_stream(file, path.stat().st_size)
        except Exception as error:  # a damaged or malicious file makes pickle and zipfile raise anything
            reason = error.strerror if isinstance(error, OSError) else None
            reason = " ".join((reason or str(error)).split()) or type(error).__name__
            raise InputError(f"{path}: not a readable file of torch.save ({reason})") from None
        yield content


def _from_zip(archive: zipfile.ZipFile) -> Any:
    names = [name for name in archive.namelist() if name == "data.pkl" or name.endswith("/data.pkl")]
    if not names:
        raise ValueError("a zip without data.pkl")
    folder = names[0].removesuffix("data.pkl")
    if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != sys.byteorder.encode():
        raise ValueError("numbers of another byte order")

    def read(key: str, size: int) -> bytes:
        try:
            entry = archive.getinfo(f"{folder}data/{key}")
            if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != size:
                raise ValueError(f"storage {key} is not of its size")
            return archive.read(entry)
        except Exception as error:  # encrypted, truncated, overlapping: zipfile raises anything
            raise ValueError(f"storage {key} can't be read ({error})") from None

    with archive.open(names[0]) as file:
        return _Unpickler(file, read).load()


def _from_stream(file: IO[bytes], length: int) -> Any:
    """Before torch 1.6: pickles (mark, version, system, content, keys of the storages), then each one's numbers."""
    places: dict[str, int] = {}

    def read(key: str, size: int) -> bytes:
        if key not in places:
            raise ValueError(f"storage {key} is missing")
        file.seek(places[key])
        return file.read(size)

    def load() -> Any:
        return _Unpickler(file, read).load()

    if load() != LEGACY_MAGIC:
        raise ValueError("neither of its two formats")
    if load() != LEGACY_VERSION:
        raise ValueError("an unknown version of the format")
    system = load()
    if isinstance(system, dict) and system.get("little_endian") is not (sys.byteorder == "little"):
        raise ValueError("numbers of another byte order")
    unpickler = _Unpickler(file, read)
    content = unpickler.load()
    for key in load():
        storage = unpickler.storages.get(key)
        if storage is None:
            raise ValueError(f"storage {key} belongs to no tensor of a known type")
        (count,) = struct.unpack("<q", file.read(8))
        places[key] = file.tell()
        end = places[key] + storage.count * storage.dtype.itemsize
        if count != storage.count or end > length:
            raise ValueError(f"storage {key} is not of its size")
        file.seek(end)
    return content
