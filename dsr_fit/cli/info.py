"""`dsr-fit info`: what is installed, which backends run, which assets are found."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from dsr_fit.assets import LICENSED, licensed_setting, shipped, user_file


@dataclass(frozen=True)
class InfoArguments:
    """Show versions, backends, and which assets are found and how to set the missing ones."""

    json: bool = False
    """The same as JSON: an object for each table, its keys in small letters with underscores."""

    def run(self) -> None:
        tables = _tables()
        if self.json:
            named = {_key(title): {_key(name): text for name, text in rows} for title, rows in tables.items()}
            sys.stdout.write(json.dumps(named, indent=2) + "\n")
        else:
            _print(tables)


Rows = list[tuple[str, str]]


def _tables() -> dict[str, Rows]:
    from dsr_fit.fitting.saving import versions

    return {
        "Versions": list(versions().items()),
        "Backends": _backends(),
        "Shipped assets": _shipped(),
        "Licensed files": _licensed(),
    }


def _key(name: str) -> str:
    """`--device auto` -> `device_auto`."""
    return name.lower().strip("-").replace(" ", "_").replace("-", "_")


def _print(tables: dict[str, Rows]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(markup=False)  # an extra's brackets are no style
    for title, rows in tables.items():
        table = Table(title=title, title_justify="left", show_header=False)
        table.add_column(overflow="fold")
        table.add_column(overflow="fold")  # a path that is cut short can't be copied
        for row in rows:
            table.add_row(*row)
        console.print(table)


def _backends() -> Rows:
    import torch

    from dsr_fit.render.device import gpu_backend, lacking_for_cuda

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    lacking = lacking_for_cuda()
    return [
        ("CPU", f"{os.cpu_count()} CPUs, torch uses {torch.get_num_threads()} threads"),
        ("GPU", gpu),
        ("nvdiffrast", "installed" if find_spec("nvdiffrast") else "not installed (extra `gpu`)"),
        ("Triton", "installed" if find_spec("triton") else "not installed (comes with torch's CUDA builds on Linux)"),
        ("--device auto", f"cuda, rendered by {gpu_backend()}" if lacking is None else f"cpu: {lacking}"),
    ]


def _shipped() -> Rows:
    assets = {
        "open body": "priors/open_body/body.npz",
        "regressor": "priors/regressor/regressor.safetensors",
        "person finder": "priors/detector/finder.safetensors",
        "detector accurate": "priors/detector/heavy.safetensors",
        "detector fast": "priors/detector/full.safetensors",
        "parser": "priors/parser/parser.safetensors",
        "semantic prior": "priors/semantic/prior.npz",
        "pose prior": "priors/pose/density.npz",
        "joint ranges": "priors/pose/joint_ranges.yaml",
    }
    return [(name, str(shipped(relative))) for name, relative in assets.items()]


def _licensed() -> Rows:
    rows = []
    for entry in LICENSED.values():
        setting = licensed_setting(entry.flag)
        option = "--" + entry.flag.replace("_", "-")
        if setting is None:
            ways = f"{option} PATH, {entry.variable} or {user_file()}"
            state = f"not set: {ways}; {entry.what}, from {entry.source}"
        elif Path(setting[0]).expanduser().is_file():
            state = f"found: {setting[0]} ({setting[1]})"
        else:
            state = f"{setting[1]} names {setting[0]}, which is missing"
        rows.append((option, state))
    return rows
