"""`dsr-fit fit`: a body for one person of one image, or for several."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from dsr_fit.cli.checks import check_focal, check_out
from dsr_fit.cli.options import FitterArguments
from dsr_fit.errors import InputError, UsageError, one_line

if TYPE_CHECKING:
    from dsr_fit.fitting.fitter import Fitter
    from dsr_fit.fitting.result import FitResult, Verdict
    from dsr_fit.gate.gate import Gate
    from dsr_fit.observation import Observation


@dataclass(frozen=True, kw_only=True)
class FitArguments(FitterArguments):
    """Fit a body to one person of one image, or to several; writes a mesh, and its .npz, .json and .png beside it."""

    image: tyro.conf.Positional[Path]
    """The photo."""
    out: Path
    """Mesh to write: .obj, .ply, .stl or .glb."""
    keypoints: Path | None = None
    """Keypoints instead of the detector's: OpenPose, COCO or MediaPipe .json, or an earlier mesh.npz."""
    labels: Path | None = None
    """Label map instead of the parser's: Graphonomy colours or indices, .png or .npy, of the image's size."""
    label_scheme: Literal["lip", "atr"] = "lip"
    """What the indices in --labels mean: LIP's 20 labels (Graphonomy, SCHP), or ATR's 18."""
    bbox: str | None = None
    """Look for the person in this box only: x,y,w,h in pixels."""
    person: int = 0
    """Which person, from 0: by prominence for detections, in the file's order for keypoint files."""
    height: float | None = None
    """The person's height in metres, sole to crown: fixes the body's scale and distance."""
    people: str = "one"
    """Who is fitted: `one` (the most prominent, or --person), `all`, or a number, the most prominent first; the meshes
    of several are `mesh.0.obj`, `mesh.1.obj`, ..., with one picture and one report."""
    obj_frame: Literal["upright", "camera"] = "upright"
    """Mesh frame: y up and the pelvis at the origin, or the image's camera frame."""

    def run(self) -> None:
        _check(self)
        bbox = _parse_bbox(self.bbox)

        from dsr_fit.gate.gate import Gate
        from dsr_fit.observe.perception import Inputs

        settings = self.settings()
        fitter = settings.fitter()
        gate = Gate.of(fitter, self.gate)
        perception = settings.perception(parse=self.labels is None)
        inputs = Inputs(self.keypoints, self.labels, self.label_scheme, bbox, self.person, self.focal, self.height)
        if self.people == "one":
            self._fit_one(fitter, gate, perception.observe(self.image, inputs))
        else:
            most = None if self.people == "all" else int(self.people)
            self._fit_several(fitter, gate, perception.observe_all(self.image, inputs, most=most))

    def _fit_one(self, fitter: Fitter, gate: Gate, observation: Observation) -> None:
        (result,) = fitter.fit_each([observation])
        if isinstance(result, Exception):
            raise result
        result = replace(result, verdict=gate.judge(result))
        result.save(self.out, self.obj_frame)
        sys.stdout.write(f"{self.out}: {_summary(result, gate.unfit_for(result))}\n")

    def _fit_several(self, fitter: Fitter, gate: Gate, observed: Sequence[Observation | InputError]) -> None:
        from dsr_fit.fitting.saving import numbered, write_group
        from dsr_fit.fitting.together import fit_pictures

        (fits,) = fit_pictures(fitter, [observed])
        people = [one if isinstance(one, Exception) else replace(one, verdict=gate.judge(one)) for one in fits]
        failures = [one for one in people if isinstance(one, Exception)]
        if len(failures) == len(people):
            raise InputError(f"{self.image}: none of {len(people)} found can be fitted; {one_line(failures[0])}")
        write_group(self.out, people, self.obj_frame)
        for number, one in enumerate(people):
            said = f"not fitted: {one_line(one)}" if isinstance(one, Exception) else _summary(one, gate.unfit_for(one))
            sys.stdout.write(f"{numbered(self.out, number)}: {said}\n")


def _summary(result: FitResult, unfit_for: Sequence[str]) -> str:
    """How good the fit is, the verdict and its first reason last."""
    after = {name: values["after"] for name, values in result.metrics.items()}
    measured = [
        f"keypoint error {after['keypoint_error_px']:.1f} px",
        f"({100 * after['keypoint_error_rel']:.2f} % of the person),",
        f"containment {after['containment']:.3f}, {result.stop_reason};",
    ]
    return " ".join((*measured, verdict_line(result.verdict, unfit_for)))


def verdict_line(verdict: Verdict, unfit_for: Sequence[str]) -> str:
    """`accepted, quality 0.93`, `rejected, quality 0.01: ...`, or `not judged: ...`; `unfit_for` as the gate says."""
    quality = "" if verdict.quality is None else f", quality {verdict.quality:.2f}"
    if verdict.accepted is None:
        differing = ", ".join(name.replace("_", " ") for name in unfit_for)
        return f"not judged: the quality gate's calibration differs in {differing}"
    return f"accepted{quality}" if verdict.accepted else f"rejected{quality}: {verdict.reasons[0]}"


def _parse_bbox(text: str | None) -> tuple[float, float, float, float] | None:
    if text is None:
        return None
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--bbox {text}: expected x,y,w,h in pixels, such as 120,40,200,480") from None
    if not (width > 0 and height > 0):
        raise UsageError(f"--bbox {text}: width and height must be positive")
    return x, y, width, height


def _check(arguments: FitArguments) -> None:
    """What can be refused before anything is loaded. Raises InputError and UsageError."""
    from dsr_fit.io.files import MESH_SUFFIXES
    from dsr_fit.observation import check_height, check_held

    image = arguments.image
    if image.is_dir():
        if not any(image.iterdir()):
            raise InputError(f"{image} is an empty folder; name an image")
        raise InputError(f"{image} is a folder; `dsr-fit batch {image} --out DIR` fits the images in it")
    check_out(arguments, MESH_SUFFIXES, beside=_beside(arguments))
    _check_people(arguments)
    check_focal(arguments.focal)
    check_height(arguments.height)
    check_held(arguments.height, arguments.fit.weights.stature)
    if arguments.labels is None and arguments.label_scheme != "lip":
        raise UsageError(f"--label-scheme {arguments.label_scheme} says what --labels holds; give that too")
    if arguments.labels is not None and (arguments.parser != "open" or arguments.parsing_protocol != "fast"):
        raise UsageError("--labels takes the place of a parser; leave --parser and --parsing-protocol out")


def _check_people(arguments: FitArguments) -> None:
    """Raises UsageError for a --people that is none, and beside options that are about one person."""
    people = arguments.people
    if people == "one":
        return
    if people != "all" and not (people.isascii() and people.isdigit() and int(people) > 0):
        raise UsageError(f"--people {people}: `one`, `all` or how many, such as 3, works")
    for name, given in (
        ("--person", arguments.person != 0), ("--bbox", arguments.bbox is not None),
        ("--labels", arguments.labels is not None), ("--height", arguments.height is not None),
    ):  # fmt: skip
        if given:
            raise UsageError(f"--people {people}: {name} is about one person; leave one of them out")


def _beside(arguments: FitArguments) -> list[Path]:
    """What is written beside --out, or in its place; of several people's files the first, and those of earlier runs."""
    from dsr_fit.fitting.saving import numbered
    from dsr_fit.io.files import BESIDE_MESH

    out = arguments.out
    if arguments.people == "one":
        return [out.with_suffix(suffix) for suffix in BESIDE_MESH]
    mine = re.compile(rf"{re.escape(out.stem)}\.\d+({re.escape(out.suffix)}|\.npz)")
    earlier = [path for path in out.parent.iterdir() if mine.fullmatch(path.name)] if out.parent.is_dir() else []
    return [out.with_suffix(".png"), out.with_suffix(".json"), numbered(out, 0), *earlier]
