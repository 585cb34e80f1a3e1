"""Pictures of fits, drawn from their rows: `DIR/overlays/IMGNAME.PERSON.jpg`."""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

from dsr_fit.dataset.names import file_name, image_path, path_of_own
from dsr_fit.dataset.records import unpack_labels
from dsr_fit.dataset.schema import Row
from dsr_fit.dataset.settings import Settings
from dsr_fit.dataset.shards import Store
from dsr_fit.errors import InputError
from dsr_fit.io.files import replacing, writing
from dsr_fit.io.images import read_image

if TYPE_CHECKING:
    from dsr_fit.body.body import Body


def overlay_path(folder: Path, imgname: str, person: int) -> Path:
    """Where the picture of a person belongs."""
    return path_of_own(folder, file_name(imgname), f".{person}.jpg")


def check_overlays(folder: Path) -> None:
    """Find out before the work that pictures can be written. Raises InputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise InputError(
            f"{folder}: can't be a folder of overlays ({error.strerror or error}); move it elsewhere, or leave "
            "--overlays out"
        ) from None


def remove_overlays(folder: Path, images: Iterable[str]) -> None:
    """Remove the pictures of images that are about to be fitted again, which would be older than their rows.

    Raises InputError where they can't be removed.
    """
    if not folder.is_dir():
        return
    firsts = {str(overlay_path(folder, imgname, 0)) for imgname in images}
    with writing(folder):
        for parent, _, names in os.walk(folder):
            for path in (os.path.join(parent, name) for name in names):
                if re.sub(r"\.\d+\.jpg$", ".0.jpg", path) in firsts:
                    os.unlink(path)


def draw_missing(store: Store, folder: Path, images: Path, settings: Settings, tried: Collection[str]) -> None:
    """Draw what earlier runs were not asked to draw, or could not; not images that this one has `tried` to draw."""
    from dsr_fit.body.files import load_body

    body = None
    for row in store.rows():
        if row["status"] == "failed" or row["imgname"] in tried:
            continue
        if not _is_whole(overlay_path(folder, row["imgname"], row["person"])):
            body = body or load_body(settings.body_path() or "open", settings.joint_regressor_extra)
            draw_overlay(folder, row, images, body)


def _is_whole(path: Path) -> bool:
    """Whether there is a JPEG, from its first marker to its last: a loss of power may cut a file, or leave it empty."""
    try:
        with path.open("rb") as file:
            begun = file.read(2) == b"\xff\xd8"
            file.seek(-2, os.SEEK_END)
            return begun and file.read() == b"\xff\xd9"
    except OSError:
        return False


def draw_overlay(folder: Path, row: Row, images: Path, body: Body) -> bool:
    """Draw the picture of a fit, and say whether it could be: one that can't must not cost the fits."""
    from dsr_fit.body.parameters import Parameters
    from dsr_fit.camera import Crop
    from dsr_fit.dataset.observing import reason_of
    from dsr_fit.view.overlay import draw

    try:
        if row["body"][1] != body.sha256:
            raise ValueError(f"was fitted with the body {row['body'][0]!r}")
        picture = draw(
            read_image(image_path(images, row["imgname"]))[0],
            unpack_labels(row["labels"]),
            Parameters.of_arrays(row).pose(body).vertices()[0].numpy(),
            body.faces.numpy(),
            float(row["focal_length"]),
            (float(row["principal_point"][0]), float(row["principal_point"][1])),
            Crop((float(row["bbox_center"][0]), float(row["bbox_center"][1])), 200 * float(row["bbox_scale"])),
        )
        with replacing(overlay_path(folder, row["imgname"], row["person"])) as temporary:
            Image.fromarray(picture).save(temporary, quality=85)
    except Exception as error:  # a full disk, a name that is too long, an image that is gone
        logging.getLogger("dsr_fit").warning(
            "%s: no overlay of person %d (%s)", row["imgname"], row["person"], reason_of(error, images)
        )
        return False
    return True
