"""All clips of a folder of motion capture: CMU's zips, read without unpacking, and DeepMimic's text files."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from mocap.asf_amc import Acclaim, parse_asf, read_asf_amc
from mocap.bvh import read_bvh
from mocap.clip import Clip
from mocap.deepmimic import read_deepmimic
from mocap.retarget import CMU, CMU_BVH, CMU_HAHNE, DEEPMIMIC, Correspondence

ARCHIVES = ("cmu_asfamc.zip", "cmu_more.zip")
"""CMU's zips; others beside them are left alone."""

LATER = "cmu_bvh_05_09.zip"
"""A further one, read last, so that what is held out of the others stays."""

BORROWED = "01"
"""Whose skeleton CMU's takes without one get; the axes of bones, which matter, are alike in all."""


TOGETHER = {"13": "13 and 14", "14": "13 and 14"}
"""Subjects with so few takes that they make one group, of which a take is held out."""


def source_files(folder: Path) -> list[Path]:
    """The files that `read_clips` reads."""
    texts = sorted(folder.glob("deepmimic/humanoid3d_*.txt"))
    return [*(folder / name for name in (*ARCHIVES, LATER)), *texts]


def read_clips(folder: Path) -> Iterator[tuple[str, Clip, Correspondence]]:
    """Each clip with its group (its subject, or all of DeepMimic) and the joints that correspond."""
    archives = [zipfile.ZipFile(folder / name) for name in ARCHIVES]
    skeletons: dict[str, Acclaim] = {}
    for archive in archives:
        for name in archive.namelist():
            if name.endswith(".asf"):
                skeletons[Path(name).stem] = parse_asf(archive.read(name).decode())
    for archive in archives:
        for name in sorted(archive.namelist()):
            stem, subject = Path(name).stem, Path(name).stem.partition("_")[0]
            group = f"cmu {TOGETHER.get(subject, subject)}"
            if name.endswith(".amc"):
                skeleton = skeletons.get(subject, skeletons[BORROWED])
                yield group, read_asf_amc(skeleton, archive.read(name).decode(), f"cmu/{stem}"), CMU
            elif name.endswith(".bvh"):
                yield group, read_bvh(archive.read(name).decode(), f"cmu/{stem}"), CMU_BVH
        archive.close()
    for path in sorted(folder.glob("deepmimic/humanoid3d_*.txt")):
        name = "deepmimic/" + path.stem.removeprefix("humanoid3d_")
        yield "deepmimic", read_deepmimic(path.read_text(), name), DEEPMIMIC
    with zipfile.ZipFile(folder / LATER) as archive:
        for name in sorted(archive.namelist()):
            clip = read_bvh(archive.read(name).decode(), f"cmu/{Path(name).stem}")
            # The conversion puts a T-pose before each take.
            yield f"cmu {Path(name).stem[:2]}", replace(clip, rotations=clip.rotations[1:]), CMU_HAHNE
