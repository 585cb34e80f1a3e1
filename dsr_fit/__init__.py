"""dsr-fit: fits SMPL-format bodies to images with clothing semantics (DSR), on any machine.

These names are the package's public ones, see `docs/api.md`; each is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dsr_fit.api import FitFailure, fit
    from dsr_fit.body.files import load_body
    from dsr_fit.config import FitConfig
    from dsr_fit.dataset.changes import Follow
    from dsr_fit.dataset.run import fit_dataset, read_results
    from dsr_fit.errors import DsrFitError, InputError, UsageError
    from dsr_fit.fitting.fitter import Fitter
    from dsr_fit.fitting.result import FitResult, Verdict
    from dsr_fit.io.keypoint_files import Keypoints
    from dsr_fit.observation import Detection, Observation
    from dsr_fit.observe.perception import Inputs, Perception
    from dsr_fit.optimise.objective import TERMS, Term

__all__ = [
    "TERMS",
    "Detection",
    "DsrFitError",
    "FitConfig",
    "FitFailure",
    "FitResult",
    "Fitter",
    "Follow",
    "InputError",
    "Inputs",
    "Keypoints",
    "Observation",
    "Perception",
    "Term",
    "UsageError",
    "Verdict",
    "fit",
    "fit_dataset",
    "load_body",
    "read_results",
]

_HOMES = {
    "dsr_fit.api": ("FitFailure", "fit"),
    "dsr_fit.body.files": ("load_body",),
    "dsr_fit.config": ("FitConfig",),
    "dsr_fit.dataset.changes": ("Follow",),
    "dsr_fit.dataset.run": ("fit_dataset", "read_results"),
    "dsr_fit.errors": ("DsrFitError", "InputError", "UsageError"),
    "dsr_fit.fitting.fitter": ("Fitter",),
    "dsr_fit.fitting.result": ("FitResult", "Verdict"),
    "dsr_fit.io.keypoint_files": ("Keypoints",),
    "dsr_fit.observation": ("Detection", "Observation"),
    "dsr_fit.observe.perception": ("Inputs", "Perception"),
    "dsr_fit.optimise.objective": ("TERMS", "Term"),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
