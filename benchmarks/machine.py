"""What a benchmark's figures were measured on."""

from __future__ import annotations

import os
import platform
from datetime import date
from pathlib import Path

from dsr_fit.fitting.saving import versions


def describe_machine() -> dict[str, object]:
    """Processor, cores, system, package versions and the day."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "versions": versions(),
        "date": date.today().isoformat(),
    }
