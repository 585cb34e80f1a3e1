"""Pseudo-labelled people split into training and validation."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from dsr_fit.body.body import Body
from dsr_fit.errors import InputError, UsageError
from dsr_fit.training.pseudo_labels import PseudoLabels, read_pseudo_labels
from dsr_fit.training.settings import TrainSettings

MAX_VALIDATION = 256
"""Most held-out people scored after each epoch."""

Report = Callable[[str], None]
"""Takes a line of progress."""


def read_splits(settings: TrainSettings, body: Body, report: Report) -> tuple[PseudoLabels, PseudoLabels]:
    """People of `settings.labels` for training, and those of held-out photos, possibly none.

    `settings.gate` chooses the fits whose bodies are used; of the others only keypoints and label maps are, as in
    SPIN. Raises InputError if no one is left to train on, UsageError if no loss applies to them.
    """
    if settings.synthetic_share == 1:
        raise UsageError("--synthetic-share 1 leaves no room for the photos of --labels; give a smaller share")
    if not any(vars(settings.weights).values()):
        raise UsageError("--weights: all are 0; no loss would use the photos of --labels")
    sets = [read_pseudo_labels(path, body, settings.images) for path in settings.labels]
    if settings.gate != "all":
        also = settings.gate == "unjudged"
        chosen = [each.accepted | (each.unjudged & also) for each in sets]
        if settings.weights.parameters > 0 and not any(mask.any() for mask in chosen):
            unjudged = 0 if also else sum(int(each.unjudged.sum()) for each in sets)
            other = f"--gate unjudged learns from the {unjudged} fits that it could not judge, " if unjudged else ""
            raise InputError(f"{_named(settings)}: the gate accepted nobody; {other}--gate all learns from every fit")
        sets = [replace(each, has_body=each.has_body & mask) for each, mask in zip(sets, chosen, strict=True)]
    masks = [np.array([is_held_out(name, settings.held_out) for name in each.imgname], bool) for each in sets]
    train, held_out = (
        concatenated([each.rows(mask == part) for each, mask in zip(sets, masks, strict=True)])
        for part in (False, True)
    )
    if not len(train):
        raise InputError(f"{_named(settings)}: all photos are held out; give a smaller --held-out")
    report(
        f"{len(train)} people in photos, {train.has_body.sum()} of them with a body to learn; {len(held_out)} held out"
    )
    return train, held_out


def is_held_out(imgname: str, share: float) -> bool:
    """Whether a photo is in the held-out share: by its name, so always the same photos."""
    number = int.from_bytes(hashlib.sha256(imgname.encode("utf-8", "surrogateescape")).digest()[:8], "big")
    return number < share * 2**64


def concatenated(sets: list[PseudoLabels]) -> PseudoLabels:
    """All people of all sets, in order; with several sets, names become absolute paths."""
    if len(sets) == 1:
        return sets[0]
    names = tuple((each.images / name).as_posix() for each in sets for name in each.imgname)
    arrays = {
        field.name: np.concatenate([getattr(each, field.name) for each in sets])
        for field in fields(PseudoLabels)
        if isinstance(getattr(sets[0], field.name), np.ndarray)
    }
    maps = tuple(label_map for each in sets for label_map in each.label_maps)
    return replace(sets[0], images=Path("/"), imgname=names, label_maps=maps, **arrays)


def _named(settings: TrainSettings) -> str:
    return ", ".join(map(str, settings.labels))
