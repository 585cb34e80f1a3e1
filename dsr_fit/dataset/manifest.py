"""`manifest.json`: what a folder's results were made from and with, so that others are not mixed in by mistake."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

from dsr_fit.dataset import schema
from dsr_fit.dataset.settings import Settings
from dsr_fit.dataset.sources import Source
from dsr_fit.errors import InputError, UsageError, one_line
from dsr_fit.io.files import replacing

NAME = "manifest.json"

_BY_NAME = ("folder", "openpose", "list")
"""Kinds of source that name images alone, and may follow each other."""


class OtherFormat(InputError):
    """A manifest of a format that this version doesn't know: of another version, and not damaged."""


@dataclass(frozen=True)
class PlanNote:
    """Why images were added to a folder's work: one line of its history."""

    images: int
    added: int = 0
    replaced: int = 0
    retried: int = 0
    removed: int = 0
    """Images of earlier plans that the source no longer had."""


@dataclass(frozen=True)
class Manifest:
    """How a folder's images are cut into batches and shards, and the settings of its runs, oldest first."""

    results: str
    """Names this folder's results; every shard repeats it."""
    kind: str
    """The source's, `dsr_fit.dataset.sources.Source.kind`."""
    images: str
    """Folder that names are relative to, when the run began."""
    batch_size: int
    shard_size: int
    runs: tuple[dict[str, Any], ...]
    plans: tuple[PlanNote, ...] = ()
    """The images of plan N are in `plans/plan-N.parquet`."""
    format: int = schema.VERSION
    """Version of the columns' meaning."""

    @cached_property
    def plan_batches(self) -> list[range]:
        """The batches of each plan: numbered on from plan to plan, the last of each may have fewer images."""
        counts = [-(-plan.images // self.batch_size) for plan in self.plans]
        return [range(end - count, end) for count, end in zip(counts, accumulate(counts), strict=True)]

    @cached_property
    def shards(self) -> list[range]:
        """The batches of each shard; none holds batches of two plans."""
        size = self.shard_size
        return [
            range(start, min(start + size, plan.stop))
            for plan in self.plan_batches
            for start in range(plan.start, plan.stop, size)
        ]

    @property
    def batches(self) -> int:
        return self.plan_batches[-1].stop if self.plans else 0

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, allow_nan=False)


def parse_manifest(text: str) -> Manifest:
    """Raises OtherFormat for that of another version; ValueError, KeyError or TypeError for anything else."""
    content = json.loads(text)
    version = content["format"]
    if version not in schema.READABLE:
        reads = f"this version reads {schema.READABLE[0]} to {schema.READABLE[-1]}"
        if type(version) is int and version > 0:
            raise OtherFormat(f"is of format {version}, {reads}; use the version that wrote it, or another folder")
        raise ValueError(f"format {version}, {reads}")
    if version < schema.PLANNED:  # one list of images, cut from beginning to end
        content |= {
            "results": "",
            "kind": content["source"]["kind"],
            "plans": [{"images": content["source"]["entries"]}],
        }
    names = ("results", "kind", "images", "batch_size", "shard_size", "format")
    plans = tuple(PlanNote(**plan) for plan in content["plans"])
    manifest = Manifest(**{name: content[name] for name in names}, runs=tuple(content["runs"]), plans=plans)
    numbers = (manifest.batch_size, manifest.shard_size, *(plan.images for plan in plans))
    if not all(isinstance(number, int) and number > 0 for number in numbers):
        raise ValueError("sizes that are not positive numbers")
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Raises InputError when there is none, or one that can't be read, OtherFormat for another version's."""
    path = folder / NAME
    if not path.is_file():
        raise InputError(f"{folder}: holds no results of `dsr-fit batch` (no {NAME})")
    try:
        return parse_manifest(path.read_text(encoding="utf-8"))
    except OtherFormat as error:
        raise OtherFormat(f"{path}: {error}") from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: can't be read ({one_line(error)}); use another folder") from None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Raises InputError when it can't be written."""
    with replacing(folder / NAME, durable=True) as temporary:
        temporary.write_text(manifest.to_json() + "\n", encoding="utf-8")


def begin(source: Source, settings: Settings, shard_size: int) -> Manifest:
    """The manifest of a new folder, which has no work yet."""
    images = str(source.images.absolute())
    return Manifest(secrets.token_hex(8), source.kind, images, settings.batch_size, shard_size, (_run_of(settings),))


def agree(
    folder: Path, manifest: Manifest, source: Source, settings: Settings, shard_size: int, mix: bool
) -> tuple[Manifest, int]:
    """The manifest with these settings' run in it, and that run's number.

    Raises InputError where the folder holds results of another kind of source or an earlier version, and UsageError
    where they are of other settings and `mix` is off.
    """
    if manifest.format != schema.VERSION:
        raise InputError(
            f"--out {folder}: was begun by an earlier version (format {manifest.format}); its results can be read and "
            "exported, but not continued; choose another --out"
        )
    if manifest.kind != source.kind and not {manifest.kind, source.kind} <= set(_BY_NAME):
        raise InputError(
            f"--out {folder}: belongs to another source (of kind {manifest.kind}, now {source.kind}); choose "
            "another --out"
        )
    if (manifest.batch_size, manifest.shard_size) != (settings.batch_size, shard_size):
        raise UsageError(
            f"--out {folder}: was begun with --batch-size {manifest.batch_size} --shard-size {manifest.shard_size}, "
            "which decide what is fitted together; give the same"
        )
    run = _run_of(settings)
    for number, known in enumerate(manifest.runs):
        if known["identity"] == run["identity"] and (mix or number == len(manifest.runs) - 1):
            return manifest, number
    changed = "; ".join(differences(manifest.runs[-1]["identity"], run["identity"]))
    if not mix:
        raise UsageError(
            f"--out {folder}: holds results of other settings ({changed}); choose another --out, or add --mix to fit "
            "what is left with the new ones"
        )
    return replace(manifest, runs=(*manifest.runs, run)), len(manifest.runs)


def _run_of(settings: Settings) -> dict[str, Any]:
    from dsr_fit.fitting.saving import versions

    return {"identity": json.loads(json.dumps(settings.identity())), "versions": versions()}


def describe(source: Source) -> dict[str, Any]:
    """The images' names and whom to fit in them, as a hash."""
    return {"kind": source.kind, "entries": len(source), "sha256": source.sha256()}


def differences(old: Any, new: Any, where: str = "") -> list[str]:
    """Lines such as `weights.dsr_mc: 4, now 5`."""
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            line
            for key in sorted({*old, *new})
            for line in differences(old.get(key), new.get(key), f"{where}.{key}" if where else key)
        ]
    return [] if old == new else [f"{where}: {_brief(old)}, now {_brief(new)}"]


def _brief(value: Any) -> str:
    text = "absent" if value is None else str(value)
    return text[:12] if len(text) == 64 else text
