"""Reading photos: any mode Pillow knows becomes upright 8-bit RGB, with the focal length its EXIF tells."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from dsr_fit.errors import InputError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
"""Of files that are taken for images where a folder is searched."""

ImageSource = str | Path | np.ndarray | Image.Image

FILM_DIAGONAL_MM = 43.27
"""Diagonal of 35 mm film (36 x 24 mm), which `FocalLengthIn35mmFilm` refers to."""

FOCAL_RANGE = (0.3, 30.0)
"""Focal lengths in image diagonals that a camera can have: a 13 mm to a 1,300 mm lens on 35 mm film."""

_MM_PER_UNIT = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}  # FocalPlaneResolutionUnit: inch, cm, mm, um


def read_image(path: str | Path) -> tuple[np.ndarray, float | None]:
    """Read a photo as it is meant to be seen.

    EXIF rotation is applied; transparent pixels are composited on white (what a viewer shows on a page);
    16-bit and floating point greyscale is scaled to 8 bits; of an animation the first frame is taken.

    Returns: (H, W, 3) uint8 RGB, and the focal length in pixels of that image or None where EXIF tells none.
    Raises: InputError where the file is missing, a folder, empty, truncated or no image.
    """
    path = Path(path)
    with open_image(path) as picture:
        focal = exif_focal_length(picture)
        return to_rgb(ImageOps.exif_transpose(picture)), focal


def image_of(source: ImageSource) -> tuple[np.ndarray, float | None]:
    """The same of a file, a Pillow image, or an array: (H, W, 3) RGB or (H, W) grey, uint8.

    Raises InputError for an array of another shape or type.
    """
    if isinstance(source, (str, Path)):
        return read_image(source)
    if isinstance(source, Image.Image):
        return to_rgb(ImageOps.exif_transpose(source)), exif_focal_length(source)
    if source.dtype != np.uint8 or source.size == 0 or source.ndim not in (2, 3) or source.shape[2:] not in ((), (3,)):
        shape = " x ".join(map(str, source.shape))
        raise InputError(f"the image array is {shape} of {source.dtype}; H x W x 3 RGB (or H x W) of uint8 works")
    return (source if source.ndim == 3 else np.repeat(source[..., None], 3, 2)), None


def image_size(path: Path) -> tuple[int, int]:
    """Width and height that `read_image` gives, from the file's header. Raises InputError as `read_image`."""
    with _refusals(path), open_image(path, decode=False) as picture:
        (width, height), orientation = picture.size, None
        # Pillow gives the upright size of a TIFF already, and decodes a PNG to look for EXIF behind its pixels.
        if picture.format != "TIFF" and (picture.format != "PNG" or _may_have_exif(picture, path)):
            orientation = picture.getexif().get(ExifTags.Base.Orientation)
    return (height, width) if orientation in (5, 6, 7, 8) else (width, height)


def _may_have_exif(picture: Image.Image, path: Path) -> bool:
    return "exif" in picture.info or any(name in path.read_bytes() for name in (b"eXIf", b"Raw profile type exif"))


def open_image(path: Path, *, decode: bool = True) -> Image.Image:
    """Open an image file with Pillow, and decode it; every way that can fail is an InputError of one line."""
    if not path.exists():
        raise InputError(f"no such image: {path}")
    if path.is_dir():
        raise InputError(f"{path} is a folder, not an image; name one of the images in it")
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty (0 bytes)")
    with _refusals(path), ExitStack() as on_failure:
        picture = on_failure.enter_context(Image.open(path))
        if decode:
            picture.load()
        on_failure.pop_all()
    return picture


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Whatever Pillow raises on a file that it can't read, as an InputError."""
    try:
        with warnings.catch_warnings():
            # Pillow warns from 89 megapixels on and refuses from 179; photos of that size exist.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield
    except UnidentifiedImageError:
        raise InputError(f"{path} is not an image that can be read; JPEG, PNG, WebP, TIFF or BMP work") from None
    except Image.DecompressionBombError:
        raise InputError(f"{path} has too many pixels to decode safely; make it smaller than 178 megapixels") from None
    except (OSError, SyntaxError, ValueError, EOFError) as error:  # of damaged files
        raise InputError(f"{path} is damaged or truncated ({error}); save or download it again") from None


def to_rgb(picture: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a decoded Pillow image of any mode; alpha is composited on white."""
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        grey = np.nan_to_num(np.asarray(picture, dtype=np.float64))
        # Modes I and F carry no maximum of their own: 16-bit values, 8-bit values or 0..1 are told by their
        # range.
        white = 65535.0 if picture.mode.startswith("I;16") or grey.max() > 255 else 255.0 if grey.max() > 1 else 1.0
        return np.repeat((grey / white * 255).round().clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)
    if "A" in picture.getbands() or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, (255, 255, 255, 255)), layer)
    return np.array(picture.convert("RGB"))


def exif_focal_length(picture: Image.Image) -> float | None:
    """Focal length in pixels from `FocalLengthIn35mmFilm`, else `FocalLength` and the sensor's resolution.

    None where the tags are missing or absurd, or where the recorded size has another shape than the image
    (it was cropped after it was taken, and how is unknown). Read it before the rotation is applied.
    """
    try:
        tags = picture.getexif().get_ifd(ExifTags.IFD.Exif)
    except (OSError, SyntaxError, ValueError, KeyError, TypeError):  # damaged EXIF must not cost the photo
        return None
    diagonal = math.hypot(*picture.size)
    width = _number(tags.get(ExifTags.Base.ExifImageWidth))
    height = _number(tags.get(ExifTags.Base.ExifImageHeight))
    if width and height:
        recorded, actual = sorted((width, height)), sorted(picture.size)
        if abs(recorded[0] / recorded[1] - actual[0] / actual[1]) > 0.02:
            return None
    focal_35mm = _number(tags.get(ExifTags.Base.FocalLengthIn35mmFilm))
    if focal_35mm:
        focal = focal_35mm / FILM_DIAGONAL_MM * diagonal
    else:
        focal_mm = _number(tags.get(ExifTags.Base.FocalLength))
        resolution = _number(tags.get(ExifTags.Base.FocalPlaneXResolution))
        unit = _MM_PER_UNIT.get(int(_number(tags.get(ExifTags.Base.FocalPlaneResolutionUnit)) or 2))
        if not (focal_mm and resolution and unit):
            return None
        shrink = max(picture.size) / max(width, height) if width and height else 1.0
        focal = focal_mm * resolution / unit * shrink
    return focal if FOCAL_RANGE[0] * diagonal <= focal <= FOCAL_RANGE[1] * diagonal else None


def _number(value: object) -> float:
    """A positive finite number of an EXIF value, 0 for anything else."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, ZeroDivisionError):
        return 0.0
    return number if math.isfinite(number) and number > 0 else 0.0
