"""The quality gate: the probability that a fit is right, and the reasons against it, without ground truth.

    log-odds(mean vertex error < limit) = bias - sum over the evidence of cost(value)

Each cost is piecewise linear and non-decreasing, so worse evidence never raises the quality. The shipped gate is
`priors/quality/gate.json`, learnt by `dsr_fit.gate.calibration` on rendered people with known bodies. It holds only for
the body, priors, detector, parser, regressor and settings that it was calibrated with; other combinations get no
verdict, or need a gate of their own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dsr_fit.assets import sha256, shipped
from dsr_fit.config import FitConfig, from_dict, to_dict
from dsr_fit.errors import InputError, UsageError, one_line
from dsr_fit.fitting.fitter import Fitter
from dsr_fit.fitting.result import FitResult, Verdict
from dsr_fit.gate.evidence import EVIDENCE, FitSummary, evidence
from dsr_fit.io.files import check_file, replacing
from dsr_fit.optimise.objective import TERMS

ASSET = "priors/quality/gate.json"
PARSER = "priors/parser/parser.safetensors"
REASONS = 3
"""Most reasons in a verdict."""


@dataclass(frozen=True)
class Cost:
    """A non-decreasing piecewise linear function in log-odds, constant outside its knots."""

    knots: np.ndarray  # (K,) rising
    rises: np.ndarray  # (K - 1,) >= 0, between one knot and the next
    usual: float  # mean over the right fits of the calibration

    def __call__(self, value: float) -> float:
        return float(hinges(np.array([value]), self.knots)[0] @ self.rises)


def hinges(values: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """(N,) -> (N, K - 1) fraction of each interval between knots below the value; NaN counts as the middle knot."""
    values = np.where(np.isnan(values), knots[len(knots) // 2], values)
    return ((values[:, None] - knots[:-1]) / np.diff(knots)).clip(0, 1)


@dataclass(frozen=True)
class Gate:
    """A calibrated gate."""

    bias: float
    threshold: float  # lowest accepted quality
    costs: Mapping[str, Cost]
    keypoints_source: str  # the detector it was calibrated with
    labels_source: str  # the parser it was calibrated with
    mismatches: tuple[str, ...] = ()  # which of body, priors, parser, regressor and settings are others

    @classmethod
    def of(cls, fitter: Fitter, path: Path | None = None) -> Gate:
        """Load a gate for this fitter, by default the shipped one.

        Raises InputError for a file that is no gate, UsageError for a given file calibrated for another fitter.
        """
        found = read_gate(path or shipped(ASSET))
        costs = {
            name: Cost(np.array(c["knots"]), np.array(c["rises"]), c["usual"]) for name, c in found["costs"].items()
        }
        bound_to = found["bound_to"]
        sources = bound_to["keypoints_source"], bound_to["labels_source"]
        others = _mismatches(bound_to, binding(fitter, *sources))
        if path is not None and others:
            raise UsageError(
                f"{path}: was calibrated for another {', '.join(others)}; give the gate that goes with these"
            )
        return cls(found["bias"], found["threshold"], costs, *sources, tuple(others))

    @property
    def holds(self) -> bool:
        """Whether body, priors, parser, regressor and settings are those it was calibrated with."""
        return not self.mismatches

    def unfit_for(self, result: FitResult) -> tuple[str, ...]:
        """What keeps it from judging a fit: names of files, settings and observations it was not calibrated with."""
        observed = result.observation
        keypoints = ("keypoints",) if observed.detection.source != self.keypoints_source else ()
        return (*self.mismatches, *keypoints, *(("labels",) if observed.labels_source != self.labels_source else ()))

    def judge(self, result: FitResult) -> Verdict:
        """Quality, acceptance and the reasons against the fit; quality is None where the gate doesn't hold."""
        diverged = ("the fit diverged",) if result.stop_reason == "diverged" else ()
        if self.unfit_for(result):
            return Verdict(None, False if diverged else None, diverged)
        values = evidence(FitSummary.of_result(result))
        costs = {name: cost(values[name]) for name, cost in self.costs.items()}
        quality = float(1 / (1 + np.exp(sum(costs.values()) - self.bias)))
        if quality >= self.threshold and not diverged:
            return Verdict(quality, True, ())
        return Verdict(quality, False, (*diverged, *self._reasons(values, costs)))

    def _reasons(self, values: Mapping[str, float], costs: Mapping[str, float]) -> tuple[str, ...]:
        """Evidence that costs more than in a usual right fit, the costliest first."""
        excess = {name: costs[name] - self.costs[name].usual for name in costs if not np.isnan(values[name])}
        worst = sorted((name for name in excess if excess[name] > 0), key=lambda name: -excess[name])
        reasons = tuple(EVIDENCE[name].words(values[name]) for name in worst[:REASONS])
        return reasons or ("nothing stands out, but people who look like this are often fitted wrongly",)


def read_gate(path: Path) -> dict[str, Any]:
    """A gate file's content. Raises InputError if it is not a gate, or uses evidence unknown to this version."""
    check_file(path, "quality gate", "`dsr-fit rounds` writes them")
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
        costs = found["costs"]
        unknown = [name for name in costs if name not in EVIDENCE]
        if unknown:
            raise ValueError(f"unknown evidence {', '.join(unknown)}")
        numbers = [found["bias"], found["threshold"], *(cost["usual"] for cost in costs.values())]
        shapes = [(np.shape(cost["knots"]), np.shape(cost["rises"])) for cost in costs.values()]
        if not np.isfinite(numbers).all() or any(len(k) != 1 or r != (k[0] - 1,) for k, r in shapes):
            raise ValueError("`costs` have wrong shapes or are not finite")
        if not all(isinstance(found["bound_to"].get(name), str) for name in ("keypoints_source", "labels_source")):
            raise ValueError("`bound_to` lacks `keypoints_source` or `labels_source`")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a quality gate ({one_line(error)}); `dsr-fit rounds` writes them") from None
    return found


def write_gate(path: Path, gate: dict[str, Any]) -> None:
    """Write a gate's file; a kill leaves the whole file or none."""
    with replacing(path, durable=True) as temporary:
        temporary.write_text(json.dumps(gate, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def binding(fitter: Fitter, keypoints_source: str, labels_source: str) -> dict[str, Any]:
    """What a calibration holds for, as `bound_to` in `gate.json`: files, sources of the observations, settings."""
    return {
        "body": fitter.body.sha256,
        "semantic_prior": fitter.semantic_prior.fingerprint(),
        "pose_prior": fitter.pose_prior.fingerprint(),
        "keypoints_source": keypoints_source,
        "labels_source": labels_source,
        "parser": sha256(shipped(PARSER)),
        "regressor": fitter.regressor.fingerprint,
        "crop_camera": fitter.crop_camera,
        "config": _deciding(fitter.config),
        **({"terms": [term.name for term in fitter.terms]} if fitter.terms != TERMS else {}),
    }


def _deciding(config: FitConfig) -> dict[str, Any]:
    """The settings that affect a fit in its mode; what is known of the camera belongs to the picture."""
    settings = to_dict(config)
    del settings["seed"], settings["pitch"], settings["roll"]
    if config.mode == "smplify":
        del settings["eft"]
    if config.mode == "eft":
        del settings["stages"], settings["eft"]["refinement"]
    return settings


def _mismatches(bound_to: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """Names of what differs between two bindings; settings that an older file lacks have their defaults."""
    with suppress(UsageError):
        bound_to = {**bound_to, "config": _deciding(from_dict(FitConfig, bound_to.get("config", {})))}
    files = [name for name in ours if name != "config" and bound_to.get(name) != ours[name]]
    theirs = bound_to.get("config", {})
    settings = [name for name in {**ours["config"], **theirs} if theirs.get(name) != ours["config"].get(name)]
    return list(dict.fromkeys([*files, *settings]))  # the pose prior is both a file and a setting
