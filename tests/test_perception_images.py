"""Images: modes, rotation, EXIF focal lengths and the one-line refusals."""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from dsr_fit.errors import InputError
from dsr_fit.io.images import (
    image_of,
    image_size,
    read_image,
)

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
@pytest.mark.parametrize("orientation", [None, *range(1, 9)])
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


def test_too_many_pixels_are_told_before_they_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (20_000, 12_000)).save(tmp_path / "a.png")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    for read in (read_image, image_size):
        with pytest.raises(InputError, match=r"a\.png has 240 megapixels, more than the 179 that are read"):
            read(tmp_path / "a.png")


@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (20_000, 1), (3, 2)])
def test_thin_images_are_read(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size, (9, 8, 7)).save(tmp_path / "a.png")
    image, _ = read_image(tmp_path / "a.png")
    assert image.shape[1::-1] == image_size(tmp_path / "a.png") == size
    assert (image == (9, 8, 7)).all()


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 0.5, 1]], np.float32), [0, 128, 255]),
        (np.array([[0, 51, 255]], np.float32), [0, 51, 255]),
        (np.array([[0, 51, 255]], np.int32), [0, 51, 255]),
        (np.array([[0, 32768, 65535]], np.int32), [0, 128, 255]),
        (np.array([[-(2**31), 0, 2**31 - 1]], np.int32), [0, 128, 255]),
        (np.array([[np.nan, np.inf, 1]], np.float32), [0, 0, 255]),
    ],
)
def test_wide_greyscale_is_scaled_to_eight_bits(tmp_path: Path, values: np.ndarray, expected: list[int]) -> None:
    Image.fromarray(values).save(tmp_path / "a.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[0][0, :, 0], expected)


def test_lab_colours_come_back(tmp_path: Path) -> None:
    picture = ImageCms.profileToProfile(
        Image.fromarray(CORNERS), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert picture is not None
    picture.save(tmp_path / "a.tif")
    # Whole steps of L, a and b are up to 13 levels of these saturated colours; an offset of a or b would be 100 more.
    np.testing.assert_allclose(read_image(tmp_path / "a.tif")[0].astype(int), CORNERS.astype(int), atol=14)


SIX_AS_TEXT = b"Exif\0\0II*\0\x08\0\0\0" + b"\x01\0" + b"\x12\x01\x02\0\x04\0\0\0six\0" + bytes(4)


@pytest.mark.parametrize(
    "content",
    [*(_with_exif(value).tobytes() for value in (0, 9, 65535)), SIX_AS_TEXT, b"Exif\0\0II*\0\xff\xff\xff\xff", b"junk"],
)
def test_orientations_that_are_none_leave_the_image_as_it_is(tmp_path: Path, content: bytes) -> None:
    for suffix in ("png", "webp"):
        path = tmp_path / f"a.{suffix}"
        Image.fromarray(CORNERS).save(path, exif=content, lossless=True)
        np.testing.assert_array_equal(read_image(path)[0], CORNERS)
        assert image_size(path) == (60, 40)


@pytest.mark.parametrize("compression", ["tiff_adobe_deflate", None])
def test_a_damaged_tiff_prints_and_logs_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, compression: str | None
) -> None:
    """libtiff prints what it makes of one, and Pillow logs it, beside the one line."""
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.tif", compression=compression)
    content = bytearray((tmp_path / "a.tif").read_bytes())
    if compression:
        content[2000:2100] = bytes(100)
    else:  # 2,048 samples a pixel
        entry = content.index(b"\x15\x01\x03\0")
        content[entry + 8 : entry + 10] = b"\0\x08"
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.tif is "):
        read_image(tmp_path / "a.tif")
    assert capfd.readouterr().err == ""
    assert not caplog.records


def test_damage_in_one_chunk_of_a_png_is_told_and_junk_behind_a_jpeg_is_none(tmp_path: Path) -> None:
    Image.fromarray(CORNERS).save(tmp_path / "a.png")
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[content.index(b"IDAT") + 6] ^= 255
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.png is damaged or truncated"):
        read_image(tmp_path / "a.png")
    Image.fromarray(CORNERS).save(tmp_path / "a.jpg")
    clean = read_image(tmp_path / "a.jpg")[0]
    with (tmp_path / "a.jpg").open("ab") as file:
        file.write(b"junk" * 1000)
    np.testing.assert_array_equal(read_image(tmp_path / "a.jpg")[0], clean)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="needs a device file")
def test_a_device_is_refused_without_reading_it() -> None:
    with pytest.raises(InputError, match="/dev/zero is a device or a pipe"):
        read_image("/dev/zero")


@pytest.mark.parametrize("name", [f"{'n' * 300}.jpg", "a\0b.jpg", f"{'d/' * 3000}a.jpg"])
def test_names_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    for read in (read_image, image_size):
        with pytest.raises(InputError, match="no such image: ") as caught:
            read(Path(name))
        assert len(str(caught.value)) < 200


@pytest.mark.parametrize("source", [None, 5, b"bytes", [1, 2]])
def test_what_is_no_image_is_named_by_its_type(source: Any) -> None:
    with pytest.raises(InputError, match=f"of type {type(source).__name__}; a path, an array or a Pillow image works"):
        image_of(source)


def test_a_pillow_image_that_fails_is_one_line(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (90, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:3000])
    with Image.open(tmp_path / "a.jpg") as picture, pytest.raises(InputError, match="the image is damaged or trunc"):
        image_of(picture)
