"""The human parser on the validation photos of Clothing Co-Parsing, judged against the annotation.

    PYTHONPATH=tools python benchmarks/parser.py --photos ../shared/data/ccp --out benchmarks/results/parser.json

Composites put a person or a thing of another photo into the picture;
the detector looks at them anew. `--sheet FILE` draws the worst and some other maps.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from annotated import AnnotatedPhotos
from confusion import Confusion
from machine import describe_machine
from parser_training.augment import OCCLUDER_CLASS, Sample, paste_person, paste_thing, plain
from parser_training.photos import Photo, load_photos

from dsr_fit.boxes import joint_area, keypoint_box, shared_area
from dsr_fit.evaluate import ccp
from dsr_fit.io.images import read_image
from dsr_fit.io.label_files import colour_labels
from dsr_fit.labels import LABEL_SETS, LABELS
from dsr_fit.observation import Detection
from dsr_fit.observe.detector import PersonDetector
from dsr_fit.observe.parser import HumanParser, load_parser

SIDE = 448  # pixels of a composite
SAME_PERSON = 0.4  # IoU of keypoint boxes below which the detector chose somebody else


class Photos:
    """The photos, what the detector found in them, and their annotation."""

    def __init__(self, folder: Path, split: str, cache: Path | None) -> None:
        self.detector = PersonDetector()
        seen = AnnotatedPhotos(folder, cache)
        self.items: list[tuple[str, np.ndarray, Detection, np.ndarray]] = []
        for number in ccp.photo_numbers(folder, split):
            found = seen.detection(number)
            if found is not None:
                image, _ = read_image(ccp.photo_path(folder, number))
                self.items.append((number, image, found, ccp.read_annotation(folder, number, found.keypoints)))
        self.cut = load_photos(folder, split, cache)

    def composites(self, kind: str) -> list[tuple[np.ndarray, Detection, np.ndarray, np.ndarray]]:
        """Picture, the target's detection, true classes, and the pasted one's pixels."""
        made = []
        for number, photo in enumerate(self.cut):
            rng = np.random.default_rng([number, len(kind)])
            sample = plain(photo, SIDE)
            other = self.cut[(number + 1 + rng.integers(len(self.cut) - 1)) % len(self.cut)]
            figure = _paste(kind, sample, other, rng)
            true = np.zeros((49, 3), np.float32)
            true[:21] = photo_points(photo)
            box = keypoint_box(true)
            for found in self.detector.detect(sample.picture, box):
                seen = keypoint_box(found.keypoints)
                if shared_area(box, seen) > SAME_PERSON * joint_area(box, seen):
                    made.append((sample.picture, found, sample.classes, figure))
        return made


def photo_points(photo: Photo) -> np.ndarray:
    """(21, 3) keypoints in a composite's pixels."""
    points = plain(photo, SIDE).points
    return points * [SIDE, SIDE, 1]


def _paste(kind: str, sample: Sample, other: Photo, rng: np.random.Generator) -> np.ndarray:
    if kind == "person":
        return paste_person(sample, other, rng)
    before = sample.classes.copy()
    paste_thing(sample, other, rng)
    return (sample.classes == OCCLUDER_CLASS) & (before != OCCLUDER_CLASS)


def judged(parser: HumanParser, photos: Photos) -> tuple[dict[str, Any], list[np.ndarray]]:
    """All figures of one parser, and its maps."""
    confusion = Confusion()
    maps, seconds, single = [], [], []
    for _, image, found, truth in photos.items:
        started = time.perf_counter()
        maps.append(parser.parse(image, found))
        seconds.append(time.perf_counter() - started)
        confusion.add(maps[-1], truth)
        own = Confusion()
        own.add(maps[-1], truth)
        single.append(own.scores()["code8_iou"])
    iou = confusion.iou()
    merged = {name: confusion.merged_iou(LABEL_SETS[name]) for name in ("paper4", "code8")}
    figures: dict[str, Any] = {
        **confusion.scores(),
        "label_iou": {name: _number(value) for name, value in zip((*LABELS, "occluder"), iou, strict=True)},
        **{
            f"{name}_by_class": dict(zip(LABEL_SETS[name].classes, map(_number, values), strict=True))
            for name, values in merged.items()
        },
        "confusion": confusion.counts.tolist(),
        "code8_iou_by_photo": {item[0]: value for item, value in zip(photos.items, single, strict=True)},
        "median_ms": 1000 * float(np.median(seconds)),
    }
    leaked, others = 0, 0
    for picture, found, _, figure in photos.composites("person"):
        labels = parser.parse(picture, found)
        leaked += int(((labels > 0) & (labels < OCCLUDER_CLASS) & figure).sum())
        others += int(figure.sum())
    figures["second_person_leak"] = leaked / others
    hidden = Confusion()
    for picture, found, classes, _ in photos.composites("thing"):
        hidden.add(parser.parse(picture, found), classes)
    scores = hidden.scores()
    figures["pasted_occluder"] = {name: scores[f"occluder_{name}"] for name in ("precision", "recall")}
    return figures, maps


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def sheet(photos: Photos, maps: Sequence[np.ndarray], order: Sequence[int], path: Path) -> None:
    """Photo, map and annotation of 16 people, eight a row."""
    columns = []
    for index in order:
        _, image, _, truth = photos.items[index]
        tiles = [image, colour_labels(maps[index]), colour_labels(truth)]
        columns.append(np.concatenate([cv2.resize(tile, (180, 270), interpolation=cv2.INTER_AREA) for tile in tiles]))
    rows = [np.concatenate(columns[start : start + 8], 1) for start in range(0, len(columns), 8)]
    cv2.imwrite(str(path), np.concatenate(rows)[..., ::-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--detections", type=Path, help="folder that keeps the detector's findings")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--weights", default="open", help="our parser: `open`, or a .safetensors file")
    parser.add_argument("--sheet", type=Path, help="PNG of the worst eight maps and eight others; not to be committed")
    arguments = parser.parse_args()
    photos = Photos(arguments.photos, arguments.split, arguments.detections)
    figures, maps = judged(load_parser(arguments.weights), photos)
    shown = ("person_iou", "paper4_iou", "code8_iou", "mc_iou", "second_person_leak", "median_ms")
    print({key: round(figures[key], 3) for key in shown}, figures["pasted_occluder"])
    if arguments.sheet:
        worst = np.argsort([figures["code8_iou_by_photo"][item[0]] for item in photos.items])
        others = np.random.default_rng(0).choice(worst[8:], 8, replace=False)
        sheet(photos, maps, [*worst[:8], *others], arguments.sheet)
    report = {
        "machine": describe_machine(),
        "threads": torch.get_num_threads(),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "split": arguments.split,
        "photos": len(photos.items),
        "parsers": {"open": figures},
    }
    arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
