"""Compiled kernels: where they are cached, what is said about it, and caches that are damaged."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
KERNELS = """
from dsr_fit.compilation import kernel

@kernel
def double(x):
    return 2 * x

@kernel(fastmath=True)
def four_times(x):
    return double(double(x))
"""
RUN = """
from dsr_fit.few_kernels import four_times
print(four_times(10), sum(four_times.stats.cache_hits.values()), four_times.stats.cache_path)
"""
ANNOUNCED = "compiling CPU kernels, a minute or so for a first fit, "


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder with a package of two kernels, to which nobody can write a cache: not even root through a file."""
    package = tmp_path / "site" / "dsr_fit"
    package.mkdir(parents=True)
    for name in ("__init__.py", "errors.py", "compilation.py"):
        (package / name).write_bytes((ROOT / "dsr_fit" / name).read_bytes())
    (package / "few_kernels.py").write_text(KERNELS)
    (package / "__pycache__").touch()
    return package.parent


def run(site: Path, **environment: str | Path) -> tuple[int, str, list[str]]:
    """Cache hits of the outer kernel, its cache's folder, and what was said. No home folder unless one is given."""
    home = site / "dsr_fit" / "errors.py" / "home"  # below a file: no folder can be made there
    (site / "tmp").mkdir(exist_ok=True)
    given = {"HOME": home, "XDG_CACHE_HOME": home, "TMPDIR": site / "tmp", "PATH": os.environ["PATH"], **environment}
    command = [sys.executable, "-W", "error", "-c", RUN]
    given = {name: str(value) for name, value in given.items()}
    done = subprocess.run(command, cwd=site, env=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result, hits, folder = done.stdout.split()
    assert result == "40"
    return int(hits), folder, done.stderr.splitlines()


def test_a_read_only_package_has_its_cache_in_the_users_folder(site: Path, tmp_path: Path) -> None:
    hits, folder, said = run(site, HOME=tmp_path, XDG_CACHE_HOME=tmp_path / "cache")
    assert folder.startswith(str(tmp_path / "cache"))
    assert list(Path(folder).glob("*.nbi"))
    assert (hits, said) == (0, [ANNOUNCED + "once per installation"])


@pytest.mark.parametrize("cached", [True, False])
def test_nothing_is_said_about_kernels_that_are_compiled_in_a_second(site: Path, tmp_path: Path, cached: bool) -> None:
    """Those of rendered people, in an installation that has compiled a fit's."""
    kernels = site / "dsr_fit" / "few_kernels.py"
    kernels.write_text(KERNELS.replace("@kernel\n", "@kernel(quick=True)\n").replace("fastmath=True", "quick=True"))
    folders = {"HOME": tmp_path, "XDG_CACHE_HOME": tmp_path / "cache"} if cached else {}
    assert run(site, **folders)[2] == []


def test_without_a_users_folder_the_cache_is_a_private_temporary_folder(site: Path) -> None:
    private = site / "tmp" / f"dsr-fit-{os.getuid()}"
    hits, folder, said = run(site)
    assert Path(folder).parent == private
    assert private.stat().st_mode & 0o777 == 0o700
    assert hits == 0
    where = f"cached in {private}: no other folder can be written to; NUMBA_CACHE_DIR names another"
    assert said == [ANNOUNCED + where]
    assert run(site) == (1, folder, [])


@pytest.mark.parametrize("fault", ["open to others", "a link", "a file", "somebody else's"])
def test_a_temporary_folder_that_others_may_write_to_is_not_used(site: Path, fault: str) -> None:
    """numba runs what it finds in its cache."""
    private = site / "tmp" / f"dsr-fit-{os.getuid()}"
    private.parent.mkdir()
    if fault == "a link":
        (site / "elsewhere").mkdir(mode=0o700)
        private.symlink_to(site / "elsewhere")
    elif fault == "a file":
        private.touch()
    else:
        private.mkdir(mode=0o700)
    if fault == "open to others":
        private.chmod(0o777)
    if fault == "somebody else's":
        if os.getuid() != 0:
            pytest.skip("only root can give a folder away")
        os.chown(private, 12345, 12345)
    for _ in range(2):
        assert run(site) == (
            0,
            "None",
            [ANNOUNCED + "in every process: no folder to cache them in can be written to; NUMBA_CACHE_DIR names one"],
        )
    assert private.is_file() or not list(private.iterdir())


def test_another_folder_can_be_named(site: Path, tmp_path: Path) -> None:
    _, folder, said = run(site, NUMBA_CACHE_DIR=tmp_path / "named")
    assert Path(folder).parent == tmp_path / "named"
    assert said == [ANNOUNCED + "once per installation"]
    assert not list((site / "tmp").iterdir())


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize("left", ["nothing", "half"])
def test_a_damaged_cache_is_made_anew(site: Path, suffix: str, left: str) -> None:
    _, folder, _ = run(site)
    for path in Path(folder).glob(f"*.{suffix}"):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2] if left == "half" else b"")
    assert run(site)[0] == 0
    assert run(site)[0] == 1


def test_of_processes_that_start_together_one_announces_that_it_compiles(site: Path) -> None:
    folder = Path(run(site)[1])

    def emptied() -> list[str]:
        for path in folder.glob("*.nb?"):
            path.unlink()
        return run(site)[2]

    assert emptied() == []  # another process has just said so
    (marker,) = folder.glob("compiling_*")
    long_ago = time.time() - 3600
    os.utime(marker, (long_ago, long_ago))
    assert len(emptied()) == 1


def test_a_renderer_announces_compilation_at_its_first_render_that_needs_it(tmp_path: Path) -> None:
    code = """
import numpy as np, sys, torch
from dsr_fit.render.renderer import Renderer
renderers = [Renderer(np.array([[0, 1, 2]]), 3, device="cpu", outline="none") for _ in range(2)]
print("made", file=sys.stderr)
for renderer in renderers:
    colour = torch.ones(3, 1, requires_grad=True)
    render = renderer(torch.rand(1, 3, 3) + 1, torch.ones(1, 4), 4, colour)
    print("rendered", file=sys.stderr)
    if "backward" in sys.argv:
        render.attributes.sum().backward()
"""
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}

    def said(*argv: str) -> list[str]:
        done = subprocess.run([*command, *argv], env=environment, capture_output=True, text=True, check=True)
        for marker in tmp_path.rglob("compiling_*"):
            marker.unlink()
        return done.stderr.splitlines()

    line = ANNOUNCED + "once per installation"
    assert said() == ["made", line, "rendered", "rendered"]
    assert said() == ["made", "rendered", "rendered"]
    assert said("backward") == ["made", "rendered", line, "rendered"]  # other kernels, which nobody had needed yet
