"""Where a fit runs: `auto` is the best that works."""

from __future__ import annotations

import pytest
import torch

from dsr_fit.errors import UsageError
from dsr_fit.render import device


@pytest.mark.parametrize(
    ("gpu", "nvdiffrast", "expected"), [(True, True, "cuda"), (True, False, "cpu"), (False, True, "cpu")]
)
def test_auto_takes_a_gpu_only_where_it_can_render_there(
    gpu: bool, nvdiffrast: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(device, "find_spec", lambda name: object() if nvdiffrast else None)
    assert device.choose_device("auto") == expected
    assert device.choose_device("cpu") == "cpu"
    if expected == "cpu":
        words = "nvdiffrast, which renders there, is not installed" if gpu else "torch sees no CUDA device"
        with pytest.raises(UsageError, match=f"--device cuda: {words}"):
            device.choose_device("cuda")
    else:
        assert device.choose_device("cuda") == "cuda"
