"""`dsr-fit train`: trains a regressor; the same command resumes."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from importlib.util import find_spec

from dsr_fit.cli.checks import check_folder
from dsr_fit.errors import InputError, UsageError
from dsr_fit.training.settings import TrainSettings


@dataclass(frozen=True)
class TrainArguments(TrainSettings):
    __doc__ = TrainSettings.__doc__

    quiet: bool = False
    """Print nothing but errors."""

    def run(self) -> None:
        check_folder("--out", self.out)
        run_train(TrainSettings(**{field.name: getattr(self, field.name) for field in fields(TrainSettings)}))


def run_train(settings: TrainSettings) -> None:
    """Train, and report progress on standard output."""
    check(settings)
    from dsr_fit.training.train import train

    path = train(settings, lambda line: _write(f"{settings.out}: {line}"))
    _write(f"{path}: trained; --regressor {path} fits with it")


def check(settings: TrainSettings) -> None:
    """What can be rejected before anything is read. Raises InputError and UsageError."""
    if find_spec("lightning") is None:
        raise InputError("training needs Lightning: pip install 'dsr-fit[train]'")
    for path in (*settings.labels, settings.images, settings.synthetic):
        if path is not None and not path.exists():
            raise InputError(f"{path}: no such file or folder to train from")
    if settings.images is not None and not settings.labels:
        raise UsageError(f"--images {settings.images}: says where the photos of --labels are; give those too")


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
