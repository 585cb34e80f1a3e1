"""Write docs/results.md, its pictures included, from the committed results of the benchmarks.

    python tools/results.py [--cases-dir DIR]

Reads `ablation.json`, `ablation_whole.json` and `clothed_whole.json` of `benchmarks/results`, which `dsr-fit evaluate`
wrote, and what the tables of `tools/tables` read. With the folder of the cases it draws the worst fits anew; without,
the committed picture stays.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from tables import datasets, parsing, regressors, rounds, semantic, standing

from dsr_fit.evaluate.clothed_report import markdown

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parents[1]
BARS = ("area_inflation", "t_pose_pve_sc", "pve", "mask_iou")
TITLES = ("area inflation, %", "T-pose PVE, scale removed, mm", "PVE, mm", "IoU with the true body, %")
COMPARED = ("keypoints", "silhouette", "default")
WORST = 6


def bars(found: dict[str, Any], path: Path) -> None:
    """Means and intervals of every variant."""
    names = list(found["variants"])
    figure, axes = plt.subplots(1, len(BARS), figsize=(13, 3.6), sharey=True, layout="constrained")
    for axis, metric, title in zip(axes, BARS, TITLES, strict=True):
        values = [found["variants"][name]["summary"][metric] for name in names]
        mean = np.array([value["mean"] for value in values])
        spread = np.array([[value["mean"] - value["low"], value["high"] - value["mean"]] for value in values]).T
        colours = ["#4c72b0" if name == "default" else "#b8c4d6" for name in names]
        axis.barh(names, mean, xerr=spread, color=colours, ecolor="#444444", capsize=2)
        axis.axvline(0, color="#444444", linewidth=0.8)
        axis.set_xlabel(title)
    axes[0].invert_yaxis()
    figure.savefig(path, dpi=100)


def looseness(found: dict[str, Any], path: Path) -> None:
    """How errors grow with the clothes' looseness: medians in fifths of the people."""
    loose = 1000 * np.array([tag["looseness"] for tag in found["tags"]])
    group = np.argsort(np.argsort(loose)) * 5 // len(loose)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
    for axis, metric, title in zip(axes, BARS, TITLES, strict=False):
        for name in COMPARED:
            values = np.array(found["values"][name][metric])
            middle = [np.median(loose[group == k]) for k in range(5)]
            axis.plot(middle, [np.median(values[group == k]) for k in range(5)], marker="o", label=name)
        axis.set_xlabel("looseness of the clothes, mm (fifths of the people)")
        axis.set_ylabel(f"{title}, median")
    axes[0].axhline(0, color="#444444", linewidth=0.8)
    axes[0].legend()
    figure.savefig(path, dpi=100)


def worst(found: dict[str, Any], cases: Path, path: Path) -> list[int]:
    """Draw the fits with the largest posed error beside the truth; returns their seeds."""
    import cv2
    import torch

    from dsr_fit.body.files import load_body
    from dsr_fit.evaluate.benchmark import at_focal, observe_truth
    from dsr_fit.fitting.fitter import Fitter
    from dsr_fit.synthetic.dataset import read_case
    from dsr_fit.view.overlay import shaded

    order = np.argsort(-np.array(found["values"]["default"]["pve"]))[:WORST]
    seeds = [found["tags"][index]["seed"] for index in order]
    fitter = Fitter(load_body())
    chosen = [read_case(cases, seed) for seed in seeds]
    fits = fitter.fit([observe_truth(case, found["noise"]) for case in chosen])
    columns = []
    for case, fit in zip(chosen, fits, strict=True):
        parameters = at_focal(fit.parameters(), fit.focal_length, case.focal_length)
        height, width = case.labels.shape
        side = max(height, width)
        intrinsics = torch.tensor(case.intrinsics)
        pictures = [case.image.astype(np.float32)]
        with torch.no_grad():
            for vertices in (parameters.pose(fitter.body).vertices()[0], torch.from_numpy(case.vertices)):
                colours, alpha = shaded(fitter.renderer, vertices, intrinsics, side)
                colours, alpha = colours[:height, :width], 0.85 * alpha[:height, :width]
                pictures.append((case.image * (1 - alpha) + colours * alpha).astype(np.float32))
        scale = 260 / height
        small = [cv2.resize(each, (round(width * scale), 260), interpolation=cv2.INTER_AREA) for each in pictures]
        columns.append(np.concatenate(small, 0))
    sheet = np.concatenate(columns, 1).clip(0, 255).astype(np.uint8)
    cv2.imwrite(str(path), sheet[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    return seeds


def findings(ablation: dict[str, Any]) -> str:
    """What an ablation says of the default, in three lines."""
    by = {name: item["summary"] for name, item in ablation["variants"].items()}
    default = ablation["variants"]["default"]

    def difference(other: str, metric: str) -> str:
        value = default["differences"][other][metric]
        return f"{value['mean']:+.1f} [{value['low']:+.1f}, {value['high']:+.1f}] ({value['percent']:+.0f} %)"

    return f"""\
- A silhouette inflates the body by {by["silhouette"]["area_inflation"]["mean"]:.1f} %, the default by
  {by["default"]["area_inflation"]["mean"]:.1f} %, keypoints alone by {by["keypoints"]["area_inflation"]["mean"]:.1f} %.
- T-pose error, scale removed: {by["default"]["t_pose_pve_sc"]["mean"]:.1f} mm; against the silhouette
  {difference("silhouette", "t_pose_pve_sc")}, against keypoints alone {difference("keypoints", "t_pose_pve_sc")}; the
  mean body (betas = 0) has {by["floor"]["t_pose_pve_sc"]["mean"]:.1f} mm.
- Posed error (PVE): {by["default"]["pve"]["mean"]:.1f} mm; against keypoints alone {difference("keypoints", "pve")}.
"""


def page(ablation: dict[str, Any], whole: dict[str, Any], terms_whole: dict[str, Any]) -> str:
    """docs/results.md."""
    return f"""\
# Results on people whose bodies are known

Written by `tools/results.py` from `benchmarks/results/ablation.json`, `ablation_whole.json` and `clothed_whole.json`,
made by

    dsr-fit evaluate ablation --cases-dir cases --out benchmarks/results/ablation.json
    dsr-fit evaluate clothed --cases-dir cases --out benchmarks/results/clothed_whole.json --perception whole
    dsr-fit evaluate ablation --cases-dir cases --cases 100 --out benchmarks/results/ablation_whole.json \\
        --perception whole

The tables of the last sections come from the results that their pages name.

The people are rendered: the open body in poses of held-out motion clips, dressed, before cluttered backgrounds, a fifth
behind something, a fifth beside somebody. Weights and forms were chosen on seeds 0 to 63 and on the tuning photos; what
stands here are seeds from {ablation["first_seed"]}.

## What the terms do

With perfect perception (true labels and visible keypoints with {100 * ablation["noise"]:.1f} % noise, 3D landmarks as
wrong as MediaPipe's):

{findings(ablation)}
![Means and 95 % intervals of every variant](results_ablation.png)

![Errors against the looseness of the clothes](results_looseness.png)

{markdown(ablation).replace("# ", "### ", 1)}
## The whole pipeline

Detector and parser on the picture, focal length unknown. The parser learned from photos and from rendered people of
other seeds, poses and clothes. On the first {terms_whole["cases"]} of them, term by term:

{findings(terms_whole)}
{markdown(whole).replace("# ", "### ", 1)}
## Pieces and modes

Through the whole pipeline: what the regressor says, what each mode makes of it, and the default with one piece
exchanged.

{regressors.modes()}

The parser, and the one before it, on validation photos and rendered people ([more](parser.md)):

{parsing.parser()}

Semantic priors, counted and by rules ([more](../priors/semantic/README.md)):

{semantic.semantic_fits()}

How well the quality gate tells right fits from wrong ones ([more](../priors/quality/README.md)); what learning with it
and without it makes is in the rounds below:

{datasets.gate()}

## Rounds of pseudo-labels

[Rounds](rounds.md) of fits and training on 1,468 training photos, against control arms. The regressor's own estimates,
means and medians:

{rounds.rounds()}

Differences person by person with 95 % intervals, bold where they exclude 0:

{rounds.rounds_differences()}

And of the fits that start from them:

{rounds.rounds_fits()}

Priors and parser made anew after the last round, differences to what ships:

{rounds.from_fits()}

## Standing, bending, cropped

Through the whole pipeline (`benchmarks/standing.py`): people who stand, and people in held-out poses, who crouch, sit
and jump as well. Intervals are of 95 %, differences are fit - estimate.

{standing.standing_whole()}

The same people cut off by the picture's edge, or behind a counter up to their thighs (`benchmarks/cropped.py`): the
error of the joints that every cut shows, their mean on the true one, against the same person's whole picture; then the
direction of limbs that are not seen (in the whole picture: that are), and their tilt to gravity.

{standing.cropped()}

What the regressor expects of its joints' rotations, and what their errors are:

{standing.cropped_rotations()}

## The worst

The {WORST} largest posed errors with perfect perception: picture, fit, truth.

![The worst fits](results_worst.jpg)

## Limits

The people are drawn, not photographed: one painted face, flat backgrounds, arms that pass through skirts. Their poses
come from twelve clips, many of them climbing, jumping and crouching, so posed errors are larger than on people who
stand in the street; much of it is the noise of the 3D landmarks, which no image term can see. The truth is the open
body, so nothing here says how well its shapes cover real people.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases-dir", type=Path, help="folder of the ablation's cases")
    arguments = parser.parse_args()
    results, docs = ROOT / "benchmarks" / "results", ROOT / "docs"
    ablation, whole, terms_whole = (
        json.loads((results / f"{name}.json").read_text()) for name in ("ablation", "clothed_whole", "ablation_whole")
    )
    bars(ablation, docs / "results_ablation.png")
    looseness(ablation, docs / "results_looseness.png")
    if arguments.cases_dir:
        print("worst seeds:", worst(ablation, arguments.cases_dir, docs / "results_worst.jpg"))
    (docs / "results.md").write_text(page(ablation, whole, terms_whole), encoding="utf-8")


if __name__ == "__main__":
    main()
