"""Bad input of every kind, and what the command says of it: writes docs/bad_input.md. A test runs the same cases."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import ExifTags, Image

from dsr_fit.camera import FOCAL_RANGE
from dsr_fit.cli import main as cli
from dsr_fit.config import FitConfig, Stage
from dsr_fit.dataset.settings import Settings
from dsr_fit.fitting.fitter import Fitter
from dsr_fit.io.images import FORMATS
from dsr_fit.joints import MIN_KEYPOINTS
from dsr_fit.observe import perception
from dsr_fit.observe.checks import MAX_CONFIDENCE, MIN_CONFIDENCE, MIN_SIDE

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "bad_input.md"
PHOTO = ROOT / "examples" / "person.png"
SIZE = (640, 900)
QUICK = ("--stages.0.iterations", "1", "--stages.1.iterations", "1")
QUICK_STAGES = (Stage(56, 1),)


@dataclass(frozen=True)
class Case:
    """A file that is written, and the command that reads it."""

    what: str
    write: Callable[[Path], Any]
    """Writes the file of the name that the words end with."""
    words: str
    """Of the command, without `--out`."""


# --- Images ---------------------------------------------------------------------------------------


def _nothing(path: Path) -> None:
    pass


def _text(text: str | bytes) -> Callable[[Path], Any]:
    return lambda path: path.write_bytes(text if isinstance(text, bytes) else text.encode())


def _photo(options: dict[str, Any] | None = None, change: Callable[[bytes], bytes] = bytes) -> Callable[[Path], None]:
    """The example as a file of the path's format, then its bytes changed."""

    def write(path: Path) -> None:
        with Image.open(PHOTO) as picture:
            picture.convert("RGB").save(path, **(options or {}))
        path.write_bytes(change(path.read_bytes()))

    return write


def _picture(picture: Callable[[], Image.Image], **options: Any) -> Callable[[Path], None]:
    return lambda path: picture().save(path, **options)


def _blank(width: int, height: int, mode: str = "RGB") -> Callable[[], Image.Image]:
    return lambda: Image.new(mode, (width, height))


def _exif(orientation: int = 1, **camera: Any) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    for name, value in camera.items():
        exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base[name]] = value
    return exif


def _hurt_chunk(content: bytes) -> bytes:
    place = content.index(b"IDAT") + 100
    return content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]


def _wide() -> Image.Image:
    with Image.open(PHOTO) as picture:
        return Image.fromarray(np.asarray(picture.convert("L"), np.uint16) * 257)


IMAGES = [
    Case("a path where nothing is", _nothing, "missing.jpg"),
    Case("a folder", lambda path: path.mkdir(), "photos"),
    Case("an empty file", _text(""), "empty.jpg"),
    Case("a web page saved as a photo", _text("<!DOCTYPE html><html>"), "page.jpg"),
    Case("half a JPEG", _photo(change=lambda content: content[: len(content) // 2]), "half.jpg"),
    Case("a PNG with a damaged chunk", _photo(change=_hurt_chunk), "chunk.png"),
    Case("half a TIFF", _photo(change=lambda content: content[: len(content) // 2]), "half.tif"),
    Case("400 megapixels in 50 kB", _picture(_blank(20_000, 20_000, "1")), "bomb.png"),
    Case("one pixel", _picture(_blank(1, 1)), "pixel.png"),
    Case("1 x 20000 pixels", _picture(_blank(1, 20_000)), "line.png"),
    Case("nobody in it", _picture(_blank(300, 200)), "nobody.png"),
    Case("three channels of floating point", _text(b"PF\n2 2\n-1.0\n" + bytes(48)), "colour.pfm"),
    Case("camera raw", _photo({"format": "TIFF"}), "photo.nef"),
    Case("a Photoshop document", _text(b"8BPS"), "photo.psd"),
    Case("a vector drawing", _text("<svg/>"), "photo.svg"),
    Case("a video", _text(b"\0\0\0\x20ftypisom"), "photo.mp4"),
    Case("JPEG XL", _text(b"\xff\x0a"), "photo.jxl"),
    Case("a phone's HEIC, without the extra", _text(b"\0\0\0\x1cftypheic" + bytes(99)), "photo.heic"),
    Case("a name longer than file systems take", _nothing, f"{260 * 'n'}.jpg"),
    Case("a device", _nothing, "/dev/zero"),
    Case("a pipe", os.mkfifo, "pipe.png"),
    Case("junk behind a JPEG", _photo(change=lambda content: content + b"junk" * 999), "junk.jpg"),
    Case("an orientation that there is not", _photo({"exif": _exif(9)}), "turned.jpg"),
    Case("a lens of 60 metres in the EXIF", _photo({"exif": _exif(FocalLengthIn35mmFilm=60_000)}), "lens.jpg"),
    Case("16 bits a pixel", _picture(_wide), "grey.png"),
]

# --- Keypoint files -------------------------------------------------------------------------------


def _points(count: int = 25) -> np.ndarray:
    """(count, 3) within the example's person."""
    places = np.random.default_rng(count).uniform((200, 100), (440, 800), (count, 2))
    return np.column_stack([places, np.full(count, 0.9)])


def _openpose(*people: Any) -> bytes:
    flat = [person.ravel().tolist() if isinstance(person, np.ndarray) else person for person in people]
    return json.dumps({"version": 1.3, "people": [{"pose_keypoints_2d": points} for points in flat]}).encode()


def _coco(width: int = SIZE[0], name: str = "person.png", images: int = 1) -> bytes:
    flat = _points(17).ravel().tolist()
    listed = [{"id": n, "file_name": f"{n or ''}{name}", "width": width, "height": SIZE[1]} for n in range(images)]
    return json.dumps(
        {"images": listed, "annotations": [{"image_id": n, "keypoints": flat} for n in range(images)]}
    ).encode()


def _moved(scale: tuple[float, float] = (1, 1), shift: tuple[float, float] = (0, 0)) -> np.ndarray:
    return _points() * (*scale, 1) + (*shift, 0)


def _with(value: Any) -> list[Any]:
    flat: list[Any] = _points().ravel().tolist()
    flat[30] = value
    return flat


def _keypoints(what: str, content: bytes | str, name: str = "k.json", options: str = "") -> Case:
    return Case(what, _text(content), f"person.png {options} --keypoints {name}")


_DEEP = "[" * 100_000
_FEW = np.arange(25)[:, None] < 3
KEYPOINTS = [
    Case("a path where nothing is", _nothing, "person.png --keypoints k.json"),
    Case("a folder", lambda path: path.mkdir(), "person.png --keypoints keypoints"),
    Case("a pipe", os.mkfifo, "person.png --keypoints k.json"),
    _keypoints("an empty file", ""),
    _keypoints("no JSON", "nose 1 2 3"),
    _keypoints("half a file", _openpose(_points())[:300]),
    _keypoints("JSON nested too deeply", _DEEP),
    _keypoints("JSON of something else", '{"shapes": []}'),
    _keypoints("nobody", _openpose()),
    _keypoints("a person without keypoints", '{"people": [{"face_keypoints_2d": []}]}'),
    _keypoints("a person who is not there", _openpose(_points()), options="--person 1"),
    _keypoints("several people, none with 4 keypoints", _openpose(*2 * [_points() * _FEW]), options="--people all"),
    _keypoints("14 keypoints (CrowdPose, AIC)", _openpose(_points(14))),
    _keypoints("133 keypoints (whole body)", _openpose(_points(133))),
    _keypoints("text for numbers", _openpose(_with("12"))),
    _keypoints("a number of 400 digits", _openpose(_with(10**400))),
    _keypoints("rows of different lengths", _openpose([[1, 2, 3], [1, 2]])),
    _keypoints("keypoints at 1e9", _openpose(_points(), _moved((0, 0), (1e9, 1e9))), options="--person 1"),
    _keypoints("keypoints of another image", _openpose(_moved(shift=(640, 0)))),
    _keypoints("all at one point", _openpose(_moved((0, 0), (300, 300)))),
    _keypoints("all on one line", _openpose(_points()[:, [0, 0, 2]])),
    _keypoints("shares of the image's size", _openpose(_moved((1 / 640, 1 / 900)))),
    _keypoints("nothing seen", _openpose(_points() * (1, 1, 0))),
    _keypoints("NaN everywhere", _openpose(_points() * np.nan)),
    _keypoints("confidences in per cent", _openpose(_points() * (1, 1, 100))),
    _keypoints("a confidence of infinity", _openpose(_points() * (1, 1, np.inf))),
    _keypoints("COCO of an image of another size", _coco(width=1280)),
    _keypoints("COCO of other images", _coco(name="other.png", images=2)),
    _keypoints("a damaged archive", b"PK\3\4" + bytes(99), "k.npz"),
    _keypoints("heat maps whose maxima exceed 1", _openpose(_points() + (0, 0, 0.2))),
    _keypoints("a byte order mark", b"\xef\xbb\xbf" + _openpose(_points())),
]

# --- Label maps -----------------------------------------------------------------------------------


def _labels(value: int = 5, dtype: Any = np.uint8) -> np.ndarray:
    labels = np.zeros(SIZE[::-1], dtype)
    labels[100:800, 200:440] = value
    return labels


def _png(array: np.ndarray) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(array).save(path)


def _npy(array: np.ndarray) -> Callable[[Path], None]:
    return lambda path: np.save(path, array, allow_pickle=True)


LABEL_MAPS = [
    Case("a path where nothing is", _nothing, "person.png --labels map.png"),
    Case("a pipe", os.mkfifo, "person.png --labels map.png"),
    Case("another size", _png(_labels()[:450]), "person.png --labels map.png"),
    Case("a label that there is not", _png(_labels(77)), "person.png --labels map.png"),
    Case("a colour that is no label's", _png(np.full((900, 640, 3), 9, np.uint8)), "person.png --labels map.png"),
    Case("colours in a JPEG", _photo(), "person.png --labels map.jpg"),
    Case("a mask of 1 bit", _png(_labels().astype(bool)), "person.png --labels map.png"),
    Case("16 bits, scaled", _png(_labels(dtype=np.uint16) * 257), "person.png --labels map.png"),
    Case("background alone", _png(_labels(0)), "person.png --labels map.png"),
    Case("floating point", _npy(_labels(dtype=np.float32)), "person.png --labels map.npy"),
    Case("three channels", _npy(np.zeros((900, 640, 3), np.uint8)), "person.png --labels map.npy"),
    Case("pickled objects", _npy(np.array([[{}]], dtype=object)), "person.png --labels map.npy"),
    Case("half a file", _photo(change=lambda content: content[:2000]), "person.png --labels map.png"),
]

SECTIONS = {"Images": IMAGES, "Keypoint files": KEYPOINTS, "Label maps": LABEL_MAPS}

# --- Page -----------------------------------------------------------------------------------------

HEAD = """# Bad input

What `dsr-fit` says of it: one line on stderr, exit status 1 for an input and 2 for a use that can't work, and no file
is written. In a data set the line is the reason of the image's row. `python tools/bad_input.py` writes this page, and a
test holds it to the program.

- **Images** are read by their content, whatever their suffix:
  {formats}.
  HEIC needs `pip install "dsr-fit[heif]"`. Of an animation the first frame is taken.
- **Keypoints** lie in the image, or at most its width and height outside it. At least {count} have a confidence above
  {confidence:g}; one of these or more is inside the image, and they are not all within {side:g} pixels or on one line.
  Confidences are 0 to 1; the maxima of heat maps may exceed that, up to {most:g} (they count as 1).
- **Focal lengths** are {low:g} to {high:g} times the image's diagonal.
"""


def head() -> str:
    return HEAD.format(
        formats=", ".join(suffixes[0] for suffixes in FORMATS.values()), count=MIN_KEYPOINTS,
        confidence=MIN_CONFIDENCE, most=MAX_CONFIDENCE, side=MIN_SIDE, low=FOCAL_RANGE[0], high=FOCAL_RANGE[1],
    )  # fmt: skip


def page() -> str:
    parts = [head()]
    with loaded_once():
        for title, cases in SECTIONS.items():
            rows = [row(case, *outcome(case)) for case in cases]
            table = ["", f"## {title}", "", "| input | status | line |", "| --- | --- | --- |", *rows, ""]
            parts.append("\n".join(table))
    return "".join(parts)


def row(case: Case, status: int, said: str) -> str:
    """A line of the page's tables."""
    line = re.sub("n{20,}", "nnn", said.removeprefix("dsr-fit: ")).replace("|", r"\|")
    return f"| {case.what} | {status} | {line if status else f'{line} (it is read)'.strip()} |"


def outcome(case: Case) -> tuple[int, str]:
    """Status and stderr of the case's command, run in a folder of its own. Needs `loaded_once`."""
    with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
        shutil.copy(PHOTO, "person.png")
        case.write(Path(case.words.split()[-1]))
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()), _warnings_to(said):
            status = cli.main([*case.words.split(), "--out", "fit/mesh.obj", *QUICK])
        assert Path("fit").exists() == (status == 0), f"{case.what}: status {status}"
    # Whether kernels have to be compiled is the machine's matter, not the input's.
    return status, "\n".join(line for line in said.getvalue().splitlines() if "compiling CPU kernels" not in line)


@contextlib.contextmanager
def loaded_once() -> Iterator[None]:
    """Commands share what is loaded; pillow-heif is not there, whether it is installed or not."""
    make_fitter, make_detector = Settings.fitter, perception.PersonDetector
    detector = cache(make_detector)

    @cache
    def fitter() -> Fitter:
        return make_fitter(Settings(config=FitConfig(stages=QUICK_STAGES)))

    before = sys.modules.get("pillow_heif")
    sys.modules["pillow_heif"] = None  # type: ignore[assignment]
    try:
        with (
            mock.patch.object(Settings, "fitter", lambda _: fitter()),  # noqa: PT008  made on use, not now
            mock.patch.object(perception, "PersonDetector", detector),
        ):
            yield
    finally:
        del sys.modules["pillow_heif"]
        if before is not None:
            sys.modules["pillow_heif"] = before


@contextlib.contextmanager
def _warnings_to(stream: io.StringIO) -> Iterator[None]:
    """The package's warnings as the command prints them."""
    logger, handler = logging.getLogger("dsr_fit"), logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("dsr-fit: %(message)s"))
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = True


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    PAGE.write_text(page(), encoding="utf-8")
