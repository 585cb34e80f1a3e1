"""Ways in of data sets: the sources that list them, and the files that `dsr-fit batch` left. See `damage.py`."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from damage import MUTATIONS, Way, archives, bytewise, mutated, people
from hypothesis import strategies as st

from dsr_fit.dataset.listing import open_source
from dsr_fit.dataset.manifest import PlanNote, begin
from dsr_fit.dataset.mending import resume_store
from dsr_fit.dataset.names import file_name
from dsr_fit.dataset.schema import Row
from dsr_fit.dataset.settings import Settings
from dsr_fit.dataset.shards import Store, open_store
from dsr_fit.dataset.sources import Entry, Source

LIST = "# photos\r\nphoto.png\nsub/./other.jpg\n../up.png\ncaf\udce9.png\n".encode("utf-8", "surrogateescape")


def ways() -> dict[str, Way]:
    """Every way in of a data set, by name."""
    coco = next(content for content in people() if isinstance(content, dict) and "annotations" in content)
    structured = st.tuples(st.just(coco), MUTATIONS).map(lambda one: (".json", json.dumps(mutated(*one)).encode()))
    whole = [(".json", json.dumps(coco).encode())]
    spin = [(".npz", archives()[1])]
    return {
        "COCO data sets": Way(structured, whole, _list_source),
        "bytes of COCO data sets": bytewise(whole, _list_source),
        "SPIN data sets": bytewise(spin, _list_source),
        "lists": bytewise([(".txt", LIST)], _list_source),
        "manifests": bytewise([(".json", (_results() / "manifest.json").read_bytes())], _take_up("manifest.json")),
        "shards": bytewise([(".parquet", (_results() / SHARD).read_bytes())], _take_up(SHARD)),
        "plans": bytewise([(".parquet", (_results() / PLAN).read_bytes())], _take_up(PLAN)),
    }


def _list_source(path: Path) -> None:
    source = open_source(path)
    assert len({entry.imgname for entry in source.entries}) == len(source.entries)
    for entry in source.entries:
        entry.imgname.encode("utf-8")
        file_name(entry.imgname)
        entry.digest()
        for person in entry.people or ():
            assert -(2**63) <= person.source_id < 2**63
            assert person.keypoints is None or np.isfinite(person.keypoints).all()


# --- Results --------------------------------------------------------------------------------------

SHARD, PLAN = "shard-00001.parquet", "plans/plan-0000.parquet"
IMAGES, BATCH = 12, 2


@cache
def _results() -> Path:
    """A folder of three shards of two batches each, the last of them not merged yet."""
    folder = Path(tempfile.mkdtemp(prefix="damage-"))
    names = [f"{number}.png" for number in range(IMAGES)]
    source = Source(Path("/photos"), [Entry(name) for name in names], "list")
    store = Store(folder, begin(source, Settings(batch_size=BATCH), 2))
    store.plan(names, PlanNote(IMAGES, added=IMAGES))
    for batch in range(IMAGES // BATCH - 1):
        store.write(batch, [_row(number) for number in range(batch * BATCH, (batch + 1) * BATCH)])
    return folder


def _row(number: int) -> Row:
    turn = np.random.default_rng(number)
    found = {name: turn.normal(size=size).astype(np.float32) for name, size in (("betas", 10), ("cam_t", 3))}
    return {"imgname": f"{number}.png", "person": 0, "source_id": number, "status": "accepted", "run": 0, **found}


@cache
def _expected() -> dict[str, str]:
    return {row["imgname"]: str(row) for row in open_store(_results()).rows()}


def _take_up(name: str) -> Any:
    """Takes results up again with a damaged file in its place: no row may change, none may be lost unsaid."""

    def read(path: Path) -> None:
        folder = path.parent / "results"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(_results(), folder)
        shutil.copyfile(path, folder / name)
        logging.disable(logging.WARNING)  # of what was set aside
        try:
            store = resume_store(folder)
        finally:
            logging.disable(logging.NOTSET)
        if store is None:
            return
        done = {row["imgname"]: str(row) for row in store.rows()}
        assert done.items() <= _expected().items()
        left = {image for batch in store.left() for image in store.names[batch]}
        assert not left & set(done)
        read_again = {row["imgname"]: str(row) for row in open_store(folder).rows()}
        assert read_again == done

    return read
