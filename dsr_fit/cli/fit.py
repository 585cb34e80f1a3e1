"""`dsr-fit fit`: a body for one person of one image."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import tyro

from dsr_fit.cli.options import NO_GATE, FitterArguments
from dsr_fit.errors import InputError, UsageError


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
    """Which person, from 0: by size for detections, in the file's order for keypoint files."""
    obj_frame: Literal["upright", "camera"] = "upright"
    """Mesh frame: y up and the pelvis at the origin, or the image's camera frame."""

    def run(self) -> None:
        _check_out(self.out, [self.image, self.keypoints, self.labels])
        _check_labels(self)
        bbox = _parse_bbox(self.bbox)
        self.check_focal()

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
        _summarise(self.out, result.metrics, result.stop_reason, result.verdict.quality)


def _summarise(out: Path, metrics: dict[str, dict[str, float]], stop_reason: str, quality: float | None) -> None:
    after = {name: values["after"] for name, values in metrics.items()}
    judged = f"no quality: {NO_GATE}" if quality is None else f"quality {quality:.2f}"
    sys.stdout.write(
        f"{out}: keypoint error {after['keypoint_error_px']:.1f} px "
        f"({100 * after['keypoint_error_rel']:.2f} % of the person), "
        f"containment {after['containment']:.3f}, {stop_reason}; {judged}\n"
    )


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


def _check_labels(arguments: FitArguments) -> None:
    """A label map's file and a parser's options exclude each other."""
    if arguments.labels is None and arguments.label_scheme != "lip":
        raise UsageError(f"--label-scheme {arguments.label_scheme} says what --labels holds; give that too")
    if arguments.labels is not None and (arguments.parser != "open" or arguments.parsing_protocol != "fast"):
        raise UsageError("--labels takes the place of a parser; leave --parser and --parsing-protocol out")


def _check_out(out: Path, inputs: Sequence[Path | None] = ()) -> None:
    """Find out before the work that its four files can be written, and that none replaces an input."""
    from dsr_fit.io.files import BESIDE_MESH, check_mesh_path

    check_mesh_path(out)
    folder = next(folder for folder in out.parents if folder.exists())  # what lacks below it is made in the end
    if not folder.is_dir():
        raise InputError(f"--out {out}: {folder} is a file, not a folder; choose another")
    for path in (out.with_suffix(suffix) for suffix in (out.suffix, *BESIDE_MESH)):
        if path.is_dir():
            raise InputError(f"--out {out}: {path} is a folder; choose another name")
        if path.exists() and any(given is not None and given.exists() and path.samefile(given) for given in inputs):
            raise UsageError(f"--out {out}: would overwrite the input {path}; choose another name")
    try:
        # Root, read-only mounts and virtual file systems: only trying tells.
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"--out {out}: the folder {folder} can't be written ({reason}); choose another") from None
