"""`dsr-fit evaluate spin`: fits the people of a dataset in SPIN's format and reports their errors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from rich.console import Console

from dsr_fit.assets import required
from dsr_fit.body.body import Body
from dsr_fit.body.files import load_body
from dsr_fit.cli.checks import check_focal, check_out
from dsr_fit.cli.progress import tracked
from dsr_fit.config import load_config, to_dict
from dsr_fit.dataset.settings import Settings
from dsr_fit.errors import InputError, UsageError
from dsr_fit.evaluate import tables
from dsr_fit.evaluate.spin import SMPL_VERTICES, RowEvaluator, RowPerception, evaluate_rows
from dsr_fit.evaluate.spin_report import markdown, report
from dsr_fit.fitting.saving import versions
from dsr_fit.io.files import read_arrays
from dsr_fit.io.spin_file import SpinFile, read_spin
from dsr_fit.observe.perception import Perception
from dsr_fit.render.device import choose_device

if TYPE_CHECKING:
    from dsr_fit.cli.evaluate import SpinArguments


def evaluate_spin(arguments: SpinArguments) -> None:
    """Evaluate, write the report and print its table."""
    _check(arguments)
    file = read_spin(arguments.data)
    body = load_body(arguments.body_path() or "open", arguments.joint_regressor_extra)
    is_smpl = arguments.body_path() is not None and body.num_vertices == SMPL_VERTICES
    judge = _judge(arguments, file, body, is_smpl)
    config = load_config(arguments.config)
    fitter = Settings(config, device=choose_device(arguments.device), **arguments.named()).fitter()
    observer = RowPerception(file, arguments.images, Perception(), arguments.keypoints == "part", arguments.focal)
    rows = range(0, len(file), arguments.every)
    done = evaluate_rows(judge, rows, observer, fitter.fit)
    outcomes = list(tracked(done, "fitting", len(rows)))
    found = report(judge, body, outcomes)
    found |= {"every": arguments.every, "config": to_dict(config), "versions": versions()}
    text = markdown(found)
    tables.write_report(arguments.out, found, text)
    Console(width=120, soft_wrap=True, markup=False, highlight=False).print(text, end="")
    if not found["evaluated"]:
        raise InputError(f"{arguments.data}: none of {len(rows)} rows could be evaluated, see {arguments.out}")


def _check(arguments: SpinArguments) -> None:
    """What can be rejected before anything is read."""
    if arguments.every < 1:
        raise UsageError(f"--every {arguments.every}: expected a positive number of rows")
    check_focal(arguments.focal)
    check_out(arguments, [".json"], beside=[arguments.out.with_suffix(".md")])


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

    def licensed_file(flag: str) -> Path:
        given = getattr(arguments, flag)
        return required(flag, None if given is None else str(given), why)

    regressor = _read_regressor(licensed_file("joint_regressor_h36m")) if from_bodies or is_smpl else None
    bodies: dict[str, Body] = {}
    if has_genders and from_bodies:
        genders = {gender[:1].lower() for gender in file.gender or ()}
        for key, flag in (("m", "body_male"), ("f", "body_female")):
            if key in genders:
                bodies[key] = _smpl(licensed_file(flag), arguments.joint_regressor_extra)
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
    shape = np.shape(loaded) if isinstance(loaded, np.ndarray) else f"of {len(loaded)} arrays"
    if not isinstance(loaded, np.ndarray) or shape != (17, SMPL_VERTICES):
        raise InputError(f"{path}: has shape {shape}, expected (17, {SMPL_VERTICES})")
    return torch.from_numpy(loaded.astype(np.float64))
