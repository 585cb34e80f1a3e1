"""The command line: statuses and error lines, options and their documentation."""

from __future__ import annotations

import json
import logging
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import command_line_docs
import numpy as np
import pytest
import torch
from command_line import PERSON, QUICK, ROOT, Capture, content, refused
from PIL import Image
from synthetic_smpl import synthetic_smpl, write_npz

from dsr_fit.assets import LICENSED, shipped
from dsr_fit.cli import main as cli
from dsr_fit.cli.fit import FitArguments
from dsr_fit.config import FitConfig, Weights
from dsr_fit.render import device

PAGE = ROOT / "docs" / "command_line.md"

pytestmark = pytest.mark.usefixtures("nothing_is_set")


# --- Refusals -------------------------------------------------------------------------------------


class _Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("attacked",)


def _write_inputs(folder: Path) -> None:
    """Everything that a refusal below names, in the current folder."""
    shutil.copy(PERSON, folder / "person.png")
    (folder / "empty").mkdir()
    Image.new("RGB", (200, 300), (128, 128, 128)).save(folder / "grey.png")
    (folder / "text.jpg").write_text("no picture")
    _write_keypoints(folder / "twenty.json", [1.0] * 60)
    _write_keypoints(folder / "blank.json", [0.0] * 75)
    (folder / "nobody.json").write_text('{"people": []}')
    np.save(folder / "labels.npy", np.zeros((10, 20), np.uint8))
    np.savez(folder / "part.npz", v_template=np.zeros((5, 3)), f=np.zeros((1, 3), int))
    (folder / "damaged.npz").write_bytes(shipped("priors/open_body/body.npz").read_bytes()[:-500])
    (folder / "evil.pkl").write_bytes(pickle.dumps({"v_template": _Attack()}, protocol=2))
    (folder / "wrong.yaml").write_text("weights: {dsr_mcc: 3}\n")
    (folder / "still.yaml").write_text("stages: [{resolution: 56, iterations: 0}]\n")
    (folder / "results" / "folder.obj").mkdir(parents=True)


def _write_keypoints(path: Path, *people: list[float]) -> None:
    path.write_text(json.dumps({"people": [{"pose_keypoints_2d": points} for points in people]}))


REFUSALS = {
    "no such image": ("nothing.jpg", 1, "no such image: nothing.jpg"),
    "not an image": (
        "text.jpg", 1, "text.jpg is not an image that can be read; JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF, JPEG 2000, "
        "PPM or HEIC work",
    ),
    "a folder": ("results", 1, "results is a folder; `dsr-fit batch results --out DIR` fits the images in it"),
    "an empty folder": ("empty", 1, "empty is an empty folder; name an image"),
    "nobody": (
        "grey.png", 1, "grey.png: nobody was found in the image; try a --bbox, or give --keypoints",
    ),
    "nobody in the box": (
        "grey.png --bbox 9,9,99,99", 1,
        "grey.png: nobody was found in the given --bbox; try another --bbox, or give --keypoints",
    ),
    "box outside": (
        "grey.png --bbox 900,9,9,9", 1,
        "the box 900,9,9,9 lies outside the 200 x 300 image; give x,y,width,height in it",
    ),
    "box of three": (
        "person.png --bbox 1,2,3", 2,
        "--bbox 1,2,3: expected x,y,w,h in pixels, such as 120,40,200,480",
    ),
    "box of words": (
        "person.png --bbox a,b,c,d", 2,
        "--bbox a,b,c,d: expected x,y,w,h in pixels, such as 120,40,200,480",
    ),
    "empty box": ("person.png --bbox 1,2,0,4", 2, "--bbox 1,2,0,4: width and height must be positive"),
    "box and keypoints": (
        "person.png --bbox 1,2,3,4 --keypoints blank.json", 2,
        "--bbox tells the detector where to look; with --keypoints choose by --person",
    ),
    "no such keypoints": (
        "person.png --keypoints none.json", 1, "--keypoints none.json: no such file",
    ),
    "keypoints of another length": (
        "person.png --keypoints twenty.json", 1,
        "person 0 of twenty.json has 20 keypoints; 17 (COCO), 18 or 25 (OpenPose), 33 (MediaPipe) or 49 "
        "(dsr-fit) points of x, y, confidence work",
    ),
    "keypoints of nobody": (
        "person.png --keypoints nobody.json", 1,
        "nobody.json: holds nobody's keypoints; without --keypoints the detector looks for people",
    ),
    "no usable keypoints": (
        "person.png --keypoints blank.json", 1,
        "person 0 of blank.json has 0 usable keypoints, a fit needs 4",
    ),
    "damaged keypoints": (
        "person.png --keypoints damaged.npz", 1,
        "damaged.npz can't be read (File is not a zip file); a mesh.npz written by dsr-fit works",
    ),
    "labels of another size": (
        "person.png --labels labels.npy", 1,
        "the label map labels.npy is 20 x 10 pixels, the image 640 x 900; both need the same size",
    ),
    "no such labels": ("person.png --labels none.npy", 1, "--labels none.npy: no such file"),
    "a body with missing keys": (
        "person.png --body part.npz", 1,
        "part.npz: not a complete SMPL body, it lacks shapedirs, weights, kintree_table, J_regressor",
    ),
    "a damaged body": (
        "person.png --body damaged.npz", 1,
        "damaged.npz: not a readable .npz body (File is not a zip file); official .pkl and .npz files work",
    ),
    "an array for a body": (
        "person.png --body labels.npy", 1,
        "labels.npy: holds one array, not a body; official .pkl and .npz files work",
    ),
    "a malicious body": (
        "person.png --body evil.pkl", 1,
        "evil.pkl: refused, the pickle wants posix.mkdir; only numpy, scipy.sparse and chumpy arrays "
        "are read",
    ),
    "a damaged prior": (
        "person.png --semantic-prior damaged.npz", 1,
        "damaged.npz: not a readable semantic prior (File is not a zip file)",
    ),
    "a prior that is none": (
        "person.png --semantic-prior part.npz", 1, "part.npz: lacks `probabilities` or `body_sha256`",
    ),
    "person too large": (
        "person.png --person 3", 2, "--person 3: person.png shows 1 person, numbered from 0",
    ),
    "person negative": (
        "person.png --person -1", 2, "--person -1: person.png shows 1 person, numbered from 0",
    ),
    "no focal length": (
        "person.png --focal 0", 2, "--focal 0: expected pixels, a positive number",
    ),
    "a height in centimetres": (
        "person.png --height 180", 2, "--height 180: metres, so between 0.4 and 2.6; did you mean 1.80?",
    ),
    "nobody's height": ("person.png --height 0.3", 2, "--height 0.3: metres, so between 0.4 and 2.6"),
    "no height": ("person.png --height nan", 2, "--height nan: metres, so between 0.4 and 2.6"),
    "unknown preset": (
        "person.png --config smplfy", 2,
        "no preset is called 'smplfy'; presets: {presets}; or give a .yaml file",
    ),
    "no such configuration": (
        "person.png --config none.yaml", 2, "none.yaml: the configuration file can't be read",
    ),
    "unknown configuration key": (
        "person.png --config wrong.yaml", 2,
        "unknown configuration key `weights.dsr_mcc`; known here: {weights}",
    ),
    "a stage of nothing": (
        "person.png --config still.yaml", 2,
        "a stage's iterations is 0; it must be at least 1",
    ),
}  # fmt: skip

OUTPUT_REFUSALS = {
    "a file for a folder": (
        "grey.png/m.obj", 1, "--out grey.png/m.obj: grey.png is a file, not a folder; choose another",
    ),
    "a folder of that name": (
        "results/folder.obj", 1,
        "--out results/folder.obj: results/folder.obj is a folder; choose another name",
    ),
    "no suffix": ("mesh", 2, "--out mesh: the suffix must be one of .obj, .ply, .stl, .glb"),
    "wrong suffix": ("m.png", 2, "--out m.png: the suffix must be one of .obj, .ply, .stl, .glb"),
    "the photo itself": (
        "person.obj", 2, "--out person.obj: would overwrite the input person.png; choose another name",
    ),
    "the keypoints themselves": (
        "results/../blank.obj", 2,
        "--out results/../blank.obj: would overwrite the input results/../blank.json; choose another name",
    ),
}  # fmt: skip


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    _write_inputs(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("case", REFUSALS)
def test_bad_input_is_one_clear_line_and_writes_nothing(inputs: Path, capfd: Capture, case: str) -> None:
    words, status, line = REFUSALS[case]
    presets = ", ".join(sorted(path.stem for path in shipped("configs").glob("*.yaml")))
    line = line.replace("{presets}", presets).replace("{weights}", ", ".join(sorted(vars(Weights()))))
    before = content(inputs)
    assert refused(capfd, [*words.split(), "--out", "new/folder/m.obj"]) == (status, f"dsr-fit: {line}")
    assert content(inputs) == before  # no folder is left, and the pickle's mkdir did not run either


@pytest.mark.parametrize("case", OUTPUT_REFUSALS)
def test_bad_outputs_are_refused_before_the_work(inputs: Path, capfd: Capture, case: str) -> None:
    out, status, line = OUTPUT_REFUSALS[case]
    before = content(inputs)
    argv = ["person.png", "--keypoints", "blank.json", "--out", out]
    assert refused(capfd, argv) == (status, f"dsr-fit: {line}")
    assert content(inputs) == before


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux's /proc: root may write anywhere else")
def test_a_folder_that_refuses_files_is_found_out_before_the_work(capfd: Capture) -> None:
    status, line = refused(capfd, [str(PERSON), "--out", "/proc/m.obj"])
    assert status == 1
    assert line.startswith("dsr-fit: --out /proc/m.obj: the folder /proc can't be written (")
    assert line.endswith("); choose another")


def test_missing_licensed_files_say_where_they_come_from(inputs: Path, capfd: Capture) -> None:
    for flag, entry in LICENSED.items():
        option = "--" + flag.replace("_", "-")
        if flag == "joint_regressor_extra" or not hasattr(FitArguments, flag):
            continue  # asked for by official SMPL only (tests/test_body_files.py), or not by a fit at all
        status, line = refused(capfd, ["person.png", "--out", "m.obj", option, "none.npz"])
        assert status == 1
        assert line.startswith(f"dsr-fit: none.npz: no such file (named by {option}); {entry.what} comes from ")
        assert entry.source in line
        assert entry.variable in line
    assert not (inputs / "m.obj").exists()


NO_GPU = "torch sees no CUDA device (this torch is a CPU build)"
NO_BACKEND = (
    "nothing that renders there is installed: neither Triton, which comes with torch's CUDA builds on Linux, "
    'nor nvdiffrast (`pip install "dsr-fit[gpu]"`)'
)


@pytest.mark.parametrize(("gpu", "lacking"), [(False, NO_GPU), (True, NO_BACKEND)])
def test_a_gpu_that_cannot_be_used_is_wrong_usage_and_info_says_why(
    capfd: Capture, monkeypatch: pytest.MonkeyPatch, gpu: bool, lacking: str
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(device, "find_spec", lambda _: None)
    status, line = refused(capfd, [str(PERSON), "--out", "m.obj", "--device", "cuda"])
    assert (status, line) == (2, f"dsr-fit: --device cuda: {lacking}; use --device cpu, or see README")
    assert cli.main(["info"]) == 0
    assert re.search(rf"--device auto +│ cpu: {re.escape(lacking)} ", capfd.readouterr().out)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["a.png", "--out", "m.obj", "--bogus", "3"], "--bogus"),
        (["a.png", "--out", "m.obj", "--weights.dsr-x", "3"], "--weights.dsr-mc"),  # suggested
        (["a.png", "--out", "m.obj", "--person", "first"], "--person"),
        (["a.png", "--out", "m.obj", "--camera", "fisheye"], "--camera"),
        (["a.png"], "--out"),
        (["fit", "--out", "m.obj"], "The photo."),
        (["info", "--bogus"], "--bogus"),
    ],
)
def test_wrong_usage_is_status_2_and_names_the_option(capfd: Capture, argv: list[str], words: str) -> None:
    assert cli.main(argv) == 2
    said = capfd.readouterr()
    assert words in said.err
    assert "Traceback" not in said.err
    assert said.out == ""


def test_a_process_ends_with_the_status_and_the_line(tmp_path: Path) -> None:
    """Nothing else is said, also where no kernel has been compiled yet."""
    command = [sys.executable, "-m", "dsr_fit", "nothing.jpg", "--out", "m.obj"]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout, ended.stderr) == (1, "", "dsr-fit: no such image: nothing.jpg\n")


# --- Options --------------------------------------------------------------------------------------


def parse(*argv: str) -> Any:
    """What a command line asks for, without doing it."""
    return cli.parse(list(argv))


def test_fit_is_put_before_an_image() -> None:
    argv = ["a.png", "--out", "m.obj", "--person", "1", "--weights.dsr-c", "0.5"]
    assert parse(*argv) == parse("fit", *argv)
    assert parse("--out", "m.obj", "a.png") == parse("a.png", "--out", "m.obj")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_a_file_named_like_a_command_is_given_with_its_folder(name: str) -> None:
    assert parse(f"./{name}", "--out", "m.obj").image == Path(name)
    assert parse("fit", name, "--out", "m.obj").image == Path(name)


def test_options_override_the_file_which_overrides_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("weights: {dsr_mc: 3, silhouette: 2}\nstages: [{resolution: 56, iterations: 4}]\n")
    default = FitConfig()
    assert parse("a.png", "--out", "m.obj").fit == default
    given = parse("a.png", "--out", "m.obj", "--weights.dsr-mc", "3").fit
    assert given.weights.dsr_mc == 3
    assert given.weights.dsr_c == default.weights.dsr_c
    for words in (["--config", str(path)], [f"--config={path}"]):
        config = parse("a.png", "--weights.dsr-mc", "5", "--out", "m.obj", *words).fit
        assert config.weights.dsr_mc == 5
        assert config.weights.silhouette == 2
        assert config.weights.dsr_c == default.weights.dsr_c
        assert [stage.resolution for stage in config.stages] == [56]
    assert parse("a.png", "--out", "m.obj", "--config", "smplify").fit == default


@pytest.mark.parametrize("words", [[], ["evaluate"], ["prior"]])
def test_the_overview_lists_every_command_or_those_of_a_group(capfd: Capture, words: list[str]) -> None:
    assert cli.main([*words, "--help"]) == 0
    overview = capfd.readouterr().out
    assert cli.main(words) == 2
    assert capfd.readouterr().out == overview
    for name, command in cli.COMMANDS.items():
        first = (command.__doc__ or "").splitlines()[0]
        assert first
        assert bool(re.search(rf"^  {name} +{re.escape(first)}$", overview, re.MULTILINE)) == (
            name.split()[: len(words)] == words
        )


def test_a_group_names_its_commands(capfd: Capture) -> None:
    line = "dsr-fit: `dsr-fit evaluate` has no 'bogus'; choose one of clothed, ablation, spin"
    assert refused(capfd, ["evaluate", "bogus"]) == (2, line)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help_and_a_chapter(capfd: Capture, name: str) -> None:
    assert cli.main([*name.split(), "--help"]) == 0
    shown = capfd.readouterr().out
    assert f"usage: dsr-fit {name}" in shown
    assert f"\n## `dsr-fit {name}" in PAGE.read_text()


def test_help_loads_no_heavy_package() -> None:
    code = (
        "import sys; from dsr_fit.cli.main import COMMANDS, main\n"
        "for name in ['', *COMMANDS]: main([*name.split(), '--help'])\n"
        "sys.exit(str({'numpy', 'torch', 'cv2', 'numba'} & set(sys.modules)))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert ended.stderr.strip() == "set()"


def test_the_tables_of_options_are_those_of_the_code() -> None:
    """After a change of an option: python tools/command_line_docs.py."""
    page = PAGE.read_text(encoding="utf-8")
    assert page.count("<!-- options:") == len(command_line_docs.KINDS)
    assert command_line_docs.rewritten(page) == page


@pytest.mark.parametrize("name", command_line_docs.KINDS)
def test_every_option_has_a_help_text(name: str) -> None:
    options = command_line_docs.options(command_line_docs.KINDS[name])
    assert options
    for option, (_, text) in options.items():
        assert text.split("(default")[0].split("(required")[0].strip(), f"{option} has no help text"


def test_info_tells_versions_backends_and_assets(
    capfd: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("DSR_FIT_BODY", str(tmp_path / "gone.pkl"))
    (tmp_path / "prior.npy").touch()
    monkeypatch.setenv("DSR_FIT_SEMANTIC_PRIOR", str(tmp_path / "prior.npy"))
    assert cli.main(["info"]) == 0
    shown = capfd.readouterr().out
    for words in (
        torch.__version__,
        np.__version__,
        "nvdiffrast",
        "--device auto",
        str(shipped("priors/open_body/body.npz")),
    ):
        assert words in shown
    assert f"DSR_FIT_BODY names {tmp_path / 'gone.pkl'}, which is missing" in shown
    assert f"found: {tmp_path / 'prior.npy'} (DSR_FIT_SEMANTIC_PRIOR)" in shown
    assert "not set: --joint-regressor-extra PATH, DSR_FIT_JOINT_REGRESSOR_EXTRA or " in shown


def test_official_smpl_takes_a_prior_of_its_own_or_the_one_that_ships(
    tmp_path: Path, capfd: Capture, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_npz(tmp_path / "smpl.npz", synthetic_smpl())
    monkeypatch.setenv("DSR_FIT_BODY", str(path))
    with caplog.at_level(logging.WARNING, logger="dsr_fit"):
        assert cli.main([str(PERSON), "--out", str(tmp_path / "m.obj"), *QUICK]) == 0
    assert "body 'smpl' takes the open body's semantic prior" in caplog.text
    assert "nine of the 49 keypoints stay unused" in caplog.text
    assert "; not judged: the quality gate's calibration differs in body, " in capfd.readouterr().out
    np.save(tmp_path / "prior.npy", np.zeros((1, 3, 20)))
    monkeypatch.setenv("DSR_FIT_SEMANTIC_PRIOR", str(tmp_path / "prior.npy"))
    status, line = refused(capfd, [str(PERSON), "--out", str(tmp_path / "m.obj")])
    assert (status, "has shape (3, 20), but body 'smpl' has 13776 faces" in line) == (1, True)
    # The open body has its own prior, whatever is set for the licensed one.
    _, line = refused(capfd, ["nothing.jpg", "--out", str(tmp_path / "m.obj"), "--body", "open"])
    assert line == "dsr-fit: no such image: nothing.jpg"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--label-scheme", "atr"], "says what --labels holds"),
        (["--labels", "map.png", "--parser", "own.safetensors"], "takes the place of a parser"),
        (["--labels", "map.png", "--parsing-protocol", "paper"], "takes the place of a parser"),
    ],
)
def test_options_of_labels_that_would_do_nothing_are_refused(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("photo.jpg", "map.png"):
        Path(name).touch()
    assert cli.main(["photo.jpg", "--out", "mesh.obj", *options]) == 2
    assert said in capsys.readouterr().err
