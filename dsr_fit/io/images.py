"""Reading photos: any format of `FORMATS` and any mode become upright 8-bit RGB, with the focal length of the EXIF."""

from __future__ import annotations

import logging
import math
import re
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path, PurePath

import numpy as np
from PIL import ExifTags, Image, ImageCms, UnidentifiedImageError

from dsr_fit.errors import InputError, one_line
from dsr_fit.io.files import check_file
from dsr_fit.io.quiet import quiet_stderr

ImageSource = str | Path | np.ndarray | Image.Image

FORMATS: dict[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "AVIF": (".avif",),
    "JPEG2000": (".jp2", ".j2k"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "HEIF": (".heic", ".heif", ".hif"),
}
"""Pillow's name of each format that is read, and the suffixes of its files. The content decides, not the suffix; HEIF
needs pillow-heif. Pillow knows more, some of which start other programs (EPS) or are no photos."""

IMAGE_SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)
"""Of files that are taken for images where a folder is searched, in lower case."""

_OTHERS = {
    "camera raw": ("develop it to TIFF or JPEG", ".cr2 .cr3 .nef .nrw .arw .dng .orf .raf .rw2 .pef .srw .raw"),
    "a document or a drawing": ("export it as PNG", ".psd .psb .xcf .ai .eps .svg .pdf"),
    "a video": ("save one of its frames as PNG", ".mp4 .mov .m4v .avi .mkv .webm .mpg .mpeg .wmv"),
    "a picture of another format": ("save it as PNG or JPEG", ".jxl .exr .hdr .tga .dds .ico .pcx .heics"),
}

OTHER_PICTURES: dict[str, tuple[str, str]] = {
    suffix: (kind, remedy) for kind, (remedy, suffixes) in _OTHERS.items() for suffix in suffixes.split()
}
"""Suffixes of pictures that are not read: what they are, and what to do. A raw file holds a thumbnail as its first
image, which must not be taken for the photo."""

_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

FILM_DIAGONAL_MM = 43.27
"""Diagonal of 35 mm film (36 x 24 mm), which `FocalLengthIn35mmFilm` refers to."""

_MM_PER_UNIT = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}  # FocalPlaneResolutionUnit: inch, cm, mm, um

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # EXIF's Orientation


def is_image(name: str | PurePath) -> bool:
    """Whether a file of that name is taken for an image: its suffix is in `IMAGE_SUFFIXES`, in either case."""
    return PurePath(name).suffix.lower() in IMAGE_SUFFIXES


def is_other_picture(name: str | PurePath) -> bool:
    """Whether a file of that name is a picture or a video of a kind that is not read (`OTHER_PICTURES`)."""
    return PurePath(name).suffix.lower() in OTHER_PICTURES


def read_image(path: str | Path) -> tuple[np.ndarray, float | None]:
    """Read a photo as it is meant to be seen.

    EXIF rotation is applied; transparent pixels are composited on white (what a viewer shows on a page);
    16-bit, 32-bit and floating point greyscale is scaled to 8 bits; of an animation the first frame is taken.

    Returns: (H, W, 3) uint8 RGB, and the focal length in pixels that EXIF tells, as it is, or None.
    Raises: InputError where the file is missing, a folder, empty, truncated, too large, or of no format in `FORMATS`.
    """
    path = Path(path)
    with open_image(path) as picture:
        return _read(path, picture)


def image_of(source: ImageSource) -> tuple[np.ndarray, float | None]:
    """The same of a file, a Pillow image, or an array: (H, W, 3) RGB or (H, W) grey, uint8.

    Raises InputError for an array of another shape or type, and for anything else.
    """
    if isinstance(source, (str, Path)):
        return read_image(source)
    if isinstance(source, Image.Image):
        return _read("the image", source)
    if not isinstance(source, np.ndarray):
        raise InputError(f"the image is of type {type(source).__name__}; a path, an array or a Pillow image works")
    if source.dtype != np.uint8 or source.size == 0 or source.ndim not in (2, 3) or source.shape[2:] not in ((), (3,)):
        shape = " x ".join(map(str, source.shape))
        raise InputError(f"the image array is {shape} of {source.dtype}; H x W x 3 RGB (or H x W) of uint8 works")
    return (source if source.ndim == 3 else np.repeat(source[..., None], 3, 2)), None


def _read(name: str | Path, picture: Image.Image) -> tuple[np.ndarray, float | None]:
    with _refusals(name):
        focal, turned = exif_focal_length(picture), _UPRIGHT.get(_orientation(picture))
        return to_rgb(picture if turned is None else picture.transpose(turned)), focal


def image_size(path: Path) -> tuple[int, int]:
    """Width and height that `read_image` gives, from the file's header. Raises InputError as `read_image`."""
    with _refusals(path), open_image(path, decode=False) as picture:
        (width, height), orientation = picture.size, 1
        if picture.format == "PNG":
            if _may_be_turned(picture, path):
                picture.load()  # its EXIF may be behind the pixels
                orientation = _orientation(picture)
        elif picture.format != "TIFF":  # whose size is upright already
            orientation = _orientation(picture)
    return (height, width) if orientation in (5, 6, 7, 8) else (width, height)


def _may_be_turned(picture: Image.Image, path: Path) -> bool:
    names = (b"eXIf", b"Raw profile type exif", b"tiff:Orientation")
    return "exif" in picture.info or any(name in path.read_bytes() for name in names)


def open_image(path: Path, *, decode: bool = True) -> Image.Image:
    """Open an image file with Pillow, and decode it; every way that can fail is an InputError of one line."""
    check_file(path, "image", "name one of the images in it")
    if path.suffix.lower() in OTHER_PICTURES:
        kind, remedy = OTHER_PICTURES[path.suffix.lower()]
        raise InputError(f"{path} is {kind}, which is not read; {remedy}")
    with _refusals(path), ExitStack() as on_failure:
        formats = [name for name in FORMATS if name != "HEIF" or _knows_heif(path)]
        picture = on_failure.enter_context(Image.open(path, formats=formats))
        if decode:
            with quiet_stderr() if picture.format == "TIFF" else nullcontext():
                picture.load()
        on_failure.pop_all()
    return picture


def _knows_heif(path: Path) -> bool:
    """Whether the file is HEIF, which Pillow then knows. Raises InputError where it is, without pillow-heif."""
    with path.open("rb") as file:
        start = file.read(12)
    if start[4:8] != b"ftyp" or start[8:] not in _HEIF_BRANDS:
        return False
    try:
        import pillow_heif  # pyright: ignore[reportMissingImports]  an extra
    except ImportError:
        raise InputError(
            f'{path} is a HEIC image, which needs pillow-heif: `pip install "dsr-fit[heif]"`, or save it as JPEG'
        ) from None
    pillow_heif.register_heif_opener()
    return True


@contextmanager
def _refusals(name: str | Path) -> Iterator[None]:
    """Whatever Pillow raises on an image that it can't read, as an InputError; its warnings and logs are left out."""
    log = logging.getLogger("PIL")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            # Pillow warns from 89 megapixels on and refuses from 179, and photos of that size exist; it also warns
            # of harmless damage, in lines that a user can do nothing about.
            warnings.filterwarnings("ignore", module=r"PIL\.|pillow_heif")
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            yield
    except InputError:
        raise
    except UnidentifiedImageError:
        known = "JPEG, PNG, WebP, TIFF, BMP, GIF, AVIF, JPEG 2000, PPM or HEIC work"
        raise InputError(f"{name} is not an image that can be read; {known}") from None
    except Image.DecompressionBombError as error:
        found, limit = re.search(r"\d+", str(error)), 2 * (Image.MAX_IMAGE_PIXELS or 0)
        size = f"{int(found[0]) / 1e6:,.0f}" if found else "too many"
        raise InputError(
            f"{name} has {size} megapixels, more than the {limit / 1e6:.0f} that are read; shrink it"
        ) from None
    except MemoryError:
        raise InputError(f"{name} does not fit into this machine's memory; shrink it") from None
    except Exception as error:  # of damaged content, for which Pillow's readers raise anything
        raise InputError(f"{name} is damaged or truncated ({one_line(error)}); save or download it again") from None
    finally:
        log.setLevel(level)


def to_rgb(picture: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a decoded Pillow image of any mode; alpha is composited on white."""
    if picture.mode == "LAB":  # the one mode that `convert` does not know
        profiles = (ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"))
        picture = ImageCms.profileToProfile(picture, *profiles, outputMode="RGB") or picture
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        return np.repeat(_eight_bits(picture)[..., None], 3, axis=2)
    if "A" in picture.getbands() or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, (255, 255, 255, 255)), layer)
    return np.array(picture.convert("RGB"))


def _eight_bits(picture: Image.Image) -> np.ndarray:
    """(H, W) uint8 of greyscale in 16 or 32 bits or floating point; what is not finite is black."""
    grey = np.nan_to_num(np.asarray(picture, dtype=np.float64), posinf=0, neginf=0)
    greatest = grey.max()
    if picture.mode.startswith("I;16"):
        white = 65535.0
    elif greatest <= 65535:
        # Modes I and F carry no maximum of their own: 16-bit values, 8-bit values or 0..1 are told by their range.
        white = 65535.0 if greatest > 255 else 255.0 if greatest > 1 else 1.0
    else:
        grey, white = grey - grey.min(), greatest - grey.min()
    return (grey / white * 255).round().clip(0, 255).astype(np.uint8)


def _orientation(picture: Image.Image) -> int:
    """EXIF's Orientation; 1, upright, where the tag is missing or can't be read."""
    try:
        orientation = picture.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # damaged EXIF must not cost the photo
        return 1
    return orientation if isinstance(orientation, int) else 1


def exif_focal_length(picture: Image.Image) -> float | None:
    """Focal length in pixels from `FocalLengthIn35mmFilm`, else `FocalLength` and the sensor's resolution.

    As it is: whether a camera can have it is the caller's question. None where the tags are missing or no numbers, or
    where the recorded size has another shape than the image (it was cropped after it was taken, and how is unknown).
    Read it before the rotation is applied.
    """
    try:
        tags = picture.getexif().get_ifd(ExifTags.IFD.Exif)
    except Exception:  # damaged EXIF must not cost the photo
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
        return focal_35mm / FILM_DIAGONAL_MM * diagonal
    focal_mm = _number(tags.get(ExifTags.Base.FocalLength))
    resolution = _number(tags.get(ExifTags.Base.FocalPlaneXResolution))
    unit = _MM_PER_UNIT.get(int(_number(tags.get(ExifTags.Base.FocalPlaneResolutionUnit)) or 2))
    if not (focal_mm and resolution and unit):
        return None
    shrink = max(picture.size) / max(width, height) if width and height else 1.0
    return focal_mm * resolution / unit * shrink


def _number(value: object) -> float:
    """A positive finite number of an EXIF value, 0 for anything else."""
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, ZeroDivisionError):
        return 0.0
    return number if math.isfinite(number) and number > 0 else 0.0
