"""`manifest.json`: the source and settings of a folder's results, so that others are not mixed in by mistake."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dsr_fit.dataset import schema
from dsr_fit.dataset.settings import Settings
from dsr_fit.dataset.sources import Source
from dsr_fit.errors import InputError, UsageError
from dsr_fit.io.files import replacing

NAME = "manifest.json"


@dataclass(frozen=True)
class Manifest:
    """How a folder's images are cut into batches and shards, and the settings of its runs, oldest first."""

    source: dict[str, Any]
    """`kind`, `entries` (how many), `sha256` of their names."""
    images: str
    """Folder that names are relative to, when the run began."""
    batch_size: int
    shard_size: int
    runs: tuple[dict[str, Any], ...]
    format: int = schema.VERSION
    """Version of the columns' meaning."""

    @property
    def batches(self) -> int:
        return -(-self.source["entries"] // self.batch_size)


def read_manifest(folder: Path) -> Manifest:
    """Raises InputError when there is none, or one that this version can't read."""
    path = folder / NAME
    if not path.is_file():
        raise InputError(f"{folder}: holds no results of `dsr-fit batch` (no {NAME})")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] not in schema.READABLE:
            readable = " and ".join(map(str, schema.READABLE))
            raise ValueError(f"format {content['format']}, this version reads {readable}")
        fields = {name: content[name] for name in ("format", "source", "images", "batch_size", "shard_size")}
        return Manifest(**fields, runs=tuple(content["runs"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: can't be read ({' '.join(str(error).split())}); use another folder") from None


def agree(folder: Path, source: Source, settings: Settings, shard_size: int, mix: bool) -> tuple[Manifest, int]:
    """The folder's manifest, written or extended, and the number of these settings' run in it.

    Raises InputError where the folder holds results of another source, and UsageError where they are of other
    settings and `mix` is off.
    """
    from dsr_fit.fitting.saving import versions

    described = describe(source)
    identity = json.loads(json.dumps(settings.identity()))
    run = {"identity": identity, "versions": versions()}
    if not (folder / NAME).exists():
        manifest = Manifest(described, str(source.images.absolute()), settings.batch_size, shard_size, (run,))
        _write(folder, manifest)
        return manifest, 0
    manifest = read_manifest(folder)
    if described != manifest.source:
        was, now = manifest.source, described
        what = f"{was['entries']} images of a {was['kind']}, now {now['entries']} of a {now['kind']}"
        raise InputError(f"--out {folder}: belongs to another source ({what}, or other names); choose another --out")
    if (manifest.batch_size, manifest.shard_size) != (settings.batch_size, shard_size):
        raise UsageError(
            f"--out {folder}: was begun with --batch-size {manifest.batch_size} --shard-size {manifest.shard_size}, "
            "which decide what is fitted together; give the same"
        )
    for number, known in enumerate(manifest.runs):
        if known["identity"] == identity and (mix or number == len(manifest.runs) - 1):
            if manifest.format != schema.VERSION:  # new rows are of this version, old ones are read as such
                manifest = replace(manifest, format=schema.VERSION)
                _write(folder, manifest)
            return manifest, number
    changed = "; ".join(differences(manifest.runs[-1]["identity"], identity))
    if not mix:
        raise UsageError(
            f"--out {folder}: holds results of other settings ({changed}); choose another --out, or add --mix to fit "
            "what is left with the new ones"
        )
    manifest = replace(manifest, runs=(*manifest.runs, run), format=schema.VERSION)
    _write(folder, manifest)
    return manifest, len(manifest.runs) - 1


def describe(source: Source) -> dict[str, Any]:
    """The images' names and whom to fit in them, as a hash."""
    hashed = hashlib.sha256()
    for entry in source.entries:
        hashed.update(f"{entry.imgname}\0{entry.keypoint_file is not None}\0".encode("utf-8", "surrogateescape"))
        for person in entry.people or ():
            hashed.update(f"{person.number} {person.source_id} {person.bbox}\0".encode())
            hashed.update(b"" if person.keypoints is None else person.keypoints.tobytes())
            for polygon in person.outline:
                hashed.update(polygon.tobytes())
    return {"kind": source.kind, "entries": len(source), "sha256": hashed.hexdigest()}


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


def _write(folder: Path, manifest: Manifest) -> None:
    with replacing(folder / NAME, durable=True) as temporary:
        temporary.write_text(json.dumps(vars(manifest), indent=1, allow_nan=False) + "\n", encoding="utf-8")
