"""`dsr-fit info`: what is installed, which backends run, which assets are found."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from dsr_fit.assets import LICENSED, licensed_setting, shipped, user_file


@dataclass(frozen=True)
class InfoArguments:
    """Show versions, backends, and which assets are found and how to set the missing ones."""

    def run(self) -> None:
        print_info()


def print_info() -> None:
    """Print the tables to standard output."""
    from rich.console import Console
    from rich.table import Table

    from dsr_fit.fitting.saving import versions

    console = Console(markup=False)  # an extra's brackets are no style
    for title, rows in (
        ("Versions", list(versions().items())),
        ("Backends", _backends()),
        ("Shipped assets", _shipped()),
        ("Licensed files", _licensed()),
    ):
        table = Table(title=title, title_justify="left", show_header=False)
        for row in rows:
            table.add_row(*row)
        console.print(table)


def _backends() -> list[tuple[str, str]]:
    import torch

    from dsr_fit.render.device import lacking_for_cuda

    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    lacking = lacking_for_cuda()
    return [
        ("CPU", f"{os.cpu_count()} CPUs, torch uses {torch.get_num_threads()} threads"),
        ("GPU", gpu),
        ("nvdiffrast", "installed" if find_spec("nvdiffrast") else "not installed (extra `gpu`); only GPUs need it"),
        ("--device auto", "cuda" if lacking is None else f"cpu: {lacking}"),
    ]


def _shipped() -> list[tuple[str, str]]:
    assets = {
        "open body": "priors/open_body/body.npz",
        "regressor": "priors/regressor/regressor.safetensors",
        "parser": "priors/parser/parser.safetensors",
        "semantic prior": "priors/semantic/prior.npz",
        "pose prior": "priors/pose/density.npz",
        "joint ranges": "priors/pose/joint_ranges.yaml",
    }
    return [(name, str(shipped(relative))) for name, relative in assets.items()]


def _licensed() -> list[tuple[str, str]]:
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
