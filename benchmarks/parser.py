"""The human parser: annotated photos it has not seen, people and things pasted into them, rendered people.

    python benchmarks/parser.py --photos ../shared/data/ccp --cases-dir cases --out benchmarks/results/parser.json

The photos are those of Clothing Co-Parsing (Yang, Luo and Lin, CVPR 2014), the people those whom the detector finds.
Composites put a person or a thing of another photo into a photo, and the detector looks at them anew. Rendered people
are the benchmark's, by seeds that no training reaches, and once more in groups, by what may be hard about them.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from machine import describe_machine

from dsr_fit.boxes import joint_area, keypoint_box, shared_area
from dsr_fit.evaluate import ccp
from dsr_fit.evaluate.parsing import Confusion
from dsr_fit.io.images import read_image
from dsr_fit.io.label_files import colour_labels
from dsr_fit.labels import LABEL_SETS, LABELS, OTHER_PERSON, UNKNOWN, shows_person
from dsr_fit.observation import Detection
from dsr_fit.observe.detector import PersonDetector
from dsr_fit.observe.parser import HumanParser, load_parser
from dsr_fit.synthetic import ClothedCase
from dsr_fit.synthetic.dataset import read_case, write_cases
from dsr_fit.synthetic.paint import random_look
from dsr_fit.training.parsing.augment import Sample, paste_person, paste_thing, plain
from dsr_fit.training.parsing.examples import Example, example_of
from dsr_fit.training.parsing.photos import region_of_look

SIDE = 448
"""Pixels of a composite."""

SAME_PERSON = 0.4
"""IoU of keypoint boxes below which the detector chose somebody else."""

REPORTING_SEED = 10_000
"""Of the rendered people."""


@dataclass(frozen=True)
class Item:
    """A picture with a person found in it, and the truth."""

    name: str
    image: np.ndarray
    found: Detection
    truth: np.ndarray  # (H, W) uint8
    figure: np.ndarray | None = None  # (H, W) bool: what was pasted
    groups: tuple[str, ...] = ()


def photos(folder: Path, split: str, detector: PersonDetector) -> tuple[list[Item], list[Example]]:
    """The annotated photos of a split in which somebody is found."""
    items, examples = [], []
    for number in ccp.photo_numbers(folder, split):
        image, _ = read_image(ccp.photo_path(folder, number))
        for found in detector.detect(image, count=1):
            truth = ccp.read_annotation(folder, number, found.keypoints)
            items.append(Item(number, image, found, truth))
            assert found.look is not None
            examples.append(example_of(number, image, truth, found.keypoints, region_of_look(found.look)))
    return items, examples


def composites(
    kind: Literal["person", "thing"], examples: Sequence[Example], detector: PersonDetector
) -> Iterator[Item]:
    """Each photo with a person or a thing of another."""
    for number, example in enumerate(examples):
        rng = np.random.default_rng([number, len(kind)])
        sample = plain(example, SIDE)
        other = examples[(number + 1 + int(rng.integers(len(examples) - 1))) % len(examples)]
        figure = (paste_person if kind == "person" else paste_thing)(sample, other, rng)
        found = _found(sample, example, detector)
        if found is not None:
            yield Item(example.name, sample.picture, found, sample.labels, figure)


def _found(sample: Sample, example: Example, detector: PersonDetector) -> Detection | None:
    """The detection that is the photo's own person, if any."""
    true = np.zeros((49, 3), np.float32)
    true[:21] = plain(example, SIDE).points
    return same_person(sample.picture, true, detector)


def same_person(image: np.ndarray, true: np.ndarray, detector: PersonDetector) -> Detection | None:
    """Who is found at some (49, 3) keypoints, if anybody."""
    box = keypoint_box(true)
    for found in detector.detect(image, box):
        seen = keypoint_box(found.keypoints)
        if shared_area(box, seen) > SAME_PERSON * joint_area(box, seen):
            return found
    return None


def rendered(folder: Path, count: int, detector: PersonDetector) -> Iterator[Item | None]:
    """The benchmark's people; None for those who are not found."""
    seeds = range(REPORTING_SEED, REPORTING_SEED + count)
    write_cases(folder, seeds)
    for seed in seeds:
        case = read_case(folder, seed)
        found = same_person(case.image, case.keypoints, detector)
        yield None if found is None else Item(str(seed), case.image, found, case.labels, groups=groups_of(case))


def groups_of(case: ClothedCase) -> tuple[str, ...]:
    """What a rendered person belongs to: by skin tone, build, hair, light, view, and what is in the picture."""
    skin = random_look(np.random.default_rng([case.seed, 4])).skin
    assert skin is not None
    tone, hair = float(skin.tone.mean()), float(skin.hair.mean())
    own = case.image[case.clothed_mask].mean()
    weight = float(case.betas[1])
    return (
        "skin: " + ("light" if tone > 180 else "medium" if tone > 110 else "dark"),
        "hair: " + ("dark" if hair < 60 else "light"),
        "build: " + ("first third" if weight < -0.43 else "last third" if weight > 0.43 else "middle"),
        "light: " + ("dark" if own < 70 else "bright" if own > 130 else "medium"),
        f"view: {case.view}",
        *(["something in front"] if case.occluded else []),
        *(["second person"] if case.second_person else []),
        *(["cropped"] if case.cropped else []),
    )


def judged(parser: HumanParser, items: Sequence[Item]) -> tuple[dict[str, Any], list[np.ndarray]]:
    """All figures of the parser on some pictures, and its maps."""
    confusion, maps, seconds, single = Confusion(), [], [], []
    by_group: dict[str, Confusion] = defaultdict(Confusion)
    for item in items:
        started = time.process_time()
        maps.append(parser.parse(item.image, item.found))
        seconds.append(time.process_time() - started)
        own = Confusion()
        own.add(maps[-1], item.truth)
        single.append(own.scores()["paper4_iou"])
        confusion.counts += own.counts
        for group in item.groups:
            by_group[group].counts += own.counts
    iou = confusion.iou()
    merged = {name: confusion.merged_iou(LABEL_SETS[name]) for name in ("paper4", "code8")}
    figures: dict[str, Any] = {
        "people": len(items),
        **confusion.scores(),
        "label_iou": {
            name: _number(value) for name, value in zip((*LABELS, "other person", "occluder"), iou, strict=True)
        },
        **{
            f"{name}_by_class": dict(zip(LABEL_SETS[name].classes, map(_number, values), strict=True))
            for name, values in merged.items()
        },
        "confusion": confusion.counts.tolist(),
        "paper4_iou_by_person": {item.name: value for item, value in zip(items, single, strict=True)},
        "median_ms": 1000 * float(np.median(seconds)),
    }
    if by_group:
        figures["groups"] = {name: by_group[name].scores() for name in sorted(by_group)}
    return figures, maps


def on_composites(parser: HumanParser, examples: Sequence[Example], detector: PersonDetector) -> dict[str, Any]:
    """How much of pasted people gets this person's labels, and how much of pasted things is seen."""
    leaked, others = 0, 0
    for item in composites("person", examples, detector):
        figure = item.figure & (item.truth == OTHER_PERSON)
        leaked += int((shows_person(parser.parse(item.image, item.found)) & figure).sum())
        others += int(figure.sum())
    hidden = Confusion()
    for item in composites("thing", examples, detector):
        hidden.add(parser.parse(item.image, item.found), item.truth)
    scores = hidden.scores()
    return {
        "second_person_leak": leaked / others,
        "pasted_occluder": {name: scores[f"occluder_{name}"] for name in ("precision", "recall")},
    }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def sheet(items: Sequence[Item], maps: Sequence[np.ndarray], order: Sequence[int], path: Path) -> None:
    """Picture, map and truth of people, eight a row."""
    columns = []
    for index in order:
        image, found, truth = items[index].image, maps[index], items[index].truth
        near = (truth > 0) & (truth < UNKNOWN)
        rows, across = np.flatnonzero(near.any(1)), np.flatnonzero(near.any(0))
        part = slice(max(rows[0] - 20, 0), rows[-1] + 20), slice(max(across[0] - 20, 0), across[-1] + 20)
        tiles = [image[part], colour_labels(found)[part], colour_labels(truth)[part]]
        columns.append(np.concatenate([cv2.resize(tile, (200, 300), interpolation=cv2.INTER_AREA) for tile in tiles]))
    blank = np.zeros_like(columns[0])
    columns += [blank] * (-len(columns) % 8)
    rows = [np.concatenate(columns[start : start + 8], 1) for start in range(0, len(columns), 8)]
    cv2.imwrite(str(path), np.concatenate(rows)[..., ::-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--split", default="val")
    parser.add_argument("--cases-dir", type=Path, help="folder of the rendered people; missing ones are generated")
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--name", default="open", help="the parser's entry in --out; others in it stay")
    parser.add_argument("--weights", default="open", help="our parser: `open`, or a .safetensors file")
    parser.add_argument("--protocol", default="fast", choices=("fast", "paper"))
    parser.add_argument("--sheets", type=Path, help="folder of PNGs of the worst eight and eight others; not to commit")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    human_parser = load_parser(arguments.weights, arguments.protocol)
    detector = PersonDetector()
    items, examples = photos(arguments.photos, arguments.split, detector)
    sets: dict[str, list[Item]] = {"photos": items}
    missed = 0
    if arguments.cases_dir:
        people = list(rendered(arguments.cases_dir, arguments.cases, detector))
        sets["rendered"] = [item for item in people if item is not None]
        missed = len(people) - len(sets["rendered"])
    figures: dict[str, Any] = {"missed": missed, "machine": describe_machine(), "split": arguments.split}
    for name, chosen in sets.items():
        figures[name], maps = judged(human_parser, chosen)
        shown = ("person_iou", "paper4_iou", "code8_iou", "mc_iou", "others_leak", "median_ms")
        print(name, {key: round(figures[name][key], 3) for key in shown})
        if arguments.sheets:
            worst = np.argsort(list(figures[name]["paper4_iou_by_person"].values()))
            others = np.random.default_rng(0).choice(worst[8:], 8, replace=False)
            arguments.sheets.mkdir(parents=True, exist_ok=True)
            sheet(chosen, maps, [*worst[:8], *others], arguments.sheets / f"{name}.png")
    figures["photos"] |= on_composites(human_parser, examples, detector)
    print({key: figures["photos"][key] for key in ("second_person_leak", "pasted_occluder")})
    figures["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if arguments.out:
        known = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
        arguments.out.write_text(json.dumps(known | {arguments.name: figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
