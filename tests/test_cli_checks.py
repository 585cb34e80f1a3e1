"""What every command refuses before its work: missing inputs, outputs that can't be written, idle options."""

from __future__ import annotations

import dataclasses
import os
import shutil
import typing
from pathlib import Path
from typing import Any

import pytest
from command_line import PERSON, Capture, content, refused

from dsr_fit.assets import LICENSED
from dsr_fit.cli import main as cli
from dsr_fit.cli.batch import _statuses
from dsr_fit.cli.checks import MADE
from dsr_fit.errors import UsageError

pytestmark = pytest.mark.usefixtures("nothing_is_set", "inputs")

SMALLEST = {
    "fit": "person.png --out m.obj",
    "batch": "photos --out results",
    "export": "photos --format spin --out labels.npz",
    "train": "--out regressor",
    "train parser": "--out parser",
    "rounds": "photos --out rounds",
    "evaluate clothed": "--out r.json --cases-dir cases",
    "evaluate ablation": "--out r.json --cases-dir cases",
    "evaluate spin": "--data data.npz --images photos --out r.json",
    "prior build": "--data photos --out prior.npz",
}
"""Every command that reads or writes files, with what it requires."""


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Whatever the smallest command lines name, in the current folder."""
    (tmp_path / "photos").mkdir()
    shutil.copy(PERSON, tmp_path / "person.png")
    shutil.copy(PERSON, tmp_path / "photos")
    for name in ("data.npz", "smpl.pkl", "extra.npy", "mean.npz", "keypoints.json", "mine.yaml", "mine.pt"):
        (tmp_path / name).write_text("{}")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _words(name: str, *options: str) -> list[str]:
    return [*name.split(), *SMALLEST[name].split(), *options]


def _paths() -> list[tuple[str, str]]:
    """Command and option of everything that is a path."""
    return [
        (name, field.name)
        for name in SMALLEST
        for field in dataclasses.fields(cli.COMMANDS[name])
        if Path in (typing.get_type_hints(cli.COMMANDS[name])[field.name], *_members(cli.COMMANDS[name], field.name))
    ]


def _members(kind: type, name: str) -> tuple[Any, ...]:
    return typing.get_args(typing.get_type_hints(kind)[name])


def test_every_command_is_tried() -> None:
    assert set(SMALLEST) | {"info", "completion"} == set(cli.COMMANDS)
    assert ("fit", "gate") in _paths()
    assert ("train", "labels") in _paths()


@pytest.mark.parametrize(("name", "option"), [path for path in _paths() if path[1] not in MADE])
def test_a_path_that_is_not_there_is_refused_used_or_not(inputs: Path, capfd: Capture, name: str, option: str) -> None:
    words = _words(name)
    flag = "--" + option.replace("_", "-")
    if flag in words:
        words[words.index(flag) + 1] = "gone/x.npz"
    elif option in ("image", "source", "results"):  # the positional ones
        words[len(name.split())] = "gone/x.npz"
    else:
        words += [flag, "gone/x.npz"]
    before = content(inputs)
    status, line = refused(capfd, words)
    assert (status, "gone/x.npz" in line, "no such" in line) == (1, True, True)
    assert content(inputs) == before


@pytest.mark.parametrize("words", ["{} --out m.obj", "person.png --out m.obj --keypoints {}"])
def test_a_name_longer_than_any_file_has_is_one_line(capfd: Capture, words: str) -> None:
    status, line = refused(capfd, words.format("n" * 300 + ".png").split())
    assert (status, line.endswith("nnn.png: File name too long")) == (1, True)


@pytest.mark.parametrize("name", SMALLEST)
@pytest.mark.parametrize("bad", ["person.png/x", "/proc/x", "n" * 300, "folder/" * 2000 + "x"])
def test_an_output_that_cannot_be_written_is_noticed_before_the_work(
    inputs: Path, capfd: Capture, name: str, bad: str
) -> None:
    words = _words(name)
    at = words.index("--out") + 1
    words[at] = bad + Path(words[at]).suffix
    before = content(inputs)
    status, line = refused(capfd, words)
    assert status == 1
    assert line.startswith(f"dsr-fit: --out {words[at]}: ")
    assert any(why in line for why in ("is a file", "can't be written", "at most 255", "File name too long"))
    assert content(inputs) == before


@pytest.mark.parametrize("option", ["cases-dir", "cache"])
def test_the_option_at_fault_is_named(capfd: Capture, option: str) -> None:
    words = _words("rounds", f"--{option}", "person.png/x")
    assert refused(capfd, words) == (
        1, f"dsr-fit: --{option} person.png/x: person.png is a file, not a folder; choose another",
    )  # fmt: skip


@pytest.mark.parametrize("name", ["batch", "rounds", "train", "evaluate clothed"])
def test_a_file_in_the_place_of_a_folder_is_refused(capfd: Capture, name: str) -> None:
    option = "--cases-dir" if name == "evaluate clothed" else "--out"
    line = f"dsr-fit: {option} person.png: is a file; name a folder"
    assert refused(capfd, _words(name, option, "person.png")) == (1, line)


FOLDERS_FOR_FILES = [
    *(("fit", flag) for flag in LICENSED if hasattr(cli.COMMANDS["fit"], flag) and flag != "joint_regressor_extra"),
    ("fit", "gate"), ("fit", "keypoints"), ("fit", "labels"), ("batch", "gate"), ("evaluate spin", "data"),
    ("evaluate spin", "body_male"), ("prior build", "body"),
]  # fmt: skip
"""Options that name a file."""


@pytest.mark.parametrize(("name", "option"), FOLDERS_FOR_FILES)
def test_a_folder_in_the_place_of_a_file_is_called_one(inputs: Path, capfd: Capture, name: str, option: str) -> None:
    extra = [] if option != "smpl_mean_params" else ["--regressor", "mine.pt"]
    status, line = refused(capfd, _words(name, *extra, "--" + option.replace("_", "-"), "photos"))
    assert (status, "is a folder" in line, "no such" in line, "Errno" in line) == (1, True, False, False)
    assert option not in LICENSED or LICENSED[option].what in line


@pytest.mark.parametrize("option", ["regressor", "parser"])
def test_a_folder_of_weights_is_called_one(inputs: Path, capfd: Capture, option: str) -> None:
    (inputs / "my.safetensors").mkdir()
    status, line = refused(capfd, _words("fit", f"--{option}", "my.safetensors"))
    assert (status, line) == (
        1, f"dsr-fit: my.safetensors is a folder, not a file of a {option}'s weights; name one of the files in it",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "option"),
    [
        ("batch", "keypoints"), ("rounds", "images"), ("rounds", "photos"), ("rounds", "synthetic"),
        ("export", "images"), ("evaluate spin", "images"), ("prior build", "data"),
    ],
)  # fmt: skip
def test_a_file_in_the_place_of_a_folder_of_inputs_is_called_one(capfd: Capture, name: str, option: str) -> None:
    line = f"dsr-fit: --{option} person.png: is a file; name a folder"
    assert refused(capfd, _words(name, f"--{option}", "person.png")) == (1, line)


@pytest.mark.parametrize("statuses", ["failed, unjudged", " failed,refused ", "failed"])
def test_statuses_may_have_spaces_between_them(statuses: str) -> None:
    assert _statuses(statuses) == tuple(word.strip() for word in statuses.split(","))
    with pytest.raises(UsageError, match="'gone' is none of failed, refused, unjudged"):
        _statuses(f"{statuses}, gone")


def test_a_name_as_long_as_the_file_system_takes_is_written(tmp_path: Path) -> None:
    """The hidden file that becomes it has a name too."""
    from dsr_fit.io.files import replacing

    path = tmp_path / ("n" * 251 + ".npz")
    with replacing(path) as temporary:
        temporary.write_text("content")
    assert path.read_text() == "content"


@pytest.mark.parametrize(
    ("words", "out"),
    [
        (["--config", "mine.yaml"], "mine.obj"),  # YAML is no suffix of a fit's
        (["--keypoints", "keypoints.json"], "keypoints.obj"),
        (["--gate", "keypoints.json"], "keypoints.obj"),
        (["--semantic-prior", "data.npz"], "data.obj"),
        (["--parser", "data.npz"], "data.obj"),
        (["--body", "data.npz"], "data.obj"),
        (["--labels", "person.png"], "./person.obj"),
    ],
)
def test_no_input_is_overwritten(inputs: Path, capfd: Capture, words: list[str], out: str) -> None:
    if out == "mine.obj":
        Path("mine.json").symlink_to("mine.yaml")
    status, line = refused(capfd, ["person.png", "--out", out, *words])
    assert (status, "would overwrite the input" in line) == (2, True)


def test_a_file_that_is_set_once_for_all_is_an_input_too(capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSR_FIT_BODY", str(Path("data.npz").absolute()))
    assert refused(capfd, ["person.png", "--out", "data.obj"])[0] == 2


@pytest.mark.parametrize("out", ["photos/manifest.json", "photos/new.json", "photos"])
def test_an_export_stays_out_of_the_results(inputs: Path, capfd: Capture, out: str) -> None:
    (inputs / "photos" / "manifest.json").write_text("{}")
    before = content(inputs)
    for kind in ("eft", "graphonomy"):
        status, line = refused(capfd, ["export", "photos", "--format", kind, "--out", out])
        assert (status, "lies in the folder of the results" in line) == (2, True)
    assert content(inputs) == before


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("fit", "--joint-regressor-extra extra.npy", "for official SMPL"),
        ("batch", "--joint-regressor-extra extra.npy --body open", "for official SMPL"),
        ("train", "--joint-regressor-extra extra.npy", "for official SMPL"),
        ("evaluate spin", "--joint-regressor-extra extra.npy", "for official SMPL"),
        ("export", "--joint-regressor-extra extra.npy", "goes with --to-body"),
        ("export", "--images photos", "only --format webdataset reads the images"),
        ("fit", "--smpl-mean-params mean.npz", "for checkpoints"),
        ("fit", "--smpl-mean-params mean.npz --body smpl.pkl", "for checkpoints"),
        ("rounds", "--smpl-mean-params mean.npz --regressor open", "for checkpoints"),
        ("train", "--smpl-mean-params mean.npz --regressor mine.safetensors", "for checkpoints"),
        ("fit", "--camera crop --focal 900", "--camera crop has a focal length of its own"),
        ("fit", "--height 1.8 --people all", "--people all: --height is about one person; leave one of them out"),
        ("fit", "--height 1.8 --weights.stature 0", "a known height is held by weights.stature, which is 0"),
        ("rounds", "--photo-limit 3", "about --photos"),
        ("fit", "--eft.iterations 3", "for --mode eft"),
        ("batch", "--eft.refinement.0.iterations 3", "for --mode eft"),
        ("fit", "--mode eft --stages.0.iterations 3", "has no use for these settings; leave"),
        ("fit", "--mode eft+smplify --stages.0.iterations 3", "its stages are --eft.refinement"),
        ("fit", "--label-scheme atr", "says what --labels holds"),
        ("fit", "--seed 99999999999999999999", "a whole number from 0 to 4294967295 works"),
        ("fit", "--eft.iterations 99999999999999999999 --mode eft", "--eft.iterations 99999999999999999999: at most"),
        ("evaluate clothed", "--first-seed -99999999999999999999", "at most 64 bits"),
        ("train", "--seed 5000000000", "below 2^32"),
        ("fit", "--scales.unit 0", "scales.unit is 0; it must be from 1e-06 to 1e+06"),
        ("fit", "--scales.robust nan", "scales.robust is nan; it must be from 1e-06 to 1e+06"),
        ("batch", "--eft.learning-rate inf", "eft.learning_rate is inf; it must be from 1e-12 to 1"),
        ("fit", "--camera-tilt.roll-spread 1e300", "camera_tilt.roll_spread is 1e+300; it must be from 1e-06"),
        ("fit", "--stages.0.resolution 20000", "a stage's resolution is 20000; it must be from 1 to 2048"),
        ("fit", "--stop-window 0", "stop_window is 0; it must be at least 1"),
        ("fit", "--stop-improvement nan", "stop_improvement is nan; it must be at least 0"),
        ("rounds", "--least-squares.steps -3", "least_squares.steps is -3; it must be at least 0"),
        ("fit", "--least-squares.headings 0", "least_squares.headings is 0; it must be at least 1"),
        ("fit", "--eft.keypoint-px nan", "eft.keypoint_px is nan; it must be at least 0"),
        ("evaluate clothed", "--perception whole --noise 0.1", "--noise is for --perception perfect"),
        ("evaluate spin", "--truth joints --body-male smpl.pkl", "--body-male is for --truth bodies"),
        ("train", "--gate all", "--gate is about --labels"),
        ("train", "--held-out 0.2", "--held-out is about --labels"),
        ("train", "--device cpu --devices 2", "--devices counts GPUs"),
    ],
)
def test_options_without_effect_and_numbers_too_large_are_wrong_usage(
    inputs: Path, capfd: Capture, name: str, options: str, said: str
) -> None:
    before = content(inputs)
    status, line = refused(capfd, _words(name, *options.split()))
    assert (status, said in line) == (2, True), line
    assert content(inputs) == before


def test_options_that_have_an_effect_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    done = []
    for kind in set(cli.COMMANDS.values()):
        monkeypatch.setattr(kind, "run", lambda arguments: done.append(type(arguments)))
    monkeypatch.setenv(LICENSED["regressor"].variable, "mine.pt")
    for name, options in (
        ("fit", "--joint-regressor-extra extra.npy --body smpl.pkl"),
        ("fit", "--smpl-mean-params mean.npz --body smpl.pkl"),  # the checkpoint that is set
        ("fit", "--mode eft --eft.iterations 3"),
        ("export", "--joint-regressor-extra extra.npy --to-body smpl.pkl"),
        ("evaluate spin", "--joint-regressor-extra extra.npy --body-male smpl.pkl"),
    ):
        assert cli.main(_words(name, *options.split())) == 0
    assert len(done) == 5


@pytest.mark.skipif(not hasattr(os, "pathconf"), reason="the limit is asked of the system")
def test_outputs_beside_the_named_one_have_names_too(capfd: Capture) -> None:
    """`mesh.obj` fits; its `mesh.json` would not."""
    status, line = refused(capfd, ["person.png", "--out", "n" * 251 + ".obj"])
    assert (status, "a name of 256 bytes; at most 255" in line) == (1, True)
