"""Acclaim's skeleton (.asf) and motion (.amc), as the CMU database has them.

A bone is a segment from its parent's end; it turns about its start. Its angles are given in axes of its own,
which `axis` turns from the world's: with C that turn and M the angles' rotation, the bone's rotation in its
parent is C M C^-1. Angles apply in the order of the letters, first letter first, about fixed axes.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from mocap.clip import END, Clip, Skeleton, chain, parsed_numbers

ROOT = "root"


@dataclass(frozen=True)
class Bone:
    """One bone at rest, lengths in the file's unit, directions in the world."""

    name: str
    direction: np.ndarray  # (3,)
    length: float
    axes: Rotation
    order: str
    """Of the Euler angles, such as "xyz"."""
    dof: tuple[str, ...]
    """What a motion file gives for the bone, such as ("rx", "rz")."""


@dataclass(frozen=True)
class Acclaim:
    """A skeleton file. Bones by name; children in the file's order."""

    bones: dict[str, Bone]
    parent: dict[str, str]
    degrees: bool


def parse_asf(text: str) -> Acclaim:
    """Read a skeleton file. Raises ValueError where it is incomplete or turns its root at rest."""
    sections = _sections(text)
    degrees = _setting(sections["units"], "angle", ["deg"])[0].startswith("deg")
    root = sections["root"]
    if any(float(number) for number in _setting(root, "orientation", ["0"])):
        raise ValueError("a root that is turned at rest is not supported")
    order = _setting(root, "axis", ["XYZ"])[0].lower()
    dof = tuple(word.lower() for word in _setting(root, "order", []))
    bones = {ROOT: Bone(ROOT, np.zeros(3), 0.0, Rotation.identity(), order, dof)}
    for block in _blocks(sections["bonedata"]):
        name = _setting(block, "name", None)[0]
        *angles, letters = _setting(block, "axis", None)
        bones[name] = Bone(
            name,
            np.array([float(x) for x in _setting(block, "direction", None)]),
            float(_setting(block, "length", None)[0]),
            Rotation.from_euler(letters.lower(), [float(x) for x in angles], degrees=degrees),
            letters.lower(),
            tuple(word.lower() for word in _setting(block, "dof", [])),
        )
    parent = {}
    for line in next(_blocks(sections["hierarchy"])):
        above, *below = line
        parent |= dict.fromkeys(below, above)
    missing = set(bones) - set(parent) - {ROOT}
    if missing:
        raise ValueError(f"bones outside the hierarchy: {', '.join(sorted(missing))}")
    return Acclaim(bones, parent, degrees)


def read_asf_amc(asf: Acclaim, amc: str, name: str, fps: float = 120.0) -> Clip:
    """The motion file's text `amc` on a skeleton; CMU's takes are 120 frames a second.

    Bones that the motion leaves out stay as they are at rest. Raises ValueError for bones that the skeleton
    lacks or frames that are not complete.
    """
    values = _channels(amc)
    unknown = set(values) - set(asf.bones)
    if unknown:
        raise ValueError(f"{name}: the skeleton has no bone {', '.join(sorted(unknown))}")
    frames = len(values[ROOT])
    names = [ROOT, *asf.parent]
    local = np.empty((frames, len(names), 3, 3))
    for index, bone in enumerate(asf.bones[each] for each in names):
        angles = np.zeros((frames, 3))
        if bone.name in values:
            given = parsed_numbers(values[bone.name], f"{name}, {bone.name}")
            if given.shape != (frames, len(bone.dof)):
                raise ValueError(f"{name}: {bone.name} has {given.shape} numbers, not {(frames, len(bone.dof))}")
            for column, kind in enumerate(bone.dof):
                if kind[0] == "r":
                    angles[:, bone.order.index(kind[1])] = given[:, column]
        turn = Rotation.from_euler(bone.order, angles, degrees=asf.degrees)
        local[:, index] = (bone.axes * turn * bone.axes.inv()).as_matrix()
    skeleton = _skeleton(asf, names)
    world = chain(local, skeleton.parents[: len(names)])
    ends = [parent for parent in skeleton.parents[len(names) :]]
    return Clip(name, fps, skeleton, np.concatenate([world, world[:, ends]], 1))


def _skeleton(asf: Acclaim, names: list[str]) -> Skeleton:
    """Joints where bones start, named by the bone, then the ends of last bones."""
    leaves = [name for name in names if name not in asf.parent.values()]
    above = [asf.parent[name] for name in names[1:]] + leaves
    offsets = [asf.bones[name].direction * asf.bones[name].length for name in above]
    return Skeleton(
        tuple(names) + tuple(name + END for name in leaves),
        (-1, *(names.index(name) for name in above)),
        np.array([np.zeros(3), *offsets]),
    )


def _channels(amc: str) -> dict[str, list[list[str]]]:
    """Each bone's words of numbers in every frame; a line that is one number starts a frame."""
    values: dict[str, list[list[str]]] = defaultdict(list)
    for line in amc.splitlines():
        name, *numbers = line.split() or [""]
        if numbers and name[0] not in "#:":
            values[name].append(numbers)
    if ROOT not in values:
        raise ValueError("the motion file has no frame with a root")
    return values


def _sections(text: str) -> dict[str, list[list[str]]]:
    """Lines of words under each ":keyword"; what follows the keyword is the section's first line."""
    sections: dict[str, list[list[str]]] = defaultdict(list)
    name = ""
    for line in text.splitlines():
        words = line.split("#")[0].split()
        if words and words[0].startswith(":"):
            name, words = words[0][1:], words[1:]
        if words:
            sections[name].append(words)
    for needed in ("root", "bonedata", "hierarchy"):
        if needed not in sections:
            raise ValueError(f"the skeleton file lacks :{needed}")
    return sections


def _blocks(lines: list[list[str]]):
    """The lines between each "begin" and "end"."""
    block: list[list[str]] = []
    for words in lines:
        if words == ["begin"]:
            block = []
        elif words == ["end"]:
            yield block
        else:
            block.append(words)


def _setting(lines: list[list[str]], key: str, default: list[str] | None) -> list[str]:
    for first, *rest in lines:
        if first == key and rest:
            return rest
    if default is None:
        raise ValueError(f"a bone of the skeleton file lacks {key!r}")
    return default
