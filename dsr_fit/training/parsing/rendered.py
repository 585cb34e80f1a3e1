"""Rendered clothed people with true labels: alone, in couples and in groups, behind things and cut off."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from dsr_fit.boxes import Box
from dsr_fit.labels import shows_person
from dsr_fit.synthetic import composite, generate
from dsr_fit.synthetic.staging import Casting
from dsr_fit.training.parsing.examples import Example, example_of, region_of, write_examples

FIRST_SEED = 300_000
"""Of the people that the parser is trained on; no benchmark reaches it."""

GROUPS = 0.3
"""Share of the pictures that show a group; the others show one person, or two."""

SMALLEST = 60
"""Pixels of a group's people who are learnt from: of the longer side of their box."""

MOST_HIDDEN = 0.7
"""Of a person who is learnt from."""

SHARD = 20
"""Pictures in a file."""


def rendered_people(seed: int, casting: Casting) -> list[Example]:
    """The people of one picture that can be learnt from, the same on every call."""
    if np.random.default_rng([seed, 23]).uniform() < GROUPS:
        group = composite(seed, casting)
        return [
            example_of(f"group {seed}", group.image, one.labels, one.keypoints, region_of(_whole(one.keypoints)))
            for one in group.people
            if _tall(one.box) and one.hidden < MOST_HIDDEN
        ]
    case = generate(seed, casting, others=True)
    if not shows_person(case.labels).any():
        return []
    return [example_of(f"person {seed}", case.image, case.labels, case.keypoints, region_of(_whole(case.keypoints)))]


def shards(folder: Path, pictures: int) -> Iterator[tuple[Path, range]]:
    """The files of so many pictures, and the seeds of each."""
    end = FIRST_SEED + pictures
    for start in range(FIRST_SEED, end, SHARD):
        yield folder / f"{start}.npz", range(start, min(start + SHARD, end))


def write_shard(path: Path, seeds: Iterable[int], casting: Casting) -> None:
    """The people of these seeds in one file; replaced at once or not at all."""
    write_examples(path, [one for seed in seeds for one in rendered_people(seed, casting)])


def _whole(keypoints: np.ndarray) -> np.ndarray:
    """All keypoints, seen or not: the landmark network guesses the hidden ones."""
    return np.column_stack([keypoints[:, :2], np.ones(len(keypoints))])


def _tall(box: Box) -> bool:
    return max(box[2:]) > SMALLEST
