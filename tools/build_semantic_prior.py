"""Learns the semantic clothing prior that ships, P(label | vertex) over 20 labels, from annotated photos.

    python tools/build_semantic_prior.py --photos ../shared/data/ccp --work ../semantic_fits

Photos: Clothing Co-Parsing (Yang, Luo and Lin, CVPR 2014), training split. Every person is fitted with the shipped
configuration, the annotation as label map; each vertex's labels are counted where it is visible (see
`dsr_fit/priors/counting.py`). Two rounds: some photos are fitted with the prior by rule, the prior counted on them
serves the fits of all photos, which make the prior that ships. The work folder keeps what the detector finds and the
fits, so that counting can be repeated in a minute.

    python tools/build_semantic_prior.py --rebind priors/semantic/prior.npz

binds a prior to a body of the same mesh whose keypoints alone have changed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from annotated import AnnotatedPhotos, fit_photos, fitted_view

from dsr_fit.assets import shipped
from dsr_fit.body.body import Body
from dsr_fit.body.files import load_body
from dsr_fit.evaluate import ccp
from dsr_fit.fitting.fitter import Fitter
from dsr_fit.io.files import replacing
from dsr_fit.priors.counting import learn
from dsr_fit.priors.semantic import load_semantic_prior

FIRST_ROUND = 256
"""Photos of the first round."""


def round_of(
    photos: AnnotatedPhotos, numbers: Sequence[str], body: Body, prior: Path, folder: Path, out: Path
) -> dict[str, np.ndarray]:
    """Fit with one prior, count another, and write it."""
    fits = fit_photos(photos, numbers, Fitter(body, semantic_prior=load_semantic_prior(body, prior)), folder)
    views = (fitted_view(photos, number, fits, body) for number in numbers)
    used = [view for view in views if view is not None]
    arrays = {**learn(used, body), "photos": np.array(len(used))}
    with replacing(out) as path:
        np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
    print(f"wrote {out}: {len(used)} of {len(numbers)} photos", flush=True)
    return arrays


def rebind(path: Path, body: Body) -> None:
    """Bind a prior's file to this body, whose mesh must be the one that it was made for."""
    with np.load(path, allow_pickle=False) as archive:
        arrays = dict(archive)
    if arrays["probabilities"].shape[-2] != body.num_vertices:
        raise SystemExit(f"{path}: made for {arrays['probabilities'].shape[-2]} vertices, {body.name} has other ones")
    with replacing(path) as out:
        np.savez_compressed(out, **{**arrays, "body_sha256": np.array(body.sha256)})  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder of Clothing Co-Parsing")
    parser.add_argument("--work", type=Path, help="folder for detections and fits")
    parser.add_argument("--rebind", type=Path, nargs="+", help="files of priors to bind to the body, without counting")
    parser.add_argument("--findings", type=Path, help="folder of detections; default: in the work folder")
    parser.add_argument("--limit", type=int, help="only so many photos")
    parser.add_argument("--out", type=Path, default=Path("priors/semantic/prior.npz"))
    arguments = parser.parse_args()
    body = load_body("open")
    if arguments.rebind:
        for path in arguments.rebind:
            rebind(path, body)
        return
    if arguments.photos is None or arguments.work is None:
        parser.error("--photos and --work are needed to count")
    work = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    photos = AnnotatedPhotos(arguments.photos, arguments.findings or work / "findings")
    numbers = ccp.photo_numbers(arguments.photos, "train")[: arguments.limit]
    rules = shipped("priors/semantic/rules.npz")
    first = work / "first_prior.npz"
    round_of(photos, numbers[:FIRST_ROUND], body, rules, work / "round1", first)
    arrays = round_of(photos, numbers, body, first, work / "round2", arguments.out)
    seen = arrays["observations"]
    print(f"observations a vertex: median {np.median(seen):.0f}; {100 * np.mean(seen < 1):.0f} % seen less than once")


if __name__ == "__main__":
    main()
