"""The example's person for runs over a data set, and the least of a fit and of processes that they need."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from dsr_fit.config import FitConfig, LeastSquares, Stage
from dsr_fit.dataset.run import Resources

ROOT = Path(__file__).resolve().parents[1]
PERSON = ROOT / "examples" / "person.png"
TRUTH = json.loads(PERSON.with_suffix(".json").read_text())
QUICK = FitConfig(least_squares=LeastSquares(pose_steps=2, steps=3), stages=(Stage(56, 2),))
ONE = Resources(observers=1, fitters=1)


def photo() -> Image.Image:
    """Of the example's person."""
    with Image.open(PERSON) as opened:
        return opened.convert("RGB")
