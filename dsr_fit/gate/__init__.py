"""The quality gate: evidence, calibration and verdict."""
