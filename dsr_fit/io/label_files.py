"""Label maps from and to files, and the rule that leaves other people out of a crop."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from dsr_fit.boxes import keypoint_box
from dsr_fit.errors import InputError
from dsr_fit.io.files import check_file, read_arrays, replacing
from dsr_fit.io.images import open_image
from dsr_fit.labels import ATR_TO_LABEL, BOX_MARGIN_AT_224, COLOURS, LABELS, OCCLUDER, OTHER_PERSON, UNKNOWN

OTHER_PERSON_COLOUR = (64, 64, 64)
OCCLUDER_COLOUR = (128, 128, 128)
UNKNOWN_COLOUR = (255, 255, 255)

_COLOURED = (*range(len(LABELS)), OTHER_PERSON, OCCLUDER, UNKNOWN)


LabelScheme = Literal["lip", "atr"]
"""What indices mean: the 20 labels of LIP, which Graphonomy and SCHP's LIP model write, or the 18 of ATR."""

_INDICES: dict[LabelScheme, np.ndarray] = {"lip": np.arange(len(LABELS), dtype=np.uint8), "atr": ATR_TO_LABEL}


def read_labels(
    source: str | Path | np.ndarray, image_size: tuple[int, int] | None, scheme: LabelScheme = "lip"
) -> np.ndarray:
    """A label map, from a file or an array of indices, for an image of `image_size` = (width, height), or of any.

    Reads greyscale and palette PNGs whose values are label indices (0..19, 253 another person, 254 occluder, 255
    unknown), PNGs in Graphonomy's exact colours (another person grey 64, occluder grey 128, unknown white; alpha is
    ignored), and integer `.npy` arrays. With `scheme` "atr" indices are ATR's 18 labels; colours are Graphonomy's all
    the same.

    Returns: (H, W) uint8.
    Raises: InputError where the file can't be read, is no label map, or has another size than the image.
    """
    if isinstance(source, np.ndarray):
        path, labels = "array", _from_array("the label map array", source, scheme)
    else:
        path = Path(source)
        check_file(path, "label map")
        labels = _read_npy(path, scheme) if path.suffix.lower() == ".npy" else _read_picture(path, scheme)
    if image_size is not None and labels.shape != image_size[::-1]:
        raise InputError(
            f"the label map {path} is {labels.shape[1]} x {labels.shape[0]} pixels, "
            f"the image {image_size[0]} x {image_size[1]}; both need the same size"
        )
    return labels


def write_labels(path: str | Path, labels: np.ndarray, colour: bool = False) -> None:
    """Write (H, W) uint8 labels as a PNG of indices or colours; replaced at once or not at all."""
    with replacing(Path(path)) as temporary:
        Image.fromarray(colour_labels(labels) if colour else labels).save(temporary, format="PNG")


def colour_labels(labels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB of (H, W) uint8 labels."""
    return _colour_table()[labels]


def keep_own_labels(labels: np.ndarray, keypoints: np.ndarray, crop_side: float) -> np.ndarray:
    """One person per crop: labels far outside the box of the keypoints become background.

    Far is 30 px at the 224 px crop (the released code's rule), so 30 / 224 of `crop_side`. Occluder and
    unknown pixels stay what they are.

    Args:
        labels: (H, W) uint8.
        keypoints: (49, 3) in the label map's pixels; those above confidence 0.3 make the box.
        crop_side: the person's square crop in the label map's pixels.
    Returns: (H, W) uint8, a copy.
    """
    margin = BOX_MARGIN_AT_224 / 224 * crop_side
    x, y, width, height = keypoint_box(keypoints)
    columns = np.arange(labels.shape[1]) + 0.5
    rows = np.arange(labels.shape[0]) + 0.5
    inside = ((rows >= y - margin) & (rows <= y + height + margin))[:, None]
    inside = inside & ((columns >= x - margin) & (columns <= x + width + margin))[None, :]
    return np.where(inside | (labels >= len(LABELS)), labels, 0).astype(np.uint8)


def _colour_table() -> np.ndarray:
    """(256, 3) uint8: a colour for each label."""
    table = np.full((256, 3), UNKNOWN_COLOUR, dtype=np.uint8)
    table[: len(COLOURS)] = COLOURS
    table[OTHER_PERSON] = OTHER_PERSON_COLOUR
    table[OCCLUDER] = OCCLUDER_COLOUR
    return table


def _read_npy(path: Path, scheme: LabelScheme) -> np.ndarray:
    try:
        labels = read_arrays(path)
    except ValueError as error:
        raise InputError(f"{path} can't be read as a .npy array ({error})") from None
    if not isinstance(labels, np.ndarray):
        raise InputError(f"{path} holds {len(labels)} arrays; a label map is one of (height, width) integers")
    return _from_array(path, labels, scheme)


def _from_array(path: str | Path, labels: np.ndarray, scheme: LabelScheme) -> np.ndarray:
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(f"{path} is {labels.dtype} of shape {labels.shape}; a label map is (height, width) integers")
    return _from_indices(path, labels, scheme)


def _read_picture(path: Path, scheme: LabelScheme) -> np.ndarray:
    with open_image(path) as picture:
        if picture.mode in ("L", "P", "I") or picture.mode.startswith("I;16"):
            return _from_indices(path, np.asarray(picture), scheme)
        if picture.mode in ("RGB", "RGBA"):
            return _from_colours(path, np.asarray(picture.convert("RGB")), picture.format == "JPEG")
        raise InputError(f"{path} has Pillow mode {picture.mode}; label maps are index or colour PNGs, or .npy arrays")


def _from_indices(path: str | Path, indices: np.ndarray, scheme: LabelScheme) -> np.ndarray:
    meaning = _INDICES[scheme]
    table = np.arange(256, dtype=np.uint8)
    table[: len(meaning)] = meaning
    allowed = np.isin(np.arange(256), [*range(len(meaning)), OTHER_PERSON, OCCLUDER, UNKNOWN])
    values = np.unique(indices)
    wrong = [int(value) for value in values if not (0 <= value <= 255 and allowed[value])]
    if wrong:
        raise InputError(
            f"{path} holds {wrong[0]}, which is no label; 0 to {len(meaning) - 1}, "
            f"{OTHER_PERSON} (another person), {OCCLUDER} (occluder) and {UNKNOWN} (unknown) are"
        )
    return table[indices]


def _from_colours(path: Path, image: np.ndarray, lossy: bool) -> np.ndarray:
    codes = (image.astype(np.int32) << np.array([16, 8, 0])).sum(axis=2)
    found, inverse = np.unique(codes, return_inverse=True)
    known = (_colour_table().astype(np.int32) << np.array([16, 8, 0])).sum(axis=1)
    index_of = {int(known[index]): index for index in _COLOURED}
    for code in found:
        if int(code) not in index_of:
            hint = "; JPEG changes colours, save it as PNG" if lossy else "; Graphonomy's 20 colours are"
            red, green, blue = int(code) >> 16, int(code) >> 8 & 255, int(code) & 255
            raise InputError(f"{path} holds the colour {red},{green},{blue}, which is no label's{hint}")
    table = np.array([index_of[int(code)] for code in found], dtype=np.uint8)
    return table[inverse].reshape(codes.shape)
