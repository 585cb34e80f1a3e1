"""The guide to pseudo-labels: its commands parse, its exports are made and its readers run, on two small pictures."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import tyro
from label_folders import QUICK, write_results
from synthetic_smpl import synthetic_smpl, write_pickle

from dsr_fit.cli import main as cli
from dsr_fit.dataset.settings import Settings

GUIDE = (Path(__file__).resolve().parents[1] / "docs" / "pseudo_labels.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
COMMANDS = [line for kind, text in BLOCKS if kind == "bash" for line in text.replace("\\\n", " ").splitlines()]
READERS = [text for kind, text in BLOCKS if kind == "python"]


def _words(command: str) -> list[str]:
    program, *words = shlex.split(command, comments=True)
    assert program == "dsr-fit", command
    return words


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_understood(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the parser of that command itself, which is then stopped."""
    words = _words(command)
    parse, understood = tyro.cli, []

    def parse_alone(*args: Any, **options: Any) -> Any:
        understood.append(parse(*args, **options))
        raise SystemExit(0)

    monkeypatch.setattr(tyro, "cli", parse_alone)
    assert cli.main(words) == 0
    assert len(understood) == 1
    if words[0] not in cli.COMMANDS:  # taken for an image, whatever it is
        assert words[0].endswith(".jpg")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`photos/` and `fits/` as the guide's first command leaves them, and a file of SMPL's format."""
    made = tmp_path_factory.mktemp("guide")
    write_results(made, Settings(QUICK))
    (made / "photos").symlink_to(made / "images")
    (made / "out").rename(made / "fits")
    write_pickle(made / "SMPL_NEUTRAL.pkl", synthetic_smpl())
    return made


def test_exports_and_readers_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setattr("dsr_fit.fitting.convert.STEPS", 3)
    exports = [words for words in map(_words, COMMANDS) if words[0] == "export"]
    assert {words[words.index("--format") + 1] for words in exports} == {
        "coco", "spin", "graphonomy", "webdataset", "eft",
    }  # fmt: skip
    for words in exports:
        assert cli.main(words) == 0, words
    assert len(READERS) == 5
    for reader in READERS:
        capfd.readouterr()
        exec(compile(reader, "docs/pseudo_labels.md", "exec"), {"__name__": "reader"})
        assert capfd.readouterr().out, reader
