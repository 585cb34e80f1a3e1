"""`--batch-size auto`: the folder's own, else by what computes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import tyro

from dsr_fit.cli.batch import BatchArguments
from dsr_fit.dataset.batch_size import LARGEST, auto_batch_size
from dsr_fit.dataset.defaults import BATCH_SIZE
from dsr_fit.dataset.manifest import Manifest, PlanNote, write_manifest
from dsr_fit.errors import InputError

GIB = 1 << 30


def test_on_a_cpu_it_is_the_default(tmp_path: Path) -> None:
    assert auto_batch_size("cpu", tmp_path) == BATCH_SIZE


@pytest.mark.parametrize(
    ("free", "images"), [(80 * GIB, LARGEST), (8 * GIB, 64), (2 * GIB, 16), (GIB // 32, 1), (0, 1)]
)
def test_on_a_gpu_it_grows_with_the_free_memory(
    free: int, images: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (free, 2 * free))
    assert auto_batch_size("cuda", tmp_path) == images


def test_a_folder_keeps_its_own(tmp_path: Path) -> None:
    write_manifest(tmp_path, Manifest("a", "folder", "photos", 5, 64, ({},), (PlanNote(3),)))
    assert auto_batch_size("cpu", tmp_path) == 5
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(InputError, match="can't be read"):
        auto_batch_size("cpu", tmp_path)


@pytest.mark.parametrize(("said", "understood"), [("auto", "auto"), ("32", 32)])
def test_the_command_takes_both(said: str, understood: str | int) -> None:
    arguments = tyro.cli(BatchArguments, args=["photos", "--out", "results", "--batch-size", said])
    assert arguments.batch_size == understood
