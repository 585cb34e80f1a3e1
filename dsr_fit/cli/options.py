"""Options that every command that fits has in common, and the fitter that they ask for."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

import tyro

from dsr_fit.cli.checks import Folder, check_focal
from dsr_fit.config import FitConfig
from dsr_fit.model_files import ModelFiles

if TYPE_CHECKING:
    from dsr_fit.dataset.settings import Settings
    from dsr_fit.dataset.sources import Source

NO_GATE = "the quality gate was calibrated for other files, keypoints, labels or settings"
"""Why a fit has no quality."""


@dataclass(frozen=True, kw_only=True)
class FitterArguments(ModelFiles):
    """What decides a fit, apart from the image."""

    detector: Literal["accurate", "fast"] = "accurate"
    """The network that measures each person found: BlazePose heavy, or full, which takes a third of the time."""
    parser: str = "open"
    """The human parser: `open` (ours), our .safetensors file, or a SegFormer-clothes folder."""
    parsing_protocol: Literal["fast", "paper"] = "fast"
    """One forward pass of the parser, or DSR's average over four scales and their mirror images."""
    focal: float | None = None
    """Focal length in pixels; default: from EXIF, else the image's diagonal."""
    camera: Literal["full", "crop"] = "full"
    """The full image's perspective camera, or SPIN's (f = 5000 on the 224 px crop) for exact exports."""
    gate: Path | None = None
    """A quality gate calibrated for these files, as `dsr-fit rounds` writes them; default: the one that ships."""
    config: str | None = None
    """A preset's name or a YAML file; the options below override it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the fit runs; `auto` is the best that works: on a GPU nvdiffrast renders, else Triton."""
    fit: Annotated[FitConfig, tyro.conf.arg(name="")] = field(default_factory=FitConfig)

    quiet: bool = False
    """Print nothing but errors."""

    @classmethod
    def with_config(cls, config: FitConfig) -> Self:
        """With the settings of a preset; what every command requires stays required."""
        required = {
            entry.name: tyro.MISSING for entry in fields(cls) if entry.default is entry.default_factory is MISSING
        }
        return cls(**required, fit=config)

    def check_focal(self) -> None:
        """Raises UsageError for a focal length that no camera has."""
        check_focal(self.focal)

    def settings(self) -> Settings:
        """The same as a data set's settings, which know the files and the fitter."""
        from dsr_fit.dataset.settings import Settings
        from dsr_fit.render.device import choose_device

        names = ("detector", "parser", "parsing_protocol", "focal", "camera", "gate")
        shared = {name: getattr(self, name) for name in names}
        return Settings(config=self.fit, device=choose_device(self.device), **shared, **self.named())


@dataclass(frozen=True, kw_only=True)
class DatasetArguments(FitterArguments):
    """The same of commands that fit a whole data set."""

    source: tyro.conf.Positional[Path]
    """A folder of images, COCO keypoint annotations (.json), a SPIN data set (.npz), or a list of images (.txt)."""
    out: Path
    """Folder of the results; the same command resumes there after any interruption."""
    images: Folder | None = None
    """Folder that the names in a .json, .npz or .txt are relative to; default: the file's own."""
    keypoints: Folder | None = None
    """Folder of OpenPose's NAME_keypoints.json; default: those beside the images, where there are any."""
    perceivers: int | None = None
    """Processes that decode, detect and parse; default: two for every three cores."""
    fitters: int | None = None
    """Processes that fit; default: one for every two cores, or one on a GPU."""

    def open_source(self) -> Source:
        """What is to be fitted. Raises InputError where it can't be read."""
        from dsr_fit.dataset.listing import open_source

        return open_source(self.source, self.images, self.keypoints, self.out)
