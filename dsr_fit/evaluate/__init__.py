"""Errors of fits, estimates and label maps against known truth and annotations."""

from typing import Literal

REPORTING_SEED = 10_000
"""Seed of the first rendered person that figures are reported on; settings are chosen on those near 0."""

PerceptionKind = Literal["perfect", "whole"]
"""True labels and visible keypoints with noise, or detector and parser on the picture."""
