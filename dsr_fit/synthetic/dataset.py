"""Sets of clothed cases on disk: an image, a label map and an archive per case."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import fields
from pathlib import Path

import numpy as np
from PIL import Image

from dsr_fit.errors import InputError
from dsr_fit.io.files import replacing
from dsr_fit.synthetic.people import ClothedCase, generate

_PICTURES = ("image", "labels")
_ARRAYS = ("global_orient", "body_pose", "betas", "cam_t", "vertices", "joints", "keypoint_visibility")
_MASKS = ("body_mask", "clothed_mask")
_TAGS = tuple(f.name for f in fields(ClothedCase) if f.name not in _PICTURES + _ARRAYS + _MASKS)


def write_case(folder: Path, case: ClothedCase) -> None:
    """Write `<seed>.png`, `<seed>_labels.png` and, last, `<seed>.npz`. Raises InputError when it can't be written."""
    stem = f"{case.seed:06d}"
    with replacing(folder / f"{stem}.png") as path:
        Image.fromarray(case.image).save(path, compress_level=3)
    with replacing(folder / f"{stem}_labels.png") as path:
        Image.fromarray(case.labels).save(path)
    arrays = {name: getattr(case, name) for name in _ARRAYS}
    packed = {name: np.packbits(getattr(case, name)) for name in _MASKS}
    tags = json.dumps({name: getattr(case, name) for name in _TAGS})
    with replacing(folder / f"{stem}.npz") as path:
        np.savez(path, **arrays, **packed, tags=np.array(tags))  # type: ignore[arg-type]


def write_cases(folder: Path, seeds: Iterable[int]) -> None:
    """Generate the cases of these seeds that the folder lacks. Raises InputError when they can't be written."""
    for seed in seeds:
        if not (folder / f"{seed:06d}.npz").exists():
            write_case(folder, generate(seed))


def read_case(folder: Path, seed: int) -> ClothedCase:
    """One case. Raises InputError when it is missing or damaged."""
    stem = f"{seed:06d}"
    try:
        with Image.open(folder / f"{stem}.png") as picture:
            image = np.asarray(picture.convert("RGB"))
        with Image.open(folder / f"{stem}_labels.png") as picture:
            labels = np.asarray(picture)
        with np.load(folder / f"{stem}.npz", allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in _ARRAYS}
            masks = {
                name: np.unpackbits(archive[name], count=labels.size).astype(bool).reshape(labels.shape)
                for name in _MASKS
            }
            tags = json.loads(str(archive["tags"]))
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise InputError(f"{folder}: case {seed} can't be read ({error}); generate it again") from None
    tags["garments"] = tuple(tags["garments"])
    return ClothedCase(image=image, labels=labels, **arrays, **masks, **tags)


def read_cases(folder: Path) -> Iterator[ClothedCase]:
    """The folder's cases, sorted by seed. Raises InputError if there are none."""
    seeds = sorted(int(path.stem) for path in folder.glob("[0-9]*.npz"))
    if not seeds:
        raise InputError(f"{folder}: no clothed cases in this folder; generate them first")
    for seed in seeds:
        yield read_case(folder, seed)
