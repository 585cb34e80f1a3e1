"""Biovision's .bvh: a hierarchy of offsets and channels, then one line of numbers a frame.

A joint's rotations apply in the order of its channels, each about the axes that those before have turned.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import numpy as np
from scipy.spatial.transform import Rotation

from mocap.clip import END, Clip, Skeleton, chain, parsed_numbers


@dataclass
class _Joint:
    name: str
    parent: int
    offset: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    channels: list[str] = field(default_factory=list)


def read_bvh(text: str, name: str) -> Clip:
    """A clip of a .bvh file's text; end sites become joints. Raises ValueError if it is malformed."""
    head, marker, motion = text.partition("MOTION")
    found = re.match(r"\s*Frames:\s*(\d+)\s*Frame Time:\s*(\S+)\s*", motion)
    if not marker or not found:
        raise ValueError(f"{name}: no MOTION with Frames and Frame Time")
    joints = _hierarchy(head.split(), name)
    rows = [line.split() for line in motion[found.end() :].splitlines() if line.strip()]
    values = parsed_numbers(rows, name)
    count = sum(len(joint.channels) for joint in joints)
    if values.shape != (int(found[1]), count):
        raise ValueError(f"{name}: {values.shape} numbers of motion, the header says {(int(found[1]), count)}")
    local = np.empty((len(values), len(joints), 3, 3))
    start = 0
    for index, joint in enumerate(joints):
        columns = [(start + k, kind) for k, kind in enumerate(joint.channels) if kind.endswith("rotation")]
        start += len(joint.channels)
        order = "".join(kind[0].upper() for _, kind in columns)
        angles = values[:, [column for column, _ in columns]]
        local[:, index] = Rotation.from_euler(order, angles, degrees=True).as_matrix() if order else np.eye(3)
    parents = tuple(joint.parent for joint in joints)
    skeleton = Skeleton(tuple(j.name for j in joints), parents, np.array([j.offset for j in joints]))
    return Clip(name, 1.0 / float(found[2]), skeleton, chain(local, parents))


def _hierarchy(words: list[str], name: str) -> list[_Joint]:
    joints: list[_Joint] = []
    open_joints: list[int] = []
    position = 0
    try:
        while position < len(words):
            word = words[position]
            if word in ("ROOT", "JOINT", "End"):
                parent = open_joints[-1] if open_joints else -1
                label = joints[parent].name + END if word == "End" else words[position + 1]
                joints.append(_Joint(label, parent))
                position += 2
            elif word == "{":
                open_joints.append(len(joints) - 1)
                position += 1
            elif word == "}":
                open_joints.pop()
                position += 1
            elif word == "OFFSET":
                joints[-1].offset = [float(x) for x in words[position + 1 : position + 4]]
                position += 4
            elif word == "CHANNELS":
                count = int(words[position + 1])
                joints[-1].channels = words[position + 2 : position + 2 + count]
                position += 2 + count
            elif word == "HIERARCHY":
                position += 1
            else:
                raise ValueError(f"unexpected word {word!r}")
    except (IndexError, ValueError) as error:
        raise ValueError(f"{name}: malformed HIERARCHY ({error})") from None
    if open_joints or not joints:
        raise ValueError(f"{name}: malformed HIERARCHY (braces don't close, or no joint)")
    return joints
