"""Pictures of fits, drawn from their rows: `DIR/overlays/IMGNAME.PERSON.jpg`."""

from __future__ import annotations

import logging
from pathlib import Path

from PIL import Image

from dsr_fit.body.body import Body
from dsr_fit.body.parameters import Parameters
from dsr_fit.camera import Crop
from dsr_fit.dataset.names import file_name, image_path, path_of_own
from dsr_fit.dataset.observing import reason_of
from dsr_fit.dataset.records import unpack_labels
from dsr_fit.dataset.schema import Row
from dsr_fit.io.files import replacing
from dsr_fit.io.images import read_image


def overlay_path(folder: Path, row: Row) -> Path:
    """Where the picture of a row's person belongs."""
    return path_of_own(folder, file_name(row["imgname"]), f".{row['person']}.jpg")


def draw_overlay(folder: Path, row: Row, images: Path, body: Body) -> bool:
    """Draw the picture of a fit, and say whether it could be: one that can't must not cost the fits."""
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
        with replacing(overlay_path(folder, row)) as temporary:
            Image.fromarray(picture).save(temporary, quality=85)
    except Exception as error:  # a full disk, a name that is too long, an image that is gone
        logging.getLogger("dsr_fit").warning(
            "%s: no overlay of person %d (%s)", row["imgname"], row["person"], reason_of(error, images)
        )
        return False
    return True
