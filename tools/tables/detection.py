"""The person detector, beside what it replaced."""

from __future__ import annotations

from typing import Any

from tables.results import result

DETECTORS = {
    "mediapipe full": "MediaPipe full, before",
    "mediapipe heavy": "MediaPipe heavy",
    "accurate": "`accurate`",
    "fast": "`fast`",
}


def detector() -> str:
    """Everything measured, a row a quantity and a column a detector."""
    measured = [result("detector")[name] for name in DETECTORS]
    rows = {
        "groups: recall": lambda d: f"{d['composites']['recall']:.3f}",
        "groups: precision": lambda d: f"{d['composites']['precision']:.3f}",
        "groups: 2D error, % of the box": lambda d: f"{100 * d['composites']['keypoints']['median_error']:.2f}",
        "one rendered person: found": lambda d: f"{d['rendered']['recall']:.2f}",
        "one rendered person: 2D error, % of the box": lambda d: (
            f"{100 * d['rendered']['keypoints']['median_error']:.2f}"
        ),
        "one rendered person: 3D landmarks, PA-MPJPE, mm": lambda d: _mean(d["rendered"]["landmarks_pa_mpjpe"]),
        "annotated people in wild photos: recall": lambda d: f"{d['wild']['recall']:.2f}",
        "two people: fits of the main one, PA-MPJPE alone, mm": lambda d: _couples(d, "alone"),
        "two people: together, mm": lambda d: _couples(d, "together"),
        "a real man: 3D landmarks, PA-MPJPE, mm": lambda d: _mean(d["real3d"]["landmarks_pa_mpjpe"]),
        "a real man: fits, PA-MPJPE, mm": lambda d: _mean(d["real3d"]["fits_pa_mpjpe"]),
        "a real man: fits, MPJPE, mm": lambda d: _mean(d["real3d"]["fits_mpjpe"]),
        "processor time for one person, ms": lambda d: f"{d['milliseconds']['one person']:.0f}",
    }
    head = ["| | " + " | ".join(DETECTORS.values()) + " |", "| --- |" + " --- |" * len(DETECTORS)]
    return "\n".join([*head, *(f"| {name} | {' | '.join(map(cell, measured))} |" for name, cell in rows.items())])


def detector_hidden() -> str:
    """Recall in groups by how much of a person is hidden."""
    shares: dict[str, Any] = result("detector")["accurate"]["composites"]["by_hidden"]
    head = ["| hidden | " + " | ".join(shares) + " |", "| --- |" + " --- |" * len(shares)]
    cells = " | ".join(f"{share['recall']:.2f} of {share['people']}" for share in shares.values())
    return "\n".join([*head, f"| recall | {cells} |"])


def _couples(measured: dict[str, Any], where: str) -> str:
    return _mean(measured["couples"]["pa_mpjpe"][where]["all"])


def _mean(measure: dict[str, float]) -> str:
    return f"{measure['mean']:.0f}"
