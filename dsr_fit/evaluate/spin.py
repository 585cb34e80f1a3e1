"""Joint and vertex errors by the protocols of SPIN (Kolotouros et al. 2019, section 5), for each row of its files.

Errors are about the pelvis. For SMPL, `J_regressor_h36m.npy` gives 17 joints from the vertices, the pelvis first.
Stored joints (`S`), and the keypoints of other bodies, are picked by name from SPIN's 24. The LSP, Human3.6M and 3DPW
protocols share the first 14 of the 17.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from dsr_fit.body.body import Body
from dsr_fit.errors import DsrFitError, one_line
from dsr_fit.evaluate.metrics import mpjpe, pa_mpjpe, pve
from dsr_fit.fitting.result import FitResult
from dsr_fit.io.spin_file import SpinFile
from dsr_fit.joints import MIN_KEYPOINTS, SPIN_24, empty_keypoints
from dsr_fit.observation import Detection, Observation
from dsr_fit.observe.perception import Inputs, Perception

BATCH_SIZE = 16
SMPL_VERTICES = 6890

J17_OF_H36M: tuple[int, ...] = (6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10, 0, 7, 9)
"""Row of J_regressor_h36m of each of the 17 joints: legs, arms, neck, top of the head; pelvis, spine, jaw."""

J17_OF_24: tuple[int, ...] = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 18, 14, 16, 17)
"""Indices of the 17 joints among SPIN's 24; the head is Human3.6M's (18), not LSP's (13)."""

PELVIS_OF_H36M = 0
PELVIS_OF_24 = SPIN_24.index("Pelvis (MPII)")
_HIPS_OF_24 = [SPIN_24.index("Right Hip"), SPIN_24.index("Left Hip")]

PELVIS_TOLERANCE = 0.3
"""Metres: largest distance of the mid-hip from the origin if `S` lacks the pelvis."""

Protocol = Literal[14, 17]
Kind = Literal["missing image", "not observed", "no ground truth", "fit failed"]
Fit = Callable[[list[Observation]], list[FitResult]]


class RowError(Exception):
    """A row that can't be evaluated, and why."""

    def __init__(self, kind: Kind, reason: str) -> None:
        super().__init__(reason)
        self.kind: Kind = kind


@dataclass(frozen=True)
class CentredBody:
    """One person's joints and vertices about the pelvis, float64 metres, camera axes."""

    joints: Tensor  # (17, 3), NaN where unknown
    vertices: Tensor | None = None  # (6890, 3)

    @classmethod
    def from_vertices(cls, vertices: Tensor, regressor: Tensor) -> CentredBody:
        """From SMPL's vertices (6890, 3), metres, by the regressor (17, 6890)."""
        joints = regressor @ vertices
        pelvis = joints[PELVIS_OF_H36M]
        return cls(joints[list(J17_OF_H36M)] - pelvis, vertices - pelvis)

    @classmethod
    def from_spin_24(cls, joints: Tensor, known: Tensor) -> CentredBody:
        """From SPIN's 24 joints (24, 3), metres, and which of them are known (24,) bool.

        Joints are centred on the pelvis; without it they must be centred already, as SPIN's files are, else raises
        RowError.
        """
        if known[PELVIS_OF_24]:
            pelvis = joints[PELVIS_OF_24]
        else:
            pelvis = torch.zeros_like(joints[0])
            distance = float(joints[_HIPS_OF_24].mean(0).norm())
            if bool(known[_HIPS_OF_24].all()) and distance > PELVIS_TOLERANCE:
                raise RowError(
                    "no ground truth",
                    f"S doesn't hold the pelvis and is not centred on it, the hips are {distance:.2f} m away",
                )
        return cls(torch.where(known[:, None], joints - pelvis, torch.nan)[list(J17_OF_24)])


@dataclass(frozen=True)
class EvaluatedRow:
    """A row's errors in millimetres."""

    row: int
    imgname: str
    keypoints: str  # their source: `part`, or the detector's name
    stop_reason: str
    mpjpe: float
    pa_mpjpe: float
    pve: float | None  # None where the fit or the truth has no SMPL vertices


@dataclass(frozen=True)
class FailedRow:
    """A row that can't be evaluated."""

    row: int
    imgname: str
    kind: Kind
    reason: str


def errors(found: CentredBody, true: CentredBody, protocol: Protocol) -> tuple[float, float, float | None]:
    """One person's MPJPE and PA-MPJPE, and PVE about the pelvis where both have vertices; millimetres."""
    joints, true_joints = found.joints[None, :protocol], true.joints[None, :protocol]
    surface = None
    if found.vertices is not None and true.vertices is not None:
        origin = torch.zeros(1, 3, dtype=found.vertices.dtype)
        surface = float(pve(found.vertices[None], true.vertices[None], origin, origin))
    return float(mpjpe(joints, true_joints, root=None)), float(pa_mpjpe(joints, true_joints)), surface


@dataclass(frozen=True)
class RowEvaluator:
    """Ground truth of a file's rows, and the protocol's joints of fits."""

    file: SpinFile
    protocol: Protocol
    from_bodies: bool  # true joints are regressed from posed SMPL, as for 3DPW; else they are the stored `S`
    regressor: Tensor | None  # (17, 6890) float64; None where the fitted body isn't SMPL and `S` is the truth
    bodies: dict[str, Body]  # SMPL by gender, `m` and `f`; the empty key is for files without genders
    smpl: bool  # the fitted body is SMPL, its joints are regressed from its vertices

    def truth(self, row: int) -> CentredBody:
        """Raises RowError where the file lacks any of the protocol's joints."""
        if self.from_bodies:
            figure = self._posed(row)
        else:
            assert self.file.joints is not None
            stored = torch.from_numpy(self.file.joints[row])
            figure = CentredBody.from_spin_24(stored[:, :3], (stored[:, 3] > 0) & stored.isfinite().all(1))
            with suppress(RowError):
                figure = replace(figure, vertices=self._posed(row).vertices)
        unknown = (~figure.joints[: self.protocol].isfinite().all(1)).nonzero()[:, 0].tolist()
        if unknown:
            names = ", ".join(SPIN_24[J17_OF_24[joint]] for joint in unknown)
            raise RowError("no ground truth", f"the true place of {names} is unknown")
        return figure

    def found(self, result: FitResult) -> CentredBody:
        """The fit's joints, and its vertices if it is SMPL."""
        if self.smpl:
            assert self.regressor is not None
            return CentredBody.from_vertices(torch.from_numpy(result.vertices).double(), self.regressor)
        joints = torch.from_numpy(result.joints[-len(SPIN_24) :]).double()
        return CentredBody.from_spin_24(joints, torch.ones(len(joints), dtype=torch.bool))

    def _posed(self, row: int) -> CentredBody:
        """The true SMPL body. Raises RowError where it is unknown."""
        file, gender = self.file, ""
        if not file.has_smpl[row]:
            raise RowError("no ground truth", "its pose and shape are unknown (has_smpl is 0)")
        if file.gender is not None:
            gender = file.gender[row][:1].lower()
        body = self.bodies.get(gender)
        if body is None or self.regressor is None or file.pose is None or file.betas is None:
            raise RowError("no ground truth", f"its gender is {file.gender and file.gender[row]!r}, not m or f")
        pose, betas = (torch.from_numpy(each[row]).float()[None] for each in (file.pose, file.betas))
        if not bool(pose.isfinite().all() and betas.isfinite().all()):
            raise RowError("no ground truth", "its pose or shape isn't finite")
        with torch.no_grad():
            posed = body(pose[:, :3], pose[:, 3:], betas, torch.zeros(1, 3))
            return CentredBody.from_vertices(posed.vertices()[0].double(), self.regressor)


_Waiting = tuple[int, CentredBody, Observation]


def evaluate_rows(
    evaluator: RowEvaluator, rows: Iterable[int], observe: Callable[[int], Observation], fit: Fit
) -> Iterator[EvaluatedRow | FailedRow]:
    """Fit and evaluate rows in batches; each is yielded once, in any order."""
    names = evaluator.file.imgname
    waiting: list[_Waiting] = []
    for row in rows:
        try:
            waiting.append((row, evaluator.truth(row), observe(row)))
        except RowError as error:
            yield FailedRow(row, names[row], error.kind, str(error))
        if len(waiting) == BATCH_SIZE:
            yield from _evaluate_batch(evaluator, waiting, fit)
            waiting = []
    yield from _evaluate_batch(evaluator, waiting, fit)


def _evaluate_batch(evaluator: RowEvaluator, waiting: list[_Waiting], fit: Fit) -> Iterator[EvaluatedRow | FailedRow]:
    results = _fit_each(fit, [observation for _, _, observation in waiting])
    for (row, truth, observation), result in zip(waiting, results, strict=True):
        name = evaluator.file.imgname[row]
        if isinstance(result, str):
            yield FailedRow(row, name, "fit failed", result)
            continue
        measured = errors(evaluator.found(result), truth, evaluator.protocol)
        if not all(value is None or np.isfinite(value) for value in measured):
            yield FailedRow(row, name, "fit failed", "the fitted body isn't finite")
            continue
        yield EvaluatedRow(row, name, observation.detection.source, result.stop_reason, *measured)


def _fit_each(fit: Fit, observations: list[Observation]) -> list[FitResult | str]:
    """Results in order, with a reason in place of failed ones; a failed batch is retried one by one."""
    if not observations:
        return []
    try:
        return list(fit(observations))
    except Exception as error:  # no error may end a long run
        if len(observations) == 1:
            return [_reason(error)]
    return [result for observation in observations for result in _fit_each(fit, [observation])]


@dataclass(frozen=True)
class RowPerception:
    """Perceives the images of a file's rows."""

    file: SpinFile
    images: Path  # folder that `imgname` is relative to
    perception: Perception
    use_part: bool = True  # use the keypoints of `part` where there are enough; else the detector's in the row's box
    focal: float | None = None  # pixels

    def __call__(self, row: int) -> Observation:
        """Raises RowError where the image is missing or nobody is found in the box."""
        name = self.file.imgname[row]
        relative = PurePosixPath(name.replace("\\", "/"))
        if relative.is_absolute() or ".." in relative.parts:
            raise RowError("missing image", "the name leads out of the folder of images")
        path = self.images / relative
        if not path.is_file():
            raise RowError("missing image", f"no such image: {path}")
        given = self._part(row)
        inputs = Inputs(keypoints=given, bbox=None if given else self.file.box(row), focal=self.focal)
        try:
            return self.perception.observe(path, inputs)
        except Exception as error:  # see _fit_each
            raise RowError("not observed", _reason(error)) from None

    def _part(self, row: int) -> Detection | None:
        """The row's own keypoints, if there are enough for a fit."""
        if self.file.part is None or not self.use_part:
            return None
        part = self.file.part[row]
        seen = np.isfinite(part).all(1) & (part[:, 2] > 0)
        keypoints = empty_keypoints()
        keypoints[-len(SPIN_24) :][seen] = part[seen]
        if (keypoints[:, 2] > 0.2).sum() < MIN_KEYPOINTS:
            return None
        return Detection(keypoints, source="part")


def _reason(error: Exception) -> str:
    text = one_line(error)
    return text if isinstance(error, DsrFitError) else f"{type(error).__name__}: {text}"
