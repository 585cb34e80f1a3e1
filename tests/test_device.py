"""Where a fit runs: `auto` is the best that works; nvdiffrast renders on a GPU, else Triton."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from dsr_fit.cli import info
from dsr_fit.errors import UsageError
from dsr_fit.render import device


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    gpu, installed = request.param
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    for module in (device, info):
        monkeypatch.setattr(module, "find_spec", lambda name: object() if name in installed else None)


@pytest.mark.parametrize(
    ("machine", "backend"),
    [((True, {"nvdiffrast"}), "nvdiffrast"), ((True, {"triton"}), "triton"),
     ((True, {"nvdiffrast", "triton"}), "nvdiffrast")],
    indirect=["machine"],
)  # fmt: skip
@pytest.mark.usefixtures("machine")
def test_a_gpu_is_taken_where_something_renders_there_and_info_says_what(
    backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [device.choose_device(name) for name in ("auto", "cpu", "cuda")] == ["cuda", "cpu", "cuda"]
    info.InfoArguments(json=True).run()
    shown = json.loads(capsys.readouterr().out)["backends"]
    assert shown["device_auto"] == f"cuda, rendered by {backend}"
    assert shown[backend] == "installed"


@pytest.mark.parametrize(
    ("machine", "words"),
    [((True, set()), "nothing that renders there is installed"), ((False, {"triton"}), "torch sees no CUDA device")],
    indirect=["machine"],
)
@pytest.mark.usefixtures("machine")
def test_a_cpu_is_taken_elsewhere(words: str) -> None:
    assert device.choose_device("auto") == device.choose_device("cpu") == "cpu"
    with pytest.raises(UsageError, match=f"--device cuda: {words}"):
        device.choose_device("cuda")


def test_a_fit_on_a_cpu_imports_neither() -> None:
    code = (
        "import sys, numpy as np, torch; from dsr_fit.render import Renderer\n"
        "from dsr_fit.cli.info import InfoArguments; InfoArguments(json=True).run()\n"
        "renderer = Renderer(np.array([[0, 1, 2]]), 3, device='cpu')\n"
        "renderer(torch.rand(1, 3, 3) + 1, torch.ones(1, 4), 8).alpha.sum()\n"
        "sys.exit(str({'triton', 'nvdiffrast'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1] == "set()"
