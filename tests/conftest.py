"""Fixtures that several test files need."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from dsr_fit import compilation
from dsr_fit.assets import LICENSED

if not torch.cuda.is_available():  # Triton reads it when it is imported, which Lightning does too
    os.environ.setdefault("TRITON_INTERPRET", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # several test processes share the cores; see dsr_fit/cli/main.py
compilation._ANNOUNCED.append("once for all tests")  # whichever compiles first must not find one more warning
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of photos, motion capture and reference vectors; tests that need it skip without it."""
    folder = Path(os.environ.get("DSR_FIT_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip("needs the shared data folder: set DSR_FIT_SHARED")
    return folder


@pytest.fixture
def nothing_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Licensed files that the developer has set don't take part."""
    for entry in LICENSED.values():
        monkeypatch.delenv(entry.variable, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
