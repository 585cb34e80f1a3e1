"""Images that are fitted repeatedly, with other regressors or settings; perception's results are cached."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path

import torch

from dsr_fit.assets import sha256, shipped
from dsr_fit.body.parameters import Parameters
from dsr_fit.dataset.manifest import describe, differences
from dsr_fit.dataset.observing import CachedObserver, cache_path, read_observations
from dsr_fit.dataset.progress import Report
from dsr_fit.dataset.records import PackedObservation, PersonObservation
from dsr_fit.dataset.run import Resources, observer, read_results, run
from dsr_fit.dataset.schema import Row
from dsr_fit.dataset.settings import Settings
from dsr_fit.dataset.sources import Entry, Source
from dsr_fit.dataset.worker import Work, WorkFactory
from dsr_fit.errors import UsageError
from dsr_fit.evaluate import ccp
from dsr_fit.evaluate.benchmark import observe_image
from dsr_fit.io.files import replacing
from dsr_fit.io.images import read_image
from dsr_fit.observation import Observation
from dsr_fit.synthetic.dataset import read_case

_NETWORKS = ("detector/finder", "detector/heavy", "detector/full", "parser/parser")
"""What perceives, in `priors/`."""

FORMAT = 2
"""Of what is cached; 2 has the landmark network's features."""


@dataclass(frozen=True)
class CachedSource:
    """Images with a cache of perception's results; of an image that names nobody, of its most prominent person."""

    source: Source
    cache: Path
    """Folder of the cached results."""
    make_observer: Callable[[Settings], Work] | None = None
    """Makes what observes an image; by default detector and parser, for anyone found."""

    def fit(
        self, settings: Settings, out: Path, resources: Resources | None = None, report: Report | None = None
    ) -> Iterator[Row]:
        """Fit everyone and yield all rows; an interrupted run is resumed. See `dsr_fit.dataset.run.run`."""
        settings = _of_one_person(settings)
        for _ in run(self.source, out, settings, resources, observe=self.observer(settings), report=report):
            pass
        return read_results(out)

    def observe(self, settings: Settings, with_image: bool = False) -> dict[str, Observation | str]:
        """Perceive every image in this process: name -> observation of its first person, or why there is none."""
        observe = self.observer(settings)()
        first = {entry.imgname: observe(entry)[0] for entry in self.source.entries}
        return {name: self.observation(name, with_image) or seen.reason for name, seen in first.items()}

    def observation(self, imgname: str, with_image: bool) -> Observation | None:
        """The cached observation of an image's first person, or None; its image is black unless asked for."""
        found = read_observations(cache_path(self.cache, imgname), imgname)[0].found
        if found is None:
            return None
        observation = found.observation()
        return replace(observation, image=read_image(self.source.images / imgname)[0]) if with_image else observation

    def observer(self, settings: Settings) -> WorkFactory:
        """Makes the cached observer. Raises UsageError for a cache of another detector, parser or source."""
        settings = _of_one_person(settings)
        self._check_cache(settings)
        make = self.make_observer
        work = partial(observer, settings, self.source.images) if make is None else partial(make, settings)
        return partial(CachedObserver, self.cache, self.source.images, work)

    def _check_cache(self, settings: Settings) -> None:
        path, given = self.cache / "findings.json", self.source
        with_people = any(entry.people is not None or entry.keypoint_file is not None for entry in given.entries)
        identity = {
            "format": FORMAT,
            "images": str(given.images),
            "people": describe(given) if with_people else "whoever is found",
            "detector": settings.detector,
            "parser": settings.identity()["parser"],
            "shipped": {name: sha256(shipped(f"priors/{name}.safetensors")) for name in _NETWORKS},
            "focal": settings.focal,
        }
        if not path.exists():
            with replacing(path, durable=True) as temporary:
                temporary.write_text(json.dumps(identity, indent=1) + "\n", encoding="utf-8")
        elif changed := differences(json.loads(path.read_text(encoding="utf-8")), identity):
            raise UsageError(f"{self.cache}: caches other perception ({'; '.join(changed)}); choose another folder")


def _of_one_person(settings: Settings) -> Settings:
    return replace(settings, max_people=1, min_height=0.0)


def photo_source(folder: Path, cache: Path, numbers: Sequence[str]) -> CachedSource:
    """Photos of Clothing Co-Parsing, see `ccp.photo_numbers`."""
    images = ccp.photo_path(folder, numbers[0]).parent.absolute()
    return CachedSource(Source(images, [Entry(f"{number}.jpg") for number in numbers], "list"), cache)


def case_source(folder: Path, seeds: Sequence[int], cache: Path) -> CachedSource:
    """Rendered people, who must be in the folder (`dsr_fit.synthetic.write_cases`)."""
    entries = [Entry(f"{seed:06d}.png") for seed in seeds]
    return CachedSource(Source(folder.absolute(), entries, "list"), cache, partial(CaseObserver, folder.absolute()))


class CaseObserver:
    """Perceives a rendered person from the image; a detection of someone else counts as missed."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        torch.set_num_threads(1)
        self.folder = folder
        self.perception = settings.perception()

    def __call__(self, entry: Entry) -> list[PersonObservation]:
        case = read_case(self.folder, seed_of(entry.imgname))
        observed = observe_image(case, self.folder / entry.imgname, self.perception)
        found = None if observed.observation is None else PackedObservation.of(observed.observation)
        return [PersonObservation(entry.imgname, 0, found=found, reason=observed.reason)]


def seed_of(imgname: str) -> int:
    return int(Path(imgname).stem)


def row_parameters(row: Row) -> Parameters | None:
    """The fitted parameters of a row, a batch of 1; None where there is no fit."""
    if row["status"] == "failed":
        return None
    return Parameters(*(torch.from_numpy(row[field.name])[None] for field in fields(Parameters)))
