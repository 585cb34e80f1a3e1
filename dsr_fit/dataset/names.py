"""Names of images: any bytes that a file system allows, stored as valid Unicode, and back to the file.

A stored name is the path relative to the folder of images, with forward slashes, decoded as UTF-8 whatever the locale.
Bytes that are not UTF-8 are percent-encoded (`caf%E9.jpg`); so that this can be undone, a `%` that could be taken for
such a code is `%25`. All other names are stored as they are.
"""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path

_AMBIGUOUS = re.compile("%(?=25|[89A-F][0-9A-F])")
_CODE = re.compile("%(25|[89A-F][0-9A-F])")

_ELSEWHERE = {"": "%2F", ".": "%2E", "..": "%2E%2E"}
_LIKE_ELSEWHERE = re.compile("(%25)*%2(F|E|E%2E)")


def stored_name(name: str) -> str:
    """A name as the file system gives it -> as rows store it. Raises ValueError where no file can have it."""
    if "\0" in name:
        raise ValueError(f"{name!r} can't be a file name")
    try:
        text = os.fsencode(name).decode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # text from a file, under a locale that has no such letters, or half a surrogate pair
        text = name
        if any("\ud800" <= letter < "\udc80" or "\udcff" < letter <= "\udfff" for letter in name):
            raise ValueError(f"{name!r} can't be a file name") from None
    return _in_percent(_AMBIGUOUS.sub("%25", text))


def file_name(imgname: str) -> str:
    """A stored name -> the name that opens the file under this locale."""
    return os.fsdecode(exported_name(imgname).encode("utf-8", "surrogateescape"))


def image_path(images: Path, imgname: str) -> Path:
    """The file of a stored name; an absolute one is its own."""
    return images / file_name(imgname)


def path_of_own(folder: Path, name: str, ending: str) -> Path:
    """What is written for an image of this file name: `folder/NAME` and the ending, beneath `folder`, of no other name.

    A part that would lead elsewhere is percent-encoded: `../p.jpg` is `%2E%2E/p.jpg`, `/p.jpg` is `%2F/p.jpg`; one that
    looks like such a code has its `%` encoded in front.
    """
    *folders, last = name.split("/")
    parts = [_ELSEWHERE.get(part, f"%25{part}" if _LIKE_ELSEWHERE.fullmatch(part) else part) for part in folders]
    return folder.joinpath(*parts, last + ending)


def exported_name(imgname: str) -> str:
    """A stored name as other programs expect it: the file's own name, with bytes that are not UTF-8 as Python has them
    in paths under a UTF-8 locale (`caf\\udce9.jpg`), so that two files never share a name.
    """
    return _CODE.sub(lambda match: "%" if match[1] == "25" else chr(0xDC00 + int(match[1], 16)), imgname)


def readable(text: str) -> str:
    """Text with names of any bytes in it, such as an error's, as valid Unicode; other bytes are `%E9`."""
    halves = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # of characters, which no file's name has
    return _in_percent(halves.sub("\ufffd", text).encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape"))


def _in_percent(text: str) -> str:
    """Bytes that are not UTF-8 as `%E9`."""
    return re.sub("[\udc80-\udcff]", lambda match: f"%{ord(match[0]) - 0xDC00:02X}", text)


def normalised(name: str, images: Path) -> str:
    """The one name of a picture that a list names in several ways: `./a.jpg`, `b//a.jpg`, `s/../a.jpg`."""
    if ".." in name.split("/"):  # behind a link to a folder, `..` is not the folder before it
        folder = os.path.realpath(images / posixpath.dirname(name))
        return Path(
            os.path.relpath(os.path.join(folder, posixpath.basename(name)), os.path.realpath(images))
        ).as_posix()
    return posixpath.normpath(name)
