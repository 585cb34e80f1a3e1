"""A folder of results taken up again after anything that may have happened to it."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path

from dsr_fit.dataset.manifest import NAME, Manifest, OtherFormat, parse_manifest, read_manifest, write_manifest
from dsr_fit.dataset.schema import VERSION
from dsr_fit.dataset.shards import Store, result_files, rows_in
from dsr_fit.dataset.tables import Damaged, about_table
from dsr_fit.errors import InputError
from dsr_fit.io.files import temporaries, writing

_OURS = b'{\n "results": '
"""How a manifest begins that this version wrote."""

_log = logging.getLogger("dsr_fit")


def resume_store(folder: Path) -> Store | None:
    """The results of a folder, mended, to continue; None where there are none.

    A manifest that is missing or damaged is restored from the shards; one of another version's format is not touched.
    Raises InputError for that, and for files that can't be of these results.
    """
    path = folder / NAME
    files = result_files(folder)
    try:
        manifest = read_manifest(folder)
    except OtherFormat:
        raise
    except InputError:
        copies = list(filter(None, map(_manifest_in, files)))
        if not copies and path.exists() and path.stat().st_size and not path.read_bytes().startswith(_OURS):
            raise  # a stranger's, or another version's
        for file in () if copies else files:
            try:
                about_table(file)
            except Damaged as error:
                _set_aside(file, str(error))
            else:
                raise InputError(
                    f"--out {folder}: holds shards, but no manifest.json that says what they are; put it back, or "
                    "choose another --out"
                ) from None
        if not copies:
            return None
        manifest = max(copies, key=lambda copy: (len(copy.plans), len(copy.runs)))
        _log.warning("%s: missing or damaged; restored from the shards", path)
        write_manifest(folder, manifest)
    store = Store(folder, manifest)
    if manifest.format == VERSION:
        _mend(store)
    return store


def _mend(store: Store) -> None:
    """Clear the leftovers of a kill, set damaged files aside, and merge the parts of complete shards."""
    with writing(store.folder):
        store.parts.mkdir(parents=True, exist_ok=True)
        for left in (each for folder in (store.folder, store.parts, store.plans) for each in temporaries(folder)):
            left.unlink()
    _mend_plans(store)
    for path, reason in store.check(pages=True):
        _set_aside(path, reason)
    store.tidy()


def _mend_plans(store: Store) -> None:
    """A damaged plan is made again from the rows of its batches; its other images count as new."""
    for number, batches in enumerate(store.manifest.plan_batches):
        try:
            store.read_plan(number, {})
        except Damaged as error:
            planned: dict[tuple[int, str], None] = {}
            for (start, _), path in sorted(store.files()):
                with suppress(InputError):  # damaged as well
                    rows = rows_in(path, VERSION, ["batch", "imgname"]).to_pylist() if start in batches else []
                    planned |= {(row["batch"], row["imgname"]): None for row in rows}
            path = store.plan_path(number)
            _log.warning("%s %s; it is made again from %d images that were fitted", path, error, len(planned))
            store.write_plan(store.manifest, number, planned)


def _set_aside(path: Path, reason: str) -> None:
    """Rename a damaged file, so that nothing is lost and nothing reads it."""
    _log.warning("%s %s; it is set aside (.damaged), and its images are fitted again", path, reason)
    path.replace(path.with_name(f"{path.name}.damaged"))


def _manifest_in(path: Path) -> Manifest | None:
    """The manifest that a file of rows repeats. Raises OtherFormat."""
    try:
        return parse_manifest(about_table(path)["manifest"])
    except OtherFormat as error:
        raise OtherFormat(f"{path}: {error}") from None
    except (Damaged, ValueError, KeyError, TypeError):
        return None
