"""Build `priors/pose/poses.npz`: distinct human poses from motion capture, on SMPL's joints.

    PYTHONPATH=tools python tools/build_poses.py --mocap ../shared/data/mocap

Beside it come `held_out.txt` (whole clips that nothing may be trained on), `retargeted.png` and `poses.md`.
"""

from __future__ import annotations

import argparse
import hashlib
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
from mocap.archive import read_clips, source_files
from mocap.clip import Clip
from mocap.legs import excess_length, flexion, shortened_legs, stance_flexion
from mocap.readme import Legs, Report, readme
from mocap.retarget import BONES, SIDES, Correspondence, direction_errors, our_positions, retarget
from mocap.selection import farthest_points, features, hold_out, implausible, stood_for
from mocap.sheet import Body, Pair, write_sheet

from dsr_fit.io.files import replacing

ROOT = Path(__file__).resolve().parents[1]
FPS = 30.0  # frames a second that are looked at
POSES = 8500
HELD_OUT = 0.2  # share of each subject's clips, and of DeepMimic's
SEED = 0
PICTURED = (
    "cmu/01_01", "cmu/01_06", "cmu/01_09", "cmu/01_14", "cmu/02_01", "cmu/02_05", "cmu/03_03", "cmu/13_29",
    "cmu/13_31", "cmu/14_14", "cmu/131_02", "cmu/131_03", "deepmimic/walk", "deepmimic/cartwheel",
    "deepmimic/crawl", "deepmimic/spinkick", "cmu/05_02", "cmu/05_11", "cmu/06_13", "cmu/06_01", "cmu/07_01",
    "cmu/08_07", "cmu/09_11", "cmu/09_12",
)  # fmt: skip


def main() -> None:
    """Read, retarget, thin, and write the poses with what tells about them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mocap", type=Path, required=True, help="folder with the zips and deepmimic/")
    parser.add_argument("--out", type=Path, default=ROOT / "priors" / "pose")
    arguments = parser.parse_args()
    out: Path = arguments.out

    body = read_body(ROOT / "priors" / "open_body" / "body.npz")
    clips: list[tuple[Clip, Correspondence]] = []
    groups: dict[str, list[str]] = defaultdict(list)
    poses, errors = [], {name: [] for name in BONES}
    for group, clip, correspondence in read_clips(arguments.mocap):
        thinned = clip.every(max(1, round(clip.fps / FPS)))
        pose = retarget(thinned, correspondence, body.joints)
        for name, error in direction_errors(thinned, correspondence, pose, body.joints).items():
            errors[name].append(error)
        groups[group].append(clip.name)
        clips.append((thinned, correspondence))
        poses.append(pose)
    names = [clip.name for clip, _ in clips]
    if not names:
        raise SystemExit(f"{arguments.mocap}: no motion capture found there")

    legs = shorten(groups, names, poses, body)
    full_pose = np.concatenate(poses)
    clip_index = np.repeat(np.arange(len(clips)), [len(pose) for pose in poses])
    frame_index = np.concatenate([np.arange(len(pose)) for pose in poses])
    reasons = implausible(full_pose)
    bad = np.any(list(reasons.values()), axis=0)
    plausible = np.flatnonzero(~bad)
    points = features(full_pose[plausible])
    chosen, radius = farthest_points(points, POSES)
    kept = plausible[chosen]
    held = hold_out(groups, HELD_OUT, SEED)

    with replacing(out / "poses.npz") as path:
        np.savez_compressed(
            path,
            full_pose=full_pose[kept].reshape(-1, 72).astype(np.float16),
            frames=stood_for(points, chosen).astype(np.uint16),
            clip=clip_index[kept].astype(np.int16),
            clip_names=np.array(names),
            held_out=np.array([name in held for name in names]),
        )
    with replacing(out / "held_out.txt") as path:
        path.write_text("".join(f"{name}\n" for name in held))

    pairs = []
    for name in PICTURED:
        index = names.index(name)
        mine = kept[clip_index[kept] == index]
        frame = frame_index[mine[2 * len(mine) // 3]]
        clip, correspondence = clips[index]
        pairs.append(Pair(clip, int(frame), correspondence, poses[index][frame]))
    with replacing(out / "retargeted.png") as path:
        write_sheet(path, pairs, body)

    counts = np.bincount(clip_index[kept], minlength=len(names))
    kept_of = dict(zip(names, counts.tolist(), strict=True))
    report = Report(
        groups={group: (len(each), sum(kept_of[name] for name in each)) for group, each in groups.items()},
        held_out={name: kept_of[name] for name in held},
        frames=len(full_pose),
        dropped={reason: int(mask.sum()) for reason, mask in reasons.items()},
        dropped_by_clip=dict(Counter(names[i] for i in clip_index[bad]).most_common(5)),
        dropped_total=int(bad.sum()),
        poses=len(kept),
        radius_degrees=float(np.rad2deg(radius)),
        legs=legs,
        errors={name: _summary(np.concatenate(each)) for name, each in errors.items()},
        size=(out / "poses.npz").stat().st_size,
        sha256=_sha256(out / "poses.npz"),
        sources=_source_hashes(source_files(arguments.mocap)),
        command=f"PYTHONPATH=tools python tools/build_poses.py --mocap {arguments.mocap}",
    )
    with replacing(out / "poses.md") as path:
        path.write_text(readme(report))
    print((out / "poses.md").read_text())


def shorten(groups: dict[str, list[str]], names: list[str], poses: list[np.ndarray], body: Body) -> dict[str, Legs]:
    """Give each group legs of the recorded lengths, in place."""
    found = {}
    for group, members in groups.items():
        rows = [names.index(name) for name in members]
        stance = stance_flexion([poses[row] for row in rows], body.joints, FPS)
        excess, before = excess_length(stance), _knees([poses[row] for row in rows], body)
        for row in rows:
            poses[row] = shortened_legs(poses[row], excess, body.joints)
        found[group] = Legs(stance, excess, before, _knees([poses[row] for row in rows], body))
    return found


def _knees(poses: list[np.ndarray], body: Body) -> tuple[float, ...]:
    """Percentiles 5, 25, 50, 75 and 95 of the flexion of both knees, degrees."""
    joints = our_positions(np.concatenate(poses), body.joints)
    both = np.stack([flexion(joints, side) for side in SIDES])
    return tuple(float(value) for value in np.percentile(both, [5, 25, 50, 75, 95]))


def read_body(path: Path) -> Body:
    """The mean open body and its joints."""
    with np.load(path, allow_pickle=False) as archive:
        vertices = archive["v_template"].astype(np.float64)
        joints = np.zeros((24, 3))
        rows, columns = archive["J_regressor_row"], archive["J_regressor_col"]
        np.add.at(joints, rows, archive["J_regressor_val"][:, None] * vertices[columns])
        weights = archive["weights"].astype(np.float64)
        return Body(vertices, archive["f"].astype(np.int64), weights, joints)


def _summary(degrees: np.ndarray) -> tuple[float, float, int]:
    """Median, worst and count, of frames whose source has the line."""
    known = degrees[~np.isnan(degrees)]
    return float(np.median(known)), float(known.max()), len(known)


def _sha256(*paths: Path) -> str:
    return hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()


def _source_hashes(paths: list[Path]) -> dict[str, str]:
    """Of each zip, and of all text files as one."""
    texts = [path for path in paths if path.suffix == ".txt"]
    hashes = {path.name: _sha256(path) for path in paths if path not in texts}
    return hashes | {f"{len(texts)} `humanoid3d_*.txt`, in order of name, as one": _sha256(*texts)}


if __name__ == "__main__":
    main()
