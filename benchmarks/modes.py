"""The estimate that a fit starts from against what each mode makes of it: photos, and people whose bodies are known.

    python benchmarks/modes.py --photos ../shared/data/ccp --cases-dir cases --out benchmarks/results/modes.json

Photos are judged against their annotation, rendered people against their true bodies, both through the whole pipeline:
detector, parser, regressor, fit. `kinematic` starts from inverse kinematics to the detector's landmarks instead of the
regressor that ships.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from machine import describe_machine
from photos import observe_all as observe_photos

from dsr_fit.body.files import load_body
from dsr_fit.config import FitConfig, load_config
from dsr_fit.dataset.settings import Settings
from dsr_fit.evaluate import REPORTING_SEED, ccp, tables
from dsr_fit.evaluate.benchmark import METRICS, ObservedCase, fit_all, metrics_on_cases
from dsr_fit.evaluate.cached_source import case_source, seed_of
from dsr_fit.evaluate.regressor import metrics_on_photos
from dsr_fit.fitting.fitter import Fitter
from dsr_fit.fitting.result import FitResult
from dsr_fit.observation import Observation
from dsr_fit.regressor.load import load_regressor
from dsr_fit.synthetic.dataset import write_cases

RIGHT_MM = 80
WORST = 8


def variants(config: FitConfig) -> dict[str, tuple[str | None, FitConfig]]:
    """Name -> regressor and configuration."""
    still = replace(config, mode="smplify", least_squares=replace(config.least_squares, steps=0), stages=())
    modes = {mode: (None, replace(config, mode=mode)) for mode in ("smplify", "eft", "eft+smplify")}
    return {
        "initial": (None, still),
        **modes,
        "kinematic initial": ("kinematic", still),
        "kinematic, smplify": ("kinematic", replace(config, mode="smplify")),
        "smplify, pose ranges": (None, load_config("pose_ranges")),
        "smplify, one outfit": (None, replace(config, semantics=replace(config.semantics, outfits=False))),
    }


def observe_cases(folder: Path, seeds: Sequence[int], cache: Path | None) -> list[ObservedCase]:
    """What the whole pipeline is told about each case."""
    with TemporaryDirectory() as nowhere:
        seen = case_source(folder, seeds, (cache or Path(nowhere)) / "cases").observe(Settings(), with_image=True)
    return [
        ObservedCase(seed_of(name), None, item) if isinstance(item, str) else ObservedCase(seed_of(name), item)
        for name, item in seen.items()
    ]


def fitted(fitter: Fitter, told: list[Observation], batch: int) -> tuple[list[FitResult], float]:
    """Results and seconds a person."""
    started = time.perf_counter()
    results = list(fit_all(fitter, told, batch))
    return results, round((time.perf_counter() - started) / len(told), 3)


def on_photos(umpire: Fitter, results: list[FitResult], truth: list[Observation]) -> dict[str, float]:
    judged = metrics_on_photos(umpire, [result.parameters() for result in results], truth)
    implausible = judged.pop("implausible_joints").mean()
    return {
        **{name: float(np.nanmedian(values)) for name, values in judged.items()},
        "keypoint_error_mean": float(judged["keypoint_error_rel"].mean()),
        "implausible_joints": float(implausible),
    }


def on_cases(umpire: Fitter, folder: Path, seeds: list[int], results: list[FitResult]) -> dict[str, list[float]]:
    """Metric -> value of each case."""
    focal_lengths = [result.focal_length for result in results]
    judged = metrics_on_cases(umpire, folder, seeds, [result.parameters() for result in results], focal_lengths)
    return {name: judged[name].round(4).tolist() for name in METRICS}


def summary(values: dict[str, list[float]], initial: dict[str, list[float]] | None) -> dict:
    """Means with intervals, the share that is right, and the differences to the initial estimate case by case."""
    pve = np.array(values["pve"])
    found: dict = {"mean": tables.summary(values), "median_pve": float(np.median(pve))}
    found["right"] = float((pve < RIGHT_MM).mean())
    if initial is not None:
        found["less_initial"] = tables.differences(values, initial)
    return found


def draw_worst(folder: Path, fitter: Fitter, names: list[str], results: list[FitResult], errors: np.ndarray) -> None:
    """Overlays of the worst, by rank."""
    import cv2

    folder.mkdir(parents=True, exist_ok=True)
    for rank, row in enumerate(np.argsort(-errors)[:WORST]):
        picture = cv2.cvtColor(results[row].overlay(), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(folder / f"{rank}_{names[row]}.jpg"), picture)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder of Clothing Co-Parsing")
    parser.add_argument("--split", choices=ccp.SPLITS, default="val")
    parser.add_argument("--limit", type=int, help="only so many photos")
    parser.add_argument("--cases-dir", type=Path, required=True, help="folder of the cases; missing ones are generated")
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--first-seed", type=int, default=REPORTING_SEED)
    parser.add_argument("--variants", default="", help="separated by semicolons; default all")
    parser.add_argument("--config", help="preset or YAML file")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--cache", type=Path, help="folder for what perception finds")
    parser.add_argument("--pictures", type=Path, help="folder for overlays of each mode's worst")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    cache: Path | None = arguments.cache

    numbers = ccp.photo_numbers(arguments.photos, arguments.split)[: arguments.limit]
    photos = observe_photos(arguments.photos, numbers, cache)
    photos = {number: item for number, item in photos.items() if isinstance(item, Observation)}
    truth = [
        replace(item, labels=ccp.read_annotation(arguments.photos, number, item.detection.keypoints))
        for number, item in photos.items()
    ]
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.cases)
    write_cases(arguments.cases_dir, seeds)
    seen = [item for item in observe_cases(arguments.cases_dir, seeds, cache) if item.observation is not None]
    people = [item.observation for item in seen if item.observation is not None]

    body, table, initial = load_body(), {}, None
    chosen = variants(load_config(arguments.config))
    umpire = Fitter(body)
    for name in arguments.variants.split(";") if arguments.variants else chosen:
        which, config = chosen[name]
        fitter = Fitter(body, config, regressor=load_regressor(which, body, config))
        results, seconds = fitted(fitter, list(photos.values()), arguments.batch)
        table[name] = {"photos": {**on_photos(umpire, results, truth), "seconds": seconds}}
        if arguments.pictures:
            errors = np.array([result.metrics["keypoint_error_rel"]["after"] for result in results])
            draw_worst(arguments.pictures / f"photos {name}", fitter, list(photos), results, errors)
        results, seconds = fitted(fitter, people, arguments.batch)
        values = on_cases(umpire, arguments.cases_dir, [item.seed for item in seen], results)
        table[name]["cases"] = {**summary(values, initial), "seconds": seconds}
        initial = initial or values
        if arguments.pictures:
            names = [str(item.seed) for item in seen]
            draw_worst(arguments.pictures / f"cases {name}", fitter, names, results, np.array(values["pve"]))
        shown = {key: table[name]["photos"][key] for key in ("keypoint_error_rel", "mc_iou", "containment", "seconds")}
        print(f"{name:20} photos " + "  ".join(f"{key} {value:.4g}" for key, value in shown.items()), flush=True)
        cases = table[name]["cases"]
        shown = {key: cases["mean"][key]["mean"] for key in ("mpjpe", "pa_mpjpe", "pve", "t_pose_pve_sc", "mask_iou")}
        shown |= {key: cases[key] for key in ("median_pve", "right", "seconds")}
        print(f"{name:20} cases  " + "  ".join(f"{key} {value:.4g}" for key, value in shown.items()), flush=True)
    if arguments.out:
        report = {
            "photos": {"split": arguments.split, "asked": len(numbers), "fitted": len(photos)},
            "cases": {"first_seed": seeds[0], "asked": len(seeds), "fitted": len(people), "right_mm": RIGHT_MM},
            "machine": describe_machine(),
            "batch": arguments.batch,
            "variants": table,
        }
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
