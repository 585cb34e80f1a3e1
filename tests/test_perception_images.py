"""Images: modes, rotation, EXIF focal lengths and the one-line refusals."""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from dsr_fit.errors import InputError
from dsr_fit.io.images import image_size, read_image

# A picture whose corners differ, so that any flip or rotation shows.
CORNERS = np.zeros((40, 60, 3), dtype=np.uint8)
CORNERS[:20, :30] = (200, 30, 30)
CORNERS[:20, 30:] = (30, 200, 30)
CORNERS[20:, :30] = (30, 30, 200)
CORNERS[20:, 30:] = (200, 200, 30)


def _with_exif(orientation: int | None = None, **camera: object) -> Image.Exif:
    exif = Image.Exif()
    if orientation is not None:
        exif[ExifTags.Base.Orientation] = orientation
    for name, value in camera.items():
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base[name]] = value
    return exif


def test_lossless_rgb_comes_back_exactly(tmp_path: Path) -> None:
    Image.fromarray(CORNERS).save(tmp_path / "a.png")
    image, focal = read_image(tmp_path / "a.png")
    assert image.dtype == np.uint8
    assert focal is None
    np.testing.assert_array_equal(image, CORNERS)


@pytest.mark.parametrize(
    ("orientation", "undo"),
    [
        (1, lambda a: a),
        (2, lambda a: a[:, ::-1]),
        (3, lambda a: a[::-1, ::-1]),
        (4, lambda a: a[::-1]),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: np.rot90(a, 1)),
        (7, lambda a: a.transpose(1, 0, 2)[::-1, ::-1]),
        (8, lambda a: np.rot90(a, -1)),
    ],
)
def test_exif_rotation_is_applied(tmp_path: Path, orientation: int, undo) -> None:
    """A camera stores the upright picture with the tag's transformation undone."""
    Image.fromarray(np.ascontiguousarray(undo(CORNERS))).save(tmp_path / "a.png", exif=_with_exif(orientation))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0], CORNERS)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", [None, 1, 3, 6, 8])
def test_the_size_is_that_of_the_upright_picture(tmp_path: Path, suffix: str, orientation: int | None) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(CORNERS).save(path, exif=_with_exif(orientation))
    assert image_size(path) == read_image(path)[0].shape[1::-1]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_the_size_is_read_without_decoding(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(CORNERS).save(path)
    decoded: list[Path] = []
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: decoded.append(path))
    assert image_size(path) == (60, 40)
    assert not decoded


def test_exif_behind_the_pixels_of_a_png_counts(tmp_path: Path) -> None:
    Image.fromarray(CORNERS).save(tmp_path / "a.png")
    content, exif = (tmp_path / "a.png").read_bytes(), _with_exif(6).tobytes().removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
    end = content.rindex(b"IEND") - 4
    (tmp_path / "a.png").write_bytes(content[:end] + chunk + content[end:])
    assert image_size(tmp_path / "a.png") == read_image(tmp_path / "a.png")[0].shape[1::-1] == (40, 60)
    (tmp_path / "a.png").write_bytes(content[: end - 30] + chunk)  # truncated, so that looking for EXIF fails
    with pytest.raises(InputError, match=r"a\.png is damaged or truncated"):
        image_size(tmp_path / "a.png")


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA", "CMYK", "1", "I;16", "F"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    grey = np.repeat(np.array([[0, 255]], dtype=np.uint8), 2, axis=0)
    source = Image.fromarray(grey)
    if mode == "I;16":
        picture = Image.fromarray(grey.astype(np.uint16) * 257)
    elif mode == "F":
        picture = Image.fromarray(grey.astype(np.float32) / 255)
    else:
        picture = source.convert("RGB").convert(mode) if mode in ("CMYK", "P") else source.convert(mode)
    picture.save(tmp_path / "a.tif")
    image, _ = read_image(tmp_path / "a.tif")
    np.testing.assert_array_equal(image, np.repeat(grey[..., None], 3, axis=2))


def test_transparent_pixels_show_white(tmp_path: Path) -> None:
    rgba = np.zeros((1, 3, 4), dtype=np.uint8)
    rgba[0, :, 3] = (0, 51, 255)  # black, 20 % of it, none hidden
    Image.fromarray(rgba).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0][0, :, 0], [255, 204, 0])


def test_focal_length_of_35mm_equivalent(tmp_path: Path) -> None:
    """A lens as long as the film's diagonal sees the image's diagonal at that distance."""
    exif = _with_exif(FocalLengthIn35mmFilm=43, ExifImageWidth=60, ExifImageHeight=40)
    Image.fromarray(CORNERS).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg")[1] == pytest.approx(math.hypot(60, 40) * 43 / 43.27)


def test_focal_length_of_sensor_resolution(tmp_path: Path) -> None:
    """30 px a millimetre of sensor: a 2 mm lens is 60 px long; half of it when the picture was halved."""
    camera: dict[str, Any] = {
        "FocalLength": 2.0,
        "FocalPlaneXResolution": 300.0,
        "FocalPlaneResolutionUnit": 3,
    }
    for width, height, expected in ((60, 40, 60), (120, 80, 30)):
        exif = _with_exif(**camera, ExifImageWidth=width, ExifImageHeight=height)
        Image.fromarray(CORNERS).save(tmp_path / "a.jpg", exif=exif)
        assert read_image(tmp_path / "a.jpg")[1] == pytest.approx(expected)


@pytest.mark.parametrize(
    "camera",
    [
        {"FocalLengthIn35mmFilm": 0},
        {"FocalLength": 5.0},
        {"FocalLengthIn35mmFilm": 43, "ExifImageWidth": 40, "ExifImageHeight": 40},  # cropped since
    ],
)
def test_focal_lengths_that_tell_nothing_are_none(tmp_path: Path, camera: dict[str, Any]) -> None:
    Image.fromarray(CORNERS).save(tmp_path / "a.jpg", exif=_with_exif(**camera))
    assert read_image(tmp_path / "a.jpg")[1] is None


def test_a_rotated_photo_keeps_its_focal_length(tmp_path: Path) -> None:
    exif = _with_exif(6, FocalLengthIn35mmFilm=43, ExifImageWidth=60, ExifImageHeight=40)
    Image.fromarray(CORNERS).save(tmp_path / "a.jpg", exif=exif)
    image, focal = read_image(tmp_path / "a.jpg")
    assert image.shape == (60, 40, 3)
    assert focal == pytest.approx(math.hypot(60, 40) * 43 / 43.27)


def _broken_files(folder: Path) -> dict[str, Path]:
    files = {name: folder / f"{name}.jpg" for name in ("missing", "folder", "empty", "text", "truncated")}
    files["folder"].mkdir()
    files["empty"].touch()
    files["text"].write_text("not a picture")
    noise = np.random.default_rng(0).integers(0, 255, (90, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).save(files["truncated"])
    files["truncated"].write_bytes(files["truncated"].read_bytes()[:3000])
    return files


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "no such image"),
        ("folder", "is a folder"),
        ("empty", "0 bytes"),
        ("text", "not an image"),
        ("truncated", "truncated"),
    ],
)
def test_refusals_are_one_line_naming_the_file(tmp_path: Path, kind: str, words: str) -> None:
    path = _broken_files(tmp_path)[kind]
    with pytest.raises(InputError, match=words) as caught:
        read_image(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    if kind != "truncated":  # its header is whole
        with pytest.raises(InputError, match=words):
            image_size(path)
