"""What decides the numbers of a run, apart from its images."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from dsr_fit.assets import licensed, sha256, shipped
from dsr_fit.config import FitConfig, to_dict
from dsr_fit.perception.parser import ParsingProtocol

BATCH_SIZE = 16
"""Images fitted together. Part of the result: a fit's last digits depend on its neighbours."""

SHARD_SIZE = 64
"""Batches a shard."""


@dataclass(frozen=True)
class Settings:
    """Options of a run that change its results."""

    config: FitConfig = field(default_factory=FitConfig)
    body: str | None = None
    """`open`, or an official SMPL file; None: the one that is set, else `open`."""
    joint_regressor_extra: Path | None = None
    semantic_prior: Path | None = None
    parser: str = "open"
    """As `perception.parsers.load_parser` takes it."""
    parsing_protocol: ParsingProtocol = "fast"
    camera: Literal["full", "crop"] = "full"
    focal: float | None = None
    """Pixels, of all images; None: from EXIF, else each image's diagonal."""
    device: Literal["cpu", "cuda"] = "cpu"
    batch_size: int = BATCH_SIZE
    overlays: bool = False
    """Not part of the numbers: a picture of each fit."""

    def body_path(self) -> Path | None:
        """The licensed body's file; None for the open body."""
        return None if self.body == "open" else licensed("body", self.body)

    def prior_path(self) -> Path | None:
        """The semantic prior's file; None for the one that ships. One that is set belongs to the licensed body."""
        own = self.semantic_prior is not None or self.body_path() is not None
        return licensed("semantic_prior", _text(self.semantic_prior)) if own else None

    def identity(self) -> dict[str, Any]:
        """Everything that must be the same for results to be of one kind, fit for JSON."""
        from importlib.metadata import version

        files = {"body": self.body_path(), "semantic_prior": self.prior_path()}
        extra = licensed("joint_regressor_extra", _text(self.joint_regressor_extra))
        files["joint_regressor_extra"] = extra if files["body"] is not None else None
        return {
            "config": to_dict(self.config),
            "parser": [self.parser, self.parsing_protocol, _hashes_of(self.parser)],
            "camera": self.camera,
            "focal": self.focal,
            "device": self.device,
            "files": {name: sha256(path) if path else "shipped" for name, path in files.items()},
            "shipped": _shipped_hashes(),
            "packages": {name: version(name) for name in ("dsr-fit", "mediapipe")},
        }


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _hashes_of(parser: str) -> list[str]:
    """SHA-256 of the user's own weights of a parser, if it is one."""
    path = Path(parser)
    weights = [path] if path.is_file() else sorted(path.glob("*.safetensors")) if path.is_dir() else []
    return [sha256(each) for each in weights]


@cache
def _shipped_hashes() -> dict[str, str]:
    """SHA-256 of every file of `priors/` that a program reads."""
    root = shipped("priors")
    files = sorted(path for path in root.rglob("*") if path.suffix in (".npz", ".yaml", ".json", ".safetensors", ".pt"))
    return {path.relative_to(root).as_posix(): sha256(path) for path in files}
