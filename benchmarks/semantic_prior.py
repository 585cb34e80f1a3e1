"""How well semantic priors foretell annotated clothing, and what they do to fits of the annotated photos.

    PYTHONPATH=tools python benchmarks/semantic_prior.py --photos ../shared/data/ccp --work ../semantic_fits \
        --out benchmarks/results/semantic_prior.json

Compares the prior by rule (`priors/semantic/rules.npz`) with the shipped one, its average wardrobe and its outfits, on
photos of Clothing Co-Parsing (Yang, Luo and Lin, CVPR 2014) that are for tuning and for validation. Labels: the
annotation's pixels on the body, those of background, occluder or unknown left out; per photo, then averaged over
photos. The bodies are those fitted with the prior by rule, the same for all priors. Fits: with each prior in turn, the
annotation as label map; `mc_iou` is judged with the shipped prior, by outfit, for all. The work folder keeps the fits.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from annotated import AnnotatedPhotos, fit_photos, fitted_parameters, fitted_view
from machine import describe_machine
from numpy.typing import NDArray

from dsr_fit.assets import shipped
from dsr_fit.body.body import Body
from dsr_fit.body.files import load_body
from dsr_fit.config import FitConfig
from dsr_fit.evaluate import ccp
from dsr_fit.evaluate.metrics import bootstrap
from dsr_fit.fitting.fitter import Fitter
from dsr_fit.fitting.metrics import metrics
from dsr_fit.labels import LABEL_SETS, LABELS
from dsr_fit.observe.batch import Batch
from dsr_fit.priors.counting import View
from dsr_fit.priors.semantic import SemanticPrior, load_semantic_prior
from dsr_fit.render.renderer import Renderer

JUDGED = ("keypoint_error_rel", "mc_iou", "containment", "silhouette_iou")
SMALLEST = 1e-4
"""Floor of a probability, as in DSR-C."""


def foretold(prior: SemanticPrior, view: View, rast: np.ndarray, faces: np.ndarray) -> tuple[float, float]:
    """Mean -log P(observed class of code8), nats, and the share of pixels whose most likely class it is."""
    label_set = LABEL_SETS["code8"]
    worn = prior.dressed([view.labels]).merged(label_set).numpy().reshape(-1, label_set.num_classes)
    shown = (rast[..., 3] > 0) & (view.labels > 0) & (view.labels < len(LABELS))
    corners = faces[rast[shown, 3].astype(np.int64) - 1]
    u, v = rast[shown, 0], rast[shown, 1]
    probability = (worn[corners] * np.stack([u, v, 1 - u - v], 1)[..., None]).sum(1)
    classes = label_set.lookup()[view.labels[shown]]
    of_observed = probability[np.arange(len(classes)), classes]
    return float(-np.log(np.maximum(of_observed, SMALLEST)).mean()), float((probability.argmax(1) == classes).mean())


def judge(photos: AnnotatedPhotos, number: str, folder: Path, fitter: Fitter) -> dict[str, float]:
    """Metrics of one kept fit against the annotation."""
    observation = photos.observe(number)
    assert observation is not None
    valid = fitter.body.skeleton.keypoint_valid
    batch = Batch([observation], crop_camera=False, keypoint_valid=valid)
    with torch.no_grad():
        found = metrics(fitted_parameters(folder, number), fitter.body, batch, fitter.renderer, fitter.semantic_prior)
    return {name: float(found[name]) for name in JUDGED}


def _summary(values: Sequence[float] | NDArray[np.floating]) -> dict[str, float]:
    found = bootstrap(np.array(values))
    return {"mean": found.mean, "low": found.low, "high": found.high, "median": float(np.median(values))}


def labels_table(
    priors: dict[str, SemanticPrior], views: Sequence[View], body: Body
) -> dict[str, dict[str, dict[str, float]]]:
    renderer, faces = Renderer(body.faces, body.num_vertices, device="cpu", outline="none"), body.faces.numpy()
    rows: dict[str, list[tuple[float, float]]] = {name: [] for name in priors}
    for view in views:
        rast = view.rasterise(renderer)
        for name, prior in priors.items():
            rows[name].append(foretold(prior, view, rast, faces))
    return {
        name: {key: _summary(column) for key, column in zip(("nats", "top1"), zip(*values, strict=True), strict=True)}
        for name, values in rows.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, required=True, help="folder of Clothing Co-Parsing")
    parser.add_argument("--work", type=Path, required=True, help="folder for detections and fits")
    parser.add_argument("--findings", type=Path, help="folder of detections; default: in the work folder")
    parser.add_argument("--prior", type=Path, default=shipped("priors/semantic/prior.npz"))
    parser.add_argument("--splits", default="tune,val")
    parser.add_argument("--fit", default="val", help="splits whose photos are fitted with every prior")
    parser.add_argument("--limit", type=int, help="fit only so many photos with every prior")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)

    body = load_body("open")
    learned = load_semantic_prior(body, arguments.prior)
    priors = {
        "rules": load_semantic_prior(body, shipped("priors/semantic/rules.npz")),
        "average": replace(learned, outfits=None),
        "outfits": learned,
    }
    photos = AnnotatedPhotos(arguments.photos, arguments.findings or arguments.work / "findings")
    report: dict[str, object] = {"machine": describe_machine(), "labels": {}, "fits": {}}
    judging = Fitter(body, FitConfig(), semantic_prior=learned)
    for split in arguments.splits.split(","):
        numbers = ccp.photo_numbers(arguments.photos, split)
        folders = {}
        for name, prior in priors.items():
            wanted = numbers if name == "rules" else numbers[: arguments.limit]
            if name == "rules" or split in arguments.fit.split(","):
                fitter = Fitter(body, semantic_prior=prior)
                folders[name] = fit_photos(photos, wanted, fitter, arguments.work / f"{name}-{split}")
        views = [view for n in numbers if (view := fitted_view(photos, n, folders["rules"], body))]
        table = labels_table(priors, views, body)
        report["labels"] |= {split: {"photos": len(views), "priors": table}}  # type: ignore[operator]
        for name, row in table.items():
            print(f"{split:5} {name:8} {row['nats']['mean']:.3f} nats, top-1 {row['top1']['mean']:.3f}", flush=True)
        if split not in arguments.fit.split(","):
            continue
        fits = {}
        for name in priors:
            kept = [n for n in numbers[: arguments.limit] if (folders[name] / f"{n}.npz").exists()]
            rows = [judge(photos, n, folders[name], judging) for n in kept]
            values = {key: np.array([row[key] for row in rows]) for key in JUDGED}
            fits[name] = {"photos": len(kept)} | {key: _summary(each[~np.isnan(each)]) for key, each in values.items()}
            line = "  ".join(f"{key} {fits[name][key]['median']:.4f}" for key in JUDGED)
            print(f"{split:5} {name:8} {line}", flush=True)
        report["fits"] |= {split: fits}  # type: ignore[operator]
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
