"""Checkpoints of HMR: every layout is read, nothing in a file is run, and what doesn't fit is said in one line."""

from __future__ import annotations

import logging
import pickle
import stat
import struct
import sys
import tarfile
import types
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hmr_files
import numpy as np
import pytest
import torch

from dsr_fit.errors import InputError
from dsr_fit.io.torch_file import load_torch
from dsr_fit.priors.pose import load_pose_prior
from dsr_fit.regressor.checkpoints import load_hmr_checkpoint
from dsr_fit.regressor.hmr import Hmr
from dsr_fit.rotation import axis_angle_to_matrix, matrix_to_axis_angle, sixd_to_matrix

pytestmark = pytest.mark.usefixtures("nothing_is_set")


class Attack:
    """Writes a file when it is unpickled by whoever runs what a pickle says."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.write_text, (self.path, "run")


@contextmanager
def yacs_stand_in() -> Iterator[type]:
    """A module that pickles as yacs's; gone again afterwards, as it is for our users."""

    class CfgNode(dict):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.__dict__["__immutable__"] = True

    CfgNode.__module__, CfgNode.__qualname__ = "yacs.config", "CfgNode"
    package, module = types.ModuleType("yacs"), types.ModuleType("yacs.config")
    module.CfgNode = CfgNode  # type: ignore[attr-defined]
    package.config = module  # type: ignore[attr-defined]
    sys.modules.update({"yacs": package, "yacs.config": module})
    try:
        yield CfgNode
    finally:
        del sys.modules["yacs"], sys.modules["yacs.config"]


def lightning(tmp_path: Path, config: Any) -> dict[str, Any]:
    """DSR's: weights beside the body's arrays, its loss's, an optimiser, options, and something evil."""
    state = {f"model.{name}": value for name, value in hmr_files.weights().items()}
    state["model.backbone.bn1.num_batches_tracked"] = torch.tensor(3)
    state |= {name: torch.zeros(4, 3) for name in ("smpl.v_template", "model.smpl.smpl.shapedirs", "J_regressor")}
    optimiser = {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1e-3}]}
    return {
        "epoch": 3,
        "state_dict": state,
        "optimizer_states": [optimiser],
        "hyper_parameters": config,
        "best": np.float64(3.5),
        "callbacks": {Attack: {"evil": Attack(tmp_path / "written")}, "kept": {1, 2}},
    }


LAYOUTS = {
    "spin": lambda: {"model": hmr_files.flat(hmr_files.weights())},
    "spin with an optimiser": lambda: {
        "model": hmr_files.flat(hmr_files.weights()),
        "optimizer": {"state": {}, "param_groups": [{"lr": 3e-5}]},
        "epoch": 5,
    },
    "bare": lambda: hmr_files.flat(hmr_files.weights()),
    "data parallel": lambda: {f"module.{key}": value for key, value in hmr_files.flat(hmr_files.weights()).items()},
    "named parts, wrapped twice": lambda: {
        "state_dict": {f"model.module.{key}": value for key, value in hmr_files.weights().items()}
    },
    "double precision": lambda: {"model": hmr_files.weights(torch.float64)},
    "half precision": lambda: {"model": hmr_files.weights(torch.float16)},
    "a classifier left in": lambda: {"model": hmr_files.weights() | {"backbone.fc.weight": torch.zeros(1000, 2048)}},
}


def is_whole(network: Hmr) -> bool:
    """Every tensor is filled with its own number."""
    found = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    assert found.keys() == hmr_files.shapes().keys()
    return all(
        [extreme.item() for extreme in found[name].aminmax()] == [value, value]
        for name, value in hmr_files.values().items()
    )


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        load_hmr_checkpoint(path)
    line = str(caught.value)
    assert line.startswith(f"{path}: ")
    assert "\n" not in line
    return line.removeprefix(f"{path}: ")


def saved(path: Path, content: Any, zipped: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read(layout: str, tmp_path: Path) -> None:
    network = load_hmr_checkpoint(saved(tmp_path / "any name", LAYOUTS[layout](), zipped=layout != "spin"))
    assert is_whole(network)
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert all(value.dtype == torch.float32 for value in network.parameters())


@pytest.mark.parametrize("zipped", [True, False])
def test_lightnings_checkpoint_runs_nothing(tmp_path: Path, zipped: bool) -> None:
    with yacs_stand_in() as config:
        content = lightning(tmp_path, config({"DATASET": config({"ROOT": "/data"}), "EPOCHS": [1, 2]}))
        path = saved(tmp_path / "dsr.ckpt", content, zipped)
    assert is_whole(load_hmr_checkpoint(path))
    assert not (tmp_path / "written").exists()
    assert "yacs" not in sys.modules


def test_the_attack_would_work_elsewhere(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Attack(tmp_path / "written")))
    assert (tmp_path / "written").read_text() == "run"


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_are_what_torch_saved(tmp_path: Path, zipped: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(6, 8, generator=generator)
    content = {
        "whole": base,
        "view": base[1:5, ::3].T,
        "parameter": torch.nn.Parameter(base * 2),
        "integers": torch.arange(7),
        "half": base.half(),
        "brain": base.bfloat16(),
        "nothing": torch.zeros(0, 3),
        "scalar": torch.tensor(3.5),
        "flag": torch.tensor([True, False]),
        "nested": [({"deep": base.double()},)],
        "complex": torch.zeros(3, dtype=torch.complex64),
    }
    read = load_torch(saved(tmp_path / "some.pt", content, zipped))
    assert read.keys() == content.keys()
    for name in content.keys() - {"nested"}:
        torch.testing.assert_close(read[name], content[name].detach(), rtol=0, atol=0)
    torch.testing.assert_close(read["nested"][0][0]["deep"], base.double(), rtol=0, atol=0)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 4])
def test_unknown_objects_swallow_everything(tmp_path: Path, zipped: bool, protocol: int) -> None:
    with yacs_stand_in() as config:
        filled = config({"a": 1})
        content = {
            "config": filled,
            "kept": torch.ones(2),
            "set": {1},
            "path": Path("x"),
            "class": config,
            "size": torch.Size([3]),
        }
        torch.save(content, tmp_path / "a.pt", pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    read = load_torch(tmp_path / "a.pt")
    torch.testing.assert_close(read["kept"], torch.ones(2))
    assert not isinstance(read["config"], dict)


def zip_of(path: Path, data: bytes) -> Path:
    """As torch.save writes them, around a pickle of one's own."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", data)
        archive.writestr("a/version", "3\n")
        archive.writestr("a/byteorder", sys.byteorder)
    return path


@pytest.mark.parametrize(
    "known", [b"some\nthing", b"collections\nOrderedDict", b"torch._utils\n_rebuild_tensor_v2", b"torch\nFloatStorage"]
)
def test_a_file_can_set_nothing_on_what_it_is_given(tmp_path: Path, known: bytes) -> None:
    # GLOBAL, then BUILD with slots (None, {"append": None}): setattr on the class or function itself.
    zip_of(tmp_path / "a.pt", b"c" + known + b"\n(N}S'append'\nNstb.")
    assert refusal(tmp_path / "a.pt").startswith("not a readable file of torch.save (")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("named", ["os system", "posix system", "builtins eval", "builtins exec", "functools partial"])
def test_hostile_calls_are_not_made(tmp_path: Path, named: str, zipped: bool) -> None:
    written = tmp_path / "written"
    argument = f"touch {written}" if "system" in named else f"open({str(written)!r}, 'w')"
    data = f"c{named.replace(' ', chr(10))}\n(V{argument}\ntR.".encode()
    path = tmp_path / "a.pt"
    if zipped:
        zip_of(path, data)
    else:
        saved(path, 0, zipped=False)
        path.write_bytes(path.read_bytes().replace(pickle.dumps(0, protocol=2), data))
    assert "torch_file" in type(load_torch(path)).__module__
    assert not written.exists()


def test_torchscript_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(zip_of(tmp_path / "a.pt", pickle.dumps(0)), "a") as archive:
        archive.writestr("a/constants.pkl", pickle.dumps(()))
    assert refusal(tmp_path / "a.pt") == "not a readable file of torch.save (a TorchScript archive)"


class Script(torch.nn.Module):
    """Writes the file of that name when TorchScript loads it."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        torch.save(torch.zeros(1), state[0])
        self.path = state[0]
        self.training = state[1]


@pytest.mark.filterwarnings("ignore")
def test_torchscript_behind_a_second_directory_is_not_run(tmp_path: Path) -> None:
    """torch reads the zip's directory where the file says that it starts, `zipfile` the one before the file's end."""
    written, path = tmp_path / "written", tmp_path / "a.pt"
    torch.jit.save(torch.jit.script(Script(str(written))), path)
    data = path.read_bytes()
    end = data.rfind(b"PK\x05\x06")
    size, start = struct.unpack("<II", data[end + 12 : end + 20])
    directory = data[start : start + size]
    path.write_bytes(data[: start + size] + directory.replace(b"constants.pkl", b"innocents.pkl") + data[end:])
    assert refusal(path).startswith("not a readable file of torch.save (")
    assert not written.exists()
    torch.jit.load(path)
    assert written.exists()


@pytest.mark.parametrize("disguise", ["none", "a pickle's first byte", "a zip at its end"])
def test_a_tar_archive_is_not_extracted(tmp_path: Path, disguise: str) -> None:
    """torch extracts a member `storages`; as a hard link, that changes the permissions of any file of the user's."""
    secret, path = tmp_path / "secret", tmp_path / "a.pt"
    secret.touch(mode=0o600)
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, encoding="latin1") as archive:
        if disguise == "a pickle's first byte":
            archive.addfile(tarfile.TarInfo("\x80"))
        link = tarfile.TarInfo("storages")
        link.type, link.linkname, link.mode = tarfile.LNKTYPE, str(secret), 0o666
        archive.addfile(link)
    if disguise == "a zip at its end":
        path.write_bytes(path.read_bytes() + zip_of(tmp_path / "b.pt", b"words").read_bytes())
    assert refusal(path).startswith("not a readable file of torch.save (")
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600


def test_a_damaged_storage_is_refused(tmp_path: Path) -> None:
    data = saved(tmp_path / "a.pt", {"w": torch.full((8,), 0.5)}).read_bytes()
    numbers = torch.full((8,), 0.5).numpy().tobytes()
    assert numbers in data
    (tmp_path / "a.pt").write_bytes(data.replace(numbers, numbers[:-1] + b"\0"))
    assert "CRC" in refusal(tmp_path / "a.pt")


def test_missing_unexpected_and_wrong_are_one_line(tmp_path: Path) -> None:
    named = hmr_files.flat(hmr_files.weights())
    del named["layer1.0.conv1.weight"], named["deccam.bias"]
    named["conv1.weight"] = torch.zeros(64, 3, 3, 3)
    named["extra.weight"] = torch.zeros(2)
    line = refusal(saved(tmp_path / "a.pt", {"model": named}))
    assert line == (
        "not HMR on a ResNet-50, as SPIN, EFT and DSR save it: "
        "lacks backbone.layer1.0.conv1.weight, head.deccam.bias; holds extra.weight, which HMR has not; "
        "has shapes conv1.weight (64, 3, 3, 3) instead of (64, 3, 7, 7)"
    )


def test_long_lists_are_short(tmp_path: Path) -> None:
    line = refusal(saved(tmp_path / "a.pt", {"two\nlines": torch.zeros(2), 3 * "long" * 1000: torch.zeros(2)}))
    count = len(hmr_files.shapes()) - 3  # what an estimate starts from may be missing
    assert f"and {count - 4} more; holds two lines, longlong" in line
    assert len(line) < 500


NOT_CHECKPOINTS = {
    "a list": ([torch.zeros(2)], "holds no weights by name, as SPIN, EFT and DSR save them"),
    "no tensors": (
        {"epoch": 3, "lr": 0.1},
        "holds no weights by name, as SPIN, EFT and DSR save them; its entries: epoch, lr",
    ),
    "a module saved whole": (torch.nn.Linear(2, 2), "holds no weights by name, as SPIN, EFT and DSR save them"),
}


@pytest.mark.parametrize("case", NOT_CHECKPOINTS)
def test_other_files_of_torch_are_refused(tmp_path: Path, case: str) -> None:
    content, words = NOT_CHECKPOINTS[case]
    assert refusal(saved(tmp_path / "a.pt", content)) == words


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    assert refusal(path) == "not a readable file of torch.save (No such file or directory)"
    for content in (b"", b"words", pickle.dumps({"v_template": np.zeros(3)}), pickle.dumps(4)):
        path.write_bytes(content)
        assert refusal(path).startswith("not a readable file of torch.save (")
    np.savez(tmp_path / "a.npz", pose=np.zeros(3))
    assert refusal(tmp_path / "a.npz") == "not a readable file of torch.save (a zip without data.pkl)"


@pytest.mark.parametrize("zipped", [True, False])
def test_cut_off_files_are_refused(tmp_path: Path, zipped: bool) -> None:
    data = saved(tmp_path / "whole.pt", {"model": hmr_files.flat(hmr_files.weights())}, zipped).read_bytes()
    for share in (0.1, 0.5, 0.9, 0.999):
        (tmp_path / "a.pt").write_bytes(data[: int(share * len(data))])
        assert refusal(tmp_path / "a.pt").startswith("not a readable file of torch.save (")


def test_a_tensor_beyond_its_storage_is_refused(tmp_path: Path) -> None:
    data = saved(tmp_path / "a.pt", {"w": torch.arange(6.0)}, zipped=False).read_bytes()
    (tmp_path / "a.pt").write_bytes(data.replace(b"K\x00K\x06\x85", b"K\x02K\x06\x85"))  # offset 2, six numbers
    with pytest.raises(InputError, match="out of bounds"):
        load_torch(tmp_path / "a.pt")


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    named = hmr_files.flat(hmr_files.weights())
    named["fc2.bias"] = torch.tensor([torch.nan]).expand(1024)
    named["layer4.0.bn1.bias"] = torch.tensor([torch.inf]).expand(512)
    assert refusal(saved(tmp_path / "a.pt", {"model": named})) == (
        "weights that are not finite: layer4.0.bn1.bias, fc2.bias"
    )


def without_start() -> dict[str, Any]:
    named = hmr_files.flat(hmr_files.weights())
    return {"model": {name: value for name, value in named.items() if not name.startswith("init_")}}


def test_the_start_comes_from_the_mean_parameters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    arrays = {"pose": rng.normal(size=144), "shape": rng.normal(size=10).astype(np.float32), "cam": rng.normal(size=3)}
    np.savez(tmp_path / "mean.npz", **arrays)
    path = saved(tmp_path / "a.pt", without_start())
    given = load_hmr_checkpoint(path, tmp_path / "mean.npz")
    monkeypatch.setenv("DSR_FIT_SMPL_MEAN_PARAMS", str(tmp_path / "mean.npz"))
    for network in (given, load_hmr_checkpoint(path)):
        for name, key in (("init_pose", "pose"), ("init_shape", "shape"), ("init_cam", "cam")):
            found = getattr(network.head, name).numpy()
            np.testing.assert_array_equal(found, arrays[key].astype(np.float32)[None])
    # A checkpoint's own start is the one that it was trained with.
    own = saved(tmp_path / "own.pt", {"model": hmr_files.weights()})
    assert is_whole(load_hmr_checkpoint(own))


def test_without_mean_parameters_ours_stand_in(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="dsr_fit"):
        network = load_hmr_checkpoint(saved(tmp_path / "a.pt", without_start()))
    assert "--smpl-mean-params" in caplog.text
    head = network.head
    rotations = sixd_to_matrix(head.init_pose.view(24, 6))
    # Half a turn about x: facing the camera, whose y points down.
    torch.testing.assert_close(rotations[0], torch.diag(torch.tensor([1.0, -1.0, -1.0])), atol=1e-6, rtol=0)
    center = load_pose_prior("ranges").center.view(23, 3)
    torch.testing.assert_close(axis_angle_to_matrix(matrix_to_axis_angle(rotations[1:])), axis_angle_to_matrix(center))
    assert head.init_cam.tolist() == [pytest.approx([0.9, 0, 0])]
    assert not head.init_shape.any()


def test_other_mean_parameters_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pt", without_start())
    np.savez(tmp_path / "mean.npz", pose=np.zeros(72), shape=np.zeros(10), cam=np.zeros(3))
    with pytest.raises(InputError, match="mean.npz: not smpl_mean_params.npz, it lacks `pose` of 144 numbers"):
        load_hmr_checkpoint(path, tmp_path / "mean.npz")
    (tmp_path / "mean.npz").write_text("words")
    with pytest.raises(InputError, match="not a readable smpl_mean_params.npz"):
        load_hmr_checkpoint(path, tmp_path / "mean.npz")
    with pytest.raises(InputError, match=r"none.npz: no such file \(named by --smpl-mean-params\)"):
        load_hmr_checkpoint(path, tmp_path / "none.npz")
