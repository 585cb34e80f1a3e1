"""Sets that a regressor is judged on, as sources of a run: what perception finds in them is kept and used again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch

from dsr_fit.assets import sha256, shipped
from dsr_fit.body.parameters import Parameters
from dsr_fit.dataset.entries import Entry, Source
from dsr_fit.dataset.local import Stage
from dsr_fit.dataset.manifest import describe, differences
from dsr_fit.dataset.observation_cache import KeptPerceiver, kept_path, read_seen
from dsr_fit.dataset.records import Seen
from dsr_fit.dataset.run import Report, Resources, perceiver, read_results, run
from dsr_fit.dataset.schema import Row
from dsr_fit.dataset.settings import Settings
from dsr_fit.dataset.shards import durable
from dsr_fit.dataset.worker import Work
from dsr_fit.errors import UsageError
from dsr_fit.evaluate import ccp
from dsr_fit.io.images import read_image
from dsr_fit.observation import Observation


@dataclass(frozen=True)
class KeptSource:
    """Images to be fitted again and again, with different regressors or settings."""

    source: Source
    findings: Path
    """Folder of what perception finds."""
    look: Callable[[Settings], Work] | None = None
    """Builds the stage that looks at an image; None: detector and parser, whoever is found."""

    def fit(
        self, settings: Settings, out: Path, resources: Resources | None = None, report: Report | None = None
    ) -> Iterator[Row]:
        """Fit everybody, then give every row; a run that was stopped goes on. See `dsr_fit.dataset.run.run`."""
        for _ in run(self.source, out, settings, resources, perceive=self._stage(settings), report=report):
            pass
        return read_results(out)

    def observe(self, settings: Settings, with_image: bool = False) -> dict[str, Observation | str]:
        """Look at every image in this process: name -> what is seen of its first person, or why there is nothing."""
        look = self._stage(settings)()
        seen: dict[str, Observation | str] = {}
        for entry in self.source.entries:
            first = look(entry)[0]
            seen[entry.imgname] = self.observation(entry.imgname, with_image) or first.reason
        return seen

    def _stage(self, settings: Settings) -> Stage:
        self._agree(settings)
        make = partial(perceiver, settings, self.source.images) if self.look is None else partial(self.look, settings)
        return partial(KeptPerceiver, self.findings, self.source.images, make)

    def _agree(self, settings: Settings) -> None:
        """Raises UsageError for a folder with findings of another detector, parser or source."""
        path, given = self.findings / "findings.json", self.source
        told = any(entry.people is not None or entry.keypoint_file is not None for entry in given.entries)
        identity = {
            "images": str(given.images),
            "people": describe(given) if told else "whoever is found",
            "parser": settings.identity()["parser"],
            "shipped": sha256(shipped("priors/parser/parser.safetensors")),
            "focal": settings.focal,
            "mediapipe": version("mediapipe"),
        }
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with durable(path) as temporary:
                temporary.write_text(json.dumps(identity, indent=1) + "\n", encoding="utf-8")
        elif changed := differences(json.loads(path.read_text(encoding="utf-8")), identity):
            raise UsageError(f"{self.findings}: holds other findings ({'; '.join(changed)}); choose another folder")

    def seen(self, imgname: str) -> list[Seen]:
        """What was found in an image that has been looked at."""
        return read_seen(kept_path(self.findings, imgname), imgname)

    def observation(self, imgname: str, with_image: bool) -> Observation | None:
        """Of the image's first person, its picture black unless asked for; None where nobody was found."""
        found = self.seen(imgname)[0].found
        if found is None:
            return None
        observation = found.observation()
        if with_image:
            return replace(observation, image=read_image(self.source.images / imgname)[0])
        return observation


def photos_of(folder: Path, findings: Path, numbers: Sequence[str]) -> KeptSource:
    """These photos of Clothing Co-Parsing, see `ccp.photo_numbers`."""
    images = ccp.photo_path(folder, numbers[0]).parent.absolute()
    return KeptSource(Source(images, [Entry(f"{number}.jpg") for number in numbers], "list"), findings)


def cases_of(folder: Path, seeds: Sequence[int], findings: Path) -> KeptSource:
    """Rendered people, who must lie in the folder (`clothed.dataset.write_cases`)."""
    entries = [Entry(f"{seed:06d}.png") for seed in seeds]
    return KeptSource(Source(folder.absolute(), entries, "list"), findings, partial(CasePerceiver, folder.absolute()))


class CasePerceiver:
    """Looks at a rendered person through the whole pipeline; whoever the detector takes for somebody else is missed."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        from dsr_fit.observe.parser import load_parser
        from dsr_fit.observe.perception import Perception

        torch.set_num_threads(1)
        self.folder = folder
        self.perception = Perception(parser=load_parser(settings.parser, settings.parsing_protocol))

    def __call__(self, entry: Entry) -> list[Seen]:
        from dsr_fit.dataset.records import Found
        from dsr_fit.evaluate.benchmark import observe_wholly
        from dsr_fit.synthetic.dataset import read_case

        case = read_case(self.folder, seed_of(entry.imgname))
        seen = observe_wholly(case, self.folder / entry.imgname, self.perception)
        found = None if seen.observation is None else Found.of(seen.observation)
        return [Seen(entry.imgname, 0, found=found, reason=seen.reason)]


def seed_of(imgname: str) -> int:
    return int(Path(imgname).stem)


def body_of(row: Row) -> Parameters | None:
    """The fitted body of a row, a batch of 1; None where there is no fit."""
    if row["status"] == "failed":
        return None
    names = ("global_orient", "body_pose", "betas", "cam_t")
    return Parameters(*(torch.from_numpy(row[name])[None] for name in names))
