"""Licensed files: named on the command line, else in the environment, else in the user's list."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dsr_fit.assets import LICENSED, licensed, licensed_setting, sha256, shipped, user_file
from dsr_fit.errors import InputError, UsageError


@pytest.fixture(autouse=True)
def config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty user's configuration folder; the path of the list in it."""
    for entry in LICENSED.values():
        monkeypatch.delenv(entry.variable, raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "dsr-fit").mkdir()
    return tmp_path / "dsr-fit" / "files.yaml"


def test_the_option_beats_the_environment_which_beats_the_list(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    option, variable, listed = (tmp_path / name for name in ("option", "variable", "listed"))
    for path in (option, variable, listed):
        path.touch()
    assert licensed("body", None) is None
    config.write_text(f"body: {listed}\n")
    assert user_file() == config
    assert licensed("body", None) == listed
    assert licensed("semantic_prior", None) is None
    monkeypatch.setenv("DSR_FIT_BODY", str(variable))
    assert licensed("body", None) == variable
    assert licensed_setting("body") == (str(variable), "DSR_FIT_BODY")
    assert licensed("body", str(option)) == option


def test_the_home_folder_is_understood(config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "smpl.pkl").touch()
    config.write_text("body: ~/smpl.pkl\n")
    assert licensed("body", None) == tmp_path / "smpl.pkl"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    assert user_file() == tmp_path / ".config" / "dsr-fit" / "files.yaml"


@pytest.mark.parametrize("flag", LICENSED)
def test_a_missing_file_says_who_named_it_and_where_to_get_it(
    config: Path, flag: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = LICENSED[flag]
    config.write_text(f"{flag}: /no/such/file\n")
    for origin in (str(config), entry.variable):
        with pytest.raises(InputError) as caught:
            licensed(flag, None)
        line = str(caught.value)
        assert line.startswith(f"/no/such/file: no such file (named by {origin}); ")
        assert all(words in line for words in (entry.source, entry.variable, "--" + flag.replace("_", "-")))
        assert "\n" not in line
        monkeypatch.setenv(entry.variable, "/no/such/file")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("bodi: a.pkl\n", "unknown flag `bodi`; flags: body, joint_regressor_extra, semantic_prior"),
        ("body: 3\n", "expected lines `flag: path`"),
        ("- a.pkl\n", "expected lines `flag: path`"),
        ("body: [\n", "not readable YAML"),
    ],
)
def test_a_list_that_is_none_is_one_line(config: Path, text: str, words: str) -> None:
    config.write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        licensed("body", None)
    assert str(config) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_list_sets_nothing(config: Path) -> None:
    config.write_text("# nothing yet\n")
    assert licensed("body", None) is None


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(UsageError, match="known: body, joint_regressor_extra, semantic_prior"):
        licensed("bodi", None)
    with pytest.raises(InputError, match=r"priors/nothing\.npz is missing: reinstall dsr-fit"):
        shipped("priors/nothing.npz")


def test_sha256_is_the_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert sha256(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_the_folders_of_what_ships_say_the_files_sha256() -> None:
    priors = shipped("priors")
    said = {
        readme.parent / name: digest
        for readme in priors.glob("*/README.md")
        for name, digest in re.findall(r"`([\w.]+)`(?: \| |: )`([0-9a-f]{64})`", readme.read_text())
    }
    assert len(said) >= 9
    assert {path: sha256(path) for path in said} == said
    assert {path for path in said if path.parent.name == "detector"} == set(priors.glob("detector/*.safetensors"))
