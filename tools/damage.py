"""Damaged input of every kind: whatever a file holds, it is read, or refused in one line. No traceback, no NaN.

    PYTHONPATH=tools python tools/damage.py --examples 20000              every way in, nothing fitted
    PYTHONPATH=tools python tools/damage.py --examples 0 --fits 200       whole fits and runs by the command line

`tests/test_damage.py` runs a few examples of each.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import io
import json
import math
import random
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from whole_inputs import SIZE, archives, images, label_maps, people, saved

from dsr_fit.errors import DsrFitError
from dsr_fit.io.images import image_size, read_image
from dsr_fit.io.label_files import read_labels
from dsr_fit.io.spin_file import read_spin
from dsr_fit.joints import empty_keypoints
from dsr_fit.observation import Detection
from dsr_fit.observe.perception import Inputs, Perception

ROOT = Path(__file__).resolve().parents[1]
PERSON = ROOT / "examples" / "person.png"

# --- How ------------------------------------------------------------------------------------------

NASTY: list[Any] = [
    None, True, False, 0, -1, 1, 1e9, -1e9, 1e300, 1e-300, 10**30, 10**400, math.nan, math.inf, -math.inf, "", "1",
    "NaN", "\u0000", "x" * 300, [], {}, [[]], [None], [0, 0, 0], [1, 2], {"x": 1, "y": 2}, {"keypoints": []},
    [[1, 2, 0.9]] * 14,
]  # fmt: skip
"""Values that replace a part of a JSON file."""

_PLACE = st.floats(0, 1, exclude_max=True)
_EDIT = st.one_of(
    st.tuples(st.just("flip"), _PLACE, st.integers(0, 7)),
    st.tuples(st.just("set"), _PLACE, st.integers(0, 255)),
    st.tuples(st.just("end"), _PLACE, st.just(0)),
    st.tuples(st.just("cut"), _PLACE, st.integers(1, 64)),
    st.tuples(st.just("insert"), _PLACE, st.binary(min_size=1, max_size=16)),
    st.tuples(st.just("repeat"), _PLACE, st.integers(1, 64)),
    st.tuples(st.just("zero"), _PLACE, st.integers(1, 64)),
)
_HEADER = st.tuples(st.sampled_from(["flip", "set"]), _PLACE.map(lambda place: place * 0.05), st.integers(0, 7))
EDITS = st.lists(st.one_of(_EDIT, _HEADER), min_size=1, max_size=3)
"""Edits of a file's bytes; those of its first bytes come more often."""

MUTATIONS = st.lists(
    st.tuples(
        st.lists(st.integers(0, 99), min_size=1, max_size=5),
        st.sampled_from(["replace", "remove", "double"]),
        st.sampled_from(NASTY),
    ),
    min_size=1,
    max_size=3,
)
"""Edits of JSON content: the way down to a part, and what happens to it."""


def damaged(content: bytes, edits: list[tuple[str, float, Any]]) -> bytes:
    """The content after `EDITS`."""
    for kind, share, value in edits:
        place = int(share * len(content))
        before, after = content[:place], content[place:]
        if kind == "end":
            content = before
        elif kind == "insert":
            content = before + value + after
        elif kind == "cut":
            content = before + after[value:]
        elif kind == "repeat":
            content = before + after[:value] + after
        elif kind == "zero":
            content = before + bytes(len(after[:value])) + after[value:]
        elif after:
            content = before + bytes([after[0] ^ (1 << value) if kind == "flip" else value]) + after[1:]
    return content


def mutated(content: Any, mutations: list[tuple[list[int], str, Any]]) -> Any:
    """JSON content after `MUTATIONS`."""
    content = [copy.deepcopy(content)]
    for way, kind, value in mutations:
        part, key = content, 0
        for step in way:
            inner = part[key]
            if not isinstance(inner, list | dict) or not inner:
                break
            part, key = inner, list(inner)[step % len(inner)] if isinstance(inner, dict) else step % len(inner)
        if kind == "replace" or part is content:
            part[key] = copy.deepcopy(value)
        elif kind == "remove":
            del part[key]
        elif isinstance(part, list):
            part.insert(key, copy.deepcopy(part[key]))
        else:
            part[f"{key} "] = part[key]
    return content[0]


# --- Ways in --------------------------------------------------------------------------------------


class _Nobody:
    """A detector that finds nobody, and a parser that sees one person everywhere."""

    name = "stand-in"

    def detect(self, image: np.ndarray, *about: Any, **more: Any) -> list[Detection]:
        return []

    def complete(self, image: np.ndarray, given: Detection) -> Detection:
        return given

    def parse(self, image: np.ndarray, detection: Detection) -> np.ndarray:
        return np.full(image.shape[:2], 5, np.uint8)


@dataclass(frozen=True)
class Way:
    """A way in: damaged files of a kind, and what must hold of one that is read."""

    files: st.SearchStrategy[tuple[str, bytes]]
    """Suffix and content."""
    whole: list[tuple[str, bytes]]
    """The files before the damage."""
    read: Callable[[Path], None]
    """Raises AssertionError where what was read can't be used, DsrFitError where it is refused."""


def _read_image(path: Path) -> None:
    image, focal = read_image(path)
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3
    assert image.size
    assert focal is None or focal > 0
    assert image_size(path) == image.shape[1::-1]


def _observe_keypoints(path: Path) -> None:
    photo = path.with_name("photo.png")  # as the files name it
    if not photo.exists():
        Image.new("RGB", SIZE).save(photo)
    found = Perception(_Nobody(), _Nobody()).observe(photo, Inputs(path)).detection
    assert found.keypoints.shape == empty_keypoints().shape
    assert np.isfinite(found.keypoints).all()
    assert np.abs(found.keypoints[:, :2]).max() <= 2 * max(SIZE)
    assert 0 <= found.keypoints[:, 2].min() <= found.keypoints[:, 2].max() <= 1
    assert found.world_landmarks is None or np.isfinite(found.world_landmarks).all()


def _read_labels(path: Path) -> None:
    labels = read_labels(path, SIZE)
    assert labels.dtype == np.uint8
    assert labels.shape == SIZE[::-1]
    assert np.isin(labels, [*range(20), 254, 255]).all()


def _read_spin(path: Path) -> None:
    file = read_spin(path)
    assert len(file.center) == len(file.scale) == len(file)


def ways() -> dict[str, Way]:
    """Every way in, by name."""
    import damage_results  # which is made of this module's parts

    json_files = [(".json", json.dumps(content).encode()) for content in people()]
    own, spin = ((".npz", content) for content in archives())
    structured = st.tuples(st.sampled_from(people()), MUTATIONS).map(
        lambda one: (".json", json.dumps(mutated(*one)).encode())
    )
    return {
        "images": bytewise(images(), _read_image),
        "keypoint files": Way(structured, json_files, _observe_keypoints),
        "bytes of keypoint files": bytewise([*json_files, own], _observe_keypoints),
        "label maps": bytewise(label_maps(), _read_labels),
        "SPIN files": bytewise([spin], _read_spin),
        **damage_results.ways(),
    }


def bytewise(files: list[tuple[str, bytes]], read: Callable[[Path], None]) -> Way:
    """Files with a few bytes changed, lost or added."""
    hurt = st.tuples(st.sampled_from(files), EDITS).map(lambda one: (one[0][0], damaged(one[0][1], one[1])))
    return Way(hurt, files, read)


def _check_line(text: str) -> None:
    assert text.strip(), "an empty line"
    assert len(text.splitlines()) == 1, f"several lines: {text!r}"


def run(way: Way, folder: Path, examples: int, derandomize: bool = False) -> Counter[str]:
    """Read that many damaged files. Returns how many were read and refused; raises what must not happen."""
    outcomes: Counter[str] = Counter()

    @settings(
        max_examples=examples, deadline=None, database=None, derandomize=derandomize,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], print_blob=False,
    )  # fmt: skip
    @given(way.files)
    def one(file: tuple[str, bytes]) -> None:
        path = folder / f"damaged{file[0]}"
        path.write_bytes(file[1])
        try:
            way.read(path)
            outcomes["read"] += 1
        except DsrFitError as error:
            outcomes["refused"] += 1
            _check_line(str(error))

    one()
    return outcomes


# --- Whole fits -----------------------------------------------------------------------------------

QUICK = ("--stages.0.iterations", "3", "--stages.1.iterations", "1")


def whole_fits(count: int, folder: Path, seed: int = 0) -> Counter[str]:
    """Fit the example, its image, keypoints or label map damaged, by the command line; statuses."""
    from dsr_fit.cli import main as cli

    folder.mkdir(parents=True, exist_ok=True)
    with Image.open(PERSON) as picture:
        photo = picture.convert("RGB")
    size = photo.size
    draw, statuses = random.Random(seed), Counter()
    fields = {
        "image": [(".png", PERSON.read_bytes()), (".jpg", saved(photo, ".jpg", {}))],
        "keypoints": [(".json", json.dumps(content).encode()) for content in people(size)],
        "labels": label_maps(size),
    }
    for number in range(count):
        given = {name: draw.choice(files) for name, files in fields.items()}
        hurt = draw.choice(list(fields))
        suffix, content = given[hurt]
        if hurt == "keypoints":
            way = [
                (
                    [draw.randrange(99) for _ in range(draw.randrange(5))],
                    draw.choice(["replace", "remove"]),
                    draw.choice(NASTY),
                )
            ]
            content = json.dumps(mutated(json.loads(content), way)).encode()
        else:
            kinds = ["flip", "set", "zero"] if draw.random() < 0.8 else ["end"]
            content = damaged(content, [(draw.choice(kinds), draw.random(), draw.randrange(1, 8)) for _ in range(3)])
        given[hurt] = suffix, content
        paths = {}
        for name, (suffix, content) in given.items():
            paths[name] = folder / f"photo_{name}{suffix}"
            paths[name].write_bytes(content)
        # The label map is of another person than most keypoints, so both are not always named.
        named = [name for name in ("keypoints", "labels") if name == hurt or draw.random() < 0.3]
        options = [word for name in named for word in (f"--{name}", str(paths[name]))]
        out = folder / "fit" / "mesh.obj"
        said, told = io.StringIO(), io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(told):
            status = cli.main([str(paths["image"]), "--out", str(out), *options, *QUICK])
        where = f"fit {number}, {hurt} damaged: status {status}, {said.getvalue()!r}"
        assert status in (0, 1, 2), where
        assert (status == 0) == (not said.getvalue()), where
        assert said.getvalue().count("\n") == (status != 0), where
        assert "nan" not in told.getvalue(), where + told.getvalue()
        if status == 0:
            with np.load(out.with_suffix(".npz")) as arrays:
                for name in arrays.files:
                    assert arrays[name].dtype.kind != "f" or np.isfinite(arrays[name]).all(), f"{where}: {name}"
            metrics = json.loads(out.with_suffix(".json").read_text())["metrics"]
            assert metrics["keypoint_error_px"]["after"] <= math.hypot(*size), where
        for path in out.parent.glob("*"):
            path.unlink()
        statuses[f"{hurt}: status {status}"] += 1
    return statuses


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--examples", type=int, default=1000, help="damaged files of each kind")
    arguments.add_argument("--fits", type=int, default=0, help="whole fits, and as many whole runs")
    arguments.add_argument("--seed", type=int, default=0, help="of the whole fits and runs")
    arguments.add_argument("--only", help="one way in")
    options = arguments.parse_args()
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    with tempfile.TemporaryDirectory() as folder:
        for name, way in ways().items():
            if options.examples and options.only in (None, name):
                started = time.perf_counter()
                outcomes = run(way, Path(folder), options.examples)
                print(f"{name}: {dict(outcomes)} in {time.perf_counter() - started:.0f} s", flush=True)
        if options.fits:
            import damage_runs  # which is made of this module's parts

            warnings.simplefilter("default")
            for work in (whole_fits, damage_runs.whole_runs):
                for outcome, number in sorted(work(options.fits, Path(folder) / work.__name__, options.seed).items()):
                    print(f"{outcome}: {number}", flush=True)


if __name__ == "__main__":
    main()
