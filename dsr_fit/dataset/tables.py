"""One Parquet file, written as a whole with what it says of itself, and read only as what it should be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dsr_fit.errors import InputError, one_line
from dsr_fit.io.files import replacing

_KEY = b"dsr_fit"


class Damaged(Exception):
    """A file that can't be read to its end; the text goes on after its name."""


def write_table(path: Path, table: pa.Table, about: dict[str, Any]) -> None:
    """Write a file with checksums, synced to the disk. Raises InputError when it can't be written."""
    table = table.replace_schema_metadata({_KEY: json.dumps(about)})
    with replacing(path, durable=True) as temporary:
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def about_table(path: Path) -> dict[str, Any]:
    """What a file says of itself, and its number of `rows`, from its end alone. Raises Damaged."""
    try:
        footer = pq.read_metadata(path)
        about = json.loads((footer.metadata or {}).get(_KEY, b"{}"))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise Damaged(f"is damaged or cut off ({one_line(error)})") from None
    if not isinstance(about, dict):
        raise Damaged("is damaged")
    return {**about, "rows": footer.num_rows}


def read_table(path: Path, schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
    """The columns of a file that has exactly those of `schema`, all or some.

    Raises Damaged, and InputError for a file of other columns.
    """
    try:
        stored = pq.read_schema(path)
        if stored.names != schema.names:
            raise InputError(f"{path}: has other columns than this version writes; use the version that wrote it")
        wanted = schema if columns is None else pa.schema([schema.field(name) for name in columns])
        return pq.read_table(path, columns=wanted.names, page_checksum_verification=True).cast(wanted)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise Damaged(f"is damaged ({one_line(error)})") from None
