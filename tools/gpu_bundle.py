"""Packs what `benchmarks/gpu.py` needs on a machine without a network, and says the command that runs it there.

    PYTHONPATH=tools:benchmarks python tools/gpu_bundle.py --cases-dir ../cases --out ../gpu_bundle.tar.xz [WHEEL ...]

Python with torch must be there already; wheels of what else is missing (of the package's dependencies, of pytest,
hypothesis and trimesh for its tests, nvdiffrast) are named on the command line. Left out are the documentation, the
smaller landmark network, and the regressor's weights: its network is timed with random ones, and fits begin with the
regressor that has none.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
from gpu_steps.setup import prepare

from dsr_fit.errors import InputError
from dsr_fit.io.files import check_file, replacing

ROOT = Path(__file__).resolve().parents[1]
NAME = "gpu_bundle"
PICTURES = 12
"""Of the people, those whose picture goes in, for the whole pipeline."""

LARGEST = 50_000_000
"""Bytes of the bundle."""

PATHS = (
    "dsr_fit", "configs", "priors", "benchmarks/*.py", "benchmarks/gpu_steps", "tests/conftest.py", "tests/render_*.py",
    "tests/test_render_*.py", "pyproject.toml", "LICENSE",
)  # fmt: skip
LEFT_OUT = (
    "priors/detector/full.safetensors", "priors/regressor/regressor.safetensors", "priors/semantic/rules.npz",
)  # fmt: skip
VECTORS = "data/nvdiffrast_reference"
TWICE = "06_body_112x112.npz"
"""A reference vector of two megabytes that shows what two others show."""

RUN = """#!/bin/sh
# Runs the benchmark from this folder by $PYTHON, with the wheels beside it; the results go to $OUT, or here.
set -eu
cd "$(dirname "$0")"
PYTHON="${PYTHON:-python3}"
if ls wheels/*.whl > /dev/null 2>&1 && [ ! -d site ]; then
    "$PYTHON" -m pip install -q --no-index --no-deps --target site wheels/*.whl
fi
export PYTHONPATH="$PWD:$PWD/site"
exec "$PYTHON" benchmarks/gpu.py --people people --shared shared --out "${OUT:-$PWD}/gpu.json" "$@"
"""


def files() -> list[str]:
    """The repository's files that go in."""
    command = ["git", "-C", str(ROOT), "ls-files", "--", *PATHS]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [name for name in listed if name not in LEFT_OUT and Path(name).suffix not in (".png", ".md")]


def add(bundle: tarfile.TarFile, name: str, content: bytes, executable: bool = False) -> None:
    entry = tarfile.TarInfo(f"{NAME}/{name}")
    entry.size, entry.mode = len(content), 0o755 if executable else 0o644
    bundle.addfile(entry, io.BytesIO(content))


def uncompressed(path: Path) -> bytes:
    """A .npz whose arrays are stored as they are, which the bundle's own compression packs better."""
    with np.load(path) as arrays, io.BytesIO() as file:
        np.savez(file, **dict(arrays.items()))  # type: ignore[arg-type]
        return file.getvalue()


def pack(out: Path, people: Path, shared: Path, wheels: list[Path]) -> None:
    """Write the bundle. Raises InputError where something is missing, or the bundle is too large."""
    vectors = sorted(path for path in (shared / VECTORS).glob("*.npz") if path.name != TWICE)
    if not vectors:
        raise InputError(f"{shared / VECTORS}: no reference vectors; --shared names the folder with {VECTORS}")
    for wheel in wheels:
        check_file(wheel, "wheel")
    with replacing(out) as temporary:
        with tarfile.open(temporary, "w:xz", preset=6) as bundle:
            for name in files():
                add(bundle, name, (ROOT / name).read_bytes())
            metadata = f"Metadata-Version: 2.1\nName: dsr-fit\nVersion: {version('dsr-fit')}\n"
            add(bundle, f"dsr_fit-{version('dsr-fit')}.dist-info/METADATA", metadata.encode())
            add(bundle, "run.sh", RUN.encode(), executable=True)
            for path in vectors:
                add(bundle, f"shared/{VECTORS}/{path.name}", uncompressed(path))
            for path in sorted(people.iterdir()):
                add(bundle, f"people/{path.name}", path.read_bytes())
            for wheel in wheels:
                add(bundle, f"wheels/{wheel.name}", wheel.read_bytes())
        size = temporary.stat().st_size
        if size > LARGEST:
            raise InputError(
                f"{out}: {size / 1e6:.1f} MB, more than {LARGEST / 1e6:.0f}; name fewer wheels or --people"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheels", type=Path, nargs="*", metavar="WHEEL")
    parser.add_argument("--people", type=int, default=64, help="rendered people to look for")
    parser.add_argument("--first-seed", type=int, default=20000)
    parser.add_argument(
        "--cases-dir", type=Path, required=True, help="folder of rendered people; missing ones are made"
    )
    parser.add_argument("--people-dir", type=Path, help="where their observations are kept, or were before")
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help=f"folder with {VECTORS}")
    parser.add_argument("--out", type=Path, default=Path(f"{NAME}.tar.xz"))
    arguments = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as temporary:
            people, seeds = Path(temporary), range(arguments.first_seed, arguments.first_seed + arguments.people)
            people = arguments.people_dir or people
            if not any(people.glob("*.npz")):
                prepare(people, arguments.cases_dir, seeds, PICTURES)
            found = len(list(people.glob("*.npz")))
            pack(arguments.out, people, arguments.shared, arguments.wheels)
    except InputError as error:
        raise SystemExit(str(error)) from None
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.1f} MB, {found} people. On the machine:")
    print(f"tar xf {arguments.out.name} && sh {NAME}/run.sh                       # --device cpu --quick: the dry run")


if __name__ == "__main__":
    main()
