"""The settings that decide a run's results, apart from its images."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dsr_fit.assets import licensed, sha256, shipped
from dsr_fit.config import FitConfig, to_dict
from dsr_fit.dataset.defaults import BATCH_SIZE, MIN_HEIGHT
from dsr_fit.model_files import ModelFiles
from dsr_fit.observe.parser import ParsingProtocol

if TYPE_CHECKING:
    from dsr_fit.fitting.fitter import Fitter
    from dsr_fit.observe.perception import Perception


@dataclass(frozen=True)
class Settings(ModelFiles):
    """Options of a run that change its results."""

    config: FitConfig = field(default_factory=FitConfig)
    detector: Literal["accurate", "fast"] = "accurate"
    """As `dsr_fit.observe.detector` takes it."""
    parser: str = "open"
    """As `dsr_fit.observe.parser` takes it."""
    parsing_protocol: ParsingProtocol = "fast"
    gate: Path | None = None
    """A quality gate's file; None: the one that ships, where it is calibrated for these settings."""
    camera: Literal["full", "crop"] = "full"
    focal: float | None = None
    """Pixels, of all images; None: from EXIF, else each image's diagonal."""
    device: Literal["cpu", "cuda"] = "cpu"
    max_people: int | None = None
    """Of an image whose people the source doesn't name, the most prominent so many; None: all."""
    min_height: float = MIN_HEIGHT
    """Of the people of such an image, standing or lying, as a share of its height."""
    batch_size: int = BATCH_SIZE
    overlays: bool = False
    """Also write a picture of each fit; doesn't change the results."""

    def perception(self, *, parse: bool = True) -> Perception:
        """Detector and, unless label maps are given, parser.

        Raises InputError and UsageError where the parser can't be used.
        """
        from dsr_fit.observe.detector import PersonDetector
        from dsr_fit.observe.parser import load_parser
        from dsr_fit.observe.perception import Perception

        parser = load_parser(self.parser, self.parsing_protocol, self.device) if parse else None
        return Perception(PersonDetector(self.detector, self.device), parser)

    def fitter(self) -> Fitter:
        """A fitter with the files that these settings name. Raises InputError and UsageError where they don't fit."""
        from dsr_fit.body.files import load_body
        from dsr_fit.fitting.fitter import Fitter
        from dsr_fit.priors.semantic import load_semantic_prior
        from dsr_fit.regressor.load import load_regressor

        body = load_body(self.body_path() or "open", self.joint_regressor_extra)
        if self.smpl_mean_params is not None:
            licensed("smpl_mean_params", str(self.smpl_mean_params))  # a file that is named must be there
        return Fitter(
            body,
            self.config,
            semantic_prior=load_semantic_prior(body, self.prior_path()),
            regressor=load_regressor(self.regressor_name(), body.to(self.device), self.config, self.smpl_mean_params),
            device=self.device,
            crop_camera=self.camera == "crop",
        )

    def identity(self) -> dict[str, Any]:
        """Everything that must be the same for results to be comparable, as JSON values."""
        from importlib.metadata import version

        files = {"body": self.body_path(), "semantic_prior": self.prior_path()}
        for flag in ("joint_regressor_extra", "smpl_mean_params"):
            own = licensed(flag, _text(getattr(self, flag)))
            files[flag] = own if files["body"] is not None else None
        return {
            "config": to_dict(self.config),
            "detector": self.detector,
            "parser": [self.parser, self.parsing_protocol, _hashes_of(self.parser)],
            "regressor": [self.regressor_name(), _hashes_of(self.regressor_name() or "")],
            **({"gate": sha256(self.gate)} if self.gate else {}),
            "camera": self.camera,
            "focal": self.focal,
            "device": self.device,
            "max_people": self.max_people,
            "min_height": self.min_height,
            "files": {name: sha256(path) if path else "shipped" for name, path in files.items()},
            "shipped": _shipped_hashes(),
            "packages": {"dsr-fit": version("dsr-fit")},
        }


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _hashes_of(name: str) -> list[str]:
    """SHA-256 of the user's own weights, if `name` is a file or folder."""
    path = Path(name).expanduser()
    if not name or not path.exists():
        return []
    return [sha256(each) for each in ([path] if path.is_file() else sorted(path.glob("*.safetensors")))]


@cache
def _shipped_hashes() -> dict[str, str]:
    """SHA-256 of every data file of `priors/`."""
    root = shipped("priors")
    files = sorted(path for path in root.rglob("*") if path.suffix in (".npz", ".yaml", ".json", ".safetensors", ".pt"))
    return {path.relative_to(root).as_posix(): sha256(path) for path in files}
