"""Fits of annotated street photos, judged against their annotation.

    python benchmarks/photos.py --photos ../shared/data/ccp --split val --out benchmarks/results/photos.json

The photos are those of Clothing Co-Parsing (Yang, Luo and Lin, CVPR 2014), read by `dsr_fit.evaluate.ccp`. Each
variant switches terms on or off. Perception runs once; its findings can be kept in a folder with --cache.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from machine import describe_machine
from upright import flexion, trunk

from dsr_fit.assets import shipped
from dsr_fit.body.body import Body
from dsr_fit.body.files import load_body
from dsr_fit.config import FitConfig, load_config
from dsr_fit.dataset.settings import Settings
from dsr_fit.evaluate import ccp
from dsr_fit.evaluate.benchmark import fit_all
from dsr_fit.evaluate.cached_source import photo_source
from dsr_fit.evaluate.regressor import metrics_on_photos
from dsr_fit.fitting.fitter import Fitter
from dsr_fit.fitting.result import FitResult
from dsr_fit.joints import SMPL_JOINTS
from dsr_fit.observation import Observation
from dsr_fit.priors.semantic import load_semantic_prior

FIRST_PRIOR = "first semantic prior"
"""The default settings with the semantic prior by rule."""


def variants(config: FitConfig) -> dict[str, FitConfig]:
    """The ablation: which terms have a weight."""

    def only(**weights: float) -> FitConfig:
        off = replace(config.weights, dsr_mc=0.0, dsr_c=0.0, silhouette=0.0)
        return replace(config, weights=replace(off, **weights))

    mc, c = config.weights.dsr_mc, config.weights.dsr_c
    return {
        "default": config,
        "keypoints": only(),
        "silhouette": only(silhouette=mc),
        "mc": only(dsr_mc=mc),
        "c": only(dsr_c=c),
        "both": only(dsr_mc=mc, dsr_c=c),
        "first pose prior": load_config("pose_ranges", config),
        FIRST_PRIOR: config,
    }


BYSTANDERS = Path(__file__).with_name("bystanders.csv")


def horizons(path: Path = BYSTANDERS) -> dict[str, float]:
    """Photo number -> the horizon's share of the photo's height, from the top.

    Whoever stands on a level floor and is equally tall crosses the horizon at the same share of their height, that of
    the camera (Criminisi, Reid and Zisserman, Single View Metrology, IJCV 2000); several bystanders are averaged.
    """
    found: dict[str, list[float]] = {}
    with path.open() as file:
        for row in csv.DictReader(line for line in file if not line.startswith("#")):
            head, feet, far_head, far_feet = (
                float(row[name]) / 100 for name in ("head", "feet", "bystander_head", "bystander_feet")
            )
            tall, far_tall = feet - head, far_feet - far_head
            found.setdefault(row["photo"], []).append(head + tall * (far_head - head) / (tall - far_tall))
    return {photo: float(np.mean(rows)) for photo, rows in found.items()}


@torch.no_grad()
def uprightness(body: Body, results: list[FitResult], numbers: list[str]) -> dict[str, float]:
    """How people in the street stand: degrees of the straighter knee's flexion, and by which trunk and legs lean out of
    the image plane towards the camera on average.

    Photographers look down a little; where bystanders show the horizon, `_upright` says how far people lean from
    upright, towards the camera, and `camera_pitch` how far the fit's camera looks down.
    """
    joints = torch.cat([result.parameters().pose(body).joints() for result in results])
    knee = flexion(joints, "knee").amin(1)
    up = {"trunk": trunk(joints), "legs": -legs(joints)}
    leans = {name: torch.rad2deg(torch.asin(-axis[:, 2] / axis.norm(dim=-1))) for name, axis in up.items()}
    seen = horizons()
    known = [row for row, number in enumerate(numbers) if number in seen]
    pitch = [
        np.degrees(
            np.arctan((0.5 - seen[numbers[row]]) * results[row].observation.image.shape[0] / results[row].focal_length)
        )
        for row in known
    ]
    return {
        "straighter_knee": round(float(knee.median()), 1),
        "straighter_knee_p90": round(float(knee.quantile(0.9)), 1),
        **{f"{name}_lean": round(float(lean.mean()), 1) for name, lean in leans.items()},
        "with_horizon": len(known),
        "camera_pitch": round(float(np.mean(pitch)), 1),
        **{f"{name}_upright": round(float(np.mean(lean[known].numpy() - pitch)), 1) for name, lean in leans.items()},
    }


def legs(joints: torch.Tensor) -> torch.Tensor:
    """(N, 24, 3) -> (N, 3) from the hips' to the ankles' middle."""
    hips, ankles = ([SMPL_JOINTS.index(f"{side}_{name}") for side in ("left", "right")] for name in ("hip", "ankle"))
    return joints[:, ankles].mean(1) - joints[:, hips].mean(1)


def observe_all(folder: Path, numbers: list[str], cache: Path | None) -> dict[str, Observation | str]:
    """Photo number -> its observation, or the reason why it can't be fitted."""
    with TemporaryDirectory() as nowhere:
        photos = photo_source(folder, (cache or Path(nowhere)) / "photos" / "open", numbers)
        seen = photos.observe(Settings(), with_image=True)
    return {Path(name).stem: item for name, item in seen.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="the data set's folder")
    parser.add_argument("--split", choices=ccp.SPLITS, default="val")
    parser.add_argument("--variants", default="", help="comma-separated; default all")
    parser.add_argument("--config", help="preset or YAML file")
    parser.add_argument("--limit", type=int, help="only so many photos")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--cache", type=Path, help="folder for what perception finds")
    parser.add_argument("--pictures", type=Path, help="folder for the default variant's overlays")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()

    numbers = ccp.photo_numbers(arguments.photos, arguments.split)[: arguments.limit]
    seen = observe_all(arguments.photos, numbers, arguments.cache)
    missed = {number: item for number, item in seen.items() if isinstance(item, str)}
    found = {number: item for number, item in seen.items() if isinstance(item, Observation)}
    truth = [
        replace(item, labels=ccp.read_annotation(arguments.photos, number, item.detection.keypoints))
        for number, item in found.items()
    ]
    body = load_body()
    table: dict[str, dict] = {}
    chosen = variants(load_config(arguments.config))
    umpire = Fitter(body, chosen["default"])
    for name in arguments.variants.split(",") if arguments.variants else chosen:
        prior = load_semantic_prior(body, shipped("priors/semantic/rules.npz")) if name == FIRST_PRIOR else None
        fitter = Fitter(body, chosen[name], semantic_prior=prior)
        started = time.perf_counter()
        results = list(fit_all(fitter, list(found.values()), arguments.batch))
        seconds = (time.perf_counter() - started) / len(results)
        judged = metrics_on_photos(umpire, [result.parameters() for result in results], truth)
        implausible = judged.pop("implausible_joints").mean()
        table[name] = {
            "weights": {key: value for key, value in vars(chosen[name].weights).items()},
            "median": {key: float(np.nanmedian(values)) for key, values in judged.items()},
            "p95": {key: float(np.nanpercentile(values, 95)) for key, values in judged.items()},
            "p5": {key: float(np.nanpercentile(values, 5)) for key, values in judged.items()},
            "seconds_per_photo": round(seconds, 3),
            "iterations": float(np.mean([result.iterations for result in results])),
            "stopped": dict(Counter(result.stop_reason for result in results)),
            "implausible_joints": float(implausible),
            "uprightness": uprightness(body, results, list(found)),
            "mean_abs_beta": float(np.mean([np.abs(result.betas).mean() for result in results])),
        }
        line = "  ".join(f"{key} {value:.4f}" for key, value in table[name]["median"].items())
        line += f"  implausible_joints {table[name]['implausible_joints']:.4f}"
        print(f"{name:20} {line}  {seconds:.2f} s  {table[name]['stopped']}", flush=True)
        if arguments.pictures and name == "default":
            _draw(arguments.pictures, list(found), results, judged, body)
    if arguments.out:
        report = {
            "photos": {"split": arguments.split, "asked": len(numbers), "fitted": len(found), "missed": missed},
            "machine": describe_machine(),
            "batch": arguments.batch,
            "variants": table,
        }
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


def _draw(folder: Path, numbers: list[str], results: list[FitResult], judged: dict[str, np.ndarray], body) -> None:
    """Overlays named by rank of keypoint error, worst first."""
    import cv2

    folder.mkdir(parents=True, exist_ok=True)
    order = np.argsort(-judged["keypoint_error_rel"])
    for rank, row in enumerate(order):
        picture = cv2.cvtColor(results[row].overlay(), cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(folder / f"{rank:03d}_{numbers[row]}.jpg"), picture)


if __name__ == "__main__":
    main()
