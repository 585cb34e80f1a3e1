"""Names of images: any bytes survive the round trip, and one picture has one name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dsr_fit.dataset.listing import open_source
from dsr_fit.dataset.names import exported_name, file_name, image_path, normalised, path_of_own, readable, stored_name


@given(st.binary(min_size=1, max_size=30).filter(lambda name: b"\0" not in name))
def test_any_bytes_survive_the_round_trip(name: bytes) -> None:
    stored = stored_name(os.fsdecode(name))
    assert stored.encode("utf-8").decode("utf-8") == stored
    assert os.fsencode(file_name(stored)) == name
    assert exported_name(stored).encode("utf-8", "surrogateescape") == name


@pytest.mark.parametrize(
    ("name", "stored", "exported"),
    [
        (b"a/plain.jpg", "a/plain.jpg", "a/plain.jpg"),
        ("é 50%.jpg".encode(), "é 50%.jpg", "é 50%.jpg"),
        (b"caf\xe9.jpg", "caf%E9.jpg", "caf\udce9.jpg"),
        (b"caf%E9.jpg", "caf%25E9.jpg", "caf%E9.jpg"),
        (b"100%25.jpg", "100%2525.jpg", "100%25.jpg"),
        (b"%e9 and %7f", "%e9 and %7f", "%e9 and %7f"),
    ],
)
def test_stored_names(name: bytes, stored: str, exported: str) -> None:
    assert stored_name(os.fsdecode(name)) == stored
    assert exported_name(stored) == exported


@given(st.text(min_size=1, max_size=20))
def test_text_is_a_name_or_refused(name: str) -> None:
    try:
        stored = stored_name(name)
    except ValueError:
        assert "\0" in name or any("\ud800" <= letter <= "\udfff" for letter in name)
    else:
        assert exported_name(stored) == name or "%" in stored


@given(st.text(max_size=20))
def test_any_text_can_be_made_readable(text: str) -> None:
    assert readable(text).encode("utf-8").decode("utf-8") == readable(text)
    assert readable("é caf\udce9 \ud800") == "é caf%E9 \ufffd"


_PARTS = st.sampled_from(["", ".", "..", "...", "a", "%2E", "%2F", "%2E%2E", "%25", "%25%2E", "%25%25%2F", "%2e", "%"])
_PATHS = st.lists(_PARTS | st.text("a.%2EF5", max_size=6), min_size=1, max_size=4).map("/".join)


@given(_PATHS, _PATHS)
def test_every_name_has_a_path_of_its_own_beneath_the_folder(one: str, other: str) -> None:
    """Not only in writing: also as a file system follows `..`, `.` and doubled slashes."""
    folder = Path("/results/overlays")
    paths = [os.path.normpath(path_of_own(folder, name, ".0.jpg")) for name in (one, other)]
    assert (paths[0] == paths[1]) == (one == other)
    assert all(folder in Path(path).parents for path in paths)


def test_paths_of_plain_names_are_the_names() -> None:
    assert path_of_own(Path("out"), "sub/..a/p 50%.jpg", ".png") == Path("out/sub/..a/p 50%.jpg.png")
    assert path_of_own(Path("out"), "../p.jpg", ".png") == Path("out/%2E%2E/p.jpg.png")
    assert path_of_own(Path("out"), "/data/p.jpg", ".png") == Path("out/%2F/data/p.jpg.png")


def test_a_name_that_is_not_utf_8_is_an_image(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.jpg"
    with open(path, "wb") as file:
        file.write(b"content")
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbfcaf\xe9.jpg\n")
    for source in (open_source(tmp_path), open_source(tmp_path / "list.txt")):
        (entry,) = source.entries
        assert entry.imgname == "caf%E9.jpg"
        assert image_path(source.images, entry.imgname).read_bytes() == b"content"


@pytest.mark.parametrize("name", ["café.jpg".encode(), b"caf\xe9.jpg"])
def test_the_locale_does_not_change_a_name(tmp_path: Path, name: bytes) -> None:
    """Without UTF-8 at all, as in many a container."""
    with open(os.fsencode(tmp_path) + b"/" + name, "wb") as file:
        file.write(b"content")
    code = (
        "import sys; from pathlib import Path; from dsr_fit.dataset.listing import open_source;"
        "from dsr_fit.dataset.names import image_path;"
        "source = open_source(Path(sys.argv[1])); name = source.entries[0].imgname;"
        "print(ascii(name), image_path(source.images, name).read_bytes())"
    )
    plain = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    said = []
    for extra in ({"PYTHONUTF8": "1"}, plain):
        environment = {**os.environ, **extra, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        ended = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stderr
        said.append(ended.stdout)
    assert said[0] == said[1]
    assert "b'content'" in said[0]


def test_a_picture_that_is_listed_in_three_ways_is_fitted_once(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "a.jpg").touch()
    (tmp_path / "list.txt").write_text("./a.jpg\ns/../a.jpg\na.jpg\ns//b.jpg\ns/b.jpg\n")
    source = open_source(tmp_path / "list.txt")
    assert [entry.imgname for entry in source.entries] == ["a.jpg", "s/b.jpg"]
    assert source.repeated == 3


def test_behind_a_linked_folder_the_parent_is_the_targets(tmp_path: Path) -> None:
    (tmp_path / "far" / "target").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "target")
    assert normalised("link/../a.jpg", tmp_path) == "far/a.jpg"
