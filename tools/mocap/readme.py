# ruff: noqa: E501  (rows of Markdown tables cannot be wrapped)
"""The README of the pose file, with the figures of its build."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Legs:
    """A group's legs, degrees."""

    stance: float
    """Flexion of knees that should be straight, as recorded."""
    excess: float
    """Share by which the skeleton's legs are too long."""
    before: tuple[float, ...]
    """Percentiles 5, 25, 50, 75 and 95 of flexion, as recorded."""
    after: tuple[float, ...]


@dataclass(frozen=True)
class Report:
    """What a build found."""

    groups: dict[str, tuple[int, int]]
    """Clips and kept poses of each subject."""
    held_out: dict[str, int]
    """Kept poses of each clip that is held out."""
    frames: int
    dropped: dict[str, int]
    dropped_by_clip: dict[str, int]
    dropped_total: int
    poses: int
    radius_degrees: float
    legs: dict[str, Legs]
    """Of each group."""
    errors: dict[str, tuple[float, float, int]]
    """Median, worst, and number of frames, degrees, for each line between joints."""
    size: int
    sha256: str
    sources: dict[str, str]
    command: str


def _joined(percentiles: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.0f}" for value in percentiles)


def readme(r: Report) -> str:
    """The README's text, every figure from the report."""
    groups = "\n".join(f"| {name} | {clips} | {poses:,} |" for name, (clips, poses) in r.groups.items())
    dropped = "\n".join(f"| {reason} | {count:,} |" for reason, count in r.dropped.items() if count)
    none = ", ".join(reason for reason, count in r.dropped.items() if not count)
    errors = "\n".join(f"| {name} | {m:.1f} | {w:.1f} |" for name, (m, w, _) in r.errors.items())
    legs = "\n".join(
        f"| {name} | {each.stance:.0f} | {100 * each.excess:.1f} % | {_joined(each.before)} | {_joined(each.after)} |"
        for name, each in r.legs.items()
    )
    held = ", ".join(f"`{name}` ({count})" for name, count in r.held_out.items())
    by_clip = ", ".join(f"`{name}` {count}" for name, count in r.dropped_by_clip.items())
    sources = "\n".join(f"| {name} | `{digest}` |" for name, digest in r.sources.items())
    return f"""\
# Poses

`poses.npz` holds {r.poses:,} distinct poses of people who walk, run, climb, dance, play, exercise, fight and
tumble, as SMPL's 24 rotations, so that rendered people and pose priors need no motion capture. `joint_ranges.yaml`
beside it is a prior written by hand, and not made from it.

![Stick figures of the sources beside the open body in the retargeted pose](retargeted.png)

## Source and licence

- CMU Graphics Lab Motion Capture Database, subjects 01, 02, 03, 05 to 09, 13, 14, 131. The data used in this project
  was obtained from mocap.cs.cmu.edu. The database was created with funding from NSF EIA-0196217. It is free
  for any use.
- The motion clips of DeepMimic (Peng, Abbeel, Levine, van de Panne, 2018), MIT licence, Copyright (c) 2018
  Xue Bin Peng.

Only retargeted rotations are in the file, none of the recordings.

## What is in the file

| array | shape | what |
| --- | --- | --- |
| `full_pose` | ({r.poses}, 72) float16 | rotation vectors in SMPL's order, radians; the first three are `global_orient` in an upright world (y up, at zero the body faces z with its left at x), its heading as in the clip |
| `frames` | ({r.poses},) uint16 | how many frames have this pose as the nearest: how long people stay like that |
| `clip` | ({r.poses},) int16 | index of the pose's clip |
| `clip_names` | ({sum(c for c, _ in r.groups.values())},) | such as `cmu/01_03` |
| `held_out` | ({sum(c for c, _ in r.groups.values())},) bool | clips that nothing may be trained on |

float16 keeps angles to 0.06 degrees. `dsr_fit.priors.recorded_poses.load_poses()` reads it.

| source | clips | poses |
| --- | --- | --- |
{groups}

**Held out** are whole clips, about a fifth of each source by seed, named in `held_out.txt`. Every training
leaves them out, so that what is measured on them is measured on motions never seen. With the number of their poses:

{held}.

## How it was made

Each joint takes the world rotation of the source's joint, after the source's rest pose is brought into the
open body's T-pose: down each limb the smallest rotation that lays the source's bone along ours. The trunk,
neck and head take the rotations as they are, feet are aligned in heading only. Both bones of an arm are
twisted alike so that elbows bend about the vertical of the T-pose, and the elbow takes half of the hand's
turn about the forearm. DeepMimic's one joint of the chest is spread over three, its neck over two; it has no
wrists. CMU's subjects 13 and 14 come without a skeleton and borrow that of subject 01.

CMU's skeletons have longer legs than the recorded people: those who stand still have bent knees, and so has the leg
that carries a walker, where it is vertical. Each subject's legs are shortened until these are straight (6 degrees, as
adults stand; the T-pose has 3), hip and foot staying where they are: 3 % of a leg explain 28 degrees of a straight knee
and 3 of one bent by 90 (`tools/mocap/legs.py`). Flexion of knees, all frames, percentiles 5, 25, 50, 75, 95, degrees:

| source | straight knee, recorded | legs too long by | as recorded | here |
| --- | --- | --- | --- | --- |
{legs}

{r.frames:,} frames (at 30 a second) were looked at, and {r.dropped_total:,} dropped as implausible. Most are of one
take, in which a foot is turned over. By clip: {by_clip} ...

| reason | frames |
| --- | --- |
{dropped}

Never: {none}.

Of the rest, {r.poses:,} were taken greedily, each the farthest from all taken before: they lie at least
{r.radius_degrees:.1f} degrees apart (root mean square over 24 joints, heading left out), and every frame lies
that near to one of them. Rare poses are therefore more frequent than in life.

Angles between the source's lines and ours, over all frames, degrees:

| line | median | worst |
| --- | --- | --- |
{errors}

Limbs agree, as they are made to; the rest of a forearm is the T-pose's arm leaving x. Feet and neck differ by a
slope at rest, since each skeleton places their joints otherwise; trunk and neck also by how their bend is spread over
bones of other lengths.

Known limits: wrists of CMU's takes are bent back by some 20 degrees on average, as recorded; fingers and shoulder
blades hardly move, and neither wrists nor toes in DeepMimic's clips; nothing stops limbs from passing through a body
of another build than the recorded one.

## Rebuilding it

```
{r.command}
```

| file | SHA-256 |
| --- | --- |
{sources}
| `poses.npz` ({r.size / 1e6:.2f} MB) | `{r.sha256}` |

The last digits, and with them the hash, may differ between machines.
"""
