"""Results on disk: a small part for every batch, merged into shards; no kill leaves half a file.

`DIR/parts/part-00000012.parquet` holds batch 12, written atomically and synced. When all batches of a shard are there
they become `DIR/shard-00000.parquet` in the same way, and the parts are removed. So a batch is done if its part or its
shard exists, and no other record is needed.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dsr_fit.dataset.schema import SCHEMA, Row, to_rows, to_table
from dsr_fit.errors import InputError
from dsr_fit.io.files import replacing, temporaries, writing

_PART = re.compile(r"part-(\d{8})\.parquet")
_SHARD = re.compile(r"shard-(\d{5,})\.parquet")


class Store:
    """The results of one run's folder."""

    def __init__(self, folder: Path, batches: int = 0, shard_size: int = 1) -> None:
        """`batches` of the whole run, `shard_size` of them in a shard."""
        self.folder, self.parts = folder, folder / "parts"
        self.batches, self.shard_size = batches, shard_size

    def begin(self) -> list[int]:
        """Clear the leftovers of a kill, and list the batches that are still to be done."""
        with writing(self.folder):
            self.parts.mkdir(parents=True, exist_ok=True)
            for left in (*temporaries(self.folder), *temporaries(self.parts)):
                left.unlink()
        shards = set(_numbered(self.folder, _SHARD))
        parts = set(_numbered(self.parts, _PART))
        for batch in [batch for batch in parts if batch // self.shard_size in shards]:
            self._part(batch).unlink()
            parts.remove(batch)
        for shard in {batch // self.shard_size for batch in parts}:
            self._merge(shard)
        shards = set(_numbered(self.folder, _SHARD))
        done = parts | {batch for shard in shards for batch in self._batches_of(shard)}
        return [batch for batch in range(self.batches) if batch not in done]

    def write(self, batch: int, rows: list[Row]) -> None:
        """Write a batch's rows, synced to the disk. Raises InputError when they can't be written."""
        try:
            _write(self._part(batch), to_table(rows))
            self._merge(batch // self.shard_size)
        except InputError as error:
            raise InputError(f"{error}; everything up to here is kept") from None

    def rows(self) -> Iterator[Row]:
        """Every row so far, in the order of the source."""
        for table in self.tables():
            yield from to_rows(table)

    def tables(self) -> Iterator[pa.Table]:
        """The same, one table a file. Raises InputError for a file that isn't a readable shard."""
        shards = [(shard * self.shard_size, self._shard(shard)) for shard in _numbered(self.folder, _SHARD)]
        merged = {batch for shard in _numbered(self.folder, _SHARD) for batch in self._batches_of(shard)}
        parts = [(batch, self._part(batch)) for batch in _numbered(self.parts, _PART) if batch not in merged]
        for _, path in sorted(shards + parts):
            yield _read(path)

    def _batches_of(self, shard: int) -> range:
        return range(shard * self.shard_size, min((shard + 1) * self.shard_size, self.batches))

    def _merge(self, shard: int) -> None:
        """Merge a shard's parts once they are all there."""
        parts = [self._part(batch) for batch in self._batches_of(shard)]
        if not all(part.exists() for part in parts):
            return
        _write(self._shard(shard), pa.concat_tables([_read(part) for part in parts]))
        for part in parts:
            part.unlink()

    def _part(self, batch: int) -> Path:
        return self.parts / f"part-{batch:08d}.parquet"

    def _shard(self, shard: int) -> Path:
        return self.folder / f"shard-{shard:05d}.parquet"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One run at a time may write into a folder; the lock ends with its process, however that ends.

    Raises InputError where another run holds it.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_CREAT | os.O_RDWR, 0o666)
    try:
        try:
            _lock(handle)
        except OSError:
            raise InputError(
                f"--out {folder}: another run is writing there; wait for it, or choose another folder"
            ) from None
        yield
    finally:
        os.close(handle)


def _lock(handle: int) -> None:
    """Lock an open file. Raises OSError where another process has locked it."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    else:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _numbered(folder: Path, pattern: re.Pattern[str]) -> list[int]:
    if not folder.is_dir():
        return []
    return sorted(int(match[1]) for match in map(pattern.fullmatch, os.listdir(folder)) if match)


def _read(path: Path) -> pa.Table:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise InputError(
            f"{path}: not a readable shard ({' '.join(str(error).split())}); remove it, and run again"
        ) from None
    if table.schema.names != SCHEMA.names:
        raise InputError(f"{path}: has other columns than this version writes; use the version that wrote it")
    # Format 2 stored fits without a verdict as accepted.
    pairs = zip(table["status"].to_pylist(), table["quality"].to_pylist(), strict=True)
    status = ["unjudged" if name == "accepted" and quality is None else name for name, quality in pairs]
    return table.set_column(table.schema.names.index("status"), "status", pa.array(status, pa.string())).cast(SCHEMA)


def _write(path: Path, table: pa.Table) -> None:
    with replacing(path, durable=True) as temporary:
        pq.write_table(table, temporary, compression="zstd")
