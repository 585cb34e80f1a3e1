"""The quality gate: how likely a fit is right, told from evidence that any photo gives, and why it may not be.

    log-odds(mean vertex error < limit) = bias - sum over the evidence of cost(value)

Each cost is piecewise linear and never falls, so more of any evidence against a fit never makes it look better. The
numbers that ship are in `priors/quality/gate.json`, learnt by `dsr_fit.gate.calibration` from rendered people whose
bodies are known. They hold for the body, the priors, detector, parser, regressor and settings they were learnt with;
for others there is no verdict, or a gate of their own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from dsr_fit.assets import sha256, shipped
from dsr_fit.config import FitConfig, from_dict, to_dict
from dsr_fit.errors import InputError, UsageError
from dsr_fit.fitting.fitter import Fitter
from dsr_fit.fitting.result import FitResult, Verdict
from dsr_fit.priors.semantic import SemanticPrior

ASSET = "priors/quality/gate.json"
PARSER = "priors/parser/parser.safetensors"
REASONS = 3
"""At most so many are told."""


@dataclass(frozen=True)
class Evidence:
    """One thing that speaks against a fit, the more the larger it is."""

    value: Callable[[FitResult], float]
    """NaN where there is nothing to judge by."""
    words: Callable[[float], str]


def _after(name: str) -> Callable[[FitResult], float]:
    return lambda result: result.metrics[name]["after"]


def _energy(name: str) -> Callable[[FitResult], float]:
    return lambda result: result.energies[name]["final"]


EVIDENCE: dict[str, Evidence] = {
    "keypoint_error": Evidence(
        _after("keypoint_error_rel"), lambda v: f"the keypoints are missed by {100 * v:.1f} % of the person's size"
    ),
    "mc_mismatch": Evidence(
        lambda result: 1 - result.metrics["mc_iou"]["after"],
        lambda v: f"bare skin and the body's bare parts share only {100 * (1 - v):.0f} % of their area",
    ),
    "outside": Evidence(
        lambda result: 1 - result.metrics["containment"]["after"],
        lambda v: f"{100 * v:.0f} % of the body lies outside its clothing",
    ),
    "pose": Evidence(_energy("pose"), lambda v: "the pose is unusual"),
    "shape": Evidence(_energy("betas"), lambda v: "the shape is unusual"),
    "change": Evidence(
        lambda result: result.change_m, lambda v: f"the joints moved {1000 * v:.0f} mm away from the first estimate"
    ),
    "landmarks": Evidence(
        _energy("world_landmarks"), lambda v: "the body contradicts the detector's 3D landmarks"
    ),
    "unsure": Evidence(
        lambda result: float("nan") if result.spread is None else float(np.degrees(result.spread[1:].mean())),
        lambda v: f"the regressor expects its joints to be {v:.0f} degrees off",
    ),
    "unsure_orientation": Evidence(
        lambda result: float("nan") if result.spread is None else float(np.degrees(result.spread[0])),
        lambda v: f"the regressor expects the body's orientation to be {v:.0f} degrees off",
    ),
    "expected": Evidence(
        lambda result: float("nan") if result.expected_error_m is None else 1000 * result.expected_error_m,
        lambda v: f"the regressor expects its joints to be {v:.0f} mm off",
    ),
    "initial": Evidence(_energy("initial"), lambda v: "the fit went where the regressor was sure it is not"),
    "hidden": Evidence(
        lambda result: -float(result.observation.detection.keypoints[:, 2].sum()),
        lambda v: f"few joints are clearly seen (confidences add up to {-v:.0f})",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """Log-odds that a value costs: rises between the knots, level outside of them."""

    knots: np.ndarray  # (K,) rising
    rises: np.ndarray  # (K - 1,) >= 0, between one knot and the next
    usual: float
    """Mean cost over the fits of the calibration that are right."""

    def __call__(self, value: float) -> float:
        return float(hinges(np.array([value]), self.knots)[0] @ self.rises)


def hinges(values: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """(N,) -> (N, K - 1) share of each interval that lies below the value; NaN counts as the middle knot."""
    values = np.where(np.isnan(values), knots[len(knots) // 2], values)
    return ((values[:, None] - knots[:-1]) / np.diff(knots)).clip(0, 1)


@dataclass(frozen=True)
class Gate:
    """A calibrated gate, for what its `binding` names."""

    bias: float
    threshold: float
    """Least quality that is accepted."""
    costs: Mapping[str, Cost]
    keypoints_source: str
    """The detector that it was calibrated with."""
    labels_source: str
    """The parser that it was calibrated with."""
    holds: bool = True
    """Whether body, priors, shipped parser, regressor and settings are those it was calibrated with."""

    @classmethod
    def of(cls, fitter: Fitter, path: Path | None = None) -> Gate:
        """The one in a file, by default what ships, as it stands to this fitter.

        Raises InputError for a file that is no gate, UsageError for one that was calibrated for something else.
        """
        found = read_gate(path or shipped(ASSET))
        costs = {
            name: Cost(np.array(c["knots"]), np.array(c["rises"]), c["usual"]) for name, c in found["costs"].items()
        }
        made_for = found["bound_to"]
        sources = made_for["keypoints_source"], made_for["labels_source"]
        others = _others(made_for, binding(fitter, *sources))
        if path is not None and others:
            raise UsageError(
                f"{path}: was calibrated for another {', '.join(others)}; give the gate that goes with these"
            )
        return cls(found["bias"], found["threshold"], costs, *sources, not others)

    def judge(self, result: FitResult) -> Verdict:
        """Quality, whether that is enough, and what speaks against the fit."""
        ruined = ("the fit diverged",) if result.stop_reason == "diverged" else ()
        seen = result.observation
        known = (seen.detection.source, seen.labels_source) == (self.keypoints_source, self.labels_source)
        if not self.holds or not known:
            return Verdict(None, False if ruined else None, ruined)
        values = evidence(result)
        costs = {name: cost(values[name]) for name, cost in self.costs.items()}
        quality = float(1 / (1 + np.exp(sum(costs.values()) - self.bias)))
        if quality >= self.threshold and not ruined:
            return Verdict(quality, True, ())
        return Verdict(quality, False, (*ruined, *self._reasons(values, costs)))

    def _reasons(self, values: Mapping[str, float], costs: Mapping[str, float]) -> tuple[str, ...]:
        """Evidence that costs more than it does in a fit that is right, the dearest first."""
        excess = {name: costs[name] - self.costs[name].usual for name in costs if not np.isnan(values[name])}
        worst = sorted((name for name in excess if excess[name] > 0), key=lambda name: -excess[name])
        told = tuple(EVIDENCE[name].words(values[name]) for name in worst[:REASONS])
        return told or ("nothing stands out, but people who look like this are often fitted wrongly",)


def read_gate(path: Path) -> dict[str, Any]:
    """The content of a gate's file. Raises InputError when it is none, or one with evidence that this version lacks."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        costs = found["costs"]
        unknown = [name for name in costs if name not in EVIDENCE]
        if unknown:
            raise ValueError(f"unknown evidence {', '.join(unknown)}")
        numbers = [found["bias"], found["threshold"], *(cost["usual"] for cost in costs.values())]
        shapes = [(np.shape(cost["knots"]), np.shape(cost["rises"])) for cost in costs.values()]
        if not np.isfinite(numbers).all() or any(len(k) != 1 or r != (k[0] - 1,) for k, r in shapes):
            raise ValueError("costs that are none")
        if not all(isinstance(found["bound_to"].get(name), str) for name in ("keypoints_source", "labels_source")):
            raise ValueError("no word of whose keypoints and labels it is for")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a quality gate's file ({reason}); `dsr-fit rounds` writes them") from None
    return found


def evidence(result: FitResult) -> dict[str, float]:
    """Every evidence's value for a fit."""
    return {name: float(entry.value(result)) for name, entry in EVIDENCE.items()}


def fingerprint(prior: SemanticPrior) -> str:
    """SHA-256 of a semantic prior's values, its outfits' included."""
    return _hash([prior.probabilities, *(vars(prior.outfits).values() if prior.outfits else ())])


def _hash(tensors: Iterable[Tensor]) -> str:
    return hashlib.sha256(b"".join(tensor.cpu().numpy().tobytes() for tensor in tensors)).hexdigest()


def binding(fitter: Fitter, keypoints_source: str, labels_source: str) -> dict[str, Any]:
    """What a calibration holds for, as `gate.json` says it: files, who made the observations, and settings."""
    return {
        "body": fitter.body.sha256,
        "semantic_prior": fingerprint(fitter.semantic_prior),
        "pose_prior": _hash(vars(fitter.pose_prior).values()),
        "keypoints_source": keypoints_source,
        "labels_source": labels_source,
        "parser": sha256(shipped(PARSER)),
        "regressor": fitter.regressor.fingerprint,
        "crop_camera": fitter.crop_camera,
        "config": _deciding(fitter.config),
    }


def _deciding(config: FitConfig) -> dict[str, Any]:
    """The settings that decide a fit in its mode."""
    settings = to_dict(config)
    del settings["seed"]
    if config.mode == "smplify":
        del settings["eft"]
    if config.mode == "eft":
        del settings["stages"], settings["eft"]["refinement"]
    return settings


def _others(made_for: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    """The names of what differs between two bindings. Settings that one of them doesn't know have their defaults."""
    with suppress(UsageError):
        made_for = {**made_for, "config": _deciding(from_dict(FitConfig, made_for.get("config", {})))}
    files = [name for name in ours if name != "config" and made_for.get(name) != ours[name]]
    theirs = made_for.get("config", {})
    settings = [name for name in {**ours["config"], **theirs} if theirs.get(name) != ours["config"].get(name)]
    return list(dict.fromkeys([*files, *settings]))  # the pose prior may differ as a file and as a setting
