"""How commands end: streams that are closed or full, unforeseen errors, silence, and the shells' completion."""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import PERSON, QUICK, Capture, refused

from dsr_fit.cli import main as cli
from dsr_fit.cli.ending import TRACEBACK, ended
from dsr_fit.errors import InputError, UsageError
from dsr_fit.fitting.result import Verdict
from dsr_fit.gate.gate import Gate

PROGRAM = f"{sys.executable} -m dsr_fit"

pytestmark = pytest.mark.usefixtures("nothing_is_set")


def _shell(line: str, **environment: str) -> tuple[int, str, str]:
    """Status and output of a line for bash; `dsr-fit` is this program."""
    ended = subprocess.run(
        ["bash", "-c", f"set -o pipefail; dsr-fit() {{ {PROGRAM} \"$@\"; }}; {line}"],
        capture_output=True, text=True, timeout=300, env={**os.environ, **environment},
    )  # fmt: skip
    return ended.returncode, ended.stdout, ended.stderr


# --- Streams --------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
@pytest.mark.parametrize("words", ["info", "--help", "fit --help", "info --json", "completion bash"])
def test_a_full_disk_behind_standard_output_is_one_line(words: str) -> None:
    line = "dsr-fit: standard output can't be written (No space left on device)\n"
    assert _shell(f"dsr-fit {words} > /dev/full") == (1, "", line)


@pytest.mark.parametrize(
    "line",
    [
        "dsr-fit fit --help | true",
        "dsr-fit info | head -1 > /dev/null",
        "dsr-fit info >&-",
        "dsr-fit info >&- 2>&- <&-",
    ],
)
def test_a_reader_that_leaves_is_no_error(line: str) -> None:
    assert _shell(line) == (0, "", "")


def test_errors_keep_their_status_without_streams() -> None:
    assert _shell("dsr-fit nothing.jpg --out m.obj >&- 2>&- <&-") == (1, "", "")
    assert _shell("dsr-fit info --bogus 2>&-") == (2, "", "")


def test_a_run_is_finished_for_a_reader_that_has_left(tmp_path: Path) -> None:
    out = tmp_path / "m.obj"
    options = " ".join(QUICK)
    assert _shell(f"(sleep 1; dsr-fit {PERSON} --out {out} {options} 2>&1) | true") == (0, "", "")
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".npz", ".obj", ".png"]


@pytest.mark.parametrize("locale", ["LC_ALL=C.UTF-8", "LC_ALL=POSIX PYTHONUTF8=0 PYTHONCOERCECLOCALE=0"])
def test_names_that_are_no_text_are_told_as_results_store_them(locale: str) -> None:
    assert _shell(f"{locale} dsr-fit $'\\xff.png' --out m.obj") == (1, "", "dsr-fit: no such image: %FF.png\n")
    shown = "é" if "C.UTF-8" in locale else "%C3%A9"
    assert _shell(f"{locale} dsr-fit café.png --out m.obj") == (1, "", f"dsr-fit: no such image: caf{shown}.png\n")


@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii:strict", "utf-8:backslashreplace"])
def test_any_text_is_printed(encoding: str) -> None:
    code = "from dsr_fit.cli.ending import ended; import sys; sys.exit(ended(lambda: print('\\udcff \\ud800 %25 m')))"
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment)
    assert (done.returncode, done.stdout, done.stderr) == (0, "%FF ? %25 m\n", "")


# --- Errors ---------------------------------------------------------------------------------------


def _raising(error: BaseException) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (InputError("a.png: is none"), 1, "a.png: is none"),
        (UsageError("two\nlines"), 2, "two lines"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 1, "out of memory (MemoryError); close other programs, or fit fewer at once"),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"), 1,
            "out of memory ([enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes); "
            "close other programs, or fit fewer at once",
        ),
        (OSError(errno.ENOSPC, "No space", "x"), 1, "x: the disk is full; make room, and run the same command again"),
        (OSError(errno.EDQUOT, "Quota"), 1, "the quota of the disk is used up; make room, and run "
         "the same command again"),
        (OSError(errno.EROFS, "Read-only", "y"), 1, "y: the disk can only be read; choose another place"),
        (
            KeyError("joints"), 1,
            "unexpected KeyError: 'joints'; this is a defect of dsr-fit: please report this line, the command and what "
            "DSR_FIT_TRACEBACK=1 prints to whom you have dsr-fit from",
        ),
    ],
)  # fmt: skip
def test_every_error_is_one_line_and_a_traceback_on_request(
    capfd: Capture, monkeypatch: pytest.MonkeyPatch, error: BaseException, status: int, line: str
) -> None:
    assert ended(_raising(error)) == status
    assert capfd.readouterr() == ("", f"dsr-fit: {line}\n")
    monkeypatch.setenv(TRACEBACK, "1")
    assert ended(_raising(error)) == status
    said = capfd.readouterr().err
    assert said.endswith(f"dsr-fit: {line}\n")
    assert ("Traceback (most recent call last)" in said) == (status != 130)


def test_a_command_may_return_a_status() -> None:
    assert [ended(lambda: 3), ended(lambda: None)] == [3, 0]


@pytest.mark.filterwarnings("default")
def test_warnings_of_libraries_are_shown_on_request_only(capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> None:
        warnings.warn("library talk", stacklevel=1)

    shown = warnings.showwarning
    assert ended(work) == 0
    assert capfd.readouterr().err == ""
    assert warnings.showwarning is shown


def test_a_process_shows_no_warnings_of_libraries() -> None:
    program = "import warnings; from dsr_fit.cli.ending import ended; ended(lambda: warnings.warn('library talk'))"
    for environment, shown in (({}, False), ({"DSR_FIT_TRACEBACK": "1"}, True), ({"PYTHONWARNINGS": "default"}, True)):
        ended = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True, text=True, timeout=60, env={**os.environ, **environment},
        )  # fmt: skip
        assert ("library talk" in ended.stderr) == shown


# --- Silence --------------------------------------------------------------------------------------


def test_quiet_prints_nothing_but_errors(tmp_path: Path, capfd: Capture) -> None:
    argv = ["--out", str(tmp_path / "m.obj"), "--quiet", *QUICK]
    assert cli.main([str(PERSON), *argv]) == 0
    assert capfd.readouterr() == ("", "")
    (tmp_path / "text.jpg").write_text("no picture")
    assert refused(capfd, [str(tmp_path / "text.jpg"), *argv])[0] == 1


def test_every_command_that_reports_can_be_quiet(capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def talk(_: object) -> None:
        sys.stdout.write("summary\n")
        sys.stderr.write("progress\n")
        logging.getLogger("dsr_fit").warning("warning")

    for name, kind in cli.COMMANDS.items():
        if name in ("info", "completion"):  # what these print is what they are for
            continue
        monkeypatch.setattr(kind, "run", talk)
        monkeypatch.setattr(cli, "check", lambda _: None)
        words = [*name.split(), *(("x",) if name in ("fit", "batch", "rounds", "export") else ()), "--out", "x"]
        words += {"export": ["--format", "spin"], "evaluate spin": ["--data", "x", "--images", "x"]}.get(name, [])
        words += ["--cases-dir", "x"] if "cases_dir" in kind.__annotations__ or name == "evaluate ablation" else []
        words += ["--data", "x"] if name == "prior build" else []
        assert cli.main([*words, "--quiet"]) == 0, name
        assert capfd.readouterr() == ("", "")
        assert cli.main(words) == 0
        assert capfd.readouterr().out == "summary\n"


# --- Words ----------------------------------------------------------------------------------------


def test_the_version_is_the_packages(capfd: Capture) -> None:
    from importlib.metadata import version

    assert cli.main(["--version"]) == 0
    assert capfd.readouterr() == (f"dsr-fit {version('dsr-fit')}\n", "")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("bacth photos", "bacth: no such command or image; did you mean `batch`? `dsr-fit --help` lists the commands"),
        ("nosuch --out m.obj", "nosuch: no such command or image; `dsr-fit --help` lists the commands"),
        ("evalute clothed", "evalute: no such command or image; did you mean `evaluate`? `dsr-fit --help` lists the "
         "commands"),
        ("evaluate spn", "`dsr-fit evaluate` has no 'spn'; did you mean `spin`? choose one of clothed, ablation, spin"),
        ("a.png b.png --out m.obj", "b.png: more than `dsr-fit fit` takes; to fit several images give their folder, or "
         "a list of them (.txt), to `dsr-fit batch`"),
        ("info now", "now: more than `dsr-fit info` takes"),
    ],
)  # fmt: skip
def test_words_that_are_wrong_say_what_was_meant(capfd: Capture, words: str, line: str) -> None:
    assert refused(capfd, words.split()) == (2, f"dsr-fit: {line}")


def test_a_file_named_almost_like_a_command_is_an_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bacth").touch()
    assert cli.parse(["bacth", "--out", "m.obj"]).image == Path("bacth")
    assert cli.parse(["./evalute", "--out", "m.obj"]).image == Path("evalute")
    assert cli.parse(["info.jpg", "--out", "m.obj"]).image == Path("info.jpg")


def test_info_as_json_is_what_the_tables_say(capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    assert cli.main(["info", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert list(found) == ["versions", "backends", "shipped_assets", "licensed_files"]
    assert cli.main(["info"]) == 0
    tables = capfd.readouterr().out
    assert all(text in tables for table in found.values() for text in table.values())
    assert Path(found["shipped_assets"]["open_body"]).is_file()
    assert found["licensed_files"]["body"].startswith("not set: --body PATH, DSR_FIT_BODY or ")


# --- Completion -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_is_one_for_the_shell(capfd: Capture, shell: str) -> None:
    assert cli.main(["completion", shell]) == 0
    script = capfd.readouterr().out
    assert all(f"'{word}': {{" in script for name in cli.COMMANDS for word in name.split())
    assert "--weights.dsr-mc" in script
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} to read it with")
    checked = subprocess.run([shell, "-n"], input=script, capture_output=True, text=True, timeout=60)
    assert (checked.returncode, checked.stderr) == (0, "")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["ro"], {"rounds"}),
        (["evaluate", ""], {"clothed", "ablation", "spin"}),
        (["prior", "bu"], {"build"}),
        (["fit", "--weights.dsr"], {"--weights.dsr-mc", "--weights.dsr-c"}),
        (["fit", "--mode", ""], {"smplify", "eft", "eft+smplify"}),
        (["fit", "pho"], {"photo.jpg", "photos"}),
        (["pho"], {"photo.jpg", "photos"}),
        (["fit", "photo.jpg", "--out", "pho"], {"photo.jpg", "photos"}),
    ],
)
def test_bash_completes_commands_options_and_values(
    tmp_path: Path, capfd: Capture, words: list[str], expected: set[str]
) -> None:
    assert cli.main(["completion", "bash"]) == 0
    (tmp_path / "photos").mkdir()
    (tmp_path / "photo.jpg").touch()
    script = tmp_path / "completion"
    script.write_text(capfd.readouterr().out)
    quoted = " ".join(f"'{word}'" for word in ["dsr-fit", *words])
    program = f"source {script}; COMP_WORDS=({quoted}); COMP_CWORD={len(words)}; _tyro_dsr_fit; "
    program += "printf '%s\\n' \"${COMPREPLY[@]}\""
    printed = subprocess.run(["bash", "-c", program], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert expected <= set(printed.stdout.split()), printed.stderr
    if "" not in words:
        assert set(printed.stdout.split()) == expected


# --- Progress and verdicts ------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_progress_is_on_standard_error_and_on_a_terminal_only() -> None:
    import pty

    program = "from dsr_fit.cli.progress import tracked; print(sum(tracked(iter(range(9)), 'converting', 9)))"
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    alone = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, env=environment)
    assert (alone.stdout, alone.stderr) == (b"36\n", b"")
    ours, theirs = pty.openpty()
    shown = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=theirs, timeout=60,
                           env=environment)  # fmt: skip
    os.close(theirs)
    seen = os.read(ours, 10_000)
    os.close(ours)
    assert shown.stdout == b"36\n"
    assert b"converting" in seen


@pytest.mark.parametrize(
    ("verdict", "unfit_for", "line"),
    [
        (Verdict(0.934, True), (), "accepted, quality 0.93"),
        (Verdict(0.01, False, ("the arms", "the legs")), (), "rejected, quality 0.01: the arms"),
        (Verdict(None, False, ("the fit diverged",)), ("body",), "rejected: the fit diverged"),
        (
            Verdict(), ("body", "semantic_prior"),
            "not judged: the quality gate's calibration differs in body, semantic prior",
        ),
    ],
)  # fmt: skip
def test_a_fit_ends_with_its_verdict(
    tmp_path: Path,
    capfd: Capture,
    monkeypatch: pytest.MonkeyPatch,
    verdict: Verdict,
    unfit_for: tuple[str, ...],
    line: str,
) -> None:
    monkeypatch.setattr(Gate, "judge", lambda *_: verdict)
    monkeypatch.setattr(Gate, "unfit_for", lambda *_: unfit_for)
    assert cli.main([str(PERSON), "--out", str(tmp_path / "m.obj"), *QUICK]) == 0
    assert capfd.readouterr().out.endswith(f"; {line}\n")
