"""Results on disk: a small part for every batch, merged into shards; no kill leaves half a file.

`DIR/parts/part-00000012.parquet` holds batch 12, written atomically and synced. When all batches of a shard are there
they become `DIR/shard-00000.parquet` in the same way, and the parts are removed. So a batch is done if its part or its
shard exists, and no other record is needed. Every file says in its metadata which batches it holds, of which results,
and repeats the manifest.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import pyarrow as pa

from dsr_fit.dataset.fingerprints import Fingerprint
from dsr_fit.dataset.manifest import Manifest, PlanNote, read_manifest, write_manifest
from dsr_fit.dataset.schema import PLANNED, SCHEMA, SINCE, VERSION, Row, to_rows, to_table
from dsr_fit.dataset.tables import Damaged, about_table, read_table, write_table
from dsr_fit.errors import InputError

_PART = re.compile(r"part-(\d{8})\.parquet")
_SHARD = re.compile(r"shard-(\d{5,})\.parquet")
_LIKE_OURS = re.compile(r"(part|shard)\b.*\.parquet")

PLAN = pa.schema([("batch", pa.int64()), ("imgname", pa.string())])
"""The columns of a plan."""


@dataclass(frozen=True, slots=True)
class Done:
    """What the newest rows of an image say."""

    batch: int
    asked: str | None
    files: Fingerprint | None
    statuses: tuple[str, ...]


class Store:
    """The results in one folder."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.parts, self.plans = folder, folder / "parts", folder / "plans"
        self.manifest = manifest

    # --- What is planned and done -----------------------------------------------------------------

    def plan(self, names: list[str], note: PlanNote) -> None:
        """Add images to the folder's work. Raises InputError when it can't be written."""
        manifest = replace(self.manifest, plans=(*self.manifest.plans, note))
        self.write_plan(manifest, len(self.manifest.plans), enumerate_batches(manifest, names))
        write_manifest(self.folder, manifest)
        self.manifest = manifest
        self.__dict__.pop("names", None)

    @cached_property
    def names(self) -> dict[int, list[str]]:
        """Batch -> the images that are fitted in it. Raises InputError for a plan that can't be read."""
        found: dict[int, list[str]] = {}
        for number in range(len(self.manifest.plans)):
            try:
                self.read_plan(number, found)
            except Damaged as error:
                raise InputError(
                    f"{self.plan_path(number)}: {error}; run `dsr-fit batch` there again, which mends it"
                ) from None
        return found

    def done(self) -> set[int]:
        """The batches whose rows are stored."""
        shards = (batch for shard in _numbered(self.folder, _SHARD) for batch in self.manifest.shards[shard])
        return {*shards, *_numbered(self.parts, _PART)}

    def left(self) -> list[int]:
        """The batches that are still to be done."""
        done = self.done()
        return [batch for batch in sorted(self.names) if batch not in done]

    def missing(self) -> set[str]:
        """Images that are planned and have no rows, of an earlier plan neither."""
        done = self.done()
        names = {name for batch in done for name in self.names.get(batch, ())}
        return {name for batch in self.left() for name in self.names[batch]} - names

    def states(self) -> dict[str, Done]:
        """Image -> what its newest rows say."""
        files = ("input_bytes", "input_mtime_ns", "input_sha256")
        found: dict[str, Done] = {}
        for table in self.tables(["imgname", "status", "batch", "asked", *files]):
            columns = [column.to_pylist() for column in table.columns]
            for name, status, batch, asked, *held in zip(*columns, strict=True):
                known = found.get(name)
                statuses = (*known.statuses, status) if known is not None and known.batch == batch else (status,)
                found[name] = Done(batch, asked, None if held[0] is None else Fingerprint(*held), statuses)
        return found

    # --- Rows -------------------------------------------------------------------------------------

    def write(self, batch: int, rows: list[Row]) -> None:
        """Write a batch's rows, synced to the disk. Raises InputError when they can't be written."""
        try:
            self._write(self._part(batch), to_table([{**row, "batch": batch} for row in rows]), range(batch, batch + 1))
            self._merge(self._shard_of(batch))
        except InputError as error:
            raise InputError(f"{error}; everything up to here is kept") from None

    def rows(self) -> Iterator[Row]:
        """The newest rows of every image, in the order of the plans."""
        for table in self.tables():
            yield from to_rows(table)

    def tables(self, columns: list[str] | None = None) -> Iterator[pa.Table]:
        """The same, one table a file, of these columns. Raises InputError for a file that isn't a readable shard."""
        newest = self._newest()
        for _, path in sorted(self.files()):
            if not newest:
                yield rows_in(path, self.manifest.format, columns)
                continue
            wanted = columns or SCHEMA.names
            table = rows_in(path, self.manifest.format, list(dict.fromkeys((*wanted, "imgname", "batch"))))
            pairs = zip(table["imgname"].to_pylist(), table["batch"].to_pylist(), strict=True)
            newer = [newest.get(name, batch) <= batch for name, batch in pairs]
            yield table.filter(pa.array(newer)).select(wanted)

    def copy(self, folder: Path, change: Callable[[list[Row]], list[Row]]) -> None:
        """Write the same results into another, empty folder, each file's rows changed, as this version writes them.

        Raises InputError where they have no plans.
        """
        if self.manifest.format < PLANNED:
            raise InputError(
                f"{self.folder}: was begun by an earlier version (format {self.manifest.format}); its results can be "
                "read and exported, but not copied"
            )
        manifest = replace(self.manifest, format=VERSION)
        other = Store(folder, manifest)
        for batches, path in sorted(self.files()):
            table = to_table(change(to_rows(rows_in(path, self.manifest.format))))
            other._write(folder / path.relative_to(self.folder), table, range(*batches))
        for number, batches in enumerate(self.manifest.plan_batches):
            planned = [(batch, name) for batch in batches for name in self.names.get(batch, ())]
            other.write_plan(manifest, number, planned)
        write_manifest(folder, manifest)

    def files(self) -> list[tuple[tuple[int, int], Path]]:
        """Every file of rows with its range of batches; parts that a shard repeats are left out."""
        parts = _numbered(self.parts, _PART)  # before the shards: a run that merges them now loses none of them here
        spans = {shard: self.manifest.shards[shard] for shard in _numbered(self.folder, _SHARD)}
        shards = [((span.start, span.stop), self._shard(shard)) for shard, span in spans.items()]
        single = [batch for batch in parts if self._shard_of(batch) not in spans]
        return [*shards, *(((batch, batch + 1), self._part(batch)) for batch in single)]

    def _newest(self) -> dict[str, int]:
        """The batch of the newest rows of images that were fitted more than once."""
        if len(self.manifest.plans) < 2:
            return {}
        first = self.manifest.plan_batches[0].stop
        return {name: batch for batch in sorted(self.done()) if batch >= first for name in self.names.get(batch, ())}

    # --- Files ------------------------------------------------------------------------------------

    def check(self, *, pages: bool = False) -> Iterator[tuple[Path, str]]:
        """Damaged files, with what is wrong; `pages` reads each to its end (20 ms a shard of 1024 images).

        Raises InputError for files that are not of these results.
        """
        for folder, pattern, span_of in ((self.folder, _SHARD, self._span), (self.parts, _PART, self._span_of_part)):
            for name in sorted(os.listdir(folder)) if folder.is_dir() else ():
                match = pattern.fullmatch(name)
                if match is None and _LIKE_OURS.fullmatch(name) is not None:
                    raise InputError(f"{folder / name}: no file of these results, a copy perhaps; move it elsewhere")
                if match is not None:
                    try:
                        self._check(folder / name, span_of(int(match[1])))
                        if pages:
                            read_table(folder / name, SCHEMA)
                    except Damaged as error:
                        yield folder / name, str(error)

    def _check(self, path: Path, span: range | None) -> None:
        about = about_table(path)
        if about["rows"] == 0:
            raise Damaged("holds no rows")
        legacy = self.manifest.format < PLANNED
        foreign = about.get("results", "") != self.manifest.results
        if foreign or span is None or (about.get("batches") != [span.start, span.stop] and not legacy):
            what = "belongs to other results" if foreign else "is a copy of another file, or of a plan that is lost"
            raise InputError(f"{path}: {what}; move it elsewhere")
        images = sum(len(self.names.get(batch, ())) for batch in span)
        if about["rows"] < images:
            raise Damaged(f"holds {about['rows']} rows of {images} images")

    def _span(self, shard: int) -> range | None:
        return self.manifest.shards[shard] if shard < len(self.manifest.shards) else None

    def _span_of_part(self, batch: int) -> range | None:
        return range(batch, batch + 1) if batch < self.manifest.batches else None

    def tidy(self) -> None:
        """Remove the parts that a shard repeats, and merge those of shards that are complete."""
        shards = set(_numbered(self.folder, _SHARD))
        parts = _numbered(self.parts, _PART)
        for batch in parts:
            if self._shard_of(batch) in shards:
                self._part(batch).unlink()
        for shard in {self._shard_of(batch) for batch in parts} - shards:
            self._merge(shard)

    def _merge(self, shard: int) -> None:
        """Merge a shard's parts once they are all there."""
        span = self.manifest.shards[shard]
        parts = [self._part(batch) for batch in span if batch in self.names]
        if not all(part.exists() for part in parts):
            return
        self._write(self._shard(shard), pa.concat_tables([rows_in(part, VERSION) for part in parts]), span)
        for part in parts:
            part.unlink()

    def _write(self, path: Path, table: pa.Table, span: range) -> None:
        manifest = self.manifest
        about = {"results": manifest.results, "batches": [span.start, span.stop], "manifest": manifest.to_json()}
        write_table(path, table, about)

    def write_plan(self, manifest: Manifest, number: int, planned: Iterable[tuple[int, str]]) -> None:
        pairs = list(planned)
        columns = [pa.array([pair[index] for pair in pairs], PLAN.field(index).type) for index in range(2)]
        write_table(self.plan_path(number), pa.table(columns, PLAN), {"results": manifest.results})

    def read_plan(self, number: int, found: dict[int, list[str]]) -> None:
        """Raises Damaged."""
        if self.manifest.format < PLANNED:
            return
        path = self.plan_path(number)
        if about_table(path).get("results") != self.manifest.results:
            raise InputError(f"{path}: belongs to other results; move it elsewhere")
        for batch, name in zip(*(column.to_pylist() for column in read_table(path, PLAN).columns), strict=True):
            found.setdefault(batch, []).append(name)

    def _shard_of(self, batch: int) -> int:
        return bisect_right([span.start for span in self.manifest.shards], batch) - 1

    def plan_path(self, number: int) -> Path:
        return self.plans / f"plan-{number:04d}.parquet"

    def _part(self, batch: int) -> Path:
        return self.parts / f"part-{batch:08d}.parquet"

    def _shard(self, shard: int) -> Path:
        return self.folder / f"shard-{shard:05d}.parquet"


def enumerate_batches(manifest: Manifest, names: list[str]) -> Iterator[tuple[int, str]]:
    """The names of the last plan, each with its batch."""
    start = manifest.plan_batches[-1].start
    return ((start + index // manifest.batch_size, name) for index, name in enumerate(names))


def open_store(folder: Path) -> Store:
    """The results of a folder, to read. Raises InputError where there are none, or some are damaged."""
    store = Store(folder, read_manifest(folder))
    for path, reason in store.check():
        raise _damaged(path, reason)
    return store


def result_files(folder: Path) -> list[Path]:
    """Shards and parts of a folder, by their names."""
    shards = [folder / f"shard-{number:05d}.parquet" for number in _numbered(folder, _SHARD)]
    return [*shards, *(folder / "parts" / f"part-{batch:08d}.parquet" for batch in _numbered(folder / "parts", _PART))]


def _numbered(folder: Path, pattern: re.Pattern[str]) -> list[int]:
    if not folder.is_dir():
        return []
    return sorted(int(match[1]) for match in map(pattern.fullmatch, os.listdir(folder)) if match)


def _damaged(path: Path, reason: object) -> InputError:
    return InputError(f"{path}: {reason}; run `dsr-fit batch` there again, which fits its images again")


def rows_in(path: Path, version: int, columns: list[str] | None = None) -> pa.Table:
    """Some columns of a file of rows, all as this version has them. Raises InputError where it can't be read."""
    wanted = columns or SCHEMA.names
    stored = pa.schema([field for field in SCHEMA if SINCE.get(field.name, 0) <= version])
    needed = dict.fromkeys((*wanted, "status", "quality"))
    try:
        table = read_table(path, stored, [name for name in needed if name in stored.names])
    except Damaged as error:
        raise _damaged(path, error) from None
    for field in (field for field in SCHEMA if field.name in wanted and field.name not in stored.names):
        table = table.append_column(field, pa.nulls(len(table), field.type))
    if version < 3:  # stored fits without a verdict as accepted
        pairs = zip(table["status"].to_pylist(), table["quality"].to_pylist(), strict=True)
        status = ["unjudged" if name == "accepted" and quality is None else name for name, quality in pairs]
        table = table.set_column(table.schema.names.index("status"), "status", pa.array(status, pa.string()))
    return table.select(wanted)
