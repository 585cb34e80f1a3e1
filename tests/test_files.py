"""Files take their name whole or not at all; numpy's files are read or refused with one kind of error."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import numpy as np
import pytest

from dsr_fit.errors import InputError
from dsr_fit.io.files import read_arrays, replacing


def test_a_block_that_succeeds_replaces_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with replacing(path) as temporary:
        assert temporary.parent == tmp_path  # the same file system, so that the renaming is atomic
        assert temporary.suffix == ".txt"
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt(), SystemExit(1)])
def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def write_half() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half of the ne")
            raise error

    with pytest.raises(type(error)):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_one_line_about_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    line = r"a\.txt: can't write there \(No space left on device\)"
    with pytest.raises(InputError, match=line), replacing(path):
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_made(tmp_path: Path) -> None:
    with replacing(tmp_path / "new" / "folder" / "a.txt") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "new" / "folder" / "a.txt").read_text() == "new"


def test_a_file_or_folder_in_the_way_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="can't write there"), replacing(tmp_path / "file" / "a.txt"):
        pytest.fail("the block must not run")
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(InputError, match="can't write there"), replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "file"]


def test_the_processes_umask_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To read it is to set it for a moment, in which another thread's files would have other permissions."""
    monkeypatch.setattr("os.umask", lambda mask: pytest.fail("the umask was changed"))
    with replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")


def test_files_get_the_permissions_that_the_user_asks_for(tmp_path: Path) -> None:
    """Temporary files are private; what others may do with the result is the umask's choice."""
    before = os.umask(0o027)
    try:
        with replacing(tmp_path / "a.txt") as temporary:
            temporary.write_text("new")
        assert os.umask(0o027) == 0o027  # looking at the umask did not change it
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o640


def test_numpys_files_come_back_as_they_were(tmp_path: Path) -> None:
    numbers, names = np.arange(6.0).reshape(2, 3), np.array(["a", "b"])
    np.save(tmp_path / "a.npy", numbers)
    np.savez_compressed(tmp_path / "a.npz", numbers=numbers, names=names)
    single, several = read_arrays(tmp_path / "a.npy"), read_arrays(tmp_path / "a.npz")
    assert isinstance(single, np.ndarray)
    assert isinstance(several, dict)
    np.testing.assert_array_equal(single, numbers)
    np.testing.assert_array_equal(several["numbers"], numbers)
    np.testing.assert_array_equal(several["names"], names)
    assert set(several) == {"numbers", "names"}


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", a=np.array([{}], dtype=object))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(ValueError, match="pickled objects"):
            read_arrays(tmp_path / name)


def _refusal(path: Path, content: bytes) -> str | None:
    """Why a file of this content is refused; None where it is read."""
    path.write_bytes(content)
    try:
        read_arrays(path)
    except ValueError as error:
        return str(error)
    return None


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_whatever_is_damaged_is_a_value_error_of_one_line(tmp_path: Path, suffix: str) -> None:
    """Cut short and with bytes turned over: read, or refused; nothing else, and no file left open."""
    path = tmp_path / f"a{suffix}"
    (np.savez_compressed if suffix == ".npz" else np.save)(path, np.arange(40.0))
    whole = path.read_bytes()
    turned = [whole[:i] + bytes([whole[i] ^ 0x55]) + whole[i + 1 :] for i in range(0, len(whole), 3)]
    damaged = [whole[:length] for length in range(0, len(whole), 5)] + turned
    reasons = [reason for content in damaged if (reason := _refusal(path, content)) is not None]
    assert len(reasons) > len(damaged) // 3
    assert all(reason and "\n" not in reason for reason in reasons)
    with pytest.raises(ValueError, match="No such file"):
        read_arrays(tmp_path / "missing.npz")
