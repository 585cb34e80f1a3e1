"""Write the measured figures into README.md, docs/ and priors/ from the committed benchmark results.

    python tools/figures.py

A table stands between `<!-- figures: NAME -->` and `<!-- end -->`, made by the function NAME of `tools/tables/`; a test
holds the pages to the results.
"""

from __future__ import annotations

import re

from tables import datasets, detection, fits, gpu, parsing, regressors, rendering, rounds, semantic, standing
from tables.results import ROOT

PAGES = (
    "README.md",
    "docs/detector.md",
    "docs/parser.md",
    "docs/regressors.md",
    "docs/rendering.md",
    "docs/rounds.md",
    "docs/scale.md",
    "docs/terms.md",
    "priors/quality/README.md",
    "priors/regressor/README.md",
    "priors/semantic/README.md",
)
FIGURES = {
    table.__name__: table
    for table in (
        fits.photos,
        fits.learned,
        fits.clothed,
        fits.speed,
        fits.starts,
        fits.joint_scales,
        detection.detector,
        detection.detector_hidden,
        parsing.parser,
        parsing.parser_labels,
        parsing.parser_groups,
        parsing.parser_sources,
        standing.standing,
        standing.standing_links,
        semantic.semantic_labels,
        semantic.semantic_fits,
        datasets.batch,
        datasets.scale,
        datasets.gate,
        gpu.gpu,
        rendering.outline_fits,
        rendering.coarse_to_fine,
        regressors.regressor,
        regressors.modes,
        regressors.eft,
        rounds.rounds,
        rounds.rounds_differences,
        rounds.rounds_fits,
        rounds.from_fits,
    )
}


def filled(page: str) -> str:
    """The page with every table between its marks written anew."""

    def table(match: re.Match[str]) -> str:
        return f"<!-- figures: {match[1]} -->\n{FIGURES[match[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- figures: (\w+) -->.*?<!-- end -->", table, page, flags=re.DOTALL)


def main() -> None:
    for name in PAGES:
        path = ROOT / name
        path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
