"""What ships against priors and parser made anew with the fits of training photos, through the whole pipeline.

    dsr-fit rounds ... --out ROUNDS          # or dsr-fit batch: FITS below is ROUNDS/round-3/fits
    python tools/build_semantic_prior.py --photos CCP --work WORK --out new/semantic_prior.npz
    python tools/build_photo_poses.py --photos CCP --fits FITS --out new/photo_poses.npz
    python tools/build_pose_prior.py --photo-poses new/photo_poses.npz --folder new/pose
    export PYTHONPATH=tools:benchmarks
    python tools/train_parser.py --photos CCP --work WORK/alone --out new/alone.safetensors \
        --further priors/parser/parser.safetensors
    python tools/train_parser.py --photos CCP --work WORK/fits --out new/fits.safetensors --fits FITS \
        --further priors/parser/parser.safetensors
    python experiments/from_fits.py --photos CCP --cases-dir CASES --cache WORK/seen --new new \
        --out benchmarks/results/from_fits.json

Each variant replaces one piece of the default. The semantic prior is counted again on the annotated photos, which are
fitted anew with the regressor and the settings that ship; poses and the parser's other photos are those of FITS. The
parser has a control: as many further steps on the annotated photos alone. Validation photos are judged against their
annotation, rendered people against their true bodies; differences to what ships are person by person, with 95 %
bootstrap intervals.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe_machine
from torch import set_num_threads

from dsr_fit.body.files import load_body
from dsr_fit.dataset.settings import Settings
from dsr_fit.evaluate import REPORTING_SEED, ccp, tables
from dsr_fit.evaluate.benchmark import Values, fit_all, metrics_on_cases
from dsr_fit.evaluate.cached_source import CachedSource, case_source, photo_source, seed_of
from dsr_fit.evaluate.metrics import bootstrap, paired_difference
from dsr_fit.evaluate.parsing import Confusion
from dsr_fit.evaluate.regressor import metrics_on_photos
from dsr_fit.fitting.fitter import Fitter
from dsr_fit.observation import Observation
from dsr_fit.priors.pose import read_pose_prior
from dsr_fit.priors.semantic import load_semantic_prior
from dsr_fit.synthetic.dataset import write_cases

SHIPS = "ships"
ON_PHOTOS = ("keypoint_error_rel", "mc_iou", "containment", "area_ratio", "implausible_joints")
ON_CASES = ("pa_mpjpe", "pve", "t_pose_pve_sc")


@dataclass(frozen=True)
class Variant:
    """The default with at most one file exchanged."""

    semantic_prior: Path | None = None
    pose_prior: Path | None = None
    parser: Path | None = None

    def fitter(self) -> Fitter:
        body = load_body()
        return Fitter(
            body,
            semantic_prior=load_semantic_prior(body, self.semantic_prior),
            pose_prior=None if self.pose_prior is None else read_pose_prior(self.pose_prior),
        )

    def look(self, people: CachedSource) -> dict[str, Observation]:
        """Whom detector and this variant's parser see; findings are kept by parser."""
        settings, name = Settings(), "open"
        if self.parser is not None:
            settings, name = Settings(parser=str(self.parser)), self.parser.stem
        seen = replace(people, cache=people.cache / name).observe(settings)
        return {image: item for image, item in seen.items() if isinstance(item, Observation)}


def variants(new: Path) -> dict[str, Variant]:
    """What ships, and a variant for each file that was made anew."""
    made = {
        "semantic prior": ("semantic_prior", new / "semantic_prior.npz"),
        "pose prior": ("pose_prior", new / "pose" / "density.npz"),
        "parser, annotated photos": ("parser", new / "alone.safetensors"),
        "parser, fits besides": ("parser", new / "fits.safetensors"),
    }
    return {SHIPS: Variant()} | {name: Variant(**{kind: path}) for name, (kind, path) in made.items() if path.exists()}


def judged_on_photos(
    variant: Variant, umpire: Fitter, photos: CachedSource, folder: Path
) -> tuple[Values, dict[str, float]]:
    """Metrics of the fits, and scores of the label maps that they saw, against the annotation."""
    seen, confusion = variant.look(photos), Confusion()
    truth = []
    for name, item in seen.items():
        annotation = ccp.read_annotation(folder, Path(name).stem, item.detection.keypoints)
        confusion.add(item.labels, annotation)
        truth.append(replace(item, labels=annotation))
    bodies = [result.parameters() for result in fit_all(variant.fitter(), list(seen.values()))]
    scores = {name: round(value, 4) for name, value in confusion.scores().items()}
    return metrics_on_photos(umpire, bodies, truth), scores


def judged_on_cases(variant: Variant, umpire: Fitter, people: CachedSource) -> Values:
    """Metrics of the fits against the true bodies."""
    seen = variant.look(people)
    results = list(fit_all(variant.fitter(), list(seen.values())))
    focal_lengths = [result.focal_length for result in results]
    seeds = [seed_of(name) for name in seen]
    bodies = [result.parameters() for result in results]
    return metrics_on_cases(umpire, people.source.images, seeds, bodies, focal_lengths)


def summary(values: Values, names: tuple[str, ...], ships: Values) -> dict[str, Any]:
    """Metric -> mean with its interval, median, and difference to what ships, over the people who have it."""
    found = {}
    for name in names:
        both = np.isfinite(values[name]) & np.isfinite(ships[name])
        scale = 100 if name in ON_PHOTOS else 1  # per cent
        one, other = (scale * each[name][both] for each in (values, ships))
        found[name] = {
            **tables.as_dict(bootstrap(one)),
            "median": round(float(np.median(one)), 3),
            "difference": tables.as_dict(paired_difference(one, other)),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder of Clothing Co-Parsing")
    parser.add_argument("--cases-dir", type=Path, required=True, help="folder of the cases; missing ones are generated")
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--new", type=Path, required=True, help="folder of the files made anew")
    parser.add_argument("--cache", type=Path, required=True, help="folder for what perception finds, by parser")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()

    numbers = ccp.photo_numbers(arguments.photos, "val")
    photos = photo_source(arguments.photos, arguments.cache / "photos", numbers)
    seeds = range(REPORTING_SEED, REPORTING_SEED + arguments.cases)
    write_cases(arguments.cases_dir, seeds)
    people = case_source(arguments.cases_dir, seeds, arguments.cache / "cases")
    umpire, table = Fitter(load_body()), {}
    ships: tuple[Values, Values] | None = None
    for name, variant in variants(arguments.new).items():
        on_photos, scores = judged_on_photos(variant, umpire, photos, arguments.photos)
        on_cases = judged_on_cases(variant, umpire, people)
        ships = ships or (on_photos, on_cases)
        table[name] = {
            "parser": scores,
            "photos": summary(on_photos, ON_PHOTOS, ships[0]),
            "cases": summary(on_cases, ON_CASES, ships[1]),
        }
        shown = {key: value["mean"] for kind in ("photos", "cases") for key, value in table[name][kind].items()}
        print(name, shown, scores, flush=True)
    if arguments.out:
        asked = {"photos": len(photos.source), "cases": len(seeds)}
        report = {"asked": asked, "machine": describe_machine(), "variants": table}
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    set_num_threads(1)
    main()
