"""The pictures of `--overlays`: of the rows as they are, drawn when they are missing, and never in the way of a fit."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from batch_pictures import ONE, PERSON, QUICK, photo
from PIL import Image
from scenes import observe
from scenes import person as posed

from dsr_fit.cli import main as cli
from dsr_fit.dataset.fitting import BatchFitter
from dsr_fit.dataset.overlays import overlay_path, remove_overlays
from dsr_fit.dataset.records import PackedObservation, PersonObservation
from dsr_fit.dataset.run import fit_dataset
from dsr_fit.dataset.settings import Settings
from dsr_fit.io.images import read_image


def test_overlays_that_are_missing_are_drawn(tmp_path: Path) -> None:
    """Asked for later, lost since, and of an image whose name is not UTF-8; none is drawn twice."""
    (tmp_path / "images").mkdir()
    for name in (b"a.png", b"caf\xe9.png"):
        with open(os.fsencode(tmp_path / "images") + b"/" + name, "wb") as file:
            file.write(PERSON.read_bytes())
    settings = Settings(config=QUICK)
    list(fit_dataset(tmp_path / "images", tmp_path / "out", settings=settings, resources=ONE))
    assert not (tmp_path / "out" / "overlays").exists()
    drawn = [
        os.fsencode(tmp_path / "out" / "overlays") + b"/" + name for name in (b"a.png.0.jpg", b"caf\xe9.png.0.jpg")
    ]
    again = replace(settings, overlays=True)
    assert not list(fit_dataset(tmp_path / "images", tmp_path / "out", settings=again, resources=ONE))
    first = [os.stat(path).st_mtime_ns for path in drawn]
    os.unlink(drawn[1])
    list(fit_dataset(tmp_path / "images", tmp_path / "out", settings=again, resources=ONE))
    assert os.stat(drawn[0]).st_mtime_ns == first[0]
    assert read_image(os.fsdecode(drawn[1]))[0].shape == (448, 2240, 3)


def test_overlays_are_those_of_the_rows(tmp_path: Path) -> None:
    """An image is replaced, another fails now, and neither run draws: the next that does draws what is left.

    So is a picture that a loss of power has cut or emptied.
    """
    images, drawn = tmp_path / "images", tmp_path / "out" / "overlays"
    images.mkdir()
    for name in ("a.png", "b.png", "c.png", "d.png"):
        photo().save(images / name)
    settings = Settings(config=QUICK, overlays=True)
    list(fit_dataset(images, tmp_path / "out", settings=settings, resources=ONE))
    before = {path.name: path.read_bytes() for path in drawn.iterdir()}
    assert set(before) == {"a.png.0.jpg", "b.png.0.jpg", "c.png.0.jpg", "d.png.0.jpg"}
    photo().transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(images / "a.png")
    (images / "b.png").write_bytes(b"no picture")
    list(fit_dataset(images, tmp_path / "out", settings=replace(settings, overlays=False), resources=ONE))
    assert {path.name for path in drawn.iterdir()} == {"c.png.0.jpg", "d.png.0.jpg"}
    (drawn / "c.png.0.jpg").write_bytes(b"")
    (drawn / "d.png.0.jpg").write_bytes(before["d.png.0.jpg"][:-500])
    list(fit_dataset(images, tmp_path / "out", settings=settings, resources=ONE))
    after = {path.name: path.read_bytes() for path in drawn.iterdir()}
    assert set(after) == {"a.png.0.jpg", "c.png.0.jpg", "d.png.0.jpg"}
    change = {name: _pixel_change(before[name], picture) for name, picture in after.items()}
    assert change["a.png.0.jpg"] > 5
    assert max(change["c.png.0.jpg"], change["d.png.0.jpg"]) < 1  # single precision in the rows


def _pixel_change(before: bytes, after: bytes) -> float:
    """Mean difference of two pictures, in grey levels."""
    one, other = (cv2.imdecode(np.frombuffer(each, np.uint8), cv2.IMREAD_GRAYSCALE) for each in (before, after))
    assert one is not None
    assert other is not None
    return float(np.abs(np.subtract(one, other, dtype=np.int16)).mean())


def test_images_of_one_name_have_overlays_of_their_own(tmp_path: Path) -> None:
    """One of them outside the folder of images; removing the pictures of one leaves the other's."""
    names = ["p.jpg", "../p.jpg", "p.jpg.1"]
    paths = [overlay_path(tmp_path, name, person) for name in names for person in (0, 11)]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    remove_overlays(tmp_path, ["../p.jpg", "q.jpg"])
    assert [path.exists() for path in paths] == [True, True, False, False, True, True]


def test_a_place_where_no_overlays_can_be_is_refused_before_the_work(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images").mkdir()
    photo().save(tmp_path / "images" / "a.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "overlays").write_text("a file")
    assert cli.main(["batch", str(tmp_path / "images"), "--out", str(tmp_path / "out"), "--overlays"]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert "overlays: can't be a folder of overlays (File exists); move it elsewhere, or leave --overlays out" in line
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_an_overlay_that_cannot_be_drawn_is_said_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """By the process that fits, and not again when the missing ones are drawn; a later run tries once more."""
    (tmp_path / "images").mkdir()
    photo().save(tmp_path / "images" / "a.png")
    (tmp_path / "out" / "overlays" / "a.png.0.jpg").mkdir(parents=True)
    settings = Settings(config=QUICK, overlays=True)
    for warned in ([], ["a.png: no overlay of person 0 "]):
        list(fit_dataset(tmp_path / "images", tmp_path / "out", settings=settings, resources=ONE))
        assert capfd.readouterr().err.count("no overlay of person 0") == 1 - len(warned)
        assert [record.getMessage().split("(")[0] for record in caplog.records] == warned


def test_a_picture_that_cannot_be_written_costs_no_fit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An image that is gone, and one whose overlay's name is longer than a file system takes."""
    long = f"{250 * 'n'}.png"
    observation = observe(posed())
    images, overlays = tmp_path / "images", tmp_path / "out" / "overlays"
    names = ["gone.png", long, "....//....//good.png"]
    (images / "...." / "....").mkdir(parents=True)
    for name in names[1:]:
        Image.fromarray(observation.image).save(images / name)
    seen = [PersonObservation(name, 0, found=PackedObservation.of(observation)) for name in names]
    rows = BatchFitter(Settings(config=QUICK), images, overlays)(seen).rows
    assert [row["imgname"] for row in rows] == names
    assert all(row["status"] != "failed" and row["betas"] is not None for row in rows)
    warned = [record.getMessage() for record in caplog.records]
    assert [line.split(":")[0] for line in warned] == names[:2]
    assert warned[0].endswith("no overlay of person 0 (no such image: gone.png)")
    assert "File name too long" in warned[1]
    written = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert written == [overlays / "...." / "%2F" / "...." / "%2F" / "good.png.0.jpg"]
    assert cv2.imread(str(written[0])) is not None
