"""Whole runs of `dsr-fit batch` over damaged data sets: COCO and SPIN files and lists of two small photos.

See `damage.py`, whose `--fits` runs them. All that is not theirs to damage, such as the fitter, is loaded once, and
they work in this process, so that a run takes a second.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import bad_input
import numpy as np
from damage import NASTY, PERSON, damaged, mutated, people
from PIL import Image

from dsr_fit.cli import main as cli
from dsr_fit.dataset import run as dataset_run
from dsr_fit.dataset.run import read_results
from dsr_fit.io.files import temporaries

NAMES = ("a.png", "b.png")
SIZE = (192, 270)
LOSSES = (np.nan, np.inf, -np.inf, -1.0, 0.0, 1e9, 1e300)
"""Numbers that replace some of a SPIN file's."""


def whole_runs(count: int, folder: Path, seed: int = 0) -> Counter[str]:
    """Fit that many damaged data sets by the command line; how many ended in which status, and their people."""
    folder.mkdir(parents=True, exist_ok=True)
    with Image.open(PERSON) as picture:
        small = picture.convert("RGB").resize(SIZE)
    small.save(folder / NAMES[0])
    small.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / NAMES[1])
    draw, outcomes = random.Random(seed), Counter[str]()
    kinds: dict[str, Callable[[random.Random], bytes]] = {".json": _coco, ".npz": _spin, ".txt": _list}
    with bad_input.loaded_once(), _in_this_process():
        for number in range(count):
            suffix = draw.choice(list(kinds))
            source = folder / f"damaged{suffix}"
            source.write_bytes(kinds[suffix](draw))
            status, statuses = _run(source, folder / "out", f"run {number}, {source}")
            outcomes[f"{suffix}: status {status}"] += 1
            outcomes.update({f"{suffix}: people {name}": people for name, people in statuses.items()})
    return outcomes


def _run(source: Path, out: Path, where: str) -> tuple[int, Counter[str]]:
    """The exit status, and the people by theirs. Raises AssertionError for what must not happen."""
    shutil.rmtree(out, ignore_errors=True)
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        status = cli.main(["batch", str(source), "--out", str(out)])
    where = f"{where}: status {status}, {said.getvalue()!r}"
    assert status in (0, 1, 2, 3), where
    assert "Traceback" not in said.getvalue(), where
    assert "unexpected" not in said.getvalue(), where
    if status in (1, 2):
        assert said.getvalue().count("\n") == 1, where
        assert not out.exists(), where
        return status, Counter()
    assert not [*temporaries(out), *temporaries(out / "parts")], where
    rows = list(read_results(out))
    for row in rows:
        assert "unexpected" not in (row["reason"] or ""), f"{where}: {row['reason']}"
        for name, value in row.items():
            numbers = np.asarray(value)
            assert numbers.dtype.kind != "f" or np.isfinite(numbers).all(), f"{where}: {name} of {row['imgname']}"
    statuses = Counter(row["status"] for row in rows)
    assert (status == 3) == (statuses["failed"] > 0), where
    return status, statuses


@contextlib.contextmanager
def _in_this_process() -> Iterator[None]:
    """Runs use the observer and fitter of the first of them, one batch after the other."""
    made: dict[str, Any] = {}

    def engine(batches: Any, observe: Any, fit: Any, *_: Any, **__: Any) -> Iterator[tuple[int, Any]]:
        for name, make in (("observe", observe), ("fit", fit)):
            made.setdefault(name, make if name in made else make())
        for number, entries in batches:
            yield number, made["fit"]([one for entry in entries for one in made["observe"](entry)])

    with mock.patch.object(dataset_run, "run_local", engine):
        yield


# --- Data sets ------------------------------------------------------------------------------------


def _bytes(draw: random.Random, content: bytes) -> bytes:
    kinds = ["flip", "set", "zero", "cut", "repeat", "end"]
    return damaged(content, [(draw.choice(kinds), draw.random(), draw.randrange(8)) for _ in range(draw.randint(1, 2))])


def _coco(draw: random.Random) -> bytes:
    content = next(each for each in people(SIZE) if isinstance(each, dict) and "annotations" in each)
    for image, name in zip(content["images"], NAMES, strict=True):
        image |= {"file_name": name, "width": SIZE[0], "height": SIZE[1]}
    if draw.random() < 0.2:
        return _bytes(draw, json.dumps(content).encode())
    edits = [
        (
            [draw.randrange(99) for _ in range(draw.randint(2, 4))],
            draw.choice(["replace", "remove", "double"]),
            draw.choice(NASTY),
        )
        for _ in range(draw.randint(1, 3))
    ]
    return json.dumps(mutated(content, edits)).encode()


def _spin(draw: random.Random) -> bytes:
    """Most often some numbers of its columns are others: changed bytes are found out by the archive's checksums."""
    points = np.array(next(each for each in people(SIZE) if isinstance(each, list) and len(each) == 49))
    columns: dict[str, Any] = {
        "imgname": np.array(NAMES), "center": np.tile(np.array(SIZE) / 2, (2, 1)), "scale": np.full(2, SIZE[1] / 200),
        "part": np.tile(points[25:], (2, 1, 1)),
    }  # fmt: skip
    for _ in range(draw.randint(1, 3)):
        name = draw.choice(list(columns))
        column = columns[name]
        change = draw.choice(["number", "number", "number", "cut", "drop", "narrow"])
        if change == "drop" and len(columns) > 1:
            del columns[name]
        elif change == "cut":
            columns[name] = column[:1]
        elif change == "narrow":
            columns[name] = column.astype("S") if column.dtype.kind == "U" else column.astype(np.float16)
        elif column.dtype.kind == "f" and column.size:
            places = [draw.randrange(column.size) for _ in range(draw.choice([1, 3, 40]))]
            with np.errstate(over="ignore"):  # half precision makes infinity of the largest
                column.flat[places] = draw.choice(LOSSES)
        elif column.size:
            columns[name] = np.array([draw.choice([*NAMES, "gone.png", "", "/", "..", "a.png/x"]) for _ in column])
    file = io.BytesIO()
    np.savez(file, **columns)
    return _bytes(draw, file.getvalue()) if draw.random() < 0.1 else file.getvalue()


def _list(draw: random.Random) -> bytes:
    return _bytes(draw, "\n".join(("# photos", *NAMES, "")).encode())
