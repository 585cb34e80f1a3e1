"""`dsr-fit fit`: a body for one person of one image."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from dsr_fit.cli.checks import check_focal, check_out
from dsr_fit.cli.options import FitterArguments
from dsr_fit.errors import InputError, UsageError

if TYPE_CHECKING:
    from dsr_fit.fitting.result import FitResult, Verdict


@dataclass(frozen=True, kw_only=True)
class FitArguments(FitterArguments):
    """Fit a body to one person of one image; writes a mesh, and its .npz, .json and .png beside it."""

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
    obj_frame: Literal["upright", "camera"] = "upright"
    """Mesh frame: y up and the pelvis at the origin, or the image's camera frame."""

    def run(self) -> None:
        _check(self)
        bbox = _parse_bbox(self.bbox)

        from dsr_fit.gate.gate import Gate
        from dsr_fit.observe.parser import load_parser
        from dsr_fit.observe.perception import Inputs, Perception

        fitter = self.settings().fitter()
        gate = Gate.of(fitter, self.gate)
        parser = None if self.labels else load_parser(self.parser, self.parsing_protocol)
        perception = Perception(parser=parser)
        inputs = Inputs(self.keypoints, self.labels, self.label_scheme, bbox, self.person, self.focal)
        observation = perception.observe(self.image, inputs)
        (result,) = fitter.fit_each([observation])
        if isinstance(result, Exception):
            raise result
        result = replace(result, verdict=gate.judge(result))
        result.save(self.out, self.obj_frame)
        sys.stdout.write(f"{self.out}: {_summary(result, gate.unfit_for(result))}\n")


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
    from dsr_fit.io.files import BESIDE_MESH, MESH_SUFFIXES

    image, out = arguments.image, arguments.out
    if image.is_dir():
        if not any(image.iterdir()):
            raise InputError(f"{image} is an empty folder; name an image")
        raise InputError(f"{image} is a folder; `dsr-fit batch {image} --out DIR` fits the images in it")
    check_out(arguments, MESH_SUFFIXES, beside=[out.with_suffix(suffix) for suffix in BESIDE_MESH])
    check_focal(arguments.focal)
    if arguments.labels is None and arguments.label_scheme != "lip":
        raise UsageError(f"--label-scheme {arguments.label_scheme} says what --labels holds; give that too")
    if arguments.labels is not None and (arguments.parser != "open" or arguments.parsing_protocol != "fast"):
        raise UsageError("--labels takes the place of a parser; leave --parser and --parsing-protocol out")
