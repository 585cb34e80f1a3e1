"""Label maps in Graphonomy's colours, a PNG an image, where DSR's trainer looks for them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from dsr_fit.dataset.exports.labels import Label, by_image
from dsr_fit.dataset.names import file_name, path_of_own
from dsr_fit.dataset.records import unpack_labels
from dsr_fit.errors import InputError
from dsr_fit.io.files import replacing
from dsr_fit.labels import COLOURS, LABELS


def write_graphonomy(labels: Iterable[Label], out: Path, images: Path) -> int:
    """Write `OUT/IMGNAME.png` for each image. Several people share one map, the first of them on top.

    Occluder and unknown have no colour among Graphonomy's 20: they become background.
    """
    del images
    written = 0
    for imgname, people in by_image(labels):
        path = path_of_own(out, file_name(imgname), ".png")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{path.parent}: can't make this folder ({error.strerror}); choose another --out"
            ) from None
        with replacing(path) as temporary:
            Image.fromarray(COLOURS[_together(people)]).save(temporary)
        written += len(people)
    return written


def _together(people: list[Label]) -> np.ndarray:
    """(H, W) uint8, 0..19."""
    merged = None
    for label in people:
        own = unpack_labels(label.row["labels"])
        own = np.where(own < len(LABELS), own, 0)
        merged = own if merged is None else np.where(merged > 0, merged, own)
    assert merged is not None
    return merged.astype(np.uint8)
