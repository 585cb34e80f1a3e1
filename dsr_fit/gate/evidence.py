"""The quality gate's evidence: quantities of a fit that speak against it, the more the larger they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from dsr_fit.fitting.result import FitResult


@dataclass(frozen=True)
class FitSummary:
    """What evidence reads of a fit, in memory or in a row of a shard; NaN where unknown."""

    metrics: Mapping[str, float]  # of the final body (`dsr_fit.fitting.metrics`)
    energies: Mapping[str, float]  # final, unweighted
    change_m: float  # mean distance of the joints between the initial estimate and the fit
    spread: np.ndarray | None  # (24,) radians, the regressor's expected error of each joint's rotation
    expected_error_m: float  # the regressor's expected error of its joints
    keypoint_confidence: float  # sum over the observed keypoints
    agreement: float  # of person finder and landmark network

    @classmethod
    def of_result(cls, result: FitResult) -> FitSummary:
        return cls(
            {name: value["after"] for name, value in result.metrics.items()},
            {name: value["final"] for name, value in result.energies.items()},
            result.change_m,
            result.spread,
            float("nan") if result.expected_error_m is None else result.expected_error_m,
            result.observation.detection.keypoints[:, 2].sum(),
            float("nan") if result.observation.detection.agreement is None else result.observation.detection.agreement,
        )


@dataclass(frozen=True)
class Evidence:
    """One quantity that speaks against a fit, and how a reason words it."""

    value: Callable[[FitSummary], float]  # NaN where unknown
    words: Callable[[float], str]


def _mean_degrees(summary: FitSummary, joints: slice) -> float:
    return float("nan") if summary.spread is None else float(np.degrees(summary.spread[joints].mean()))


EVIDENCE: dict[str, Evidence] = {
    "keypoint_error": Evidence(
        lambda fit: fit.metrics["keypoint_error_rel"],
        lambda v: f"the keypoints are missed by {100 * v:.1f} % of the person's size",
    ),
    "mc_mismatch": Evidence(
        lambda fit: 1 - fit.metrics["mc_iou"],
        lambda v: f"bare skin and the body's bare parts share only {100 * (1 - v):.0f} % of their area",
    ),
    "outside": Evidence(
        lambda fit: 1 - fit.metrics["containment"], lambda v: f"{100 * v:.0f} % of the body lies outside its clothing"
    ),
    "pose": Evidence(lambda fit: fit.energies["pose"], lambda v: "the pose is unusual"),
    "shape": Evidence(lambda fit: fit.energies["betas"], lambda v: "the shape is unusual"),
    "change": Evidence(
        lambda fit: fit.change_m, lambda v: f"the joints moved {1000 * v:.0f} mm away from the first estimate"
    ),
    "landmarks": Evidence(
        lambda fit: fit.energies["world_landmarks"], lambda v: "the body contradicts the detector's 3D landmarks"
    ),
    "unsure": Evidence(
        lambda fit: _mean_degrees(fit, slice(1, None)),
        lambda v: f"the regressor expects its joints to be {v:.0f} degrees off",
    ),
    "unsure_orientation": Evidence(
        lambda fit: _mean_degrees(fit, slice(1)),
        lambda v: f"the regressor expects the body's orientation to be {v:.0f} degrees off",
    ),
    "expected": Evidence(
        lambda fit: 1000 * fit.expected_error_m, lambda v: f"the regressor expects its joints to be {v:.0f} mm off"
    ),
    "initial": Evidence(
        lambda fit: fit.energies["initial"], lambda v: "the fit went where the regressor was sure it is not"
    ),
    "hidden": Evidence(
        lambda fit: -fit.keypoint_confidence,
        lambda v: f"few joints are clearly seen (confidences add up to {-v:.0f})",
    ),
    "disagreement": Evidence(
        lambda fit: 1 - fit.agreement,
        lambda v: f"person finder and landmarks agree by {100 * (1 - v):.0f} % only",
    ),
}


def evidence(fit: FitSummary) -> dict[str, float]:
    """Name -> value of every entry."""
    return {name: float(entry.value(fit)) for name, entry in EVIDENCE.items()}
