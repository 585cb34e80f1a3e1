"""`dsr-fit train parser`: trains the human parser; the same command resumes."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from importlib.util import find_spec

from dsr_fit.cli.checks import check_folder
from dsr_fit.errors import InputError
from dsr_fit.training.parsing.settings import ParserSettings


@dataclass(frozen=True, kw_only=True)
class TrainParserArguments(ParserSettings):
    __doc__ = ParserSettings.__doc__

    quiet: bool = False
    """Print nothing but errors."""

    def run(self) -> None:
        check_folder("--out", self.out)
        if find_spec("lightning") is None:
            raise InputError("training needs Lightning: pip install 'dsr-fit[train]'")
        self.check_sources()
        from dsr_fit.training.parsing.train import train_parser

        settings = ParserSettings(**{field.name: getattr(self, field.name) for field in fields(ParserSettings)})
        path = train_parser(settings, lambda line: _write(f"{self.out}: {line}"))
        _write(f"{path}: trained; --parser {path} parses with it")


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
