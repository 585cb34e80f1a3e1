"""The person detector: who is found, how well each is measured, and how long it takes.

    PYTHONPATH=tools python benchmarks/detector.py --wild ../shared/data/wild --real3d ../shared/data/real3d \
        --out benchmarks/results/detector.json

Composites and single people are rendered (`dsr_fit.synthetic`), with known keypoints and joints. `wild` are photos with
annotated people (see `wild.py`); people whom nobody annotated are no false alarms there. `real3d` is a man with
triangulated joints, for reports only. The file keeps the entries of detectors that are not measured this time:
MediaPipe's are those of the releases that used it. Some ten minutes a detector on one core.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from machine import describe_machine
from matching import COCO_SLOTS, Tally, Truth, matched, oks
from wild import read_wild

from dsr_fit.body.files import load_body
from dsr_fit.errors import InputError
from dsr_fit.evaluate.benchmark import fit_all
from dsr_fit.evaluate.metrics import mpjpe, pa_mpjpe
from dsr_fit.fitting.fitter import Fitter
from dsr_fit.io.images import read_image
from dsr_fit.joints import KEYPOINT_INDEX
from dsr_fit.observation import Detection, Observation
from dsr_fit.observe.detector import KeypointDetector, PersonDetector
from dsr_fit.observe.landmarks import Region
from dsr_fit.observe.perception import Inputs, Perception
from dsr_fit.synthetic import composite, couple, generate
from dsr_fit.synthetic.composites import Composite, CompositePerson

REPORTING_SEED = 5000
"""First seed of the pictures for reported figures; those below 1000 are for tuning."""

TALL, HIDDEN = 0.1, 0.5
"""People of a composite who should be found: taller than this share of the picture, and hidden by less."""

MANY = 8
"""Annotated keypoints of the people of `wild` who should be found."""

HEIGHTS = (0.0, 0.1, 0.15, 0.25, 0.5, 1.01)
SHARES = (0.0, 0.1, 0.3, 0.5, 1.0)

JOINTS = [
    KEYPOINT_INDEX[name]
    for name in ("RAnkle", "RKnee", "RHip", "LHip", "LKnee", "LAnkle", "RWrist", "RElbow", "RShoulder", "LShoulder",
                 "LElbow", "LWrist")
]  # fmt: skip
"""Those of `real3d`, in its order."""
HIPS = (2, 3)

Detectors = Mapping[str, KeypointDetector]
Figures = dict[str, Any]


def truth_of(person: CompositePerson, picture: Composite) -> Truth:
    height = person.box[3] / picture.image.shape[0]
    seen = person.keypoints[COCO_SLOTS, 2] > 0
    counts = height > TALL and person.hidden < HIDDEN
    return Truth(person.keypoints[COCO_SLOTS, :2], seen, person.box, counts, height, person.hidden)


def landmark_error(detection: Detection, joints: np.ndarray) -> float:
    """PA-MPJPE in mm of the detection's 3D landmarks; joints (12, 3) metres."""
    assert detection.world_landmarks is not None
    return float(pa_mpjpe(*(_batch(each) for each in (detection.world_landmarks[JOINTS, :3], joints))))


def _batch(points: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(points, np.float64))[None]


def _spread(values: list[float]) -> Figures:
    if not values:
        return {"people": 0}
    return {
        "people": len(values),
        "mean": round(float(np.mean(values)), 1),
        "median": round(float(np.median(values)), 1),
    }


def on_composites(detectors: Detectors, seeds: range) -> dict[str, Figures]:
    """Recall, precision and errors in groups of two to six."""
    tallies = {name: Tally() for name in detectors}
    landmarks: dict[str, list[float]] = {name: [] for name in detectors}
    for seed in seeds:
        picture = composite(seed)
        people = [truth_of(person, picture) for person in picture.people]
        for name, detector in detectors.items():
            seen = detector.detect(picture.image)
            pairs = tallies[name].add(seen, people)
            landmarks[name] += [
                landmark_error(seen[number], person.joints[JOINTS])
                for person, truth, number in zip(picture.people, people, pairs.found, strict=True)
                if truth.counts and number is not None
            ]
    return {
        name: {
            "pictures": len(seeds),
            **tally.recall(),
            "precision": tally.precision(),
            "false_alarms": tally.false_alarms,
            "by_height": _by_height(tally),
            "by_hidden": _by_hidden(tally),
            "keypoints": tally.keypoints(),
            "landmarks_pa_mpjpe": _spread(landmarks[name]),
        }
        for name, tally in tallies.items()
    }


def _by_height(tally: Tally) -> Figures:
    def part(low: float, high: float) -> Figures:
        return tally.recall(lambda one: low <= one.height < high and one.hidden < HIDDEN)

    return {f"{low:g} to {min(high, 1):g}": part(low, high) for low, high in pairwise(HEIGHTS)}


def _by_hidden(tally: Tally) -> Figures:
    def part(low: float, high: float) -> Figures:
        return tally.recall(lambda one: low <= one.hidden < high and one.height > TALL)

    return {f"{low:g} to {high:g}": part(low, high) for low, high in pairwise(SHARES)}


def on_cases(detectors: Detectors, seeds: range) -> dict[str, Figures]:
    """Rendered people, most of them alone, in the middle of the picture: errors of 2D and 3D."""
    tallies = {name: Tally() for name in detectors}
    landmarks: dict[str, list[float]] = {name: [] for name in detectors}
    for seed in seeds:
        case = generate(seed)
        rows, columns = (np.flatnonzero(case.clothed_mask.any(axis)) for axis in (1, 0))
        box = (float(columns[0]), float(rows[0]), float(np.ptp(columns)), float(np.ptp(rows)))
        points = case.keypoints[COCO_SLOTS]
        truth = Truth(points[:, :2], points[:, 2] > 0, box)
        for name, detector in detectors.items():
            seen = detector.detect(case.image)
            number = tallies[name].add(seen, [truth]).found[0]
            if number is not None:
                landmarks[name].append(landmark_error(seen[number], case.joints[JOINTS]))
    return {
        name: {
            **tally.recall(), "keypoints": tally.keypoints(), "landmarks_pa_mpjpe": _spread(landmarks[name]),
        }
        for name, tally in tallies.items()
    }  # fmt: skip


def on_wild(detectors: Detectors, folder: Path) -> dict[str, Figures]:
    """Recall of annotated people, the best similarity of anybody to each one missed, and errors of keypoints."""
    figures: dict[str, Figures] = {}
    for name, detector in detectors.items():
        tally, missed, detections = Tally(), {}, 0
        for photo in read_wild(folder):
            image, _ = read_image(photo.path)
            people = [
                Truth(one.keypoints[:, :2], one.keypoints[:, 2] > 0, one.box, one.count >= MANY) for one in photo.people
            ]
            seen = detector.detect(image)
            detections += len(seen)
            pairs = tally.add(seen, people)
            for one, number in zip(people, pairs.found, strict=True):
                if one.counts and number is None:
                    best = max((oks(each.keypoints[COCO_SLOTS], one) for each in seen), default=0.0)
                    place = f"{photo.path.relative_to(folder)} at {one.box[0]:.0f},{one.box[1]:.0f}"
                    missed[place] = round(best, 2)
        figures[name] = {
            **tally.recall(), "missed": missed, "detections": detections, "keypoints": tally.keypoints(),
        }  # fmt: skip
    return figures


def on_real3d(detectors: Detectors, folder: Path) -> dict[str, Figures]:
    """Errors of 3D landmarks and of whole fits, of a man with triangulated joints."""
    with np.load(folder / "truth.npz", allow_pickle=False) as archive:
        truth = [
            (str(name), joints, k)
            for name, joints, k in zip(*(archive[n] for n in ("name", "joints", "K")), strict=True)
        ]
    figures: dict[str, Figures] = {}
    for name, detector in detectors.items():
        perception = Perception(detector)
        seen: list[tuple[Observation, np.ndarray]] = []
        for photo, joints, k in truth:
            try:
                path = folder / Path(photo).with_suffix(".jpg").name
                seen.append((perception.observe(path, Inputs(focal=float(k[0, 0]))), joints))
            except InputError:
                continue  # nobody found
        figures[name] = {
            "photos": len(truth),
            "landmarks_pa_mpjpe": _spread([landmark_error(one.detection, joints) for one, joints in seen]),
            **_of_fits([one for one, _ in seen], [joints for _, joints in seen]),
        }
    return figures


def _of_fits(observations: list[Observation], truth: list[np.ndarray]) -> Figures:
    fits = list(fit_all(Fitter(load_body()), observations, 10))
    joints = [_batch(fit.joints[JOINTS]) for fit in fits]
    return {
        "fits_pa_mpjpe": _spread([float(pa_mpjpe(one, _batch(true))) for one, true in zip(joints, truth, strict=True)]),
        "fits_mpjpe": _spread([float(mpjpe(one, _batch(true), HIPS)) for one, true in zip(joints, truth, strict=True)]),
    }


def on_couples(detectors: Detectors, seeds: range) -> dict[str, Figures]:
    """The main person's fit with a second person before or behind it, and alone; at most about a third is hidden."""
    figures: dict[str, Figures] = {}
    pictures = [couple(seed) for seed in seeds]
    for name, detector in detectors.items():
        perception = Perception(detector)
        seen: dict[str, list[Observation]] = {"together": [], "alone": []}
        joints, in_front, right = [], [], 0
        for one in pictures:
            people = {"together": (one.together, one.main), "alone": (one.alone, 0)}
            found = {key: detector.detect(picture.image) for key, (picture, _) in people.items()}
            if not all(found.values()):
                continue
            for key, (picture, main) in people.items():
                truth = truth_of(picture.people[main], picture)
                best = max(found[key], key=lambda each: oks(each.keypoints[COCO_SLOTS], truth))
                seen[key].append(perception.observe(picture.image, Inputs(keypoints=best, focal=picture.focal_length)))
                right += key == "together" and matched([best], [truth]).found[0] is not None
            joints.append(one.alone.people[0].joints[JOINTS])
            in_front.append(one.in_front)
        errors: dict[str, Figures] = {}
        for key, observations in seen.items():
            fits = fit_all(Fitter(load_body()), observations, 10)
            off = [
                float(pa_mpjpe(_batch(fit.joints[JOINTS]), _batch(true)))
                for fit, true in zip(fits, joints, strict=True)
            ]
            errors[key] = {
                "all": _spread(off),
                "in_front": _spread([value for value, front in zip(off, in_front, strict=True) if front]),
                "behind": _spread([value for value, front in zip(off, in_front, strict=True) if not front]),
                "landmarks": _spread(
                    [landmark_error(o.detection, true) for o, true in zip(observations, joints, strict=True)]
                ),
            }
        figures[name] = {
            "pictures": len(seeds), "main_person_found": right, "pa_mpjpe": errors,
            "ratio": round(errors["together"]["all"]["mean"] / errors["alone"]["all"]["mean"], 3),
        }  # fmt: skip
    return figures


def milliseconds(detectors: Detectors, seed: int) -> dict[str, Figures]:
    """Processor time by stage, best of five each."""
    alone, group = generate(seed), composite(seed)
    return {name: _stages(detector, alone.image, group) for name, detector in detectors.items()}


def _stages(detector: KeypointDetector, alone: np.ndarray, group: Composite) -> Figures:
    figures = {
        "one person": _best(lambda: detector.detect(alone, count=1)),
        f"group of {len(group.people)}": _best(lambda: detector.detect(group.image)),
    }
    if isinstance(detector, PersonDetector):
        finder, network = detector.finder, detector.network
        whole = (0.0, 0.0, float(alone.shape[1]), float(alone.shape[0]))
        region = Region.of_keypoints(np.zeros((17, 3)), whole)
        figures["finder, 256 px"] = _best(lambda: finder.look(alone, [whole], 256))
        figures["finder, 384 px"] = _best(lambda: finder.look(alone, [whole], 384))
        figures["landmarks"] = _best(lambda: network.look([(alone, region)]))
    return figures


def _best(work: Callable[[], object]) -> float:
    """Milliseconds of processor time of the fastest of five calls, after one that warms up."""
    work()
    times = []
    for _ in range(5):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return round(1000 * min(times), 1)


def measure(detectors: Detectors, arguments: argparse.Namespace) -> dict[str, Figures]:
    """Each detector's figures."""
    first = arguments.first_seed
    parts: dict[str, Callable[[], dict[str, Figures]]] = {
        "milliseconds": lambda: milliseconds(detectors, first),
        "composites": lambda: on_composites(detectors, range(first, first + arguments.composites)),
        "rendered": lambda: on_cases(detectors, range(first, first + arguments.cases)),
        "couples": lambda: on_couples(detectors, range(first, first + arguments.couples)),
    }
    if arguments.wild:
        parts["wild"] = lambda: on_wild(detectors, arguments.wild)
    if arguments.real3d:
        parts["real3d"] = lambda: on_real3d(detectors, arguments.real3d)
    figures: dict[str, Figures] = {name: {} for name in detectors}
    for part, work in parts.items():
        if arguments.parts and part not in arguments.parts.split(","):
            continue
        for name, values in work().items():
            figures[name][part] = values
            print(f"{name:10} {part:12} {json.dumps(values)}", flush=True)
    return figures


def arguments_of(text: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detectors", default="accurate,fast", help="comma-separated")
    parser.add_argument("--wild", type=Path, help="folder of annotated photos")
    parser.add_argument("--real3d", type=Path, help="folder of photos with triangulated joints")
    parser.add_argument("--first-seed", type=int, default=REPORTING_SEED)
    parser.add_argument("--composites", type=int, default=100)
    parser.add_argument("--cases", type=int, default=40)
    parser.add_argument("--couples", type=int, default=20)
    parser.add_argument("--parts", default="", help="comma-separated; default all")
    parser.add_argument("--out", type=Path)
    return parser.parse_args(text)


def write(path: Path, figures: dict[str, Figures]) -> None:
    """Into the file, beside the other detectors' figures."""
    known = json.loads(path.read_text()) if path.exists() else {}
    for name, parts in figures.items():
        known[name] = {**known.get(name, {}), **parts, "machine": describe_machine()}
    path.write_text(json.dumps(known, indent=1) + "\n")


def main() -> None:
    arguments = arguments_of()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    figures = measure({name: PersonDetector(name) for name in arguments.detectors.split(",")}, arguments)
    if arguments.out:
        write(arguments.out, figures)


if __name__ == "__main__":
    main()
