"""Formats of images: which are read, by what they hold, and which are named with what to do."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from dsr_fit.errors import InputError
from dsr_fit.io.images import (
    FORMATS,
    IMAGE_SUFFIXES,
    OTHER_PICTURES,
    image_size,
    is_image,
    is_other_picture,
    read_image,
)

# A picture whose corners differ, so that any flip or rotation shows.
CORNERS = np.zeros((40, 60, 3), dtype=np.uint8)
CORNERS[:20, :30] = (200, 30, 30)
CORNERS[:20, 30:] = (30, 200, 30)
CORNERS[20:, :30] = (30, 30, 200)
CORNERS[20:, 30:] = (200, 200, 30)


@pytest.mark.parametrize("suffix", [suffix for suffix in IMAGE_SUFFIXES if suffix not in FORMATS["HEIF"]])
@pytest.mark.parametrize("upper", [False, True])
def test_every_listed_format_is_read(tmp_path: Path, suffix: str, upper: bool) -> None:
    name = next(name for name, suffixes in FORMATS.items() if suffix in suffixes)
    path = tmp_path / f"a{suffix.upper() if upper else suffix}"
    lossless = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100, "subsampling": "4:4:4"}}.get(name, {})
    Image.fromarray(CORNERS).convert("1" if suffix == ".pbm" else "RGB").save(path, format=name, **lossless)
    image, _ = read_image(path)
    assert is_image(path)
    assert image_size(path) == (60, 40)
    if suffix != ".pbm":
        # Within what lossy formats change in the middle of a patch of one colour: a few of 255 levels.
        np.testing.assert_allclose(image[5::20, 5::30].astype(int), CORNERS[5::20, 5::30].astype(int), atol=24)


def test_content_decides_and_not_the_suffix(tmp_path: Path) -> None:
    Image.fromarray(CORNERS).save(tmp_path / "a.jpg", format="PNG")
    Image.fromarray(CORNERS).save(tmp_path / "without", format="PNG")
    for name in ("a.jpg", "without"):
        np.testing.assert_array_equal(read_image(tmp_path / name)[0], CORNERS)
    Image.fromarray(CORNERS).save(tmp_path / "a.png", format="EPS")  # Pillow would start Ghostscript
    with pytest.raises(InputError, match=r"a\.png is not an image that can be read"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", sorted(OTHER_PICTURES))
def test_other_pictures_are_named_with_a_remedy(tmp_path: Path, suffix: str) -> None:
    """A raw file is a TIFF whose first image is a thumbnail: it would be read, and the fit be of 160 pixels."""
    path = tmp_path / f"a{suffix.upper()}"
    Image.fromarray(CORNERS).save(path, format="TIFF")
    assert is_other_picture(path.name)
    assert not is_image(path.name)
    with pytest.raises(InputError, match="which is not read; (develop|export|save) "):
        read_image(path)


def test_sidecars_are_no_pictures() -> None:
    assert not any(is_image(name) or is_other_picture(name) for name in ("a.json", "a.txt", "a", ".jpg", "a.npz"))


def test_the_first_frame_of_an_animation_is_taken(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (9, 9), (255, 0, 0)), Image.new("RGB", (9, 9), (0, 0, 255))
    for suffix in ("gif", "webp", "png", "tif", "avif"):
        path = tmp_path / f"a.{suffix}"
        first.save(path, save_all=True, append_images=[second])
        assert (read_image(path)[0].mean((0, 1)) > 128).tolist() == [True, False, False], suffix


HEIC = b"\0\0\0\x1cftypheic\0\0\0\0mif1heicmiaf"


@pytest.mark.parametrize("name", ["photo.heic", "photo.JPG"])
def test_heic_without_its_reader_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Phones' photos, also under another suffix."""
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / name).write_bytes(HEIC + bytes(100))
    with pytest.raises(InputError, match=rf'{name} is a HEIC image, .* `pip install "dsr-fit\[heif\]"`'):
        read_image(tmp_path / name)


@pytest.mark.parametrize(("bits", "turned"), [(8, False), (10, False), (8, True)])
def test_heic_is_read_with_its_extra(tmp_path: Path, bits: int, turned: bool) -> None:
    heif = pytest.importorskip("pillow_heif", reason='needs the extra "heif"')
    stored = np.ascontiguousarray(np.rot90(CORNERS, 1)) if turned else CORNERS
    wide = bits > 8
    data = (stored.astype(np.uint16) * 257 if wide else stored).tobytes()
    picture = heif.from_bytes("RGB;16" if wide else "RGB", stored.shape[1::-1], data)
    if turned:
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6
        picture.info["exif"] = exif.tobytes()
    picture.save(tmp_path / "a.heic", quality=100, chroma=444, bit_depth=bits)
    image, _ = read_image(tmp_path / "a.heic")
    assert image_size(tmp_path / "a.heic") == image.shape[1::-1]
    assert image.shape == CORNERS.shape
    # The middle of each patch, within what the codec changes of 255 levels.
    np.testing.assert_allclose(image[10::20, 15::30].astype(int), CORNERS[10::20, 15::30].astype(int), atol=8)
    assert (heif.open_heif(tmp_path / "a.heic", convert_hdr_to_8bit=False).info["bit_depth"] == 10) == wide
