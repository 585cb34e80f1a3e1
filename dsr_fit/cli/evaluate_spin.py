"""`dsr-fit evaluate spin`: fits the people of a dataset in SPIN's format and reports their errors."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.progress import track

from dsr_fit.assets import licensed, required
from dsr_fit.body.body import Body
from dsr_fit.body.files import load_body
from dsr_fit.config import load_config, to_dict
from dsr_fit.dataset.settings import Settings
from dsr_fit.errors import InputError, UsageError
from dsr_fit.evaluate.metrics import bootstrap
from dsr_fit.evaluate.spin import SMPL_VERTICES, EvaluatedRow, FailedRow, RowEvaluator, RowPerception, evaluate_rows
from dsr_fit.fitting.saving import versions
from dsr_fit.io.files import read_arrays, replacing
from dsr_fit.io.spin_file import SpinFile, read_spin
from dsr_fit.observe.perception import Perception
from dsr_fit.render.device import choose_device

MIN_FOLDERS = 10
"""Images of this many folders or more are resampled by folder, since the frames of one video are alike."""

LISTED_FAILURES = 10
METRICS = {"mpjpe": "MPJPE", "pa_mpjpe": "PA-MPJPE", "pve": "PVE"}


@dataclass(frozen=True)
class SpinArguments:
    """Fit the people of a dataset in SPIN's .npz format and compare them with its ground truth."""

    data: Path
    """The dataset: SPIN's .npz."""
    images: Path
    """Folder that the dataset's image names are relative to."""
    out: Path
    """Report to write: .json; the table goes beside it as .md."""
    protocol: Literal[14, 17] = 14
    """Joints compared: the 14 common ones (Human3.6M, 3DPW), or 17 (MPI-INF-3DHP)."""
    truth: Literal["auto", "joints", "bodies"] = "auto"
    """True joints: `S` as stored, or SMPL posed by pose, shape and gender; auto: bodies where there are genders."""
    keypoints: Literal["part", "detector"] = "part"
    """2D keypoints: the dataset's `part` where it has them, or always the detector's in the row's box."""
    every: int = 1
    """Evaluate only every so many rows."""
    focal: float | None = None
    """Focal length of all images in pixels; default: from EXIF, else each image's diagonal."""
    body: str | None = None
    """Body to fit: `open`, or an official SMPL .pkl or .npz; default: the one set, else `open`."""
    body_male: Path | None = None
    """Official male SMPL, for ground truth with genders."""
    body_female: Path | None = None
    """Official female SMPL, for ground truth with genders."""
    joint_regressor_h36m: Path | None = None
    """J_regressor_h36m.npy, which gives the protocol's joints of SMPL's vertices."""
    joint_regressor_extra: Path | None = None
    """J_regressor_extra.npy, for fits of official SMPL."""
    regressor: str | None = None
    """Who estimates first, as in `dsr-fit fit`."""
    smpl_mean_params: Path | None = None
    """smpl_mean_params.npz, for checkpoints that lack the mean parameters."""
    semantic_prior: Path | None = None
    """A semantic prior for the body: ours (.npz), or DSR's semantic_prior.npy for official SMPL."""
    config: str | None = None
    """A preset's name or a YAML file with the fit's configuration."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the fit runs; `auto` takes a GPU where torch sees one."""


def main(argv: list[str]) -> None:
    """Parse the words after `dsr-fit evaluate spin` and do what they ask."""
    arguments = tyro.cli(SpinArguments, args=argv, prog="dsr-fit evaluate spin")
    _check(arguments)
    file = read_spin(arguments.data)
    body_path = None if arguments.body == "open" else licensed("body", arguments.body)
    body = load_body(body_path or "open", arguments.joint_regressor_extra)
    is_smpl = body_path is not None and body.num_vertices == SMPL_VERTICES
    judge = _judge(arguments, file, body, is_smpl)
    config = load_config(arguments.config)
    shared = ("body", "regressor", "joint_regressor_extra", "smpl_mean_params", "semantic_prior")
    settings = Settings(
        config, device=choose_device(arguments.device), **{name: getattr(arguments, name) for name in shared}
    )
    fitter = settings.fitter()
    observer = RowPerception(file, arguments.images, Perception(), arguments.keypoints == "part", arguments.focal)
    rows = range(0, len(file), arguments.every)
    console = Console(stderr=True)
    done = evaluate_rows(judge, rows, observer, fitter.fit)
    outcomes = list(track(done, "fitting", len(rows), console=console, transient=True))
    found = report(judge, body, outcomes)
    found |= {"every": arguments.every, "config": to_dict(config), "versions": versions()}
    text = markdown(found)
    with replacing(arguments.out) as temporary:
        temporary.write_text(json.dumps(found, indent=1, allow_nan=False), encoding="utf-8")
    with replacing(arguments.out.with_suffix(".md")) as temporary:
        temporary.write_text(text, encoding="utf-8")
    Console(width=120, soft_wrap=True, markup=False, highlight=False).print(text, end="")
    if not found["evaluated"]:
        raise InputError(f"{arguments.data}: none of {len(rows)} rows could be evaluated, see {arguments.out}")


def report(judge: RowEvaluator, body: Body, outcomes: Sequence[EvaluatedRow | FailedRow]) -> dict[str, Any]:
    """All that is known about an evaluation, fit for JSON."""
    rows = sorted((item for item in outcomes if isinstance(item, EvaluatedRow)), key=lambda item: item.row)
    failures = sorted((item for item in outcomes if isinstance(item, FailedRow)), key=lambda item: item.row)
    own = "J_regressor_h36m of the fit's vertices" if judge.smpl else "the body's own keypoints"
    folders = [str(PurePosixPath(row.imgname).parent) for row in rows]
    by_folder = len(set(folders)) >= MIN_FOLDERS
    groups = folders if by_folder else [str(row.row) for row in rows]
    return {
        "data": judge.file.path.name,
        "protocol": judge.protocol,
        "body": {"name": body.name, "sha256": body.sha256},
        "joints": own,
        "truth": "posed SMPL by J_regressor_h36m" if judge.from_bodies else "S",
        "alignment": "MPJPE and PVE: pelvis; PA-MPJPE: Procrustes",
        "rows": len(outcomes),
        "evaluated": len(rows),
        "failures": dict(Counter(failure.kind for failure in failures)),
        "keypoints": dict(Counter(row.keypoints for row in rows)),
        "stop_reasons": dict(Counter(row.stop_reason for row in rows)),
        "resampled": "folders" if by_folder else "rows",
        "metrics_mm": {name: _interval(rows, name, groups) for name in METRICS},
        "per_row": [asdict(row) for row in rows],
        "failed": [asdict(failure) for failure in failures],
    }


def markdown(found: dict[str, Any]) -> str:
    """The report as a table, with what a reader must know beside it."""
    lines = [
        f"# {found['data']}: {found['evaluated']} of {found['rows']} rows, {found['protocol']} joints",
        "",
        "| metric | mean, mm | 95 % interval | people |",
        "| --- | --- | --- | --- |",
    ]
    for name, title in METRICS.items():
        value = found["metrics_mm"][name]
        if value is not None:
            span = "-" if value["low"] is None else f"{value['low']:.1f} .. {value['high']:.1f}"
            lines.append(f"| {title} | {value['mean']:.1f} | {span} | {value['people']} |")
    lines += [
        "",
        f"- Fitted body `{found['body']['name']}`, joints: {found['joints']}; true joints: {found['truth']}. "
        f"{found['alignment']}.",
    ]
    if found["joints"].startswith("the body's own"):
        lines.append(
            "- This body isn't SMPL. Its joints have the protocol's names, not the exact places that "
            "J_regressor_h36m gives them, so compare these errors with each other, not with published ones."
        )
    if found["keypoints"].get("part"):
        lines.append(
            f"- {found['keypoints']['part']} fits saw the dataset's own 2D keypoints (`part`); methods that see the "
            "image alone compare with `--keypoints detector`."
        )
    lines.append(f"- Intervals: bootstrap over {found['resampled']}.")
    if found["stop_reasons"].get("diverged"):
        lines.append(f"- {found['stop_reasons']['diverged']} fits diverged; their best iterate counts.")
    if found["failed"]:
        counts = ", ".join(f"{count} {kind}" for kind, count in found["failures"].items())
        lines += [f"- **Rows that are not in the means: {len(found['failed'])}** ({counts}).", ""]
        lines += [
            f"  - row {failure['row']}, {failure['imgname']}: {failure['reason']}"
            for failure in found["failed"][:LISTED_FAILURES]
        ]
        if len(found["failed"]) > LISTED_FAILURES:
            lines.append(f"  - and {len(found['failed']) - LISTED_FAILURES} more, all in the .json")
    return "\n".join(lines) + "\n"


def _interval(rows: list[EvaluatedRow], name: str, groups: list[str]) -> dict[str, Any] | None:
    """Mean and interval of a metric over the people that have it; groups are resampled as a whole."""
    members: dict[str, list[float]] = {}
    for row, group in zip(rows, groups, strict=True):
        value = getattr(row, name)
        if value is not None:
            members.setdefault(group, []).append(value)
    if not members:
        return None
    counts = [len(values) for values in members.values()]
    found = bootstrap([float(np.mean(values)) for values in members.values()], counts)
    low, high = (value if math.isfinite(value) else None for value in (found.low, found.high))
    return {"mean": found.mean, "low": low, "high": high, "people": sum(counts)}


def _check(arguments: SpinArguments) -> None:
    """What can be refused before anything is read."""
    if arguments.every < 1:
        raise UsageError(f"--every {arguments.every}: expected a positive number of rows")
    if arguments.focal is not None and not 0 < arguments.focal < math.inf:
        raise UsageError(f"--focal {arguments.focal:g}: expected pixels, a positive number")
    if arguments.out.suffix != ".json":
        raise UsageError(f"--out {arguments.out}: the suffix must be .json")
    if not arguments.out.parent.is_dir():
        raise InputError(f"--out {arguments.out}: there is no folder {arguments.out.parent}; make it first")
    if not arguments.images.is_dir():
        raise InputError(f"--images {arguments.images}: no such folder; the names in --data are relative to it")


def _judge(arguments: SpinArguments, file: SpinFile, body: Body, is_smpl: bool) -> RowEvaluator:
    """What the file's ground truth is, with the licensed files that it takes."""
    has_bodies = file.pose is not None and file.betas is not None
    has_genders = has_bodies and file.gender is not None
    if arguments.truth == "auto":
        from_bodies = has_genders or (file.joints is None and has_bodies)
    else:
        from_bodies = arguments.truth == "bodies"
    if from_bodies and not has_bodies:
        raise InputError(f"{file.path}: lacks `pose` or `shape`; --truth joints compares with `S`")
    if not from_bodies and file.joints is None:
        raise InputError(f"{file.path}: holds no ground truth, neither `S` nor `pose` and `shape`")
    why = f"{file.path}: the ground truth from pose and shape" if from_bodies else "judging fits of official SMPL"
    regressor = None
    if from_bodies or is_smpl:
        flag = "joint_regressor_h36m"
        regressor = _read_regressor(required(flag, _text(arguments.joint_regressor_h36m), why))
    bodies: dict[str, Body] = {}
    if has_genders and from_bodies:
        genders = {gender[:1].lower() for gender in file.gender or ()}
        for key, flag, given in (
            ("m", "body_male", arguments.body_male),
            ("f", "body_female", arguments.body_female),
        ):
            if key in genders:
                bodies[key] = _smpl(required(flag, _text(given), why), arguments.joint_regressor_extra)
    elif has_bodies and file.gender is None and is_smpl:
        bodies[""] = body
    elif from_bodies:
        raise InputError(f"{file.path}: has no `gender`, so its truth is the fitted body's: give SMPL with --body")
    return RowEvaluator(file, arguments.protocol, from_bodies, regressor, bodies, is_smpl)


def _smpl(path: Path, joint_regressor_extra: Path | None) -> Body:
    body = load_body(path, joint_regressor_extra)
    if body.num_vertices != SMPL_VERTICES:
        raise InputError(f"{path}: {body.num_vertices} vertices; official SMPL has {SMPL_VERTICES}")
    return body


def _read_regressor(path: Path) -> torch.Tensor:
    """(17, 6890) float64."""
    try:
        loaded = read_arrays(path)
    except ValueError as error:
        raise InputError(f"{path}: not a readable .npy file ({error})") from None
    if not isinstance(loaded, np.ndarray) or loaded.shape != (17, SMPL_VERTICES):
        shape = loaded.shape if isinstance(loaded, np.ndarray) else f"of {len(loaded)} arrays"
        raise InputError(f"{path}: has shape {shape}, expected (17, {SMPL_VERTICES})")
    return torch.from_numpy(loaded.astype(np.float64))


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
