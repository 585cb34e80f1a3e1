"""The committed results of benchmarks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def result(name: str) -> dict[str, Any]:
    """`benchmarks/results/NAME.json`."""
    return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
