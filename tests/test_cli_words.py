"""Any words on the command line end in a documented status and a message."""

from __future__ import annotations

import contextlib
import io
import shutil
from pathlib import Path

import command_line_docs
import pytest
from command_line import PERSON
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dsr_fit.cli import main as cli
from dsr_fit.dataset.settings import Settings
from dsr_fit.errors import InputError

pytestmark = pytest.mark.usefixtures("nothing_is_set")

ODD = (
    "", " ", "-", "--", "=", "-1", "0", "1", "3.5", "nan", "inf", "1e999", "9" * 40, "None", "true", "open", "all",
    "person.png", "PERSON.PNG", "empty", "empty/x.obj", "person.png/m.obj", "m.obj", "m.OBJ", "m", "/", ".", "..", "~",
    "/proc/m.obj", "/dev/full", "n" * 300, "d/" * 3000, "1,2,3,4", "1,2,3", "é.png", "\udce9.png", "😀", "{", "[1", "'",
    "bad.yaml", "bom.yaml", "utf16.yaml", "dated.yaml", "list.yaml", "smplify", "https://x.org/a.png",
)  # fmt: skip
"""What people type, and what they don't; the last of one line are bytes that are no UTF-8."""

COMMANDS = [name.split() for name in cli.COMMANDS] + [[], ["evaluate"], ["prior"], ["fitt"], ["--help"], ["--version"]]
OPTIONS = sorted({option for kind in cli.COMMANDS.values() for option in command_line_docs.options(kind)})

odd = st.one_of(st.sampled_from(ODD), st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0")))
word = st.one_of(
    odd.map(lambda value: [value]),
    st.tuples(st.sampled_from(OPTIONS), odd).map(list),
    st.tuples(st.sampled_from(OPTIONS), odd).map(lambda pair: ["=".join(pair)]),
    st.sampled_from(OPTIONS).map(lambda option: [option]),
    odd.map(lambda value: [f"--{value}"]),
)
lines = st.tuples(
    st.sampled_from(COMMANDS), st.lists(word, max_size=4), st.sampled_from([[], ["person.png", "--out", "m.obj"]])
).map(lambda parts: [*parts[0], *parts[2], *(each for some in parts[1] for each in some)])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(PERSON, tmp_path / "person.png")
    (tmp_path / "empty").mkdir()
    for name, text in {"bad": "{", "bom": "\ufeffseed: 1", "dated": "seed: 2024-13-45", "list": "- 1"}.items():
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "utf16.yaml").write_text("seed: 1", encoding="utf-16")
    monkeypatch.chdir(tmp_path)

    def stub(*_: object, **__: object) -> None:
        raise InputError("nothing is fitted here")

    monkeypatch.setattr(Settings, "fitter", stub)
    for kind in set(cli.COMMANDS.values()) - {cli.FitArguments, cli.ExportArguments}:
        monkeypatch.setattr(kind, "run", lambda arguments: None)
    return tmp_path


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(lines)
def test_any_words_end_in_a_status_and_a_message(folder: Path, argv: list[str]) -> None:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = cli.main(argv)
    said = err.getvalue()
    assert status in (0, 1, 2, 3)
    assert said == "" if status == 0 else said or out.getvalue()  # without words, the overview
    assert "Traceback" not in said
    assert "a defect of dsr-fit" not in said, said
    assert sorted(path.name for path in folder.iterdir()) == [
        "bad.yaml", "bom.yaml", "dated.yaml", "empty", "list.yaml", "person.png", "utf16.yaml",
    ]  # fmt: skip
