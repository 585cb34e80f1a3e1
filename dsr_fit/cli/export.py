"""`dsr-fit export`: the results of `dsr-fit batch` as labels for other people's trainers."""

from __future__ import annotations

import csv
import statistics
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from dsr_fit.cli.checks import Folder, check_folder, check_out, check_outside
from dsr_fit.cli.progress import tracked
from dsr_fit.errors import InputError, UsageError

if TYPE_CHECKING:
    from dsr_fit.dataset.exports.labels import Label
    from dsr_fit.dataset.schema import Row
    from dsr_fit.dataset.shards import Store

Format = Literal["spin", "eft", "webdataset", "coco", "graphonomy"]
Residual = tuple[str, int, tuple[float, float]]
"""Image, person; mm of surface and of joints."""
SUFFIXES: dict[Format, str] = {"spin": ".npz", "eft": ".json", "webdataset": ".tar", "coco": ".json", "graphonomy": ""}


@dataclass(frozen=True)
class ExportArguments:
    """Write the fits of `dsr-fit batch` in a trainer's format; by default the accepted ones."""

    results: tyro.conf.Positional[Path]
    """Folder that `dsr-fit batch` wrote."""
    format: Format
    """SPIN's and DSR's .npz, EFT's .json, HMR2's WebDataset .tar, COCO's .json, or Graphonomy's coloured PNGs."""
    out: Path
    """File to write; for graphonomy a folder."""
    unjudged: bool = False
    """Also fits that no quality gate is calibrated for."""
    refused: bool = False
    """Also fits that the quality gate rejected, or that diverged."""
    to_body: str | None = None
    """Official SMPL's file: fits of another body become SMPL parameters, with residuals beside OUT."""
    joint_regressor_extra: Path | None = None
    """J_regressor_extra.npy, for that file's keypoints."""
    images: Folder | None = None
    """Folder of the images now, for webdataset; default: where they were when they were fitted."""
    quiet: bool = False
    """Print nothing but errors."""

    def run(self) -> None:
        run_export(self)


def run_export(arguments: ExportArguments) -> None:
    """Write one file (or folder), and say how many people are in it."""
    _check(arguments)
    from dsr_fit.dataset.exports.labels import label_of
    from dsr_fit.dataset.shards import open_store

    store = open_store(arguments.results)
    statuses: Counter[str] = Counter()
    optional = {"unjudged": arguments.unjudged, "refused": arguments.refused}
    chosen = {"accepted", *(status for status, wanted in optional.items() if wanted)}
    rows = (row for row in _counted(store.rows(), statuses) if row["status"] in chosen)
    first = next(rows, None)
    if first is None:  # before a writer replaces an earlier export
        others = [f"; --{name} takes the {statuses[name]} {name} ones" for name in optional if statuses[name]]
        raise InputError(
            f"{arguments.results}: no {' or '.join(sorted(chosen))} fits to export{''.join(others)}{_unfitted(store)}"
        )
    rows = chain((first,), rows)
    residuals: list[Residual] = []
    if arguments.to_body is None:
        labels = map(label_of, rows)
    else:
        total = sum(status in chosen for table in store.tables() for status in table["status"].to_pylist())
        labels = _measured(_converted(arguments, tracked(rows, "converting", total)), residuals)
    images = arguments.images or Path(store.manifest.images)
    count = _writer(arguments.format)(labels, arguments.out, images)
    left_out = {name: statuses[name] for name in optional if name not in chosen and statuses[name]}
    notes = [f"; {number} {name} left out, --{name} takes them too" for name, number in left_out.items()]
    sys.stdout.write(
        f"{arguments.out}: {count} {'person' if count == 1 else 'people'}{''.join(notes)}{_unfitted(store)}\n"
    )
    if arguments.to_body is not None:
        _write_residuals(_residuals_path(arguments.out), residuals)


def _unfitted(store: Store) -> str:
    """What is missing of the run's images."""
    missing = len(store.missing())
    return f"; {missing} images have no results yet, `dsr-fit batch` there again fits them" if missing else ""


def _check(arguments: ExportArguments) -> None:
    """What can be refused before anything is read. Raises InputError and UsageError."""
    out, suffix = arguments.out, SUFFIXES[arguments.format]
    check_outside(out, arguments.results, "results")
    if suffix:
        beside = [] if arguments.to_body is None else [_residuals_path(out)]
        check_out(arguments, [suffix], f" for --format {arguments.format}", beside)
    else:
        check_folder("--out", out)
    if arguments.images is not None and arguments.format != "webdataset":
        raise UsageError("--images: only --format webdataset reads the images; leave it out")


def _writer(name: Format) -> Callable[[Iterable[Label], Path, Path], int]:
    from dsr_fit.dataset.exports import coco, eft, graphonomy, spin, webdataset

    return {
        "spin": spin.write_spin,
        "eft": eft.write_eft,
        "webdataset": webdataset.write_webdataset,
        "coco": coco.write_coco,
        "graphonomy": graphonomy.write_graphonomy,
    }[name]


def _converted(arguments: ExportArguments, rows: Iterable[Row]) -> Iterator[Label]:
    from dsr_fit.body.files import load_body
    from dsr_fit.dataset.exports.labels import SMPL_VERTICES, converted

    new = load_body(str(arguments.to_body), arguments.joint_regressor_extra)
    if new.num_vertices != SMPL_VERTICES:
        raise InputError(
            f"--to-body {arguments.to_body}: {new.num_vertices} vertices; official SMPL has {SMPL_VERTICES}"
        )
    return converted(rows, load_body("open"), new)


def _counted(rows: Iterable[Row], statuses: Counter[str]) -> Iterator[Row]:
    """The same rows; counts their statuses in passing. Raises InputError for a person that is there twice."""
    people: set[tuple[str, int]] = set()
    for row in rows:
        person = (row["imgname"], row["person"])
        if person in people:
            raise InputError(f"person {person[1]} of {person[0]} is in the results twice; fit into a new --out")
        people.add(person)
        statuses[row["status"]] += 1
        yield row


def _measured(labels: Iterable[Label], residuals: list[Residual]) -> Iterator[Label]:
    """The same labels; collects the residuals of those that were converted in passing."""
    for label in labels:
        if label.surface_residual_mm is not None and label.joint_residual_mm is not None:
            row = label.row
            residuals.append((row["imgname"], row["person"], (label.surface_residual_mm, label.joint_residual_mm)))
        yield label


def _residuals_path(out: Path) -> Path:
    return out.with_name(f"{out.name}.residuals.csv")


def _write_residuals(path: Path, residuals: list[Residual]) -> None:
    """One line for each converted person, in the export's order; those fitted with that body have no residual."""
    from dsr_fit.io.files import replacing

    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", errors="surrogateescape") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("imgname", "person", "surface_mm", "joints_mm"))
        table.writerows((name, person, *(f"{value:.2f}" for value in values)) for name, person, values in residuals)
    if residuals:
        surface, joints = map(statistics.median, zip(*(values for *_, values in residuals), strict=True))
        said = f"medians {surface:.1f} mm of surface, {joints:.1f} mm of joints"
    else:
        said = "nobody had to be converted"
    sys.stdout.write(f"{path}: {said}\n")
