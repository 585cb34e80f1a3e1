"""What all steps are told, and the observed people that they share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from dsr_fit.assets import PACKAGE
from dsr_fit.body.body import Body
from dsr_fit.config import FitConfig
from dsr_fit.dataset.observing import Observer, cache_path, read_observations, write_observations
from dsr_fit.dataset.settings import Settings
from dsr_fit.dataset.sources import Entry
from dsr_fit.errors import InputError
from dsr_fit.observation import Observation
from dsr_fit.regressor.load import load_regressor
from dsr_fit.regressor.protocol import Regressor

Results = Iterator[dict[str, Any]]
"""Parts of a step's results, each written when it is there."""

REGRESSOR = "priors/regressor/regressor.safetensors"


@dataclass(frozen=True)
class Setup:
    """What a run is told; it travels to the process of the steps."""

    device: Literal["cpu", "cuda"]
    quick: bool
    """Small sizes, for a dry run on a CPU."""
    people: Path
    """Folder of what perception found in pictures, and of some of the pictures, see `prepare`."""
    shared: Path
    """Folder that holds `data/nvdiffrast_reference`."""
    work: Path
    """Temporary folder."""

    @property
    def batches(self) -> tuple[int, ...]:
        return (1, 2) if self.quick else (1, 16, 64, 256)

    @property
    def resolutions(self) -> tuple[int, ...]:
        return (56,) if self.quick else (112, 224)

    @property
    def seconds(self) -> float:
        """Of repeats for each time."""
        return 0.05 if self.quick else 0.3

    def observations(self) -> list[Observation]:
        """The first person found in each picture."""
        seen = [read_observations(path, path.stem)[0].found for path in sorted(self.people.glob("*.npz"))]
        return [one.observation() for one in seen if one is not None]


def has_regressor() -> bool:
    """Whether the regressor that ships is there: a bundle for another machine lacks it, see `tools/gpu_bundle.py`."""
    return any((root / REGRESSOR).exists() for root in (PACKAGE / "_assets", PACKAGE.parent))


def regressor_of(body: Body, config: FitConfig) -> Regressor:
    """The regressor that ships, else the one without weights."""
    return load_regressor(None if has_regressor() else "kinematic", body, config)


def prepare(people: Path, cases: Path, seeds: range, pictures: int) -> int:
    """Observations of rendered people by the detector and parser that ship, and so many of their pictures; how many
    people were found.

    `cases` is a folder of `dsr_fit.synthetic.write_cases`, to which people that it lacks are added.
    """
    from dsr_fit.synthetic.dataset import read_case, write_cases  # with scipy, which no step needs

    people.mkdir(parents=True, exist_ok=True)
    write_cases(cases, seeds)
    observe, found = Observer(Settings(max_people=1), people), 0
    for seed in seeds:
        path = people / f"{seed:06d}.jpg"
        Image.fromarray(read_case(cases, seed).image).save(path, quality=85)
        seen = observe(Entry(path.name))
        if seen[0].found is None:
            path.unlink()
            continue
        write_observations(cache_path(people, path.name), seen)
        found += 1
        if found > pictures:
            path.unlink()
    if not found:
        raise InputError(f"{people}: nobody was found in {len(seeds)} pictures of rendered people")
    return found
